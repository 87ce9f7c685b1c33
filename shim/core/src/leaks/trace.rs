//! Following pointers: a bounded stack, and a queue that fetches ahead.
//!
//! # Design
//! A block found is given its state at once and put on the stack; taken off, its first
//! line is fetched and it waits in a queue of [`AHEAD`], so that as many cache misses are
//! under way at a time. Long blocks are read in pieces, so that a table of a million
//! pointers does not put a million blocks on the stack.
//!
//! # Failure
//! A block that finds the stack full keeps its state and is not read. [`Tracer::settle`]
//! then reads all blocks of that state again, within the addresses where it happened,
//! until the stack sufficed: what is lost is time, no block.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering};

use super::Plan;
use super::index::{Hit, Index};
use super::presence::{Backing, Presence, read_no_further, take};
use super::rules::{Reach, Rule};
use super::table::Table;
use crate::sys;

/// Blocks whose memory is on its way.
const AHEAD: usize = 16;
/// Bytes read of a long block before its blocks are followed.
const PIECE: usize = 16 << 10;
/// From this size on, untouched pages of a block are passed over.
const SPARSE: usize = 128 << 10;
/// Low bit of a stack entry that is followed by the end of a piece.
const REST: usize = 1;
const WORD: usize = size_of::<usize>();

/// Reads a word of the program's.
#[inline(always)]
fn load(at: usize) -> usize {
    // SAFETY: callers read within live blocks and mappings they know to be readable.
    unsafe { (*core::ptr::with_exposed_provenance::<AtomicUsize>(at)).load(Ordering::Relaxed) }
}

#[inline(always)]
fn fetch(at: usize) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it never faults.
    unsafe { _mm_prefetch(core::ptr::with_exposed_provenance(at), _MM_HINT_T0) };
}

/// It took longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Tracer<'i> {
    pub(super) index: &'i Index<'i>,
    stack: Table<usize>,
    top: usize,
    room: usize,
    /// Blocks not read for want of room lie between these addresses.
    missed: Option<(usize, usize)>,
    /// The block being read: pointers to itself count for nothing.
    own: usize,
    pub(super) presence: Presence,
    pub(super) scanned_bytes: u64,
    deadline_ns: u64,
    /// This is a copy of the process.
    copied: bool,
    reads: u32,
    /// Where roots are copied to that may vanish while they are read.
    copy: Option<Table<usize>>,
}

impl<'i> Tracer<'i> {
    /// A tracer whose stack has room for so many words.
    pub(super) fn new(index: &'i Index<'i>, room: usize, plan: &Plan) -> Option<Self> {
        // The rest of a long block takes two words, or it would never be read.
        let room = room.max(2);
        Some(Self {
            index,
            stack: Table::new(room)?,
            top: 0,
            room,
            missed: None,
            own: 0,
            presence: Presence::open(),
            scanned_bytes: 0,
            deadline_ns: plan.deadline_ns,
            copied: plan.copied,
            reads: 0,
            copy: None,
        })
    }

    /// The stack's mapping, for the roots to leave out.
    pub(super) const fn range(&self) -> (usize, usize) {
        self.stack.range()
    }

    /// One word that may point to a block. `met` hears of every block whose state changed.
    #[inline(always)]
    pub(super) fn see<R: Rule>(&mut self, word: usize, met: &mut impl FnMut(&Hit<'i>)) {
        let Some(hit) = self.index.find(word) else {
            return;
        };
        let state = self.index.state(&hit);
        if R::TAKES >> state & 1 == 0 {
            return;
        }
        self.meet::<R>(&hit, state, met);
    }

    #[inline(always)]
    fn meet<R: Rule>(&mut self, hit: &Hit<'i>, state: u8, met: &mut impl FnMut(&Hit<'i>)) {
        let Some((next, follow)) = R::meet(state, hit.offset == 0) else {
            return;
        };
        if hit.offset != 0 && hit.offset >= self.index.live(hit).requested {
            return;
        }
        let address = self.index.address(hit);
        if address == self.own {
            return;
        }
        self.index.set_state(hit, next);
        if follow {
            // A list has no other block to go on with: its next is fetched before anything
            // else is done for this one.
            if self.top == 0 {
                fetch(address);
            }
            self.push(address);
        }
        met(hit);
    }

    /// Puts a block on the stack to be read.
    #[inline(always)]
    pub(super) fn push(&mut self, address: usize) {
        if self.top >= self.room {
            self.miss(address);
            return;
        }
        // SAFETY: below the table's length.
        unsafe { self.stack.first().add(self.top).write(address) };
        self.top += 1;
    }

    #[cold]
    fn miss(&mut self, address: usize) {
        let (low, high) = self.missed.unwrap_or((address, address));
        self.missed = Some((low.min(address), high.max(address)));
    }

    fn pop(&mut self) -> Option<usize> {
        self.top = self.top.checked_sub(1)?;
        // SAFETY: below the old top.
        Some(unsafe { *self.stack.first().add(self.top) })
    }

