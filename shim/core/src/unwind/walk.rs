//! A capture: walk from the leaf until the memo can take over.
//!
//! # Design
//! ```text
//! walk    pop old frames below sp; same state as the top one? verify everything
//!         further out; equal: join. Otherwise step, with the first step that
//!         differs as a barrier no later join may cross.
//! finish  root to leaf over the new frames: hash of the path, who needs rbp,
//!         which slots must be checked next time.
//! ```
//! No slot is verified twice in a capture, so a capture is O(depth) at a third of
//! a nanosecond a frame plus O(new frames) at five.
//!
//! # Invariants
//! W1: a slot that is read again without asking [`Bounds`] lies between the
//! joined frame's sp and `highest`, both of the active stack.
//! # Safety
//! Raw reads only in [`Memo::first_bad_plain`], by W1 and B1.
#![allow(unsafe_code)]

use pageshim_wire::stack::{EXACT_PC, End};

use super::bounds::{Bounds, peek};
use super::cfi::{SIGNAL_BP, SIGNAL_PC, SIGNAL_SP};
use super::memo::{Captured, Frame, Memo, Word};
use super::row::{BpRule, Kind, Row};
use super::rows::{Missed, Rows};
use super::step::{Regs, Step, step_any, step_usual};

/// What the walk found: `new` frames at the upper end, behind `kept` old ones.
#[derive(Clone, Copy)]
struct Walk {
    kept: usize,
    new: usize,
    end: End,
}

impl Memo {
    /// Captures the stack of `regs`, cut at `limit` frames (at most
    /// [`Self::CAPACITY`]), leaf first.
    #[inline]
    pub fn capture(
        &mut self,
        rows: &Rows,
        regs: &Regs,
        bounds: &mut Bounds,
        limit: usize,
    ) -> Captured {
        let limit = limit.clamp(1, Self::CAPACITY);
        self.set_hit(None);
        self.missed.count = 0;
        let valid = self.generation == rows.generation() && self.limit as usize == limit;
        if valid
            && bounds.enter(regs.sp)
            && let Some(place) = self.recent(key(*regs), regs.bp, bounds)
        {
            self.set_hit(Some(place));
            return self.repeated(place);
        }
        self.capture_anew(rows, regs, bounds, limit)
    }

    /// The capture of an entry of `recent`.
    fn repeated(&self, place: usize) -> Captured {
        let head = self.head(place);
        Captured {
            hash: head.hash,
            depth: usize::from(head.depth),
            new_frames: 0,
            end: End::from_number(head.end),
            missed: 0,
        }
    }

    /// A capture of a stack not seen lately.
    #[inline(never)]
    fn capture_anew(
        &mut self,
        rows: &Rows,
        regs: &Regs,
        bounds: &mut Bounds,
        limit: usize,
    ) -> Captured {
        let mut old = core::mem::take(&mut self.len); // M3
        let generation = rows.generation();
        if self.generation != generation || self.limit as usize != limit {
            (self.generation, self.limit, old) = (generation, limit as u32, 0);
            self.seed = SEED ^ rows.replaced();
            self.renew();
        }
        // Word by word: a vector would wait for the stores that made it.
        let regs = Regs {
            pc: regs.pc,
            sp: opaque(regs.sp),
            bp: regs.bp,
        };
        let mut last = Step::default();
        let mut walk = self.walk(rows, regs, bounds, old, &mut last);
        let depth = walk.kept + walk.new;
        let cut = self.end() == End::DepthLimit;
        if walk.kept > 0 && (depth > limit || cut && depth != limit) {
            walk = self.walk(rows, regs, bounds, 0, &mut last); // another root: all anew
        }
        if walk.new > 0 || walk.kept != old {
            self.keep_shared(walk.kept);
            self.finish(walk, &last, bounds);
        }
        self.len = walk.kept + walk.new;
        self.captured(walk.new)
    }

    /// Walks outwards until it joins the `old` frames or the stack ends; `last` is the step that ended it.
    #[inline(always)]
    fn walk(
        &mut self,
        rows: &Rows,
        regs: Regs,
        bounds: &mut Bounds,
        old: usize,
        last: &mut Step,
    ) -> Walk {
        let (mut state, mut top, mut free) = (regs, old, Self::CAPACITY);
        let mut barrier = old;
        let entered = bounds.enter(regs.sp);
        let limit = if entered { self.limit as usize } else { 1 };
        let (generation, least) = (self.generation, Self::CAPACITY - limit);
        let end = loop {
            top = self.pop(top.min(free), state.sp);
            let at = top.wrapping_sub(1);
            let row = if top > 0 && self.keys[at & Self::MASK] == key(state) {
                if at < barrier && self.same_bp(at, state) {
                    let Some(bad) = self.first_bad(at, state.sp, bounds) else {
                        return Walk {
                            kept: top,
                            new: Self::CAPACITY - free,
                            end: self.end(),
                        };
                    };
                    barrier = bad;
                }
                self.frames[at & Self::MASK].row()
            } else {
                rows.row(state.pc, generation, Some(&mut self.missed))
            };
            free -= 1;
            self.note(free, state, row);
            if free > least
                && let Some(next) = step_usual(bounds, row, state)
            {
                state = next;
                continue;
            }
            if !entered {
                *last = Step::default();
                break End::OutOfBounds;
            }
            match step_any(bounds, row, state, last) {
                Ok(_) if free == least => break End::DepthLimit,
                Ok(next) => state = next,
                Err(end) => break end,
            }
        };
        Walk {
            kept: 0,
            new: Self::CAPACITY - free,
            end,
        }
    }

