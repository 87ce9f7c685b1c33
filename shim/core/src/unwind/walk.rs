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
use super::memo::{Captured, Frame, Memo};
use super::row::{BpRule, Kind, Row};
use super::rows::{Missed, Rows};
use super::step::{Regs, Step, step};

/// What the walk found: `new` frames at the arrays' upper end, behind `kept` old ones.
#[derive(Clone, Copy)]
struct Walk {
    kept: usize,
    new: usize,
    end: End,
}

impl Memo {
    /// Captures the stack of `regs`, cut at `limit` frames (at most
    /// [`Self::CAPACITY`]), leaf first.
    pub fn capture(
        &mut self,
        rows: &Rows,
        regs: Regs,
        bounds: &mut Bounds,
        limit: usize,
    ) -> Captured {
        let generation = rows.generation();
        let limit = limit.clamp(1, Self::CAPACITY);
        let mut old = core::mem::take(&mut self.len); // M3
        self.missed.count = 0;
        if self.generation != generation || self.limit != limit {
            (self.generation, self.limit) = (generation, limit);
            old = 0;
        }
        if old > 0 && self.repeats(old - 1, regs, bounds) {
            self.len = old;
            return self.captured(0);
        }
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

    /// True when the stack is the one before, leaf and all.
    #[inline(always)]
    fn repeats(&self, leaf: usize, regs: Regs, bounds: &Bounds) -> bool {
        let active = bounds.holds(regs.sp) && bounds.holds(self.highest);
        active
            && self.mixed == 0
            && self.is_at(leaf, regs)
            && self.same_bp(leaf, regs)
            && self.first_bad_plain(leaf).is_none()
    }

    /// Walks outwards until it joins the `old` frames or the stack ends; `last` is
    /// the step that ended it.
    #[inline(never)]
    fn walk(
        &mut self,
        rows: &Rows,
        regs: Regs,
        bounds: &mut Bounds,
        old: usize,
        last: &mut Step,
    ) -> Walk {
        let (mut state, mut slot) = (regs, regs.sp.wrapping_sub(8));
        let (mut top, mut barrier, mut new) = (old, old, 0);
        let entered = bounds.enter(regs.sp);
        *last = Step::default();
        let end = loop {
            top = self.pop(top.min(Self::CAPACITY - new), state.sp);
            let at = top.wrapping_sub(1);
            let known = top > 0 && entered && self.is_at(at, state);
            if known && at < barrier && self.same_bp(at, state) {
                let Some(bad) = self.first_bad(at, state.sp, bounds) else {
                    self.slots[at & Self::MASK] = slot;
                    let end = self.end();
                    return Walk {
                        kept: top,
                        new,
                        end,
                    };
                };
                barrier = bad;
            }
            if new == self.limit {
                break End::DepthLimit;
            }
            let row = if known {
                self.frames[at & Self::MASK].row()
            } else {
                rows.row(state.pc, self.generation, Some(&mut self.missed))
            };
            new += 1;
            self.place(Self::CAPACITY - new, slot, state, row);
            if !entered {
                break End::OutOfBounds;
            }
            let (next, end) = step(bounds, row, state.sp, state.bp);
            if let Err(end) = end {
                *last = next;
                break end;
            }
            if new == self.limit {
                *last = next;
            }
            slot = next.pc_slot;
            (state.pc, state.sp, state.bp) = (next.pc, next.sp, next.bp);
        };
        Walk { kept: 0, new, end }
    }

    /// Drops old frames below a stack pointer; answers how many are left.
    #[inline(always)]
    fn pop(&self, mut top: usize, sp: u64) -> usize {
        while top > 0 && self.frames[(top - 1) & Self::MASK].sp < sp {
            top -= 1;
        }
        top
    }

    #[inline(always)]
    fn place(&mut self, index: usize, slot: u64, state: Regs, row: Row) {
        let index = index & Self::MASK;
        self.slots[index] = slot;
        self.values[index] = state.pc & !EXACT_PC;
        self.frames[index] = Frame::new(state.sp, state.bp, state.pc, row);
    }

    #[inline(always)]
    fn is_at(&self, at: usize, state: Regs) -> bool {
        self.frames[at & Self::MASK].sp == state.sp && self.pc_at(at) == state.pc
    }

    #[inline(always)]
    fn same_bp(&self, at: usize, state: Regs) -> bool {
        let frame = self.frames[at & Self::MASK];
        !frame.needs_bp() || frame.bp == state.bp
    }

    /// Verifies all steps from frame `at` outwards; answers the frame nearest to
    /// the leaf whose step would now come out differently.
    #[inline(always)]
    fn first_bad(&self, at: usize, sp: u64, bounds: &mut Bounds) -> Option<usize> {
        if self.mixed == 0 && bounds.reaches(self.highest) {
            return self.first_bad_plain(at);
        }
        let bad = self.first_bad_mixed(at, bounds);
        bounds.enter(sp);
        bad
    }

    #[inline(always)]
    fn first_bad_plain(&self, at: usize) -> Option<usize> {
        let checks = self.frames[at & Self::MASK].checks();
        let slot = last_bad(self.slots.get(..at)?, self.values.get(..at)?);
        let check = last_bad(
            self.check_slots.get(..checks)?,
            self.check_values.get(..checks)?,
        );
        self.bad_frame(slot, check)
    }

    #[cold]
    fn first_bad_mixed(&self, at: usize, bounds: &mut Bounds) -> Option<usize> {
        let checks = self.frames[at & Self::MASK].checks();
        let mut last_bad = |slots: &[u64], values: &[u64]| {
            let mut pairs = slots.iter().zip(values);
            pairs.rposition(|(&slot, &value)| bounds.read_anywhere(slot) != Some(value))
        };
        let slot = last_bad(self.slots.get(..at)?, self.values.get(..at)?);
        let check = last_bad(
            self.check_slots.get(..checks)?,
            self.check_values.get(..checks)?,
        );
        self.bad_frame(slot, check)
    }

    /// Frame `i`'s pc is read by the step out of frame `i + 1`; a check belongs to
    /// the first frame that counts it (M2).
    #[inline(always)]
    fn bad_frame(&self, slot: Option<usize>, check: Option<usize>) -> Option<usize> {
        let by_slot = slot.map(|index| index + 1);
        let Some(check) = check else {
            return by_slot;
        };
        let owner = self.frames.iter().position(|f| f.checks() > check);
        by_slot.max(owner)
    }

    /// Moves the new frames behind the kept ones and gives them hash and checks.
    fn finish(&mut self, walk: Walk, last: &Step, bounds: &Bounds) {
        let kept = walk.kept;
        let mut outer = self.frames[kept.wrapping_sub(1) & Self::MASK];
        if kept == 0 {
            self.set_end(walk.end);
            (self.highest, self.mixed, self.checks_len) = (0, 0, 0);
            outer = Frame::new(u64::MAX, 0, 0, Row::of(Kind::End));
            outer.hash = mix(SEED, walk.end as u64);
        } else {
            self.checks_len = outer.checks();
        }
        for index in 0..walk.new {
            let from = (Self::CAPACITY - walk.new + index) & Self::MASK;
            let to = (kept + index) & Self::MASK;
            let (slot, pc) = (self.slots[from], self.values[from]);
            let mut frame = self.frames[from];
            if kept + index > 0 {
                self.link(frame, outer, bounds);
            } else {
                self.link_root(frame, last);
            }
            let row = frame.row();
            let needs_bp = row.uses_bp() || frame.passes_bp() && outer.needs_bp();
            frame.mark(needs_bp, self.checks_len);
            frame.hash = mix(outer.hash, pc | frame.exact());
            self.slots[to] = slot;
            self.values[to] = pc;
            self.frames[to] = frame;
            self.highest = self.highest.max(slot);
            outer = frame;
        }
    }

    /// Notes what the step from `frame` to `outer` read besides the pc.
    #[inline(always)]
    fn link(&mut self, frame: Frame, outer: Frame, bounds: &Bounds) {
        let row = frame.row();
        match row.kind() {
            Kind::Sp | Kind::Bp => {}
            Kind::BpDeref => self.check(frame, frame.bp.wrapping_add(row.offset()), outer.sp),
            _ => return self.link_rare(frame, outer),
        }
        if !outer.needs_bp() {
            return;
        }
        let slot = match row.rule() {
            BpRule::AtCfa => outer.sp.wrapping_add(row.bp_at()),
            BpRule::AtBp => frame.bp.wrapping_add(row.bp_at()),
            _ => return,
        };
        if !bounds.holds(slot) || !slot.is_multiple_of(8) {
            self.mixed = 1; // it could not be read, or not by the active stack
        }
        self.check(frame, slot, outer.bp);
    }

    #[cold]
    fn link_rare(&mut self, frame: Frame, outer: Frame) {
        let bp_slot = match frame.row().kind() {
            Kind::Signal => {
                let sp_slot = frame.sp.wrapping_add_signed(super::cfi::SIGNAL_SP);
                self.check(frame, sp_slot, outer.sp);
                self.mixed |= u64::from(outer.sp < frame.sp);
                frame.sp.wrapping_add_signed(super::cfi::SIGNAL_BP)
            }
            Kind::NoTable => frame.bp,
            _ => return,
        };
        if outer.needs_bp() {
            self.check(frame, bp_slot, outer.bp);
        }
    }

    /// Notes what the step that ended the stack read.
    fn link_root(&mut self, root: Frame, last: &Step) {
        if last.sp_slot != 0 {
            self.check(root, last.sp_slot, last.sp);
        }
        if last.pc_slot != 0 {
            self.check(root, last.pc_slot, last.pc & !EXACT_PC);
        }
    }

    fn check(&mut self, frame: Frame, slot: u64, value: u64) {
        if self.checks_len >= Self::CAPACITY {
            self.forget(); // more than fits: unwind anew next time
            return;
        }
        self.check_slots[self.checks_len & Self::MASK] = slot;
        self.check_values[self.checks_len & Self::MASK] = value;
        self.checks_len += 1;
        self.highest = self.highest.max(slot);
        self.mixed |= u64::from(slot < frame.sp);
    }
}

/// Index of the last slot that no longer holds its value. Eight at a time, from
/// the leaf's side: the first difference out there is where the stacks part.
#[inline(always)]
fn last_bad(slots: &[u64], values: &[u64]) -> Option<usize> {
    const BLOCK: usize = 8;
    let mut end = slots.len().min(values.len());
    while end >= BLOCK {
        let from = end - BLOCK;
        let block = slots.get(from..end).and_then(<[u64]>::first_chunk::<BLOCK>);
        let expected = values
            .get(from..end)
            .and_then(<[u64]>::first_chunk::<BLOCK>);
        let (Some(block), Some(expected)) = (block, expected) else {
            break;
        };
        if differ(block, expected) {
            break;
        }
        end = from;
    }
    let mut pairs = slots.iter().zip(values).take(end);
    // SAFETY: W1: first_bad has made sure of the whole range.
    pairs.rposition(|(&slot, &value)| unsafe { peek(slot) } != value)
}

#[inline(always)]
fn differ(slots: &[u64; 8], values: &[u64; 8]) -> bool {
    let mut any = 0;
    for (&slot, &value) in slots.iter().zip(values) {
        // SAFETY: W1, as in last_bad.
        any |= unsafe { peek(slot) } ^ value;
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
