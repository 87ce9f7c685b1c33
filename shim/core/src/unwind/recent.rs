//! Stacks seen lately, by their leaf: what makes most captures a verification only.
//!
//! Programs allocate in loops over a handful of places. The memo keeps one stack,
//! so each change of place would unwind the frames that differ; here up to 256
//! stacks that got a site are kept whole. A capture that finds its leaf's state
//! reads every word again that the unwind once read, as the memo does; equal
//! state and equal words repeat the unwind (M1 in [`super::memo`]), so it is just as
//! exact, and the site comes with it.
//!
//! # Design
//! Four entries for each of 64 values of a hash of the leaf's sp and pc: functions
//! that allocate for others have one leaf and many callers. A stack is kept when it
//! comes for the second time, so stacks seen once cost no copy. Stacks with irregular
//! frames or too many words are not kept. An entry is 17 cache lines long so that
//! entries do not compete for the same sets of the cache.
//!
//! # Invariants
//! L1: an entry whose `epoch` is the memo's was written whole, of a stack captured
//! with the memo's present generation and limit. Epochs start at 1.
//! L2: all words of an entry lie between its leaf's sp and `highest`.

use core::sync::atomic::{Ordering, compiler_fence};

use super::memo::Word;

/// What is kept of a stack besides its words.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) leaf: Word,
    /// The leaf's rbp; of no matter when `needs_bp` is 0.
    pub(crate) bp: u64,
    pub(crate) hash: u64,
    pub(crate) highest: u64,
    pub(crate) epoch: u32,
    pub(crate) site: u32,
    pub(crate) end: u16,
    /// Frames, the leaf included.
    pub(crate) depth: u16,
    /// Whether unwinding depends on the leaf's rbp (0 or 1).
    pub(crate) needs_bp: u16,
    /// Words in use: a key for each frame but the leaf, root first, then checks, then
    /// the last again up to a whole [`Recent::BLOCK`].
    pub(crate) used: u16,
    /// Of the stack that would have been kept here last.
    pub(crate) candidate: u32,
}

/// One stack.
#[repr(C, align(64))]
pub(crate) struct Recent {
    pub(crate) head: Head,
    /// Of a set's first entry: which has the next candidate.
    turn: u64,
    pub(crate) words: [Word; Self::WORDS],
    _padding: [Word; 3],
}

impl Recent {
    pub(crate) const COUNT: usize = Self::SETS * Self::WAYS;
    const SETS: usize = 64;
    /// Stacks of one leaf that differ further out.
    pub(crate) const WAYS: usize = 4;
    const WORDS: usize = 60;
    /// Words are verified by this many at once.
    const BLOCK: usize = 4;

    /// Where the stacks of a leaf begin.
    #[inline(always)]
    pub(crate) const fn first(sp: u64, pc: u64) -> usize {
        let mixed = (pc ^ sp << 13).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 58) as usize % Self::SETS * Self::WAYS
    }

    /// What must hold what it held.
    #[inline(always)]
    pub(crate) fn words(&self) -> &[[Word; Self::BLOCK]] {
        let (blocks, _) = self.words.as_chunks();
        let used = usize::from(self.head.used) / Self::BLOCK;
        blocks.get(..used).unwrap_or(&[])
    }

    /// Program counter of a frame, 0 the leaf; 0 past the end.
    pub(crate) fn pc(&self, index_from_leaf: usize) -> u64 {
        let depth = usize::from(self.head.depth);
        match depth.checked_sub(index_from_leaf + 1) {
            Some(index) if index + 1 == depth => self.head.leaf.word,
            Some(index) => self.words[index % Self::WORDS].word,
            None => 0,
        }
    }

    /// Keeps the stack of `head`, with these keys and checks, in a set of entries, if it
    /// fits: in an unused one, or in the one it was a candidate for; else it becomes
    /// the candidate of the next. Answers which one keeps it.
    pub(crate) fn keep(
        set: &mut [Self],
        head: Head,
        keys: &[Word],
        checks: &[Word],
    ) -> Option<usize> {
        let candidate = head.hash as u32;
        let unused = |entry: &Self| entry.head.epoch != head.epoch;
        let wanted = |entry: &Self| unused(entry) || entry.head.candidate == candidate;
        if keys.len() + checks.len() > Self::WORDS {
            return None;
        }
        if let Some(way) = set.iter().position(wanted) {
            set[way].fill(Head { candidate, ..head }, keys, checks);
            return Some(way);
        }
        let turn = set[0].turn;
        set[0].turn = turn.wrapping_add(1);
        set[turn as usize % Self::WAYS].head.candidate = candidate;
        None
    }

    fn fill(&mut self, head: Head, keys: &[Word], checks: &[Word]) {
        let held = keys.len() + checks.len();
        let used = held.next_multiple_of(Self::BLOCK);
        self.head.epoch = 0; // one cut short here leaves no entry (L1)
        compiler_fence(Ordering::SeqCst);
        let (to_keys, to_checks) = self.words.split_at_mut(keys.len());
        to_keys.copy_from_slice(keys);
        to_checks[..checks.len()].copy_from_slice(checks);
        if let Some(last) = held.checked_sub(1) {
            let last = self.words[last];
            self.words[held..used].fill(last);
        }
        self.head = Head {
            epoch: 0,
            depth: keys.len() as u16 + 1,
            used: used as u16,
            ..head
        };
        compiler_fence(Ordering::SeqCst);
        self.head.epoch = head.epoch;
    }
}

const _: () =
    assert!(size_of::<Recent>() == 17 * 64 && Recent::WORDS.is_multiple_of(Recent::BLOCK));
const _: () = assert!(Recent::SETS == 1 << (64 - 58));
