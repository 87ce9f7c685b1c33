//! The processes a page's filter lets choose from.

use super::words;
use crate::books::report::Process;

/// One of them.
pub(super) struct Choice<'a> {
    pub(super) process: &'a Process,
    pub(super) state: String,
    pub(super) selected: bool,
}

/// Whether a filter of `name` means this process.
pub(super) fn is(process: &Process, name: &str) -> bool {
    process.id == name || process.pid.to_string() == name
}

/// All of them, the one that is `wanted` selected.
pub(super) fn choices<'a>(all: &'a [Process], wanted: Option<&str>) -> Vec<Choice<'a>> {
    all.iter()
        .map(|process| Choice {
            process,
            state: words::state(process),
            selected: wanted.is_some_and(|name| is(process, name)),
        })
        .collect()
}

/// What is wanted when it is none of them: a name, or a process forgotten since.
pub(super) fn other<'a>(all: &[Process], wanted: Option<&'a str>) -> Option<&'a str> {
    wanted.filter(|name| !all.iter().any(|process| is(process, name)))
}
