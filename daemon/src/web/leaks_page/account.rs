//! The page account of a report: whose it is, its parts, their shares.

use crate::books::report::{Pages, Process, State};
use crate::web::bar::{self, Part};
use crate::web::overview_page::{Figure, figure};
use crate::web::{units, words};

/// Whose page account is shown. Running processes and ended ones are never
/// added up: what ended holds nothing.
pub(super) struct About<'a> {
    pub(super) pages: Vec<&'a Pages>,
    pub(super) whose: String,
    pub(super) resident: String,
}

impl<'a> About<'a> {
    /// Of the running ones where some run, else of the ended ones.
    pub(super) fn of(processes: &'a [Process]) -> Self {
        let runs = |process: &&Process| process.state == State::Running;
        let running: Vec<&Process> = processes.iter().filter(runs).collect();
        match (processes, running.len()) {
            ([one], 0) => Self {
                pages: vec![one.pages_at_peak.as_ref().unwrap_or(&one.pages)],
                whose: match one.pages_at_peak {
                    Some(_) => "at the fullest sample".to_owned(),
                    None => "at its end".to_owned(),
                },
                resident: words::resident(one),
            },
            ([one], _) => Self {
                pages: vec![&one.pages],
                whose: "now".to_owned(),
                resident: words::resident(one),
            },
            (_, 0) => Self {
                pages: processes.iter().map(|process| &process.pages).collect(),
                whose: format!("of {} that ended, each at its end", processes.len()),
                resident: String::new(),
            },
            (_, count) => Self {
                pages: running.iter().map(|process| &process.pages).collect(),
                whose: format!("of {count} running, now"),
                resident: units::bytes(running.iter().map(|p| p.pages.resident_bytes).sum()),
            },
        }
    }
}

/// A row of the page account: its part of the bar and its share.
pub(super) struct Row {
    pub(super) part: Part,
    pub(super) bytes: Figure,
    pub(super) share: String,
}

/// All of them added up.
pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Pages>) -> Pages {
    all.fold(Pages::default(), |a, b| Pages {
        requested_bytes: a.requested_bytes + b.requested_bytes,
        rounding_bytes: a.rounding_bytes + b.rounding_bytes,
        free_slot_bytes: a.free_slot_bytes + b.free_slot_bytes,
        tail_bytes: a.tail_bytes + b.tail_bytes,
        retained_bytes: a.retained_bytes + b.retained_bytes,
        metadata_bytes: a.metadata_bytes + b.metadata_bytes,
        committed_bytes: a.committed_bytes + b.committed_bytes,
        resident_bytes: a.resident_bytes + b.resident_bytes,
        resident_peak_bytes: a.resident_peak_bytes + b.resident_peak_bytes,
        resident_last_bytes: a.resident_last_bytes + b.resident_last_bytes,
    })
}

/// The account as rows, in the order they are drawn.
pub(super) fn account(pages: &Pages) -> Vec<Row> {
    let parts = bar::stacked(&words::page_parts(pages));
    let row = |part: Part| Row {
        bytes: figure(part.bytes),
        share: units::percent(part.bytes, pages.committed_bytes),
        part,
    };
    parts.into_iter().map(row).collect()
}
