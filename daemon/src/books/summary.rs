//! The numbers of one process at one moment.

use std::collections::BTreeMap;

use pageshim_wire::process::{
    DROP_NAMES, DROPS, MISUSE_NAMES, MISUSES, SITE_FIRST, VERIFIED_NAMES, VERIFIES, ms_from_tick,
    tick_from_ms, word,
};
use pageshim_wire::thread::API_NAMES;

use super::header::Header;
use super::pages::{self, ClassSlots};
use super::report::{Amount, Process, Syscalls};
use super::sizes::{self, Size};
use super::tally::Tally;
use super::threads::{ThreadSums, plus};
use super::when::rfc3339;
use crate::whatif::Requests;

/// One look at a process: numbers that were read together.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// As reported. State, exit, seconds, resident bytes and parent's life are the hub's to add.
    pub process: Process,
    /// Its monotone counters.
    pub tally: Tally,
    /// Size classes with any slot.
    pub slots: Vec<ClassSlots>,
    /// The page account by size class, classes with any page.
    pub sizes: Vec<Size>,
    /// What it asked for, when every block is counted.
    pub requests: Option<Requests>,
}

/// Builds the numbers from what was decoded.
pub fn observe(header: &Header, threads: &ThreadSums) -> Observed {
    let mut process = Process {
        id: id(header.word(word::TOKEN)),
        pid: u32::try_from(header.word(word::PID)).unwrap_or(0),
        name: header.name(),
        executable: header.executable(),
        command: header.command(),
        mode: header.mode().to_owned(),
        heap: header.heap().to_owned(),
        started_at: rfc3339(header.word(word::START_REALTIME_NS)),
        total: threads.allocated(),
        freed: threads.freed(),
        temporary: threads.temporary,
        pages: pages::account(header, threads),
        syscalls: syscalls(threads),
        drops: named(header, word::DROPPED, DROPS, &DROP_NAMES),
        recursion_folded: header.word(word::FOLDED) != 0,
        verified: verified(header),
        misuse: named(header, word::MISUSE, MISUSES, &MISUSE_NAMES),
        sites: header.site_count().saturating_sub(u64::from(SITE_FIRST)),
        threads: threads.threads,
        parent: Some(header.word(word::PARENT))
            .filter(|token| *token != 0)
            .map(id),
        ..Process::default()
    };
    process.live = live(threads);
    process.peak = peak(header, threads, process.live);
    process.events_dropped = process.drops.values().fold(0, |a, b| a.saturating_add(*b));
    process.apis = API_NAMES
        .iter()
        .zip(threads.apis)
        .map(|(name, count)| ((*name).to_owned(), count))
        .collect();
    Observed {
        requests: Requests::of(header, threads, &process),
        process,
        tally: Tally::of(header, threads),
        slots: pages::slots(header, threads),
        sizes: sizes(header, threads),
    }
}

fn sizes(header: &Header, threads: &ThreadSums) -> Vec<Size> {
    let mut sizes = sizes::of(header, threads);
    sizes.retain(|size| size.page_bytes > 0 || size.live_slots > 0);
    sizes
}

/// The id of a token.
pub fn id(token: u64) -> String {
    format!("{token:016x}")
}

/// Seconds that a site first seen at `tick` is old, in a process of that many seconds.
pub fn age(seconds: f64, tick: u64) -> f64 {
    let ms = (seconds.max(0.0) * 1000.0) as u64;
    let first = ms_from_tick(tick.min(tick_from_ms(ms)));
    ms.saturating_sub(first) as f64 / 1000.0
}

/// Live by class, so that one class's torn read cannot hide another's blocks.
fn live(threads: &ThreadSums) -> Amount {
    let classes = threads.classes.iter();
    classes.fold(Amount::default(), |sum, class| plus(sum, class.live()))
}

