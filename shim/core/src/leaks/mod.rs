//! Which blocks can still be reached: one conservative mark over the memory of the process
//! it runs in.
//!
//! # Design
//! ```text
//! table, presence   memory of our own; which pages hold anything
//! index             word -> block, two bits of state each
//! trace, rules      following pointers, and what that does to a block's state
//! lost              what is left: definite and indirect
//! roots             where pointers begin: mappings, stacks, registers
//! aim, why          one block, and the shortest chain that leads to it
//! ```
//! [`check`] takes no lock and reads heap structures as they lie, so it can run in a copy of
//! a process that was stopped anywhere, or in the process itself while it stands still.
//!
//! Classes are Memcheck's, see `pageshim_wire::check`. A word counts as a pointer when it lies,
//! aligned, within the requested bytes of a block, in a register, or in a root.
//!
//! # Allocation
//! Mappings of its own: a digest a slice, two bits a slot, a stack of at most a 128th of the
//! heap; unmapped at the end.

pub mod aim;
pub mod chain;
mod index;
mod lost;
mod presence;
pub mod roots;
mod rules;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod trace;
pub mod why;

use pageshim_wire::check::{CLASSES, Class, Root};

use crate::heap::gpa::Spaces;
use index::{Index, LIVE, NONE, POSSIBLE, REACHED};
use lost::{ALL, Verdict};
use rules::{Guess, Reach, Rule};
use trace::{Late, Tracer};

pub use index::Live;
pub use presence::Backing;
pub use table::{Plain, Table};

/// A stack is a 128th of its heap.
const HEAP_PER_WORD: usize = 128 * size_of::<usize>();
/// Words of the smallest stack.
const STACK_LEAST: usize = 1 << 13;

/// Who hears of each block.
pub trait Sink {
    /// A block's class.
    fn block(&mut self, class: Class, block: &Live);
    /// A block that is indirect because of `leader`, and before all others because of it.
    fn held(&mut self, leader: &Live, block: &Live);
}

/// What a check found, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Blocks and requested bytes of each class.
    pub classes: [(u64, u64); CLASSES],
    /// Blocks in use in runs without records.
    pub unrecorded: u64,
    /// Bytes read.
    pub scanned_bytes: u64,
    /// Bytes of roots among them.
    pub root_bytes: u64,
    /// Bytes of memory the check took at most.
    pub own_bytes: u64,
}

/// Why a check did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// No memory for the marks.
    Memory,
    /// It took too long.
    TooLong,
}

impl From<Late> for Stopped {
    fn from(_: Late) -> Self {
        Self::TooLong
    }
}

/// Where the caller names the roots.
#[derive(Debug)]
pub struct Walk<'t, 'i> {
    tracer: &'t mut Tracer<'i>,
    own: [(usize, usize); 4],
    root_bytes: u64,
}

/// The check is to stop: no time is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

impl Walk<'_, '_> {
    /// Mappings of the check's own, which are no roots.
    pub const fn own_ranges(&self) -> [(usize, usize); 4] {
        self.own
    }

    /// A range of readable memory is a root.
    pub fn range(&mut self, range: (usize, usize), backing: Backing) -> Result<(), Over> {
        let before = self.tracer.scanned_bytes;
        let done = self.tracer.root(range, backing);
        // Blocks followed on the way are no roots, so this is an upper bound.
        let read = self.tracer.scanned_bytes - before;
        self.root_bytes += read.min((range.1 - range.0) as u64);
        done.map_err(|_| Over)
    }

    /// A register is a root.
    pub fn word(&mut self, word: usize) {
        self.tracer.see::<Reach>(word, &mut |_| ());
        self.root_bytes += size_of::<usize>() as u64;
    }
}

impl roots::Takes for Walk<'_, '_> {
    fn range(&mut self, range: (usize, usize), backing: Backing, _: Root) -> Result<(), Over> {
        Walk::range(self, range, backing)
    }

    fn register(&mut self, _: usize, _: usize, word: usize) -> Result<(), Over> {
        self.word(word);
        Ok(())
    }
}

/// How a check goes about.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// CLOCK_MONOTONIC when it gives up.
    pub deadline_ns: u64,
    /// Other threads run: what they map may vanish.
    pub careful: bool,
    /// This is a copy of the process: how its mappings are read is nobody else's business.
    pub copied: bool,
    /// Words of the smallest stack.
    pub stack_least: usize,
    /// Bytes of heap for each further word; tests make it plenty.
    pub heap_per_word: usize,
}

