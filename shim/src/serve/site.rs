//! Whose call it is: the stack that was captured, and its site.
#![allow(unsafe_code)]

use pageshim_core::modules::Noted;
use pageshim_core::sites::Stack;
use pageshim_core::unwind::{Captured, Memo, Rows};
use pageshim_wire::frame::Kind;
use pageshim_wire::process::Drop;
use pageshim_wire::stack::End;

use super::Call;
use crate::thread::{SAMPLING, STACKS, Thread};
use crate::world::{MODULES, SITES, STATE};
use crate::{fold, link, upkeep, verify, world};

/// The present site of a call; 0 when stacks are not captured.
pub(crate) fn site_of(thread: &Thread, call: &Call) -> u32 {
    if thread.gate() & SAMPLING == 0 {
        site(thread, call)
    } else {
        captured_site(thread, call)
    }
}

/// The site of the calling stack; 0 in modes without stacks.
#[inline(always)]
pub(super) fn site(thread: &Thread, call: &Call) -> u32 {
    if thread.gate() & STACKS == 0 {
        0
    } else {
        captured_site(thread, call)
    }
}

/// The same in modes that capture none by themselves.
#[inline(never)]
pub(crate) fn captured_site(thread: &Thread, call: &Call) -> u32 {
    let Some(rows) = world::rows() else { return 0 };
    // SAFETY: we are this thread and inside.
    let (bounds, memo) = unsafe { thread.unwinding() };
    let mut captured = memo.capture(rows, &call.regs, bounds, upkeep::depth_limit());
    if captured.missed > 0 && note_modules(rows, memo) {
        captured = memo.capture(rows, &call.regs, bounds, upkeep::depth_limit());
    }
    let site = site_of_capture(thread, memo, &captured);
    if verify::is_on() {
        verify::check(thread, rows, call.regs, memo, (captured.end, site));
    }
    site
}

/// Writes down the modules that the last capture met first; true when it has to be
/// repeated, because code lies where other code was.
#[cold]
#[inline(never)]
fn note_modules(rows: &Rows, memo: &Memo) -> bool {
    let mut again = false;
    for start in memo.missed() {
        let noted = rows.while_mapped(|| MODULES.note(&STATE, *start));
        match noted {
            Some(Noted::Nothing) => continue,
            Some(Noted::New(slot)) => tell(slot),
            Some(Noted::Instead(slot)) => {
                rows.replace();
                again = true;
                tell(slot);
            }
            None => rows.invalidate(), // it shall be missed again, and noted then
        }
    }
    again
}

fn tell(slot: u64) {
    link::send_words(Kind::Module, &[slot]);
}

/// The site of the stack that was just captured.
#[inline(always)]
fn site_of_capture(thread: &Thread, memo: &mut Memo, captured: &Captured) -> u32 {
    let known = memo.site();
    if known != 0 {
        return known;
    }
    if fold::is_on()
        && let Some(site) = fold::site(thread, memo, captured)
    {
        memo.set_site(site);
        return site;
    }
    let site = SITES.find(captured.hash).unwrap_or_else(|| {
        if !matches!(captured.end, End::Complete | End::DepthLimit) {
            STATE.count_drop(Drop::Unwind);
        }
        let (prefix, shared) = memo.shared();
        let stack = Stack {
            hash: captured.hash,
            depth: captured.depth,
            prefix,
            shared,
            end: captured.end,
            thread: u16::try_from(thread.slot()).unwrap_or(u16::MAX),
            frame: |index| memo.pc(index),
        };
        SITES.intern(&STATE, &stack)
    });
    memo.set_site(site);
    site
}
