//! The page account in words.

use crate::books::report::{Pages, Process, State};
use crate::web::units;

/// The parts of the page account in the order they are drawn: key, label, what it is, bytes.
pub(crate) fn page_parts(pages: &Pages) -> [(&'static str, &'static str, &'static str, u64); 6] {
    [
        (
            "requested",
            "Requested",
            "live bytes as the program asked for them",
            pages.requested_bytes,
        ),
        (
            "rounding",
            "Rounding",
            "slot bytes beyond the request, in live blocks",
            pages.rounding_bytes,
        ),
        (
            "free",
            "Free slots",
            "carved, empty: slots without a live block, used before or never",
            pages.free_slot_bytes,
        ),
        (
            "tail",
            "Tails",
            "ends of page runs and parts never carved: in RAM only where touched",
            pages.tail_bytes,
        ),
        (
            "retained",
            "Retained",
            "whole slices kept for reuse; given back to the kernel after a second",
            pages.retained_bytes,
        ),
        (
            "metadata",
            "Metadata",
            "pageshim's own books",
            pages.metadata_bytes,
        ),
    ]
}

/// Parts of the account that cost no memory until they are touched again.
pub(crate) const SPARE: [&str; 2] = ["tail", "retained"];

/// Committed bytes that hold no requested byte.
pub(crate) fn waste_bytes(pages: &Pages) -> u64 {
    pages.committed_bytes.saturating_sub(pages.requested_bytes)
}

/// What of the heap was in RAM, as sampled: between two samples it may have been more.
pub(crate) fn resident(process: &Process) -> String {
    let pages = &process.pages;
    let most = format!(
        "{} at the highest sample",
        units::bytes(pages.resident_peak_bytes)
    );
    match (process.state, pages.resident_peak_bytes) {
        (State::Running, 0) => "not known: the kernel does not tell".to_owned(),
        (State::Running, _) => format!("{} now, {most}", units::bytes(pages.resident_bytes)),
        (_, 0) => "not known: it ended before it could be looked at".to_owned(),
        _ => format!(
            "{most}, {} at the last",
            units::bytes(pages.resident_last_bytes)
        ),
    }
}