    /// Drops old frames below a stack pointer; answers how many are left.
    #[inline(always)]
    fn pop(&self, mut top: usize, sp: u64) -> usize {
        while top > 0 && self.keys[(top - 1) & Self::MASK].above < sp {
            top -= 1;
        }
        top
    }

    /// Notes a new frame at the upper end.
    #[inline(always)]
    fn note(&mut self, index: usize, state: Regs, row: Row) {
        let frame = &mut self.frames[index & Self::MASK];
        frame.hash = state.sp;
        frame.bp = state.bp;
        frame.pc = state.pc;
        frame.marked = row.0;
    }

    #[inline(always)]
    fn same_bp(&self, at: usize, state: Regs) -> bool {
        let frame = &self.frames[at & Self::MASK];
        !frame.needs_bp() || frame.bp == state.bp
    }

    /// Verifies all steps from frame `at` outwards; answers the frame nearest to
    /// the leaf whose step would now come out differently.
    #[inline(always)]
    fn first_bad(&self, at: usize, sp: u64, bounds: &mut Bounds) -> Option<usize> {
        if at < self.irregular as usize && bounds.reaches(self.highest) {
            return self.first_bad_plain(at);
        }
        let bad = self.first_bad_mixed(at, bounds);
        bounds.enter(sp);
        bad
    }

    #[inline(always)]
    fn first_bad_plain(&self, at: usize) -> Option<usize> {
        let checks = self.frames[at & Self::MASK].checks();
        let key = last_bad(self.keys.get(..at)?);
        let check = last_bad(self.checks.get(..checks)?);
        if key.is_none() && check.is_none() {
            return None;
        }
        self.bad_frame(at, key, check)
    }

    #[cold]
    fn first_bad_mixed(&self, at: usize, bounds: &mut Bounds) -> Option<usize> {
        let checks = self.frames[at & Self::MASK].checks();
        let mut holds = |above: u64, word: u64| {
            let found = bounds.read_anywhere(above.wrapping_sub(8));
            found == Some(word & !EXACT_PC)
        };
        let key = (0..at).rfind(|&index| {
            let (key, inner) = (self.keys[index], self.keys[index + 1]);
            let above = match self.frames[index + 1].row().kind() {
                Kind::Signal => inner.above.wrapping_add_signed(SIGNAL_PC + 8),
                _ => key.above,
            };
            !holds(above, key.word)
        });
        let mut checks = self.checks.get(..checks)?.iter();
        let check = checks.rposition(|check| {
            bounds.read_anywhere(check.above.wrapping_sub(8)) != Some(check.word)
        });
        self.bad_frame(at, key, check)
    }

    /// Frame `i`'s pc is read by the step out of frame `i + 1`; a check belongs to
    /// the first frame that counts it (M2).
    #[inline(never)]
    fn bad_frame(&self, at: usize, key: Option<usize>, check: Option<usize>) -> Option<usize> {
        let by_key = key.map(|index| index + 1);
        let Some(check) = check else {
            return by_key;
        };
        let owner = self.frames.get(..=at)?;
        let owner = owner.partition_point(|frame| frame.checks() <= check);
        by_key.max(Some(owner))
    }

    /// Moves the new frames behind the kept ones and gives them hash and checks.
    #[inline(always)]
    fn finish(&mut self, walk: Walk, last: &Step, bounds: &Bounds) {
        let kept = walk.kept;
        if self.irregular as usize >= kept {
            self.irregular = u32::MAX;
        }
        let (mut hash, mut needs_bp) = (mix(self.seed, walk.end as u64), false);
        if kept == 0 {
            self.set_end(walk.end);
            (self.highest, self.checks_len) = (0, 0);
        } else {
            let outer = &self.frames[(kept - 1) & Self::MASK];
            (hash, needs_bp) = (outer.hash, outer.needs_bp());
            self.checks_len = outer.checks() as u32;
        }
        for index in 0..walk.new {
            let from = &self.frames[(Self::CAPACITY - walk.new + index) & Self::MASK];
            let (sp, bp, pc, row) = (from.hash, from.bp, from.pc, Row(from.marked));
            hash = mix(hash, pc);
            let to = kept + index;
            self.keys[to & Self::MASK] = Word::key(sp, pc);
            let frame = &mut self.frames[to & Self::MASK];
            (frame.hash, frame.bp, frame.marked) = (hash, bp, row.0);
            if needs_bp || to == 0 || !row.is_usual() {
                self.link(to, last, bounds);
            }
            needs_bp = row.uses_bp() || needs_bp && row.passes_bp();
            let marked = Frame::mark(row, needs_bp, self.checks_len as usize);
            self.frames[to & Self::MASK].marked = marked;
        }
        if kept == 0 {
            self.highest = self.highest.max(self.keys[0].above.wrapping_sub(8));
        }
    }

