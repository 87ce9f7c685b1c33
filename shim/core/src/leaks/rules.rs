//! What following a pointer does to a block's state, in each pass of a check.

use super::index::{LIVE, POSSIBLE, REACHED};

/// What following a pointer means.
pub(super) trait Rule {
    /// States of blocks this rule has to do with, a bit each.
    const TAKES: u8;
    /// State of a block that was followed.
    const DONE: u8;
    /// A pointer to a block in one of those states, to its start or into it: the state it
    /// gets and whether it is to be read; `None` when nothing changes.
    fn meet(state: u8, at_start: bool) -> Option<(u8, bool)>;
}

/// From the roots, by start pointers; remembers what pointers into blocks lead to.
#[derive(Debug)]
pub(super) struct Reach;
impl Rule for Reach {
    const TAKES: u8 = 1 << LIVE | 1 << POSSIBLE;
    const DONE: u8 = REACHED;
    #[inline(always)]
    fn meet(state: u8, at_start: bool) -> Option<(u8, bool)> {
        match (state, at_start) {
            (_, true) => Some((REACHED, true)),
            (LIVE, false) => Some((POSSIBLE, false)),
            _ => None,
        }
    }
}

/// From what only pointers into blocks lead to, by any pointer.
#[derive(Debug)]
pub(super) struct Guess;
impl Rule for Guess {
    const TAKES: u8 = 1 << LIVE;
    const DONE: u8 = POSSIBLE;
    #[inline(always)]
    fn meet(_: u8, _: bool) -> Option<(u8, bool)> {
        Some((POSSIBLE, true))
    }
}

/// Among the lost: who is pointed to by another.
#[derive(Debug)]
pub(super) struct Point;
impl Rule for Point {
    const TAKES: u8 = 1 << LIVE;
    const DONE: u8 = POSSIBLE;
    #[inline(always)]
    fn meet(_: u8, _: bool) -> Option<(u8, bool)> {
        Some((POSSIBLE, false))
    }
}

/// Among the lost that are pointed to: what a candidate leads to, but for other candidates.
#[derive(Debug)]
pub(super) struct Collect;
impl Rule for Collect {
    const TAKES: u8 = 1 << POSSIBLE;
    const DONE: u8 = REACHED;
    #[inline(always)]
    fn meet(_: u8, _: bool) -> Option<(u8, bool)> {
        Some((REACHED, true))
    }
}

/// Among the lost: all that a leader leads to.
#[derive(Debug)]
pub(super) struct Follow;
impl Rule for Follow {
    const TAKES: u8 = 1 << LIVE | 1 << POSSIBLE;
    const DONE: u8 = REACHED;
    #[inline(always)]
    fn meet(_: u8, _: bool) -> Option<(u8, bool)> {
        Some((REACHED, true))
    }
}
