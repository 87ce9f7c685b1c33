//! One step outwards, and the plain unwind that repeats it.
//!
//! # Design
//! [`step`] takes a frame's state and row and answers the caller's state plus
//! every stack slot it read, so that the memo can check later that the same step
//! would come out the same.
//!
//! # Invariants
//! S1: but for signal frames, each state's stack pointer is above the one before.

use pageshim_wire::stack::{EXACT_PC, End};

use super::bounds::Bounds;
use super::cfi::{SIGNAL_BP, SIGNAL_PC, SIGNAL_SP};
use super::row::{BpRule, Kind, Row};
use super::rows::Rows;

/// Registers of the caller of an allocation function: `pc` is the return address
/// at the stub's `[rsp]`, `sp` its `rsp + 8`, `bp` its `rbp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Regs {
    /// Program counter; [`EXACT_PC`] when not a return address.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register, whatever it is used for.
    pub bp: u64,
}

/// Lowest number that may be a program counter.
const CODE_MIN: u64 = 4096;
/// End of user addresses.
const CODE_END: u64 = 1 << 47;

/// What a step found. Slots are 0 when there was nothing to read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    /// The caller's program counter and where it was read.
    pub(crate) pc: u64,
    pub(crate) pc_slot: u64,
    /// The caller's stack pointer, and where it was read if it was.
    pub(crate) sp: u64,
    pub(crate) sp_slot: u64,
    /// The caller's rbp, and where it was read if it was.
    pub(crate) bp: u64,
    pub(crate) bp_slot: u64,
}

/// What a step needs of a frame. Handed over as words, not by reference: a walk's
/// state must stay in registers.
#[derive(Clone, Copy)]
struct From {
    sp: u64,
    bp: u64,
}

/// Goes from a frame to its caller. On `Err` the slots read so far are still set.
#[inline(always)]
pub(crate) fn step(bounds: &mut Bounds, row: Row, sp: u64, bp: u64) -> (Step, Result<(), End>) {
    let from = From { sp, bp };
    match row.kind() {
        Kind::Sp => finish(bounds, row, from, from.sp.wrapping_add(row.offset()), 0),
        Kind::Bp if from.bp != 0 => {
            finish(bounds, row, from, from.bp.wrapping_add(row.offset()), 0)
        }
        _ => {
            // By a pointer of its own: the usual step must stay in registers.
            let mut out = Step::default();
            let end = step_rare(bounds, row, sp, bp, &mut out);
            (out, end)
        }
    }
}

/// The step of nearly all frames, in few instructions: CFA by rsp or rbp, rbp
/// untouched or saved beside the CFA, all of it on the known part of the stack and
/// above `sp`. `None`, nothing done, when [`step_any`] has to look.
#[inline(always)]
pub(crate) fn step_usual(bounds: &Bounds, row: Row, from: Regs) -> Option<Regs> {
    if !row.is_usual() {
        return None;
    }
    let by_sp = matches!(row.kind(), Kind::Sp);
    let sp = if by_sp { from.sp } else { from.bp }.wrapping_add(row.offset());
    let pc = bounds.read_above(from.sp, sp.wrapping_sub(8))?;
    let mut bp = from.bp;
    if row.rule() != BpRule::Same {
        bp = bounds.read_above(from.sp, sp.wrapping_add(row.bp_at()))?;
    }
    let code = pc.wrapping_sub(CODE_MIN) < CODE_END - CODE_MIN;
    code.then_some(Regs { pc, sp, bp })
}

/// Any step; `last` gets what it read.
#[cold]
#[inline(never)]
pub(crate) fn step_any(
    bounds: &mut Bounds,
    row: Row,
    from: Regs,
    last: &mut Step,
) -> Result<Regs, End> {
    let (next, end) = step(bounds, row, from.sp, from.bp);
    *last = next;
    end.map(|()| Regs {
        pc: next.pc,
        sp: next.sp,
        bp: next.bp,
    })
}

/// Reads what lies below a known CFA, the caller's stack pointer.
#[inline(always)]
fn finish(
    bounds: &mut Bounds,
    row: Row,
    from: From,
    sp: u64,
    sp_slot: u64,
) -> (Step, Result<(), End>) {
    let mut out = Step {
        sp,
        sp_slot,
        bp: from.bp,
        ..Step::default()
    };
    let slot = sp.wrapping_sub(8);
    let pc = match bounds.read_above(from.sp, slot) {
        Some(pc) => pc,
        None => match read_far(bounds, from.sp, sp) {
            Ok(pc) => pc,
            Err(end) => return (out, Err(end)),
        },
    };
    (out.pc, out.pc_slot) = (pc, slot);
    if row.rule() != BpRule::Same {
        // An rbp that cannot be read matters only to a frame that needs it.
        let slot = match row.rule() {
            BpRule::AtCfa => sp.wrapping_add(row.bp_at()),
            _ => bp_slot_rare(row, from.bp),
        };
        let word = bounds.read(slot);
        out.bp_slot = if word.is_some() { slot } else { 0 };
        out.bp = word.unwrap_or(0);
    }
    (out, plausible(pc))
}