    /// Notes what the step out of frame `at` read besides the pc; of the root's,
    /// what the step that ended the stack read.
    #[inline(never)]
    fn link(&mut self, at: usize, last: &Step, bounds: &Bounds) {
        let Some(before) = at.checked_sub(1) else {
            return self.link_root(last);
        };
        let sp = self.keys[at & Self::MASK].above;
        let Frame { bp, marked, .. } = self.frames[at & Self::MASK];
        let (row, outer) = (Row(marked), self.frames[before & Self::MASK]);
        let outer_sp = self.keys[before & Self::MASK].above;
        let slot = match (row.kind(), row.rule()) {
            (Kind::Signal, _) => {
                self.set_irregular(at);
                self.check(at, sp.wrapping_add_signed(SIGNAL_SP), outer_sp);
                sp.wrapping_add_signed(SIGNAL_BP)
            }
            (Kind::NoTable, _) => bp,
            (Kind::End | Kind::Bad, _) => return,
            (_, BpRule::AtCfa) => outer_sp.wrapping_add(row.bp_at()),
            (_, BpRule::AtBp) => bp.wrapping_add(row.bp_at()),
            (_, BpRule::Same | BpRule::Lost) => 0,
        };
        if row.kind() == Kind::BpDeref {
            self.check(at, bp.wrapping_add(row.offset()), outer_sp);
        }
        if slot != 0 && outer.needs_bp() {
            if !bounds.holds(slot) || !slot.is_multiple_of(8) {
                self.set_irregular(at); // it could not be read, or not by the active stack
            }
            self.check(at, slot, outer.bp);
        }
    }

    fn link_root(&mut self, last: &Step) {
        if last.sp_slot != 0 {
            self.check(0, last.sp_slot, last.sp);
        }
        if last.pc_slot != 0 {
            self.check(0, last.pc_slot, last.pc & !EXACT_PC);
        }
    }

    fn check(&mut self, at: usize, slot: u64, word: u64) {
        if self.checks_len as usize >= Self::CAPACITY {
            self.forget(); // more than fits: unwind anew next time
            return;
        }
        let above = slot.wrapping_add(8);
        self.checks[self.checks_len as usize & Self::MASK] = Word { above, word };
        self.checks_len += 1;
        self.highest = self.highest.max(slot);
        if slot < self.keys[at & Self::MASK].above {
            self.set_irregular(at);
        }
    }

    #[cold]
    fn set_irregular(&mut self, at: usize) {
        self.irregular = self.irregular.min(at as u32);
    }
}

#[inline(always)]
const fn key(state: Regs) -> Word {
    Word::key(state.sp, state.pc)
}

/// Index of the last word that is no longer what it was. Eight at a time, from
/// the leaf's side: the first difference out there is where the stacks part.
#[inline(always)]
fn last_bad(words: &[Word]) -> Option<usize> {
    let mut rest = words;
    while let Some((outer, block)) = rest.split_last_chunk::<8>() {
        if differ(block) {
            return last_bad_slow(rest);
        }
        rest = outer;
    }
    if differ(rest) {
        return last_bad_slow(rest);
    }
    None
}

/// [`last_bad`] for whole blocks, answering only whether there is one.
#[inline(always)]
pub(super) fn any_bad<const N: usize>(blocks: &[[Word; N]]) -> bool {
    // Not by iterator: their closures may end up in functions of their own.
    let mut rest = blocks;
    while let Some((block, outer)) = rest.split_last() {
        if differ(block) {
            return true;
        }
        rest = outer;
    }
    false
}

#[inline(never)]
fn last_bad_slow(words: &[Word]) -> Option<usize> {
    words.iter().rposition(|word| read(word) != word.word)
}

#[inline(always)]
fn read(word: &Word) -> u64 {
    // SAFETY: W1: first_bad has made sure of the whole range.
    unsafe { peek(word.above.wrapping_sub(8)) }
}

#[inline(always)]
fn differ(words: &[Word]) -> bool {
    let mut any = 0;
    for word in words {
        any |= read(word) ^ word.word;
    }
    opaque(any) != 0
}

/// Keeps the optimiser from turning one OR over a block into eight branches,
/// which costs twice the time.
#[inline(always)]
fn opaque(mut word: u64) -> u64 {
    // SAFETY: no instruction at all.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) word, options(pure, nomem, nostack, preserves_flags));
    }
    word
}

const SEED: u64 = 0x243f_6a88_85a3_08d3;

/// One step of the path's hash: a bijection of `hash` for every `pc`, and of `pc`
/// for every `hash`, so that two paths that differ in one frame never collide.
#[inline(always)]
const fn mix(hash: u64, pc: u64) -> u64 {
    let mixed = (hash ^ pc).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 32
}

const _: () = assert!(Missed::MAX >= 4);
