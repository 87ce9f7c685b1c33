//! What is shown of all that is live, and what the filters hide.

use crate::books::report::{Amount, Process, Report, State};
use crate::web::overview_page::{Figure, figure};
use crate::web::units;

/// `shown + hidden == live`, in the same units.
pub(super) struct Totals {
    pub(super) sites: String,
    pub(super) shown: Figure,
    pub(super) shown_blocks: String,
    pub(super) hidden: Figure,
    pub(super) hidden_blocks: String,
    pub(super) anything_hidden: bool,
    pub(super) live: Figure,
    pub(super) live_blocks: String,
    /// `live`, or what the sum is when some of the processes ended.
    pub(super) meaning: &'static str,
}

/// Adds up the rows and the processes.
pub(super) fn totals(report: &Report) -> Totals {
    let shown = report
        .leaks
        .iter()
        .fold(Amount::default(), |a, leak| Amount {
            bytes: a.bytes + leak.bytes,
            blocks: a.blocks + leak.blocks,
        });
    let live = report
        .processes
        .iter()
        .fold(Amount::default(), |a, process| Amount {
            bytes: a.bytes + process.live.bytes,
            blocks: a.blocks + process.live.blocks,
        });
    // A process may free between the two readings; what is shown is then all there was.
    let live = Amount {
        bytes: live.bytes.max(shown.bytes),
        blocks: live.blocks.max(shown.blocks),
    };
    let hidden = Amount {
        bytes: live.bytes - shown.bytes,
        blocks: live.blocks - shown.blocks,
    };
    Totals {
        sites: units::counted(report.leaks.len() as u64, "site"),
        shown: figure(shown.bytes),
        shown_blocks: units::counted(shown.blocks, "block"),
        hidden: figure(hidden.bytes),
        hidden_blocks: units::counted(hidden.blocks, "block"),
        anything_hidden: hidden.bytes > 0 || hidden.blocks > 0,
        live: figure(live.bytes),
        live_blocks: units::counted(live.blocks, "block"),
        meaning: meaning(&report.processes),
    }
}

fn meaning(processes: &[Process]) -> &'static str {
    let ended = |process: &Process| process.state != State::Running;
    if processes.iter().all(ended) {
        "live at exit"
    } else if processes.iter().any(ended) {
        "live, or live at exit"
    } else {
        "live"
    }
}