/// A return address that is not on the known part of the stack above `from`.
#[cold]
#[inline(never)]
fn read_far(bounds: &mut Bounds, from: u64, sp: u64) -> Result<u64, End> {
    let slot = sp.wrapping_sub(8);
    if slot < from || sp < 8 {
        return Err(End::NoProgress); // S1
    }
    bounds.read(slot).ok_or(End::OutOfBounds)
}

/// Where rbp is when not beside the CFA; an unreadable place when it is lost.
#[cold]
#[inline(never)]
const fn bp_slot_rare(row: Row, bp: u64) -> u64 {
    match row.rule() {
        BpRule::AtBp => bp.wrapping_add(row.bp_at()),
        _ => 1,
    }
}

#[cold]
#[inline(never)]
fn step_rare(bounds: &mut Bounds, row: Row, sp: u64, bp: u64, out: &mut Step) -> Result<(), End> {
    let from = From { sp, bp };
    out.bp = from.bp;
    match row.kind() {
        Kind::BpDeref => {
            let slot = from.bp.wrapping_add(row.offset());
            let sp = bounds.read(slot).ok_or(End::OutOfBounds)?;
            let (step, end) = finish(bounds, row, from, sp, slot);
            *out = step;
            end
        }
        Kind::Signal => step_signal(bounds, from, out),
        Kind::End => Err(End::Complete),
        Kind::NoTable if row == Row::NO_GUESS => Err(End::NoTable),
        Kind::NoTable => step_frame_pointer(bounds, from, out),
        _ => Err(End::BadRule),
    }
}

fn step_signal(bounds: &mut Bounds, from: From, out: &mut Step) -> Result<(), End> {
    let mut load = |at: i64| {
        let slot = from.sp.wrapping_add_signed(at);
        let word = bounds.read(slot).ok_or(End::OutOfBounds)?;
        Ok((slot, word))
    };
    (out.sp_slot, out.sp) = load(SIGNAL_SP)?;
    (out.bp_slot, out.bp) = load(SIGNAL_BP)?;
    let (slot, pc) = load(SIGNAL_PC)?;
    (out.pc_slot, out.pc) = (slot, pc | EXACT_PC);
    if !(CODE_MIN..CODE_END).contains(&pc) {
        return Err(End::NoTable);
    }
    // The interrupted code may stand on another stack.
    if bounds.enter(out.sp) {
        Ok(())
    } else {
        Err(End::OutOfBounds)
    }
}

/// Code without tables: believe rbp if it can be a frame's.
fn step_frame_pointer(bounds: &mut Bounds, from: From, out: &mut Step) -> Result<(), End> {
    // Also 0, the ABI's mark of the outermost frame: in code that keeps no frame pointers
    // it is what `_start` left there, however deep the stack is.
    if from.bp < from.sp {
        return Err(End::NoTable);
    }
    out.sp = from.bp.wrapping_add(16);
    out.bp = bounds.read(from.bp).ok_or(End::NoTable)?;
    out.bp_slot = from.bp;
    out.pc = bounds.read(from.bp + 8).ok_or(End::NoTable)?;
    out.pc_slot = from.bp + 8;
    let code = (CODE_MIN..CODE_END).contains(&out.pc) && !bounds.holds(out.pc);
    if code { Ok(()) } else { Err(End::NoTable) }
}

/// A return address of 0 is a made-up outermost frame; other impossible ones are not followed.
#[inline(always)]
const fn plausible(pc: u64) -> Result<(), End> {
    if pc.wrapping_sub(CODE_MIN) < CODE_END - CODE_MIN {
        return Ok(());
    }
    Err(if pc == 0 { End::Complete } else { End::NoTable })
}