/// The highest of what was published, what the only thread has not published
/// yet, and what is live now.
fn peak(header: &Header, threads: &ThreadSums, live: Amount) -> Amount {
    let signed = |at: usize, more: i64| {
        let published = header.word(at).cast_signed();
        u64::try_from(published.saturating_add(more)).unwrap_or(0)
    };
    let mut peak = header.peak();
    let pending = header.in_whole(Amount {
        bytes: signed(word::PUBLISHED_BYTES, threads.pending_high.0),
        blocks: signed(word::PUBLISHED_BLOCKS, threads.pending_high.1),
    });
    for candidate in [pending, live] {
        if candidate.bytes > peak.bytes && (threads.used == 1 || candidate == live) {
            peak = candidate;
        }
    }
    peak
}

fn syscalls(threads: &ThreadSums) -> Syscalls {
    let count = |index: usize| threads.syscalls[index].0;
    Syscalls {
        mmap: count(0),
        munmap: count(1),
        madvise: count(2),
        mremap: count(3),
        mprotect: count(4),
        other: count(5),
        nanoseconds: threads
            .syscalls
            .iter()
            .fold(0, |sum, call| sum.saturating_add(call.1)),
    }
}

/// All outcomes, zeros too, of a process that compared any stack.
fn verified(header: &Header) -> BTreeMap<String, u64> {
    let counts = (0..VERIFIES).map(|index| header.word(word::VERIFIED + index));
    let names = VERIFIED_NAMES.iter().map(|name| (*name).to_owned());
    let all: BTreeMap<String, u64> = names.zip(counts).collect();
    if all.values().all(|count| *count == 0) {
        return BTreeMap::new();
    }
    all
}

fn named(header: &Header, first: usize, count: usize, names: &[&str]) -> BTreeMap<String, u64> {
    (0..count)
        .map(|index| (names[index].to_owned(), header.word(first + index)))
        .filter(|(_, value)| *value != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;
    use pageshim_wire::thread::word as thread_word;

    fn process(state: &State) -> Process {
        observe(&state.header(), &state.threads()).process
    }

    // Goal: the peak is never below what is live or pending. Method: raise each in turn.
    #[test]
    fn the_peak_is_the_highest_of_three() {
        let mut state = State::new();
        state.thread(0, 1, "t").class(0, 0, [10, 500, 0, 0]);
        assert_eq!(
            process(&state).peak,
            Amount {
                bytes: 500,
                blocks: 10
            }
        );
        state.set(word::PUBLISHED_BYTES, 400);
        state.thread_word(0, thread_word::PENDING_HIGH, 200);
        state.thread_word(0, thread_word::PENDING_HIGH_BLOCKS, 11);
        assert_eq!(
            process(&state).peak,
            Amount {
                bytes: 600,
                blocks: 11
            }
        );
        state.set(word::PEAK_BYTES, 900).set(word::PEAK_BLOCKS, 3);
        assert_eq!(
            process(&state).peak,
            Amount {
                bytes: 900,
                blocks: 3
            }
        );
        state.set(word::PEAK_BYTES, 550);
        state.thread(1, 1, "u");
        assert_eq!(
            process(&state).peak.bytes,
            550,
            "two threads: pending is not used"
        );
    }

    // Goal: drops, misuse and identity are reported. Method: a few words.
    #[test]
    fn names_are_given_to_counts() {
        let mut state = State::new();
        state
            .set(word::DROPPED + 7, 3)
            .set(word::MISUSE, 2)
            .set(word::PARENT, 0xab);
        let process = process(&state);
        assert_eq!(process.id, "000000000000feed");
        assert_eq!(process.parent.as_deref(), Some("00000000000000ab"));
        assert_eq!((process.events_dropped, process.drops["unwind"]), (3, 3));
        assert_eq!(process.misuse["double_free"], 2);
        assert_eq!(process.apis["malloc"], 0);
        assert!((age(10.0, 250) - 9.0).abs() < 1e-9);
        assert!(age(1.0, u64::MAX) >= 0.0);
    }
}
