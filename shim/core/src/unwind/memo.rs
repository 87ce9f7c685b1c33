//! The memo: a thread's last stack, so that only what changed is unwound.
//!
//! # Design
//! ```text
//! index   0 (outermost) ... len-1 (leaf)          ... CAPACITY-1
//! keys    sp and pc: 16 bytes a frame, read again at every capture. The pc was
//!         read from the word below sp
//! frames  rbp, hash of the path from the root, row and marks
//! checks  further words a step read: a saved rbp that an outer frame needs,
//!         a realigned frame's CFA, a signal frame's stack pointer
//! ```
//! A capture walks from the leaf. New frames are noted at the upper end of
//! `frames`, downwards; when the walk meets a frame of the old stack in the same
//! state and every word read further out still is what it was, the rest is reused
//! and the new frames are moved down behind it ([`super::walk`]).
//!
//! # Invariants
//! M1: unwinding is a function of a frame's state (pc, sp, and rbp where the frame
//! is marked to need it), the rows, and the words that the steps out of it and of
//! all frames further out read. Equal state and equal words give equal callers.
//! M2: `frames[i].marks` counts the checks that the steps out of frames `0..=i` read.
//! M3: while a capture runs `len` is 0: one cut short by a signal handler that
//! jumps away leaves an empty memo, not a wrong one.
//! M4: steps out of frames below `irregular` read pcs below the next frame's sp
//! only, and nothing below their own sp.
//!
//! # Allocation
//! None; the memo lives in zeroed memory of the caller.
//! # Concurrency
//! One thread at a time, not re-entered from a signal handler: the caller's guard.
//! # Safety
//! Only [`Memo::at`] is unsafe: it lends memory of the caller.
#![allow(unsafe_code)]

use pageshim_wire::stack::End;

use super::bounds::Bounds;
use super::recent::{Head, Recent};
use super::row::Row;
use super::rows::{Missed, Rows};
use super::step::Regs;
use super::walk::any_bad;

/// What one capture found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Hash of the whole path, root to leaf, and of why it ended there; never 0.
    /// Equal stacks have equal hashes, different ones different (64 bits).
    pub hash: u64,
    /// Frames of the stack.
    pub depth: usize,
    /// Frames on the leaf's side that were not reused from the capture before.
    pub new_frames: usize,
    /// Why the stack ended.
    pub end: End,
    /// Modules in [`Memo::missed`].
    pub missed: usize,
}

/// A word of the stack: the one below `above` holds `word`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Word {
    pub(crate) above: u64,
    pub(crate) word: u64,
}

impl Word {
    /// A frame's key: its stack pointer, and its pc with [`EXACT_PC`].
    #[inline(always)]
    pub(crate) const fn key(sp: u64, pc: u64) -> Self {
        Self {
            above: sp,
            word: pc,
        }
    }
}

/// A frame's cold half.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Frame {
    /// While the frame is at the upper end: its sp.
    pub(crate) hash: u64,
    pub(crate) bp: u64,
    /// Of use at the upper end only. Not beside the sp: a copy of both at once
    /// would wait for the two stores that wrote them.
    pub(crate) pc: u64,
    /// A row, with marks in the bits it leaves free.
    pub(crate) marked: u64,
}

const NEEDS_BP: u64 = 1 << 6;
const CHECKS_SHIFT: u32 = 16;
const MARKS: u64 = NEEDS_BP | 1 << 7 | 0xffff << CHECKS_SHIFT;

impl Frame {
    #[inline(always)]
    pub(crate) const fn row(&self) -> Row {
        Row(self.marked & !MARKS)
    }

    /// True when the steps from here outwards depend on this frame's rbp.
    #[inline(always)]
    pub(crate) const fn needs_bp(&self) -> bool {
        self.marked & NEEDS_BP != 0
    }

    /// Checks of this frame's step and of all further out (M2).
    #[inline(always)]
    pub(crate) const fn checks(&self) -> usize {
        (self.marked >> CHECKS_SHIFT & 0xffff) as usize
    }

    /// A row, fresh or of [`Self::row`], with marks.
    #[inline(always)]
    pub(crate) const fn mark(row: Row, needs_bp: bool, checks: usize) -> u64 {
        let bp = if needs_bp { NEEDS_BP } else { 0 };
        row.0 | bp | (checks as u64 & 0xffff) << CHECKS_SHIFT
    }
}

