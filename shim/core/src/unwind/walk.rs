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
use super::row::{BpRule, Kind};
use super::rows::{Missed, Rows};
use super::step::{Regs, Step, step};

/// What the walk found: `new` frames at the arrays' upper end, behind `kept` old ones.
struct Walk {
    kept: usize,
    new: usize,
    end: End,
    last: Step,
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
        let mut walk = self.walk(rows, regs, bounds, old);
        let depth = walk.kept + walk.new;
        let cut = self.end() == End::DepthLimit;
        if walk.kept > 0 && (depth > limit || cut && depth != limit) {
            walk = self.walk(rows, regs, bounds, 0); // another root: all anew
        }
        if walk.new > 0 || walk.kept != old {
            self.keep_shared(walk.kept);
            self.finish(&walk, bounds);
        }
        self.len = walk.kept + walk.new;
        self.captured(walk.new)
    }

    fn walk(&mut self, rows: &Rows, regs: Regs, bounds: &mut Bounds, old: usize) -> Walk {
        let (mut state, mut slot) = (regs, regs.sp.wrapping_sub(8));
        let (mut top, mut barrier, mut new) = (old, old, 0);
        let mut last = Step::default();
        let entered = bounds.enter(regs.sp);
        let end = loop {
            top = top.min(Self::CAPACITY - new);
            while top > 0 && self.frames[(top - 1) & Self::MASK].sp < state.sp {
                top -= 1;
            }
            let at = top.wrapping_sub(1);
            let known = top > 0 && entered && self.is_at(at, state);
            if known && at < barrier && self.same_bp(at, state) {
                match self.first_bad(at, state.sp, bounds) {
                    None => {
                        self.slots[at & Self::MASK] = slot;
                        return Walk {
                            kept: top,
                            new,
                            end: self.end(),
                            last,
                        };
                    }
                    Some(bad) => barrier = bad,
                }
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
            let place = (Self::CAPACITY - new) & Self::MASK;
            self.slots[place] = slot;
            self.values[place] = state.pc & !EXACT_PC;
            self.frames[place] = Frame::new(state.sp, state.bp, state.pc, row);
            if !entered {
                break End::OutOfBounds;
            }
            if let Err(end) = step(bounds, row, state, &mut last) {
                break end;
            }
            slot = last.pc_slot;
            state = Regs {
                pc: last.pc,
                sp: last.sp,
                bp: last.bp,
            };
        };
        Walk {
            kept: 0,
            new,
            end,
            last,
        }
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
    fn finish(&mut self, walk: &Walk, bounds: &Bounds) {
        let kept = walk.kept;
        let mut outer = self.frames[kept.wrapping_sub(1) & Self::MASK];
        if kept == 0 {
            self.set_end(walk.end);
            (self.highest, self.mixed, self.checks_len) = (0, 0, 0);
            outer = Frame::new(u64::MAX, 0, 0, super::row::Row::of(Kind::End));
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
                self.link_root(frame, &walk.last);
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
        if bounds.holds(slot) {
            self.check(frame, slot, outer.bp);
        } else {
            self.mixed = 1;
            self.check(frame, slot, outer.bp);
        }
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

/// Index of the last slot that no longer holds its value.
#[inline(always)]
fn last_bad(slots: &[u64], values: &[u64]) -> Option<usize> {
    const BLOCK: usize = 8;
    let (head, blocks) = slots.as_rchunks::<BLOCK>();
    let (_, expected) = values.as_rchunks::<BLOCK>();
    for (index, (slots, values)) in blocks.iter().zip(expected).enumerate().rev() {
        // SAFETY: W1: first_bad has made sure of the whole range.
        let differs = |i: usize| unsafe { peek(slots[i]) } ^ values[i];
        let any = (0..BLOCK).fold(0, |any, i| any | differs(i));
        if any != 0 {
            let within = (0..BLOCK).rposition(|i| differs(i) != 0)?;
            return Some(head.len() + index * BLOCK + within);
        }
    }
    let mut pairs = head.iter().zip(values);
    // SAFETY: W1, as above.
    pairs.rposition(|(&slot, &value)| unsafe { peek(slot) } != value)
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
