//! Advice about a whole process.

use super::is_share;
use crate::books::report::Process;
use crate::web::units::{bytes, count};
use crate::whatif::report::{Advice, Confidence, Saves};
use crate::whatif::requests::OS_PAGE;

/// What the heap keeps unused may be this much.
const RETAINED_MIN: u64 = 8 << 20;

/// Memory the heap holds for nobody.
pub(super) fn retained(process: &Process) -> Option<Advice> {
    let pages = &process.pages;
    let held = pages.resident_bytes.max(pages.resident_last_bytes);
    let bill = process.bill.as_ref().map(|bill| bill.parts.retained_bytes);
    // Committed memory that was never touched is not resident.
    let unused = bill.unwrap_or_else(|| {
        pages
            .retained_bytes
            .min(held.saturating_sub(pages.requested_bytes))
    });
    if process.heap != "gpa" || unused < RETAINED_MIN || !is_share(unused, held, 25) {
        return None;
    }
    let text = format!(
        "{} of {} resident bytes are free runs: malloc_trim(0) after the work that needed them gives them back.",
        bytes(unused),
        bytes(held),
    );
    Some(Advice {
        rule: "retained".to_owned(),
        text,
        saves: Saves {
            bytes: unused,
            pages: unused / OS_PAGE,
            ..Saves::default()
        },
        confidence: if bill.is_some() {
            Confidence::High
        } else {
            Confidence::Low
        },
        because: if bill.is_some() {
            "the kernel was asked for each page".to_owned()
        } else {
            "which of them are resident was not asked; free runs go back by themselves after a second".to_owned()
        },
        ..Advice::default()
    })
}

/// A heap of pages for blocks that are much smaller.
pub(super) fn page_blocks(process: &Process) -> Option<Advice> {
    let live = process.live;
    let small = is_share(OS_PAGE, live.bytes.checked_div(live.blocks)?.max(1), 400);
    if process.heap != "page" || live.blocks < 64 || !small {
        return None;
    }
    let held = live.blocks.saturating_mul(OS_PAGE);
    let lost = held.saturating_sub(live.bytes);
    let text = format!(
        "{} live blocks of {} on average hold an OS page each: PAGESHIM_HEAP=gpa or arena packs them and would save about {}.",
        count(live.blocks),
        bytes(live.bytes / live.blocks),
        bytes(lost),
    );
    Some(Advice {
        rule: "page_blocks".to_owned(),
        text,
        saves: Saves {
            bytes: lost,
            pages: lost / OS_PAGE,
            syscalls: process.total.blocks.saturating_add(process.freed.blocks),
            ..Saves::default()
        },
        confidence: Confidence::High,
        because: "every block was counted".to_owned(),
        ..Advice::default()
    })
}
