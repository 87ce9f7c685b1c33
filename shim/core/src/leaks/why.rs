//! Why a block is alive: the shortest chain of pointers from a root to it.
//!
//! # Design
//! ```text
//! queue   | roots' blocks, a kind of root after the other | their blocks | theirs | …
//! entry     block; where the pointer to it is: a word of a root, or (entry before, offset)
//! ```
//! A search by breadth, so the first chain found is a shortest one; of those as short the one
//! whose root says most: a variable rather than a word on a stack, which may be stale. For
//! a reachable block only start pointers count, as for its class. For an indirect one the search
//! begins at the lost block that leads to it.
//!
//! # Allocation
//! Mappings of its own: an index as the check's, and 16 bytes for each block met on the way.
#![allow(unsafe_code)]

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use pageshim_wire::check::{Chain, Class, Root, Wanted};

use super::aim::Aim;
use super::chain::Answer;
use super::index::{Hit, Index, LIVE, POSSIBLE, REACHED};
use super::lost::ALL;
use super::presence::{Presence, read_no_further, take};
use super::roots::{Still, Takes};
use super::table::Table;
use super::{Backing, Over, Plan, storage};
use crate::heap::gpa::Spaces;
use crate::sys;

pub(super) const WORD: usize = size_of::<usize>();
/// Bytes of a root between two looks at the clock.
const PIECE: usize = 128 << 10;
/// From this size on, untouched pages of a block are passed over.
const SPARSE: usize = 128 << 10;
/// Blocks fetched ahead.
const AHEAD: usize = 12;
/// Bits of a root's word that name its kind.
pub(super) const KINDS: usize = 7;
/// Registers of a thread in a register's number.
pub(super) const REGISTERS: usize = 16;
/// Roots, those that say most first. Blocks the loader keeps come after variables.
pub(super) const ORDER: [Root; 7] = [
    Root::Global,
    Root::Tls,
    Root::Runtime,
    Root::Mapping,
    Root::Unrecorded,
    Root::Stack,
    Root::Register,
];

/// Looks for the chain to `aim`. `roots` names the roots, each time it is asked; blocks of sites
/// that `keeps` names are roots too.
pub fn why(
    spaces: &Spaces,
    plan: Plan,
    threads: &[Still],
    aim: &Aim,
    keeps: impl Fn(u32) -> bool,
    roots: impl FnMut(&mut Search<'_>) -> Result<(), Over>,
) -> Answer {
    let Some(mut index) = Index::new(spaces) else {
        return Answer::none(Chain::Memory);
    };
    let state = |record: &crate::records::Record, _| match keeps(record.site) {
        true => POSSIBLE,
        false => LIVE,
    };
    index.fill(state, |_| ());
    let Some(mut search) = Search::new(&index, plan, threads, aim) else {
        return Answer::none(Chain::Memory);
    };
    let (done, state) = match (aim.class, aim.leader) {
        (Class::Reachable | Class::Possible, _) => (search.try_roots(roots), Chain::Reached),
        (_, leader) => {
            search.seed(leader.unwrap_or(aim.block).address, 0);
            (search.run(), Chain::Lost)
        }
    };
    match (search.found, done) {
        (Some(entry), _) => search.answer(entry, state),
        (None, Err(Over)) => Answer::none(Chain::TooLong),
        (None, Ok(())) => Answer::none(Chain::Moved),
    }
}

/// A search under way; takes the roots.
#[derive(Debug)]
pub struct Search<'i> {
    pub(super) index: &'i Index<'i>,
    pub(super) threads: &'i [Still],
    aim: &'i Aim,
    queue: Table<(usize, usize)>,
    storages: Table<(usize, usize)>,
    /// Where roots are copied to that may vanish while they are read.
    copy: Option<Table<usize>>,
    presence: Presence,
    /// Entries written, those of roots among them, those read.
    pub(super) written: usize,
    pub(super) seeds: usize,
    read: usize,
    found: Option<usize>,
    /// Entries of blocks that kept ones point to.
    pub(super) of_kept: Range<usize>,
    /// The kind of root that is taken now.
    kind: Root,
    deadline_ns: u64,
    /// This is a copy of the process.
    copied: bool,
}

