//! What no root leads to: which of it nothing points to, and what hangs on that.
//!
//! # Design
//! ```text
//! sweep     read each lost block: whom another lost block points to is "pointed to"
//! leaders   those left are definite; what each leads to is indirect, and held by it
//! cycles    what is left points to itself in a ring, or hangs on one:
//!             candidates, by address: each not yet led to leads to what it can
//!             last to first: each that no later one leads to is definite
//! ```
//! The last candidate of such a walk is led to by nobody outside its own ring, and by
//! induction each one that remains is, so that every ring has one definite block: its first by
//! address. That is what Memcheck reports, without its table of cliques.

use super::index::{Hit, Index, LIVE, Live, NONE, POSSIBLE, REACHED};
use super::rules::{Collect, Follow, Point};
use super::trace::{Late, Tracer};

/// Every address.
pub(super) const ALL: (usize, usize) = (0, usize::MAX);

/// What becomes of the lost blocks.
pub(super) trait Verdict {
    /// Nothing points to it.
    fn definite(&mut self, block: &Live);
    /// A lost block leads to it; first of all `leader` does.
    fn indirect(&mut self, block: &Live, leader: &Live);
}

/// Judges all blocks in state [`LIVE`]; all other blocks are in state [`NONE`].
pub(super) fn judge(tracer: &mut Tracer<'_>, verdict: &mut impl Verdict) -> Result<(), Late> {
    point(tracer)?;
    lead(tracer, false, verdict)?;
    recode(tracer.index, REACHED, NONE);
    if !any(tracer.index, POSSIBLE) {
        return Ok(());
    }
    nominate(tracer)?;
    recode(tracer.index, REACHED, POSSIBLE);
    lead(tracer, true, verdict)?;
    recode(tracer.index, REACHED, NONE);
    Ok(())
}

fn recode(index: &Index<'_>, from: u8, to: u8) {
    index.sweep(1 << from, ALL, false, |_, _| Some(to));
}

fn any(index: &Index<'_>, state: u8) -> bool {
    index.sweep(1 << state, ALL, false, |_, _| None).is_none()
}

/// Finds whom another lost block points to.
fn point(tracer: &mut Tracer<'_>) -> Result<(), Late> {
    let index = tracer.index;
    let mut late = Ok(());
    index.sweep(1 << LIVE | 1 << POSSIBLE, ALL, false, |hit, state| {
        tracer.read_block::<Point>(index.address(hit), index.words(hit), &mut |_| ());
        // The pieces of a long block.
        late = tracer.drain::<Point>(&mut |_| ());
        late.is_ok().then_some(state)
    });
    late
}

/// Each block in state [`LIVE`] is definite, unless one before it led to it.
fn lead(tracer: &mut Tracer<'_>, back: bool, verdict: &mut impl Verdict) -> Result<(), Late> {
    let index = tracer.index;
    let mut late = Ok(());
    index.sweep(1 << LIVE, ALL, back, |hit, _| {
        let leader = index.live(hit);
        verdict.definite(&leader);
        index.set_state(hit, REACHED);
        tracer.push(leader.address);
        let mut met = |hit: &Hit<'_>| verdict.indirect(&index.live(hit), &leader);
        late = tracer.settle::<Follow>(&mut met);
        late.is_ok().then_some(REACHED)
    });
    late
}

/// Blocks of rings, and what hangs on them: makes those [`LIVE`] that may lead.
fn nominate(tracer: &mut Tracer<'_>) -> Result<(), Late> {
    let index = tracer.index;
    let mut late = Ok(());
    index.sweep(1 << POSSIBLE, ALL, false, |hit, _| {
        index.set_state(hit, REACHED);
        tracer.push(index.address(hit));
        late = tracer.settle::<Collect>(&mut |_| ());
        late.is_ok().then_some(LIVE)
    });
    late
}