/// Unwinds the whole stack without a memo: return addresses, leaf first, into
/// `out`; answers how many and why it ended. For checks of the memo.
pub fn full(rows: &Rows, regs: Regs, bounds: &mut Bounds, out: &mut [u64]) -> (usize, End) {
    let generation = rows.generation();
    let mut state = regs;
    let mut depth = 0;
    let entered = bounds.enter(regs.sp);
    while let Some(place) = out.get_mut(depth) {
        *place = state.pc;
        depth += 1;
        if !entered {
            return (depth, End::OutOfBounds);
        }
        let row = rows.row(state.pc, generation, None);
        let (next, end) = step(bounds, row, state.sp, state.bp);
        if let Err(end) = end {
            return (depth, end);
        }
        state = Regs {
            pc: next.pc,
            sp: next.sp,
            bp: next.bp,
        };
    }
    (depth, End::DepthLimit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: u64 = 0x40_1000;

    /// A stack as an array: its address, bounds over it, and the words set.
    fn stack(words: &mut [u64; 64], set: &[(usize, u64)]) -> (u64, Bounds) {
        for &(index, word) in set {
            words[index] = word;
        }
        let at = words.as_ptr().expose_provenance() as u64;
        let mut bounds = Bounds::new(at, at + 512);
        assert!(bounds.enter(at));
        (at, bounds)
    }

    fn row(kind: Kind, offset: i64, rule: BpRule, at: i64) -> Row {
        Row::new(kind, offset, rule, at).expect("fits")
    }

    // Goal: rsp + k with rbp saved beside the return address. Method: literal frame.
    #[test]
    fn a_frame_by_rsp() {
        let mut words = [0; 64];
        let (at, mut bounds) = stack(&mut words, &[(2, 0x77), (3, PC)]);
        let (next, end) = step(&mut bounds, row(Kind::Sp, 32, BpRule::AtCfa, -16), at, 5);
        assert_eq!(end, Ok(()));
        assert_eq!((next.pc, next.sp, next.bp), (PC, at + 32, 0x77));
        assert_eq!((next.pc_slot, next.bp_slot), (at + 24, at + 16));
        let (next, _) = step(&mut bounds, row(Kind::Sp, 32, BpRule::Lost, 0), at, 5);
        assert_eq!((next.pc, next.bp, next.bp_slot), (PC, 0, 0));
    }

    // Goal: rbp + k and *(rbp + k). Method: a frame pointer chain; gcc's DRAP frame.
    #[test]
    fn frames_by_rbp() {
        let mut words = [0; 64];
        let (at, mut bounds) = stack(&mut words, &[(4, 0x99), (5, PC)]);
        let by_bp = row(Kind::Bp, 16, BpRule::AtCfa, -16);
        let (next, end) = step(&mut bounds, by_bp, at, at + 32);
        assert_eq!(
            (end, next.pc, next.sp, next.bp),
            (Ok(()), PC, at + 48, 0x99)
        );
        assert_eq!(step(&mut bounds, by_bp, at, 0).1, Err(End::BadRule));
        assert_eq!(
            step(&mut bounds, by_bp, at, at + 504).1,
            Err(End::OutOfBounds)
        );
        let set = [(7, at + 160), (8, 0x55), (19, PC)];
        let (at, mut bounds) = stack(&mut words, &set);
        let realigned = row(Kind::BpDeref, -8, BpRule::AtBp, 0);
        let (next, end) = step(&mut bounds, realigned, at, at + 64);
        assert_eq!(
            (end, next.pc, next.sp, next.bp),
            (Ok(()), PC, at + 160, 0x55)
        );
        assert_eq!((next.sp_slot, next.bp_slot), (at + 56, at + 64));
    }

    // Goal: a signal frame gives the interrupted registers, exactly. Method: a ucontext.
    #[test]
    fn a_signal_frame() {
        let mut words = [0; 64];
        let (at, _) = stack(&mut words, &[]);
        let set = [(15, 0x11), (20, at + 400), (21, PC)];
        let (at, mut bounds) = stack(&mut words, &set);
        let (next, end) = step(&mut bounds, Row::of(Kind::Signal), at, 0);
        assert_eq!(end, Ok(()));
        assert_eq!((next.pc, next.sp, next.bp), (PC | EXACT_PC, at + 400, 0x11));
    }

    // Goal: ends say why. Method: one of each.
    #[test]
    fn ends_say_why() {
        let mut words = [0; 64];
        let (at, mut bounds) = stack(&mut words, &[(0, 0), (1, 12), (2, PC)]);
        let mut end = |row: Row, bp| step(&mut bounds, row, at, bp).1;
        let by_sp = |offset| row(Kind::Sp, offset, BpRule::Same, 0);
        assert_eq!(end(Row::of(Kind::End), 0), Err(End::Complete));
        assert_eq!(end(by_sp(8), 0), Err(End::Complete), "return address 0");
        assert_eq!(end(by_sp(16), 0), Err(End::NoTable), "return address 12");
        assert_eq!(end(by_sp(-8), 0), Err(End::NoProgress));
        assert_eq!(end(by_sp(0), 0), Err(End::NoProgress));
        assert_eq!(end(by_sp(520), 0), Err(End::OutOfBounds));
        assert_eq!(end(by_sp(12), 0), Err(End::OutOfBounds), "not aligned");
        assert_eq!(end(Row::of(Kind::Bad), 0), Err(End::BadRule));
        assert_eq!(end(Row::of(Kind::NoTable), 0), Err(End::NoTable));
        assert_eq!(end(Row::of(Kind::NoTable), at + 8), Ok(()));
        assert_eq!(end(Row::of(Kind::NoTable), at), Err(End::NoTable), "pc 12");
        assert_eq!(end(Row::NO_GUESS, at + 8), Err(End::NoTable));
    }
}