impl Plan {
    /// The usual plan with this long to go.
    pub fn within_ns(ns: u64) -> Self {
        Self {
            deadline_ns: crate::sys::fast_monotonic_ns().saturating_add(ns),
            careful: false,
            copied: false,
            stack_least: STACK_LEAST,
            heap_per_word: HEAP_PER_WORD,
        }
    }
}

/// Marks and judges. Blocks of sites that `keeps` names are roots; `roots` names all others.
pub fn check(
    spaces: &Spaces,
    plan: Plan,
    keeps: impl Fn(u32) -> bool,
    roots: impl FnOnce(&mut Walk<'_, '_>) -> Result<(), Over>,
    sink: &mut impl Sink,
) -> Result<Sums, Stopped> {
    let mut sums = Sums::default();
    let mut index = Index::new(spaces).ok_or(Stopped::Memory)?;
    let mut kept = false;
    let block = |record: &crate::records::Record, _| match keeps(record.site) {
        true => {
            kept = true;
            REACHED
        }
        false => LIVE,
    };
    index.fill(block, |used| sums.unrecorded += used as u64);
    let index = &index;
    let room = plan.stack_least.max(index.heap_bytes / plan.heap_per_word);
    let mut tracer = Tracer::new(index, room, &plan).ok_or(Stopped::Memory)?;
    let [digests, marks] = index.ranges();
    if plan.careful && !tracer.take_care() {
        return Err(Stopped::Memory);
    }
    let own = [digests, marks, tracer.range(), tracer.copy_range()];
    sums.own_bytes = own.iter().map(|range| (range.1 - range.0) as u64).sum();
    if kept {
        read_again::<Reach>(&mut tracer, REACHED)?;
    }
    if sums.unrecorded > 0 {
        read_bare(&mut tracer)?;
    }
    let mut walk = Walk {
        tracer: &mut tracer,
        own,
        root_bytes: 0,
    };
    let done = roots(&mut walk);
    sums.root_bytes = walk.root_bytes;
    done.map_err(|_| Stopped::TooLong)?;
    tracer.settle::<Reach>(&mut |_| ())?;
    read_again::<Guess>(&mut tracer, POSSIBLE)?;
    let mut judged = Judged { sums, sink };
    index.sweep(1 << REACHED | 1 << POSSIBLE, ALL, false, |hit, state| {
        let class = match state {
            REACHED => Class::Reachable,
            _ => Class::Possible,
        };
        judged.count(class, &index.live(hit));
        Some(NONE)
    });
    lost::judge(&mut tracer, &mut judged)?;
    let mut sums = judged.sums;
    sums.scanned_bytes = tracer.scanned_bytes;
    Ok(sums)
}

/// Reads all blocks of a state, and what they lead to.
fn read_again<R: Rule>(tracer: &mut Tracer<'_>, state: u8) -> Result<(), Late> {
    let index = tracer.index;
    let mut late = Ok(());
    index.sweep(1 << state, ALL, false, |hit, state| {
        tracer.read_block::<R>(index.address(hit), index.words(hit), &mut |_| ());
        late = tracer.drain::<R>(&mut |_| ());
        late.is_ok().then_some(state)
    });
    late?;
    tracer.settle::<R>(&mut |_| ())
}

/// Nothing is known of blocks without records, so what they point to is kept.
fn read_bare(tracer: &mut Tracer<'_>) -> Result<(), Late> {
    let index = tracer.index;
    let mut late = Ok(());
    index.each_bare(|from, to| {
        if late.is_ok() {
            late = tracer.root((from, to), Backing::Private);
        }
    });
    late
}

struct Judged<'s, S: Sink> {
    sums: Sums,
    sink: &'s mut S,
}

impl<S: Sink> Judged<'_, S> {
    fn count(&mut self, class: Class, block: &Live) {
        let (blocks, bytes) = &mut self.sums.classes[class as usize];
        *blocks += 1;
        *bytes += block.requested as u64;
        self.sink.block(class, block);
    }
}

impl<S: Sink> Verdict for Judged<'_, S> {
    fn definite(&mut self, block: &Live) {
        self.count(Class::Definite, block);
    }

    fn indirect(&mut self, block: &Live, leader: &Live) {
        self.count(Class::Indirect, block);
        self.sink.held(leader, block);
    }
}
