//! `PAGESHIM_FOLD=1`: sites of folded stacks, for programs that recurse deeply.
//!
//! The memo holds whole stacks, so one seen lately has its site without folding;
//! only one that is not is folded and looked up by the hash of what is left.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use pageshim_core::fold;
use pageshim_core::sites::Stack;
use pageshim_core::unwind::{Captured, Memo};
use pageshim_wire::process::{Drop as Dropped, word};
use pageshim_wire::stack::End;

use crate::thread::Thread;
use crate::world::{self, ACCOUNTS, OWN, SITES, STATE};

static ON: AtomicBool = AtomicBool::new(false);

/// Room for one folded stack; mapped when first needed. All zeros is none yet.
#[derive(Debug)]
pub(crate) struct Room(Cell<*mut u64>);

/// True when stacks are folded.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// From now on stacks are folded.
pub(crate) fn begin() {
    STATE.set(word::FOLDED, 1);
    ON.store(true, Ordering::Relaxed);
}

/// The site of the stack that was just captured, folded; `None` without memory.
pub(crate) fn site(thread: &Thread, memo: &Memo, captured: &Captured) -> Option<u32> {
    let room = thread.folded.stack()?;
    let kept = fold::fold(captured.depth, |index| memo.pc(index), room);
    let frames = room.get(..kept)?;
    let hash = fold::hash(frames, captured.end as u16, world::rows()?.replaced());
    if let Some(site) = SITES.find(hash) {
        return Some(site);
    }
    if !matches!(captured.end, End::Complete | End::DepthLimit) {
        STATE.count_drop(Dropped::Unwind);
    }
    let stack = Stack {
        hash,
        depth: kept,
        prefix: 0,
        shared: 0,
        end: captured.end,
        thread: u16::try_from(thread.slot()).unwrap_or(u16::MAX),
        frame: |index| frames.get(kept - 1 - index).copied().unwrap_or(0),
    };
    Some(SITES.intern(&STATE, &stack))
}

impl Room {
    #[expect(clippy::mut_from_ref, reason = "one user: this thread, inside")]
    fn stack(&self) -> Option<&mut [u64]> {
        if self.0.get().is_null() {
            let at = OWN.map(Memo::CAPACITY * 8)?;
            ACCOUNTS.add(word::METADATA, i64::try_from(Memo::CAPACITY * 8).ok()?);
            self.0.set(ptr::with_exposed_provenance_mut(at));
        }
        // SAFETY: mapped for so many words, used by site() alone, which holds the
        // thread's right to be inside.
        Some(unsafe { core::slice::from_raw_parts_mut(self.0.get(), Memo::CAPACITY) })
    }
}
