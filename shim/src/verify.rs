//! `PAGESHIM_VERIFY=1`: each capture once more, the slow way, and compared.
//!
//! # Design
//! After a capture the same registers are unwound frame by frame to the root, with
//! no memo, no recent stacks and nothing known of the stack's bounds; program
//! counters, depth and end must be the same. Beside it stands a hash of each
//! site's stack at its first sight: a site met with another stack would bill
//! blocks to the wrong callers. What differs is counted by kind in the shared state.
//!
//! # Allocation
//! Two mappings: eight bytes a site, and room for one stack a thread.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use pageshim_core::OS_PAGE_BYTES;
use pageshim_core::unwind::{Bounds, Memo, Regs, Rows, full};
use pageshim_wire::layout::SITE_CAPACITY_MAX;
use pageshim_wire::process::{SITE_FIRST, Verified, word};
use pageshim_wire::stack::End;

use crate::thread::Thread;
use crate::upkeep;
use crate::world::{ACCOUNTS, OWN, STATE};

static ON: AtomicBool = AtomicBool::new(false);
static STACKS: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// Room for one stack; mapped when first needed. All zeros is none yet.
#[derive(Debug)]
pub(crate) struct Room(Cell<*mut u64>);

/// True when captures are compared.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// From now on captures are compared, if there is memory for it.
pub(crate) fn begin() {
    let bytes = usize::try_from(SITE_CAPACITY_MAX * 8).unwrap_or(0);
    if let Some(at) = map(bytes) {
        STACKS.store(ptr::with_exposed_provenance_mut(at), Ordering::Release);
        ON.store(true, Ordering::Relaxed);
    }
}

fn map(bytes: usize) -> Option<usize> {
    let at = OWN.map(bytes.next_multiple_of(OS_PAGE_BYTES))?;
    ACCOUNTS.add(word::METADATA, i64::try_from(bytes).unwrap_or(0));
    Some(at)
}

/// Unwinds the stack of `regs` again and compares it with what `memo` holds, which
/// ended so and was given that site.
pub(crate) fn check(
    thread: &Thread,
    rows: &Rows,
    regs: Regs,
    memo: &Memo,
    (end, site): (End, u32),
) {
    let Some(plain) = thread.verify.stack() else {
        return;
    };
    let limit = upkeep::depth_limit().clamp(1, Memo::CAPACITY);
    let room = plain.get_mut(..limit).unwrap_or_default();
    let (depth, plain_end) = full(rows, regs, &mut Bounds::default(), room);
    let plain = room.get(..depth).unwrap_or_default();
    let found = if memo.depth() != depth {
        Verified::Depth
    } else if !plain.iter().enumerate().all(|(i, pc)| memo.pc(i) == *pc) {
        Verified::Frames
    } else if end != plain_end {
        Verified::End
    } else if !fits(site, plain, end) {
        Verified::Site
    } else {
        Verified::Equal
    };
    STATE.add(word::VERIFIED + found as usize, 1);
}

/// True when the site stands for this stack, or for none yet.
fn fits(site: u32, stack: &[u64], end: End) -> bool {
    let table = STACKS.load(Ordering::Acquire);
    // A folded stack's site stands for many.
    if crate::fold::is_on()
        || table.is_null()
        || site < SITE_FIRST
        || u64::from(site) >= SITE_CAPACITY_MAX
    {
        return true;
    }
    // SAFETY: begin() mapped a word for each site there can be.
    let known = unsafe { &*table.add(site as usize) };
    let mixed = stack.iter().fold(end as u64 + 1, |hash, pc| {
        (hash ^ pc)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23)
    });
    let hash = mixed.max(1);
    match known.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(before) => before == hash,
    }
}

impl Room {
    #[expect(clippy::mut_from_ref, reason = "one user: this thread, inside")]
    fn stack(&self) -> Option<&mut [u64]> {
        if self.0.get().is_null() {
            let at = map(Memo::CAPACITY * 8)?;
            self.0.set(ptr::with_exposed_provenance_mut(at));
        }
        // SAFETY: mapped for so many words, used by check() alone, which holds the
        // thread's right to be inside.
        Some(unsafe { core::slice::from_raw_parts_mut(self.0.get(), Memo::CAPACITY) })
    }
}
