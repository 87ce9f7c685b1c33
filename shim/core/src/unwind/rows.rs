//! The row table: one for the process, written by racing threads without locks.
//!
//! # Design
//! 32 Ki entries of 16 bytes in sets of two (half a cache line). An entry is
//! `(key, row)` with `key = pc ^ (row + generation) * ODD`: a torn entry, or one
//! of an older generation, does not give back the program counter that is looked
//! up and so does not match. Nothing is ever cleared.
//!
//! # Invariants
//! R1: an entry that matches was written whole, in this generation.
//!
//! # Concurrency
//! Any thread, any time. All accesses are relaxed but the generation's: an
//! acquire load pairs with the release in [`Rows::invalidate`].
//! # Safety
//! Only [`Rows::at`] is unsafe: it lends memory of the caller.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use super::closing::Closing;
use super::row::Row;
use super::tables;

const SETS_LOG2: u32 = 14;
const SETS: usize = 1 << SETS_LOG2;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[repr(C, align(32))]
struct Set([[AtomicU64; 2]; 2]);

/// The table. All zeros is an empty one.
#[repr(C, align(64))]
pub struct Rows {
    generation: AtomicU64,
    misses: AtomicU64,
    /// How often code has come to lie where other code was.
    replaced: AtomicU64,
    closing: Closing,
    sets: [Set; SETS],
}

/// Modules met by row misses of one capture: start addresses, each once.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Missed {
    pub(crate) count: usize,
    pub(crate) starts: [u64; Self::MAX],
}

impl Missed {
    pub(crate) const MAX: usize = 8;

    /// Notes a module; false when there is no room for one more.
    fn note(&mut self, start: u64) -> bool {
        let known = self.starts.get(..self.count).unwrap_or(&[]);
        if start == 0 || known.contains(&start) {
            return true;
        }
        let Some(free) = self.starts.get_mut(self.count) else {
            return false;
        };
        *free = start;
        self.count += 1;
        true
    }
}

impl Rows {
    /// Bytes of memory a table needs (half a MiB).
    pub const BYTES: usize = size_of::<Self>();

    /// The table in memory the caller mapped.
    ///
    /// # Safety
    /// `memory` is [`Self::BYTES`] long, aligned to 64, zeroed at first, used
    /// for nothing else, and stays mapped for `'a`.
    pub unsafe fn at<'a>(memory: *mut u8) -> &'a Self {
        debug_assert_eq!(memory.addr() % align_of::<Self>(), 0);
        // SAFETY: the caller's duty; zeros and any later content are valid atomics.
        unsafe { &*memory.cast::<Self>() }
    }

    /// Drops every row and every thread's memo: a module has gone, so its
    /// addresses may come to mean something else. Call it before the next module
    /// can be mapped, or as soon as the loss is noticed.
    pub fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Does `close`, which may unload modules, and then [`Self::invalidate`].
    pub fn while_closing<T>(&self, close: impl FnOnce() -> T) -> T {
        let answer = self.closing.close(close);
        self.invalidate();
        answer
    }

    /// Reads of a module what is only safe while it stays; `None`, nothing done, when
    /// another thread is unloading modules just now.
    pub fn while_mapped<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        self.closing.direct(read)
    }

    /// In a forked child: nobody else unloads or reads.
    pub fn after_fork(&self) {
        self.closing.forget();
    }

    /// Other code lies where code was: from now on the same addresses are other stacks.
    pub fn replace(&self) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
        self.invalidate(); // publishes it
    }

    /// What tells stacks of the same addresses apart. Read after the generation.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Rows evaluated from unwind tables so far.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Changes whenever rows and memos of before must not be used.
    #[inline(always)]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn set(&self, pc: u64) -> &Set {
        let index = (pc.wrapping_mul(ODD) >> (64 - SETS_LOG2)) as usize;
        &self.sets[index % SETS]
    }

    /// The row of `pc` if the table has it.
    #[inline(always)]
    pub(crate) fn hit(&self, pc: u64, generation: u64) -> Option<Row> {
        for [key, row] in &self.set(pc).0 {
            let word = row.load(Ordering::Relaxed);
            if key.load(Ordering::Relaxed) ^ mix(word, generation) == pc && word != 0 {
                return Some(Row(word)); // R1
            }
        }
        None
    }

    /// Puts a row in front of its set; the second oldest stays, the oldest goes.
    pub(crate) fn put(&self, pc: u64, row: Row, generation: u64) {
        let [first, second] = &self.set(pc).0;
        for (from, to) in first.iter().zip(second) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        first[0].store(pc ^ mix(row.0, generation), Ordering::Relaxed);
        first[1].store(row.0, Ordering::Relaxed);
    }

    /// The row of `pc`, from its unwind table when it must be. A row whose
    /// module found no room in `missed` is not kept, so that it is missed again.
    #[inline(always)]
    pub(crate) fn row(&self, pc: u64, generation: u64, missed: Option<&mut Missed>) -> Row {
        match self.hit(pc, generation) {
            Some(row) => row,
            None => self.miss(pc, generation, missed),
        }
    }

    #[cold]
    #[inline(never)]
    fn miss(&self, pc: u64, generation: u64, missed: Option<&mut Missed>) -> Row {
        self.misses.fetch_add(1, Ordering::Relaxed);
        let Some((row, start)) = self.closing.direct(|| tables::row_of(pc)) else {
            return tables::row_of_copied(pc); // not kept: its module is not noted
        };
        if missed.is_some_and(|missed| missed.note(start)) {
            self.put(pc, row, generation);
        }
        row
    }
}

#[inline(always)]
const fn mix(row: u64, generation: u64) -> u64 {
    (row.wrapping_add(generation << 16)).wrapping_mul(ODD)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::row::{BpRule, Kind};
    use super::*;

    pub(crate) fn table() -> std::boxed::Box<Rows> {
        // SAFETY: zeros are a valid table (all atomics).
        unsafe { std::boxed::Box::<Rows>::new_zeroed().assume_init() }
    }

    // Goal: rows are found until two newer ones share their set or the
    // generation moves on. Method: three counters of one set.
    #[test]
    fn rows_are_found_until_they_are_pushed_out() {
        let rows = table();
        let place = |pc: u64| (&raw const *rows.set(pc)).addr();
        let first = 0x1000;
        let mut same = (first + 1..).filter(|&pc| place(pc) == place(first));
        let pcs = [first, same.next().expect("one"), same.next().expect("two")];
        let row = |n: i64| Row::new(Kind::Sp, n, BpRule::Same, 0).expect("fits");
        for (n, &pc) in pcs.iter().enumerate() {
            assert_eq!(rows.hit(pc, 0), None);
            rows.put(pc, row(n as i64 * 8), 0);
        }
        assert_eq!(rows.hit(pcs[0], 0), None, "pushed out");
        assert_eq!(rows.hit(pcs[1], 0), Some(row(8)));
        assert_eq!(rows.hit(pcs[2], 0), Some(row(16)));
        rows.invalidate();
        assert_eq!(rows.hit(pcs[2], rows.generation()), None);
    }

    // Goal: a torn entry never matches. Method: keys and rows of two writers mixed.
    #[test]
    fn a_torn_entry_never_matches() {
        let rows = table();
        let row = |n: i64| Row::new(Kind::Sp, n, BpRule::Same, 0).expect("fits");
        rows.put(0x1000, row(8), 0);
        rows.set(0x1000).0[0][1].store(row(16).0, Ordering::Relaxed);
        assert_eq!(rows.hit(0x1000, 0), None);
    }
}
