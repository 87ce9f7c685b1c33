//! A row: how to get from one program counter to its caller, in one word.
//!
//! # Design
//! ```text
//! bits 0-3   kind              bits 8-15   where rbp lies, in words (signed)
//! bits 4-5   rule of rbp       bits 16-31  free in the table; the memo keeps marks here
//! bits 6-7   free              bits 32-63  offset of the CFA (signed)
//! ```
//! The return address is always the word below the CFA; tables that put it
//! elsewhere become [`Kind::Bad`]. Zero is no row.

/// How the CFA (the caller's stack pointer) is found, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// `rsp + offset`.
    Sp = 1,
    /// `rbp + offset`.
    Bp = 2,
    /// `*(rbp + offset)`: gcc's realigned frames.
    BpDeref = 3,
    /// The kernel's signal frame: everything is in the ucontext at `rsp`.
    Signal = 4,
    /// Outermost: the return address is undefined.
    End = 5,
    /// A table exists but its rule is not one of these.
    Bad = 6,
    /// No table covers the code: try frame pointers.
    NoTable = 7,
}

/// Where the caller's rbp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BpRule {
    /// Still in the register.
    Same = 0,
    /// At `CFA + 8n`.
    AtCfa = 1,
    /// At `rbp + 8n`.
    AtBp = 2,
    /// Lost: frames further out that need it cannot be unwound.
    Lost = 3,
}

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Row(pub(crate) u64);

impl Row {
    /// No table, and frame pointers would mislead.
    pub(crate) const NO_GUESS: Self = Self(Kind::NoTable as u64 | (BpRule::Lost as u64) << 4);

    /// A row without rule for rbp.
    pub(crate) const fn of(kind: Kind) -> Self {
        Self(kind as u64)
    }

    /// A row in full; `None` when a number does not fit.
    pub(crate) fn new(kind: Kind, offset: i64, rule: BpRule, bp_at: i64) -> Option<Self> {
        let offset = i32::try_from(offset).ok()?;
        let (rule, words) = match i8::try_from(bp_at / 8) {
            Ok(words) if bp_at % 8 == 0 => (rule, words),
            _ => (BpRule::Lost, 0),
        };
        let low = kind as u64 | (rule as u64) << 4 | u64::from(words.cast_unsigned()) << 8;
        Some(Self(low | u64::from(offset.cast_unsigned()) << 32))
    }

    #[inline(always)]
    pub(crate) const fn kind(self) -> Kind {
        match self.0 & 15 {
            1 => Kind::Sp,
            2 => Kind::Bp,
            3 => Kind::BpDeref,
            4 => Kind::Signal,
            5 => Kind::End,
            7 => Kind::NoTable,
            _ => Kind::Bad,
        }
    }

    #[inline(always)]
    pub(crate) const fn rule(self) -> BpRule {
        match self.0 >> 4 & 3 {
            0 => BpRule::Same,
            1 => BpRule::AtCfa,
            2 => BpRule::AtBp,
            _ => BpRule::Lost,
        }
    }

    /// Offset of the CFA, ready to add.
    #[inline(always)]
    pub(crate) const fn offset(self) -> u64 {
        (self.0.cast_signed() >> 32).cast_unsigned()
    }

    /// Offset of the saved rbp in bytes, ready to add.
    #[inline(always)]
    pub(crate) const fn bp_at(self) -> u64 {
        (((self.0 << 48).cast_signed() >> 56) * 8).cast_unsigned()
    }

    /// True for the rows of nearly all code: CFA by rsp or rbp, rbp untouched or
    /// saved beside the CFA.
    #[inline(always)]
    pub(crate) const fn is_usual(self) -> bool {
        const LOW: u64 = 15 | 2 << 4; // kind, and the rules AtBp and Lost
        (self.0 & LOW).wrapping_sub(Kind::Sp as u64) <= (Kind::Bp as u64 - Kind::Sp as u64)
    }

    /// True when rbp goes through the step untouched.
    #[inline(always)]
    pub(crate) const fn passes_bp(self) -> bool {
        let same = matches!(self.rule(), BpRule::Same);
        same && !matches!(self.kind(), Kind::Signal | Kind::NoTable)
    }

    /// True when the step out of this frame looks at rbp (other than to pass it on).
    #[inline(always)]
    pub(crate) const fn uses_bp(self) -> bool {
        if self.is_usual() {
            return matches!(self.kind(), Kind::Bp);
        }
        let kind = matches!(self.kind(), Kind::Bp | Kind::BpDeref | Kind::NoTable);
        kind || matches!(self.rule(), BpRule::AtBp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: what is packed is read back. Method: both signs of both offsets.
    #[test]
    fn rows_keep_their_parts() {
        for (offset, bp_at) in [(8, -16), (-8, 0), (0x7fff_fff8, 1016), (160, -1024)] {
            let row = Row::new(Kind::BpDeref, offset, BpRule::AtCfa, bp_at).expect("fits");
            assert_eq!(row.offset().cast_signed(), offset);
            assert_eq!(row.bp_at().cast_signed(), bp_at);
            assert_eq!((row.kind(), row.rule()), (Kind::BpDeref, BpRule::AtCfa));
        }
        assert_eq!(Row::new(Kind::Sp, 1 << 40, BpRule::Same, 0), None);
        let far = Row::new(Kind::Sp, 8, BpRule::AtCfa, 1024).expect("fits");
        assert_eq!(far.rule(), BpRule::Lost, "too far to note");
    }
}
