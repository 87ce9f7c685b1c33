//! One FDE, run up to one address, becomes a row.
//!
//! gimli parses the tables; the machine here keeps only what a row can say (CFA,
//! rbp, return address), so its state is a few words instead of kilobytes: it may
//! run on a small coroutine or signal stack.
//!
//! # Failure
//! Whatever a row cannot express, and every parse error, is [`Kind::Bad`].

use gimli::{
    BaseAddresses, CallFrameInstruction, CommonInformationEntry, EhFrame, EndianSlice,
    FrameDescriptionEntry, NativeEndian, Operation, Register, UnwindExpression, X86_64,
};

use super::row::{BpRule, Kind, Row};

pub(crate) type Bytes<'a> = EndianSlice<'a, NativeEndian>;
pub(crate) type Fde<'a> = FrameDescriptionEntry<Bytes<'a>>;
type Cie<'a> = CommonInformationEntry<Bytes<'a>>;
type Instruction = CallFrameInstruction<usize>;

/// Where the kernel keeps registers above the handler's return address: the
/// ucontext's gregs. Fixed by the ABI.
pub(crate) const SIGNAL_BP: i64 = 120;
/// The interrupted stack pointer.
pub(crate) const SIGNAL_SP: i64 = 160;
/// The interrupted program counter.
pub(crate) const SIGNAL_PC: i64 = 168;

/// A value as an expression or rule gives it: register + offset, maybe loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Number(u64),
    Reg(Register, i64),
    Load(Register, i64),
}

/// Where a register's saved value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    Same,
    Undefined,
    AtCfa(i64),
    At(Register, i64),
    Unknown,
}

#[derive(Clone, Copy)]
struct State {
    cfa: Option<Place>,
    bp: Saved,
    ra: Saved,
}

const REMEMBERED_MAX: usize = 8;

struct Machine<'a> {
    section: &'a EhFrame<Bytes<'a>>,
    cie: &'a Cie<'a>,
    pc: u64,
    at: u64,
    state: State,
    initial: State,
    remembered: [State; REMEMBERED_MAX],
    depth: usize,
}

/// The row of `pc`, which lies in `fde`; `lookup` is the address whose rules hold
/// (one less for a return address).
pub(crate) fn row_of<'a>(
    section: &'a EhFrame<Bytes<'a>>,
    bases: &'a BaseAddresses,
    fde: &'a Fde<'a>,
    pc: u64,
    lookup: u64,
) -> Row {
    let cie = fde.cie();
    let start = State {
        cfa: None,
        bp: Saved::Same,
        ra: Saved::Unknown,
    };
    let mut machine = Machine {
        section,
        cie,
        pc,
        at: fde.initial_address(),
        state: start,
        initial: start,
        remembered: [start; REMEMBERED_MAX],
        depth: 0,
    };
    let common = machine.run(cie.instructions(section, bases), u64::MAX);
    machine.initial = machine.state;
    let own = common.and_then(|()| machine.run(fde.instructions(section, bases), lookup));
    match own {
        Some(()) if cie.return_address_register() == X86_64::RA => machine
            .row(cie.is_signal_trampoline())
            .unwrap_or(Row::of(Kind::Bad)),
        _ => Row::of(Kind::Bad),
    }
}

impl<'a> Machine<'a> {
    /// Runs instructions until they pass `until`; `None` on what it cannot follow.
    fn run(
        &mut self,
        mut instructions: gimli::CallFrameInstructionIter<'a, Bytes<'a>>,
        until: u64,
    ) -> Option<()> {
        while let Some(instruction) = instructions.next().ok()? {
            match instruction {
                CallFrameInstruction::SetLoc { address } => self.at = address,
                CallFrameInstruction::AdvanceLoc { delta } => {
                    let step = u64::from(delta).checked_mul(self.cie.code_alignment_factor())?;
                    self.at = self.at.checked_add(step)?;
                }
                other => {
                    self.rule(other)?;
                    continue;
                }
            }
            if self.at > until {
                break;
            }
        }
        Some(())
    }

    fn rule(&mut self, instruction: Instruction) -> Option<()> {
        use CallFrameInstruction as I;
        let factored = |offset: i64| offset.checked_mul(self.cie.data_alignment_factor());
        match instruction {
            I::DefCfa { register, offset } => self.cfa(register, offset.cast_signed()),
            I::DefCfaSf {
                register,
                factored_offset,
            } => self.cfa(register, factored(factored_offset)?),
            I::DefCfaRegister { register } => match self.state.cfa {
                Some(Place::Reg(_, offset)) => self.cfa(register, offset),
                _ => return None,
            },
            I::DefCfaOffset { offset } => self.cfa_offset(offset.cast_signed())?,
            I::DefCfaOffsetSf { factored_offset } => self.cfa_offset(factored(factored_offset)?)?,
            I::DefCfaExpression { expression } => self.state.cfa = self.evaluate(expression),
            I::Undefined { register } => self.save(register, Saved::Undefined),
            I::SameValue { register } => self.save(register, Saved::Same),
            I::Offset {
                register,
                factored_offset,
            } => self.save(
                register,
                Saved::AtCfa(factored(factored_offset.cast_signed())?),
            ),
            I::OffsetExtendedSf {
                register,
                factored_offset,
            } => self.save(register, Saved::AtCfa(factored(factored_offset)?)),
            I::Expression {
                register,
                expression,
            } => {
                let saved = match self.evaluate(expression) {
                    Some(Place::Reg(base, offset)) => Saved::At(base, offset),
                    _ => Saved::Unknown,
                };
                self.save(register, saved);
            }
            I::ValOffset { register, .. }
            | I::ValOffsetSf { register, .. }
            | I::ValExpression { register, .. } => self.save(register, Saved::Unknown),
            I::Register { dest_register, .. } => self.save(dest_register, Saved::Unknown),
            I::Restore { register } => self.restore(register),
            I::RememberState => {
                *self.remembered.get_mut(self.depth)? = self.state;
                self.depth += 1;
            }
            I::RestoreState => {
                self.depth = self.depth.checked_sub(1)?;
                self.state = *self.remembered.get(self.depth)?;
            }
            I::ArgsSize { .. } | I::Nop => {}
            _ => return None,
        }
        Some(())
    }

