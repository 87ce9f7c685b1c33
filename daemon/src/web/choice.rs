//! The processes a page's filter lets choose from.

use super::view::View;
use super::words;
use crate::books::report::Process;

/// What the form of a page of processes shows, and the query its links keep.
pub(super) struct Chosen<'a> {
    /// The view as a query.
    pub(super) query: String,
    /// The processes to choose from.
    pub(super) choices: Vec<Choice<'a>>,
    /// A process that was asked for by name, or that is not known.
    pub(super) other: Option<&'a str>,
}

impl<'a> Chosen<'a> {
    /// Of all processes those the view asks for.
    pub(super) fn of(all: &'a [Process], view: &'a View) -> Self {
        let wanted = view.process.as_deref();
        Self {
            query: view.query(),
            choices: choices(all, wanted),
            other: other(all, wanted),
        }
    }
}

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
fn choices<'a>(all: &'a [Process], wanted: Option<&str>) -> Vec<Choice<'a>> {
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
