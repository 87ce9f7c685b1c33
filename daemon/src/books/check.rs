//! What a reachability check found (placeholder).

use pageshim_wire::check::REASON_NAMES;

/// A reason in words.
pub fn reason(word: u64) -> &'static str {
    usize::try_from(word)
        .ok()
        .and_then(|index| REASON_NAMES.get(index))
        .unwrap_or(&"unknown")
}
