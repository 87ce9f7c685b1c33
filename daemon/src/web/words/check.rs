//! What checks found, and what changed between two.

use super::safe::clean;
use crate::books::history::Change;
use crate::books::report::{Amount, Process};
use crate::web::units;

/// Bytes and blocks of one class of the last check; `None` when no check ran.
pub(crate) fn class(process: &Process, class: &str) -> Option<(u64, u64)> {
    let check = process
        .check
        .as_ref()
        .filter(|check| check.trouble.is_none())?;
    let amount = check.classes.named(class)?;
    Some((amount.bytes, amount.blocks))
}

/// What of a class counts as a finding: all that is not suppressed.
pub(crate) fn found(process: &Process, class: &str) -> Option<Amount> {
    let (bytes, blocks) = self::class(process, class)?;
    let suppressed = process.check.as_ref()?.suppressed.named(class)?;
    Some(Amount {
        bytes: bytes.saturating_sub(suppressed.bytes),
        blocks: blocks.saturating_sub(suppressed.blocks),
    })
}

/// `+3 blocks of node_new (definite, +96 B)`: what changed from one check to the next.
pub(crate) fn change(change: &Change) -> String {
    let sign = |negative: bool| if negative { '-' } else { '+' };
    format!(
        "{}{} of {} ({}, {}{})",
        sign(change.blocks < 0),
        units::counted(change.blocks.unsigned_abs(), "block"),
        clean(&change.function),
        clean(&change.class),
        sign(change.bytes < 0),
        units::bytes(change.bytes.unsigned_abs()),
    )
}
