//! What is done now and then: every 1,024th recorded allocation of a thread, or
//! four times a second, whichever comes first, and at every one in a child that has not yet made a state of its own.

use core::sync::atomic::{AtomicUsize, Ordering};

use pageshim_core::sys;
use pageshim_wire::process::{Control, word};

use crate::serve::Call;
use crate::thread::Thread;
use crate::world::STATE;
use crate::{check, emergency, fork, held, link, serve};

static DEPTH_LIMIT: AtomicUsize = AtomicUsize::new(0);

/// Deepest stack to capture.
#[inline]
pub(crate) fn depth_limit() -> usize {
    DEPTH_LIMIT.load(Ordering::Relaxed)
}

pub(crate) fn set_depth_limit(frames: usize) {
    DEPTH_LIMIT.store(frames, Ordering::Relaxed);
}

const EVERY_MAX: u32 = 1024;
const EVERY_MS: u64 = 250;

/// When the next upkeep is due: about every quarter of a second of a thread that
/// allocates slowly, every 1,024th allocation of one that does not.
pub(crate) fn pace(thread: &Thread) {
    let passed = thread.since_upkeep(sys::coarse_ms()).max(1);
    let last = u64::from(thread.upkeep_every());
    let wanted = (last * EVERY_MS / passed).clamp(1, u64::from(EVERY_MAX));
    thread.due_in(u32::try_from(wanted).unwrap_or(EVERY_MAX));
}

/// Frees that were put off, copies of the process, clock, name, commands of the
/// daemon, a lost link.
#[cold]
#[inline(never)]
pub(crate) fn run(thread: &'static Thread, call: &Call) {
    pace(thread);
    emergency::catch_up(|address| serve::give(thread, address, call));
    fork::notice_copy(thread);
    STATE.advance_tick();
    thread.note_name();
    thread.heap().upkeep();
    held::reap();
    obey(thread);
    link::keep();
}

fn obey(thread: &'static Thread) {
    let asked = STATE.get(word::CONTROL);
    if asked == STATE.get(word::CONTROL_DONE) {
        return;
    }
    if asked & 0xffff_ffff == Control::Trim as u64 {
        thread.heap().trim();
    }
    if asked & 0xffff_ffff == Control::Consent as u64 {
        link::consent();
    }
    STATE.set(word::CONTROL_DONE, asked);
    // It may take long; that it was heard is said before.
    if asked & 0xffff_ffff == Control::Check as u64 {
        check::on_request();
    }
}