/// A thread's last stack. All zeros is an empty one.
#[repr(C, align(64))]
pub struct Memo {
    // The first cache line is all that a repeated stack needs besides its keys.
    pub(crate) len: usize,
    pub(crate) generation: u64,
    /// Highest address that may be read again.
    pub(crate) highest: u64,
    /// Depth limit the stack was captured with; 0 forgets it.
    pub(crate) limit: u32,
    end: u16,
    /// Number of the entry of `recent` that holds the present stack, from 1; 0 when
    /// the arrays below hold it.
    hit: u16,
    /// Outermost frame whose step reads words at unusual places (M4).
    pub(crate) irregular: u32,
    pub(crate) checks_len: u32,
    site: u32,
    prefix: u32,
    shared: u32,
    /// Changes whenever entries of `recent` must not be used; never 0 once used.
    pub(crate) epoch: u32,
    /// Where hashes of paths begin: differs when the same addresses are other code.
    pub(crate) seed: u64,
    pub(crate) missed: Missed,
    pub(crate) keys: [Word; Self::CAPACITY],
    pub(crate) frames: [Frame; Self::CAPACITY],
    pub(crate) checks: [Word; Self::CAPACITY],
    /// By set of `recent`: the way that was last of use.
    fronts: [u8; Recent::COUNT / Recent::WAYS],
    recent: [Recent; Recent::COUNT],
}

impl Memo {
    /// Deepest stack a memo holds; deeper ones are cut at the outer side.
    pub const CAPACITY: usize = 1024;
    /// Bytes of memory a memo needs.
    pub const BYTES: usize = size_of::<Self>();
    pub(crate) const MASK: usize = Self::CAPACITY - 1;

    /// The memo in memory the caller mapped.
    ///
    /// # Safety
    /// `memory` is [`Self::BYTES`] long, aligned to 64, zeroed at first, used for
    /// nothing else, stays mapped for `'a`, and no other reference to it lives.
    pub unsafe fn at<'a>(memory: *mut u8) -> &'a mut Self {
        debug_assert_eq!(memory.addr() % align_of::<Self>(), 0);
        // SAFETY: the caller's duty; zeros and any later content are plain numbers.
        unsafe { &mut *memory.cast::<Self>() }
    }

    /// Forgets all stacks: the next capture unwinds all of its own.
    pub const fn forget(&mut self) {
        self.limit = 0;
        self.renew();
    }