impl<'i> Search<'i> {
    fn new(index: &'i Index<'i>, plan: Plan, threads: &'i [Still], aim: &'i Aim) -> Option<Self> {
        let mut storages = Table::new(threads.len())?;
        for (place, thread) in storages.all().iter_mut().zip(threads) {
            *place = storage::of(thread.control);
        }
        let copy = match plan.careful {
            true => Some(Table::new(PIECE / WORD)?),
            false => None,
        };
        Some(Self {
            index,
            threads,
            aim,
            queue: Table::new(index.slots() + 1)?,
            storages,
            copy,
            presence: Presence::open(),
            written: 0,
            seeds: 0,
            read: 0,
            found: None,
            of_kept: 0..0,
            kind: Root::Block,
            deadline_ns: plan.deadline_ns,
            copied: plan.copied,
        })
    }

    /// Mappings of the search's own, which are no roots.
    pub fn own_ranges(&self) -> [(usize, usize); 5] {
        let [digests, marks] = self.index.ranges();
        let copy = self.copy.as_ref().map_or((0, 0), Table::range);
        [
            digests,
            marks,
            self.queue.range(),
            self.storages.range(),
            copy,
        ]
    }

    fn try_roots(
        &mut self,
        mut roots: impl FnMut(&mut Search<'_>) -> Result<(), Over>,
    ) -> Result<(), Over> {
        for kind in ORDER {
            self.kind = kind;
            match kind {
                Root::Runtime => self.kept(),
                Root::Unrecorded => self.bare()?,
                _ => roots(self)?,
            }
            if self.found.is_some() {
                return Ok(());
            }
        }
        self.run()
    }

    /// Blocks that the loader keeps, which are roots: they are read at once, as those are.
    fn kept(&mut self) {
        let index = self.index;
        let first = self.written;
        index.sweep(1 << POSSIBLE, ALL, false, |hit, _| {
            let address = index.address(hit);
            self.enter(hit, address | Root::Runtime as usize);
            self.found.is_none().then_some(REACHED)
        });
        let end = self.written;
        for number in first..end {
            self.read_block(number);
        }
        self.of_kept = end..self.written;
    }

    fn bare(&mut self) -> Result<(), Over> {
        let index = self.index;
        let mut done = Ok(());
        index.each_bare(|from, to| {
            if done.is_ok() {
                done = self.range((from, to), Backing::Private, Root::Unrecorded);
            }
        });
        done
    }

    fn seed(&mut self, address: usize, via: usize) {
        if let Some(hit) = self.index.find(address) {
            self.enter(&hit, via);
        }
    }

    /// Reads blocks in the order they were met, until the one that is wanted is.
    fn run(&mut self) -> Result<(), Over> {
        self.seeds = self.written;
        while self.found.is_none() && self.read < self.written {
            if let Some(ahead) = self.entry(self.read + AHEAD) {
                fetch(ahead.0);
            }
            self.read_block(self.read);
            self.read += 1;
            if self.read.is_multiple_of(1 << 14) {
                self.check_time()?;
            }
        }
        Ok(())
    }

    pub(super) fn entry(&self, number: usize) -> Option<(usize, usize)> {
        // SAFETY: below what was written, which is within the table.
        (number < self.written).then(|| unsafe { *self.queue.first().add(number) })
    }

    /// The storage of the thread of this number.
    pub(super) fn storage_of(&self, thread: usize) -> (usize, usize) {
        match thread < self.threads.len() {
            // SAFETY: there is one for each thread.
            true => unsafe { *self.storages.first().add(thread) },
            false => (0, 0),
        }
    }

    fn read_block(&mut self, number: usize) {
        let Some((block, _)) = self.entry(number) else {
            return;
        };
        let Some(hit) = self.index.find(block) else {
            return;
        };
        let words = self.index.words(&hit);
        let via = |at: usize| number << 32 | ((at - block) / WORD).min(u32::MAX as usize);
        if words * WORD < SPARSE {
            for at in (0..words).map(|index| block + index * WORD) {
                self.see(load(at), || via(at));
            }
            return;
        }
        let mut presence = core::mem::replace(&mut self.presence, Presence::closed());
        let range = (block, block + words * WORD);
        presence.each(range, Backing::Private, |from, to| {
            for at in (from..to).step_by(WORD) {
                self.see(load(at), || via(at));
            }
        });
        self.presence = presence;
    }

    /// One word that may point to a block.
    #[inline(always)]
    fn see(&mut self, word: usize, via: impl FnOnce() -> usize) {
        let Some(hit) = self.index.find(word) else {
            return;
        };
        let state = self.index.state(&hit);
        // Blocks that are roots themselves wait for their turn.
        if state != LIVE {
            return;
        }
        if hit.offset != 0 {
            let by_start = self.aim.class == Class::Reachable;
            if by_start || hit.offset >= self.index.live(&hit).requested {
                return;
            }
        }
        self.enter(&hit, via());
    }

    fn enter(&mut self, hit: &Hit<'_>, via: usize) {
        // Numbers of entries have 32 bits, and there is an entry for each slot.
        if self.found.is_some() || self.written >= self.queue.room().min(u32::MAX as usize) {
            return;
        }
        self.index.set_state(hit, REACHED);
        let block = self.index.address(hit);
        // SAFETY: within the table, see above.
        unsafe { self.queue.first().add(self.written).write((block, via)) };
        if self.is_wanted(hit, block) {
            self.found = Some(self.written);
        }
        self.written += 1;
    }

    fn is_wanted(&self, hit: &Hit<'_>, block: usize) -> bool {
        match self.aim.wanted {
            Wanted::Site(site, _) if self.aim.class == Class::Reachable => {
                self.index.live(hit).site == site
            }
            _ => block == self.aim.block.address,
        }
    }

    fn check_time(&self) -> Result<(), Over> {
        match sys::fast_monotonic_ns() > self.deadline_ns {
            true => Err(Over),
            false => Ok(()),
        }
    }

    fn read_root(&mut self, (from, to): (usize, usize), backing: Backing) -> Result<(), Over> {
        let mut left = (from.next_multiple_of(WORD), to & !(WORD - 1));
        if self.copied && backing == Backing::Shared {
            read_no_further((from, to));
        }
        let mut presence = core::mem::replace(&mut self.presence, Presence::closed());
        while self.found.is_none()
            && let Some(piece) = take(&mut left, backing, PIECE)
        {
            presence.each(piece, backing, |from, to| {
                for at in (from..to).step_by(PIECE) {
                    self.read_piece(at, to.min(at + PIECE));
                }
            });
            self.check_time()?;
        }
        self.presence = presence;
        match self.found {
            Some(_) => Err(Over),
            None => Ok(()),
        }
    }

    /// A root but for the storage of threads from this number on: the first thread's may lie where a
    /// module's zeroed data would, and is no variable of that one.
    fn read_beside(
        &mut self,
        (from, to): (usize, usize),
        thread: usize,
        backing: Backing,
    ) -> Result<(), Over> {
        for number in thread..self.threads.len() {
            let (low, high) = self.storage_of(number);
            if low < to && from < high {
                if from < low {
                    self.read_beside((from, low), number + 1, backing)?;
                }
                return match high < to {
                    true => self.read_beside((high, to), number + 1, backing),
                    false => Ok(()),
                };
            }
        }
        self.read_root((from, to), backing)
    }

    fn read_piece(&mut self, from: usize, to: usize) {
        let kind = self.kind as usize;
        let (into, bytes) = match &self.copy {
            Some(copy) => {
                let (into, _) = copy.range();
                (into, sys::copy_range(from, into, to - from).unwrap_or(0))
            }
            None => (from, to - from),
        };
        for offset in (0..bytes & !(WORD - 1)).step_by(WORD) {
            self.see(load(into + offset), || (from + offset) | kind);
        }
    }
}

impl Takes for Search<'_> {
    fn range(
        &mut self,
        (from, to): (usize, usize),
        backing: Backing,
        kind: Root,
    ) -> Result<(), Over> {
        if self.kind != Root::Tls {
            return match self.kind == kind {
                true => self.read_beside((from, to), 0, backing),
                false => Ok(()),
            };
        }
        // Storage lies in mappings of other kinds, which are read whole when it is their turn.
        for thread in 0..self.threads.len() {
            let (low, high) = self.storage_of(thread);
            let part = (from.max(low), to.min(high));
            if part.0 < part.1 {
                self.read_root(part, backing)?;
            }
        }
        Ok(())
    }

    fn register(&mut self, thread: usize, register: usize, word: usize) -> Result<(), Over> {
        if self.kind == Root::Register {
            let number = thread << REGISTERS.trailing_zeros() | register;
            self.see(word, || number << 3 | Root::Register as usize);
        }
        Ok(())
    }
}

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
