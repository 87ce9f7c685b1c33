//! The bill of system calls as the state has it: rows of (site, party), decoded and cut.
//!
//! A row of nobody (row 0, and what is cut off) is an *other*: sums over all rows stay what
//! they were.

use pageshim_wire::calls::{BILLED, Party, ROW_BYTES, ROWS, UPKEEP, parties, row};
use pageshim_wire::layout::Layout;
use pageshim_wire::process::SITE_UNKNOWN;
use pageshim_wire::word_at;

use super::syscalls::{Made, Pairs};
use super::threads::more;
use super::view::{View, each_range};

/// Whose calls a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A request of a call site.
    Site(u32),
    /// Requests without a stack: before stacks are captured, and in modes without them.
    NoStack,
    /// No request: what gives back, our own tables.
    Upkeep,
    /// Sites that have no row, or are not listed.
    Others,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose calls.
    pub cause: Cause,
    /// True for calls of the program itself.
    pub program: bool,
    /// By kind of call.
    pub made: [Made; BILLED],
    /// Pairs that could be spared.
    pub pairs: Pairs,
    /// Ranges got from the kernel, and their bytes.
    pub got: (u64, u64),
    /// Of a program: ranges it holds, and their bytes.
    pub live: (u64, u64),
}

impl Row {
    const fn new(cause: Cause, program: bool) -> Self {
        Self {
            cause,
            program,
            made: [Made::NONE; BILLED],
            pairs: Pairs::NONE,
            got: (0, 0),
            live: (0, 0),
        }
    }

    /// Time all its calls took.
    pub fn nanoseconds(&self) -> u64 {
        let ns = self.made.iter().map(|made| made.nanoseconds);
        ns.fold(0, u64::saturating_add)
    }

    /// How many they are.
    pub fn calls(&self) -> u64 {
        let calls = self.made.iter().map(|made| made.calls);
        calls.fold(0, u64::saturating_add)
    }

    fn add(&mut self, other: &Self) {
        for (into, from) in self.made.iter_mut().zip(&other.made) {
            into.add(from);
        }
        self.pairs.add(&other.pairs);
        for (into, from) in [(&mut self.got, other.got), (&mut self.live, other.live)] {
            more(&mut into.0, from.0);
            more(&mut into.1, from.1);
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let at = |word| word_at(bytes, word);
        for (index, made) in self.made.iter_mut().enumerate() {
            let first = row::CALLS + 3 * index;
            *made = Made {
                calls: at(first),
                nanoseconds: at(first + 1),
                bytes: at(first + 2),
            };
        }
        self.pairs = Pairs {
            pairs: at(row::PAIRS),
            bytes: at(row::PAIR_BYTES),
            nanoseconds: at(row::PAIR_NS),
        };
        self.got = (at(row::GOT), at(row::GOT_BYTES));
        self.live = (at(row::LIVE_RANGES), at(row::LIVE_BYTES));
    }
}

/// All rows that hold anything, the dearest first.
pub fn read(view: &dyn View, layout: &Layout) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut next = 0;
    let base = layout.calls(0);
    each_range(view, base, layout.calls(ROWS), |start, end| {
        let first = ((start - base) / ROW_BYTES).max(next);
        let last = (end - base).div_ceil(ROW_BYTES).max(first).min(ROWS);
        for index in first..last {
            rows.extend(at(view, layout, index));
        }
        next = last;
    });
    sort(&mut rows);
    rows
}

fn at(view: &dyn View, layout: &Layout, index: u64) -> Option<Row> {
    let mut bytes = [0; ROW_BYTES as usize];
    if !view.read(layout.calls(index), &mut bytes) {
        return None;
    }
    let key = word_at(&bytes, row::KEY);
    let mut row = match parties(key) {
        Some((site, party)) => Row::new(cause(site), party == Party::Program),
        None => Row::new(Cause::Others, false),
    };
    row.read(&bytes);
    (row.calls() > 0).then_some(row)
}

const fn cause(site: u32) -> Cause {
    match site {
        SITE_UNKNOWN => Cause::NoStack,
        UPKEEP => Cause::Upkeep,
        site => Cause::Site(site),
    }
}

fn sort(rows: &mut [Row]) {
    rows.sort_by_key(|row| {
        let dear = (row.nanoseconds(), row.calls());
        (std::cmp::Reverse(dear), row.cause, row.program)
    });
}

/// At most `most` rows of sites; the sum of what is cut is with the others.
pub fn bounded(rows: &[Row], most: usize) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::new();
    let mut others = [false, true].map(|program| Row::new(Cause::Others, program));
    let mut sites = 0;
    for row in rows {
        let is_site = matches!(row.cause, Cause::Site(_));
        if row.cause == Cause::Others || (is_site && sites == most) {
            others[usize::from(row.program)].add(row);
        } else {
            sites += usize::from(is_site);
            kept.push(*row);
        }
    }
    kept.extend(others.into_iter().filter(|row| row.calls() > 0));
    sort(&mut kept);
    kept
}

#[cfg(test)]
mod tests {
    use pageshim_wire::calls::key;
    use pageshim_wire::thread::Syscall;

    use super::super::fake::State;
    use super::*;

    fn put(state: &mut State, place: u64, key: u64, call: Syscall, amounts: [u64; 3]) {
        let at = state.layout.calls(place);
        state.put(at, key);
        for (index, amount) in amounts.into_iter().enumerate() {
            let word = row::CALLS + 3 * call as usize + index;
            state.put(at + word as u64 * 8, amount);
        }
    }

    fn rows() -> Vec<Row> {
        let mut state = State::new();
        let layers = |site| key(site, Party::Layers);
        put(&mut state, 0, 0, Syscall::Munmap, [1, 5, 6]);
        put(&mut state, 7, layers(9), Syscall::Mmap, [2, 300, 8192]);
        put(&mut state, 8, layers(4), Syscall::Mmap, [1, 900, 4096]);
        put(&mut state, 9, layers(UPKEEP), Syscall::Madvise, [3, 30, 1]);
        put(&mut state, 4095, layers(0), Syscall::Mmap, [1, 1, 1]);
        put(
            &mut state,
            12,
            key(9, Party::Program),
            Syscall::Mmap,
            [1, 2, 3],
        );
        put(&mut state, 13, u64::MAX, Syscall::Mmap, [1, 1, 1]);
        read(&state.view(), &state.layout)
    }

    // Goal: every row is read once, by its cause, the dearest first. Method: rows by hand, the
    // first, the last, and one whose key is nonsense.
    #[test]
    fn rows_have_their_causes() {
        let causes: Vec<_> = rows().iter().map(|row| (row.cause, row.program)).collect();
        let expected = [
            (Cause::Site(4), false),
            (Cause::Site(9), false),
            (Cause::Upkeep, false),
            (Cause::Others, false),
            (Cause::Site(9), true),
            (Cause::NoStack, false),
            (Cause::Others, false),
        ];
        assert_eq!(causes, expected);
    }

    // Goal: a cut list sums to the same. Method: no site, one site, all.
    #[test]
    fn what_is_cut_stays_in_the_sum() {
        let all = rows();
        let sum = |rows: &[Row]| rows.iter().map(Row::nanoseconds).sum::<u64>();
        for (most, left) in [(0, 4), (1, 5), (9, 6)] {
            let cut = bounded(&all, most);
            assert_eq!((cut.len(), sum(&cut)), (left, sum(&all)), "{cut:?}");
        }
    }
}