    /// Reads the words of a range of readable memory.
    #[inline(always)]
    pub(super) fn read<R: Rule>(
        &mut self,
        from: usize,
        words: usize,
        met: &mut impl FnMut(&Hit<'i>),
    ) {
        self.scanned_bytes += (words * WORD) as u64;
        for index in 0..words {
            self.see::<R>(load(from + index * WORD), met);
        }
    }

    /// Reads a root: `from..to`, and follows what it leads to. Pages that hold nothing are
    /// passed over.
    pub(super) fn root(
        &mut self,
        (from, to): (usize, usize),
        backing: Backing,
    ) -> Result<(), Late> {
        let mut left = (from.next_multiple_of(WORD), to & !(WORD - 1));
        if self.copied && backing == Backing::Shared {
            read_no_further((from, to));
        }
        while let Some(piece) = take(&mut left, backing, SPARSE) {
            if self.copy.is_some() {
                self.read_copied(piece, backing);
            } else {
                self.read_held::<Reach>(piece, backing, &mut |_| ());
            }
            self.drain::<Reach>(&mut |_| ())?;
        }
        Ok(())
    }

    /// From now on roots may vanish while they are read. False when they cannot be copied.
    pub(super) fn take_care(&mut self) -> bool {
        let Some(copy) = Table::new(PIECE / WORD) else {
            return false;
        };
        let (at, _) = copy.range();
        let works = sys::copy_range(self.stack.range().0, at, WORD).is_ok();
        self.copy = works.then_some(copy);
        works
    }

    /// The mapping roots are copied to.
    pub(super) fn copy_range(&self) -> (usize, usize) {
        self.copy.as_ref().map_or((0, 0), Table::range)
    }

    #[cold]
    fn read_copied(&mut self, range: (usize, usize), backing: Backing) {
        let (into, _) = self.copy_range();
        let mut presence = core::mem::replace(&mut self.presence, Presence::closed());
        presence.each(range, backing, |from, to| {
            let mut at = from;
            while at < to {
                let bytes = (to - at).min(PIECE);
                // What is gone held nothing.
                let copied = sys::copy_range(at, into, bytes).unwrap_or(0);
                self.read::<Reach>(into, copied / WORD, &mut |_| ());
                at += bytes;
            }
        });
        self.presence = presence;
    }

    fn read_held<R: Rule>(
        &mut self,
        range: (usize, usize),
        backing: Backing,
        met: &mut impl FnMut(&Hit<'i>),
    ) {
        // Taken out for the time, so that reading may borrow the rest.
        let mut presence = core::mem::replace(&mut self.presence, Presence::closed());
        presence.each(range, backing, |from, to| {
            self.read::<R>(from, (to - from) / WORD, met);
        });
        self.presence = presence;
    }

    /// Reads a block now, all of it or its first piece.
    pub(super) fn read_block<R: Rule>(
        &mut self,
        address: usize,
        words: usize,
        met: &mut impl FnMut(&Hit<'i>),
    ) {
        if words * WORD <= PIECE {
            self.own = address;
            self.read::<R>(address, words, met);
            self.own = 0;
        } else {
            self.read_long::<R>(address, address, address + words * WORD, met);
        }
    }

    #[cold]
    fn read_long<R: Rule>(
        &mut self,
        block: usize,
        from: usize,
        to: usize,
        met: &mut impl FnMut(&Hit<'i>),
    ) {
        let end = to.min(from + PIECE);
        if end < to {
            if self.top + 2 > self.room {
                self.miss(block);
            } else {
                self.push(to);
                self.push(end | REST);
            }
        }
        self.own = block;
        if to - block >= SPARSE {
            self.read_held::<R>((from, end), Backing::Private, met);
        } else {
            self.read::<R>(from, (end - from) / WORD, met);
        }
        self.own = 0;
    }

    /// Reads everything on the stack and all it leads to.
    pub(super) fn drain<R: Rule>(&mut self, met: &mut impl FnMut(&Hit<'i>)) -> Result<(), Late> {
        let mut queue: [Option<Hit<'i>>; AHEAD] = [None; AHEAD];
        let (mut first, mut count) = (0, 0);
        loop {
            while count < AHEAD
                && let Some(entry) = self.pop()
            {
                if entry & REST == 0 {
                    queue[(first + count) % AHEAD] = self.order(entry);
                    count += 1;
                } else {
                    self.read_rest::<R>(entry & !REST, met)?;
                }
            }
            if count == 0 {
                return Ok(());
            }
            if let Some(hit) = &queue[first] {
                let address = self.index.address(hit);
                self.read_block::<R>(address, self.index.words(hit), met);
            }
            first = (first + 1) % AHEAD;
            count -= 1;
            self.reads = self.reads.wrapping_add(1);
            if self.reads.is_multiple_of(1 << 14) {
                self.check_time()?;
            }
        }
    }

    /// Has a block's first line, and its record where it is needed, fetched.
    #[inline(always)]
    fn order(&self, address: usize) -> Option<Hit<'i>> {
        fetch(address);
        let hit = self.index.find(address)?;
        if let Some(record) = self.index.record_place(&hit) {
            fetch(record);
        }
        Some(hit)
    }

    #[cold]
    fn read_rest<R: Rule>(
        &mut self,
        from: usize,
        met: &mut impl FnMut(&Hit<'i>),
    ) -> Result<(), Late> {
        let to = self.pop().unwrap_or(from);
        let block = self.start_of(from);
        self.read_long::<R>(block, from, to, met);
        self.check_time()
    }

    fn start_of(&self, address: usize) -> usize {
        let hit = self.index.find(address);
        hit.map_or(address, |hit| self.index.address(&hit))
    }

    /// Fails when time is over.
    pub(super) fn check_time(&self) -> Result<(), Late> {
        if sys::fast_monotonic_ns() > self.deadline_ns {
            return Err(Late);
        }
        Ok(())
    }

    /// [`Tracer::drain`], and again for what found the stack full.
    pub(super) fn settle<R: Rule>(&mut self, met: &mut impl FnMut(&Hit<'i>)) -> Result<(), Late> {
        self.drain::<R>(met)?;
        while let Some(range) = self.missed.take() {
            let index = self.index;
            let mut late = Ok(());
            index.sweep(1 << R::DONE, range, false, |hit, state| {
                let address = index.address(hit);
                self.read_block::<R>(address, index.words(hit), met);
                late = self.drain::<R>(met);
                late.is_ok().then_some(state)
            });
            late?;
        }
        Ok(())
    }
}