    /// Nothing in `recent` may be used any more.
    pub(crate) const fn renew(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.epoch = 1;
        }
    }

    /// The id of the present stack, when it is the one its leaf's entries were last of
    /// use for, of the limit they were captured with; else 0, and [`Memo::capture`] must
    /// look. What a caller sees of the last capture does not change.
    #[inline(always)]
    pub fn recall(&self, rows: &Rows, regs: &Regs, bounds: &Bounds) -> u32 {
        let leaf = Word::key(regs.sp, regs.pc);
        let first = Recent::first(leaf.above, leaf.word);
        let front = usize::from(self.fronts[first / Recent::WAYS]) % Recent::WAYS;
        let recent = &self.recent[first + front];
        let current = self.generation == rows.generation();
        if current && self.is_now(recent, leaf, regs.bp, bounds) {
            return recent.head.site;
        }
        0
    }

    /// True when a stack seen lately, of the active stack, is the present one.
    #[inline(always)]
    fn is_now(&self, recent: &Recent, leaf: Word, bp: u64, bounds: &Bounds) -> bool {
        let head = &recent.head;
        head.leaf == leaf
            && head.epoch == self.epoch
            && (head.needs_bp == 0 || head.bp == bp)
            && bounds.spans(leaf.above, head.highest)
            && !any_bad(recent.words())
    }

    /// Frames of the last capture.
    pub fn depth(&self) -> usize {
        match self.hit() {
            Some(recent) => usize::from(recent.head.depth),
            None => self.len,
        }
    }

    /// Program counter of a frame, 0 the leaf; [`EXACT_PC`] marks an interrupted
    /// instruction. 0 past the end.
    ///
    /// [`EXACT_PC`]: pageshim_wire::stack::EXACT_PC
    pub fn pc(&self, index_from_leaf: usize) -> u64 {
        if let Some(recent) = self.hit() {
            return recent.pc(index_from_leaf);
        }
        match self.len.checked_sub(index_from_leaf + 1) {
            Some(index) => self.keys[index & Self::MASK].word,
            None => 0,
        }
    }

    /// Attaches the caller's id to the whole present stack, and keeps the stack.
    pub fn set_site(&mut self, site: u32) {
        if self.hit != 0 {
            return self.recent[usize::from(self.hit - 1) % Recent::COUNT]
                .head
                .site = site;
        }
        self.site = site;
        let at = self.len.wrapping_sub(1);
        let regular = self.irregular as usize > at && self.limit != 0;
        let (Some(&leaf), true) = (self.keys.get(at), regular) else {
            return;
        };
        let frame = &self.frames[at];
        let head = Head {
            leaf,
            bp: frame.bp,
            hash: frame.hash.max(1),
            highest: self.highest,
            epoch: self.epoch,
            site,
            end: self.end,
            depth: 0,
            needs_bp: u16::from(frame.needs_bp()),
            used: 0,
            candidate: 0,
        };
        let checks = self.checks.get(..frame.checks()).unwrap_or(&[]);
        let keys = self.keys.get(..at).unwrap_or(&[]);
        let first = Recent::first(leaf.above, leaf.word);
        let set = &mut self.recent[first..][..Recent::WAYS];
        if let Some(way) = Recent::keep(set, head, keys, checks) {
            self.set_front(first + way);
        }
    }

    /// The id attached to the present stack; 0 when it has none (it was not seen
    /// lately, or nobody attached one).
    #[inline]
    pub fn site(&self) -> u32 {
        match self.hit() {
            Some(recent) => recent.head.site,
            None => self.site,
        }
    }

    /// An earlier stack with an id, and how many outermost frames the present one
    /// has in common with it; `(0, 0)` when there is none.
    pub const fn shared(&self) -> (u32, usize) {
        if self.prefix == 0 || self.shared == 0 || self.hit != 0 {
            return (0, 0);
        }
        (self.prefix, self.shared as usize)
    }

    #[inline(always)]
    fn hit(&self) -> Option<&Recent> {
        let index = usize::from(self.hit).checked_sub(1)?;
        Some(&self.recent[index % Recent::COUNT])
    }

    /// The number of the entry of `recent` that is the stack with this leaf now.
    #[inline(always)]
    pub(crate) fn recent(&self, leaf: Word, bp: u64, bounds: &Bounds) -> Option<usize> {
        let first = Recent::first(leaf.above, leaf.word);
        let mut set = self.recent[first..][..Recent::WAYS].iter();
        Some(first + set.position(|recent| self.is_now(recent, leaf, bp, bounds))?)
    }

    /// What an entry of `recent` holds besides its words.
    pub(crate) fn head(&self, place: usize) -> &Head {
        &self.recent[place % Recent::COUNT].head
    }

    const fn set_front(&mut self, place: usize) {
        self.fronts[place / Recent::WAYS] = (place % Recent::WAYS) as u8;
    }

    /// Says where the present stack is: in an entry of `recent`, or in the arrays.
    #[inline(always)]
    pub(crate) const fn set_hit(&mut self, place: Option<usize>) {
        self.hit = match place {
            Some(place) => {
                self.set_front(place);
                place as u16 + 1
            }
            None => 0,
        };
    }

    /// Start addresses of modules that rows were first made for in the last capture.
    pub fn missed(&self) -> &[u64] {
        self.missed.starts.get(..self.missed.count).unwrap_or(&[])
    }

    pub(crate) const fn end(&self) -> End {
        End::from_number(self.end)
    }

    pub(crate) const fn set_end(&mut self, end: End) {
        self.end = end as u16;
    }

    /// The present stack keeps `kept` outermost frames of the one before.
    pub(crate) const fn keep_shared(&mut self, kept: usize) {
        if self.site != 0 {
            (self.prefix, self.shared) = (self.site, kept as u32);
            self.site = 0;
        } else if kept < self.shared as usize {
            self.shared = kept as u32;
        }
    }

    #[inline(always)]
    pub(crate) fn captured(&self, new_frames: usize) -> Captured {
        let leaf = self.len.wrapping_sub(1) & Self::MASK;
        Captured {
            hash: self.frames[leaf].hash.max(1),
            depth: self.len,
            new_frames,
            end: self.end(),
            missed: self.missed.count,
        }
    }
}