    const fn cfa(&mut self, register: Register, offset: i64) {
        self.state.cfa = Some(Place::Reg(register, offset));
    }

    fn cfa_offset(&mut self, offset: i64) -> Option<()> {
        let Some(Place::Reg(register, _)) = self.state.cfa else {
            return None;
        };
        self.cfa(register, offset);
        Some(())
    }

    fn save(&mut self, register: Register, saved: Saved) {
        match register {
            X86_64::RBP => self.state.bp = saved,
            X86_64::RA => self.state.ra = saved,
            _ => {}
        }
    }

    fn restore(&mut self, register: Register) {
        match register {
            X86_64::RBP => self.state.bp = self.initial.bp,
            X86_64::RA => self.state.ra = self.initial.ra,
            _ => {}
        }
    }

    /// What an expression leaves, over the few operations tables use: realigned
    /// frames, the kernel's signal frame, and the PLT's arithmetic on rip.
    fn evaluate(&self, expression: UnwindExpression<usize>) -> Option<Place> {
        let encoding = self.cie.encoding();
        let mut operations = expression.get(self.section).ok()?.operations(encoding);
        let mut stack = Small::default();
        while let Some(operation) = operations.next().ok()? {
            let value = match operation {
                Operation::RegisterOffset {
                    register: X86_64::RA,
                    offset,
                    ..
                } => Place::Number(self.pc.wrapping_add_signed(offset)),
                Operation::RegisterOffset {
                    register, offset, ..
                } => Place::Reg(register, offset),
                Operation::UnsignedConstant { value } => Place::Number(value),
                Operation::SignedConstant { value } => Place::Number(value.cast_unsigned()),
                Operation::PlusConstant { value } => add(stack.pop()?, Place::Number(value))?,
                Operation::Plus => add(stack.pop()?, stack.pop()?)?,
                Operation::Deref { size: 8, .. } => match stack.pop()? {
                    Place::Reg(register, offset) => Place::Load(register, offset),
                    _ => return None,
                },
                binary => {
                    let (right, left) = (stack.number()?, stack.number()?);
                    Place::Number(match binary {
                        Operation::And => left & right,
                        Operation::Shl => left.checked_shl(u32::try_from(right).ok()?)?,
                        Operation::Minus => left.wrapping_sub(right),
                        Operation::Ge => u64::from(left.cast_signed() >= right.cast_signed()),
                        _ => return None,
                    })
                }
            };
            stack.push(value)?;
        }
        stack.pop()
    }

    /// The state as a row; `None` when a row cannot say it.
    fn row(&self, signal: bool) -> Option<Row> {
        let State { cfa, bp, ra } = self.state;
        if signal {
            let (sp, pc) = (Place::Load(X86_64::RSP, SIGNAL_SP), SIGNAL_PC);
            let known = cfa == Some(sp)
                && ra == Saved::At(X86_64::RSP, pc)
                && bp == Saved::At(X86_64::RSP, SIGNAL_BP);
            return known.then_some(Row::of(Kind::Signal));
        }
        if ra == Saved::Undefined {
            return Some(Row::of(Kind::End));
        }
        if ra != Saved::AtCfa(-8) {
            return None;
        }
        let (kind, offset) = match cfa? {
            Place::Reg(X86_64::RSP, offset) => (Kind::Sp, offset),
            Place::Reg(X86_64::RBP, offset) => (Kind::Bp, offset),
            Place::Load(X86_64::RBP, offset) => (Kind::BpDeref, offset),
            _ => return None,
        };
        let (rule, bp_at) = match bp {
            Saved::Same => (BpRule::Same, 0),
            Saved::AtCfa(at) => (BpRule::AtCfa, at),
            Saved::At(X86_64::RBP, at) => (BpRule::AtBp, at),
            _ => (BpRule::Lost, 0),
        };
        Row::new(kind, offset, rule, bp_at)
    }
}

fn add(left: Place, right: Place) -> Option<Place> {
    Some(match (left, right) {
        (Place::Number(a), Place::Number(b)) => Place::Number(a.wrapping_add(b)),
        (Place::Reg(register, offset), Place::Number(n))
        | (Place::Number(n), Place::Reg(register, offset)) => {
            Place::Reg(register, offset.wrapping_add(n.cast_signed()))
        }
        _ => return None,
    })
}

/// The expression stack.
#[derive(Default)]
struct Small {
    values: [Option<Place>; 8],
    len: usize,
}

impl Small {
    fn push(&mut self, value: Place) -> Option<()> {
        *self.values.get_mut(self.len)? = Some(value);
        self.len += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<Place> {
        self.len = self.len.checked_sub(1)?;
        *self.values.get(self.len)?
    }

    fn number(&mut self) -> Option<u64> {
        match self.pop()? {
            Place::Number(value) => Some(value),
            _ => None,
        }
    }
}
