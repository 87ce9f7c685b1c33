//! A forked child's shared state: private first, its own memfd when it has lived.
//!
//! # Design
//! `go_private` moves the head to private memory and keeps the parent's mapping
//! for reading; sites made meanwhile continue the parent's numbers.
//! `go_public` makes a memfd, fills it from both, and maps it over the private
//! memory at the same addresses, so that no pointer changes.
//!
//! # Invariants
//! The parent's mapping is only read (T2 of `state`), and only below the extent
//! that was known at the fork: what the parent adds later is not looked at.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use pageshim_wire::calls::CALLS_BYTES;
use pageshim_wire::layout::{
    COUNTERS_BYTES, HEADER_BYTES, Layout, SITE_BYTES, THREAD_HEADER_BYTES,
};
use pageshim_wire::process::word;

use crate::state::{Parent, State, memfd};
use crate::sys;

/// Words from `from` to `to`, zeros left out so that holes stay holes.
///
/// # Safety
/// Both ranges are mapped, 8-aligned, and do not overlap.
unsafe fn copy_words(from: usize, to: usize, bytes: u64) {
    let (from, to) = (
        ptr::with_exposed_provenance::<AtomicU64>(from),
        ptr::with_exposed_provenance::<AtomicU64>(to),
    );
    for index in 0..usize::try_from(bytes / 8).unwrap_or(0) {
        // SAFETY: the caller's duty.
        let value = unsafe { (*from.add(index)).load(Ordering::Relaxed) };
        if value != 0 {
            // SAFETY: as above.
            unsafe { (*to.add(index)).store(value, Ordering::Relaxed) };
        }
    }
}

fn bytes_of(length: u64) -> usize {
    usize::try_from(length).unwrap_or(0)
}

impl State {
    /// The mapping of the head.
    pub fn head(&self) -> Option<*mut AtomicU64> {
        let head = self.head.load(Ordering::Acquire);
        (!head.is_null()).then_some(head)
    }

    /// In a forked child: goes on in private memory. `extent` is what the parent
    /// had of sites and log. False without memory; the state is then gone.
    pub fn go_private(&self, extent: (u32, u64)) -> bool {
        let (Some(layout), Some(old)) = (self.layout(), self.head()) else {
            return false;
        };
        let token = self.get(word::TOKEN);
        let modules = layout.module(self.get(word::MODULE_COUNT));
        let length = bytes_of(layout.thread(0));
        // SAFETY: a new mapping at an address of the kernel's choice.
        let new = unsafe { sys::map_anonymous(0, length, sys::PROT_READ_WRITE, false) };
        let Ok(new) = new else { return false };
        // SAFETY: the parent's header and modules, and fresh memory of the same layout.
        unsafe { copy_words(old.expose_provenance(), new, modules) };
        let mut parent = self.parent.lock();
        let (head, sites, log_used) = match *parent {
            // A child of a child that had not lived: its private memory is ours as well,
            // but only the first parent's has everything, so it is merged down now.
            Some(before) => {
                // SAFETY: both mappings are whole and of this layout.
                unsafe { copy_stacks(&layout, before.head, old.expose_provenance(), &before) };
                (old.expose_provenance(), extent.0, extent.1)
            }
            None => (old.expose_provenance(), extent.0, extent.1),
        };
        *parent = Some(Parent {
            head,
            sites,
            log_used,
        });
        if let Some(fd) = self.fd() {
            sys::close(fd);
        }
        self.fd.store(-1, Ordering::Release);
        self.head
            .store(ptr::with_exposed_provenance_mut(new), Ordering::Release);
        self.begin_life(token);
        true
    }

    /// Resets the header words that tell of the parent's life.
    fn begin_life(&self, parent: u64) {
        self.set(word::TOKEN, sys::random());
        self.set(word::PARENT, parent);
        self.set(word::PID, u64::from(sys::process_id()));
        self.set(word::START_REALTIME_NS, sys::realtime_ns());
        self.set(word::THREAD_COUNT, 1);
        for index in (word::CONTROL..=word::EXIT_STATUS)
            .chain(word::PEAK_BYTES..=word::PUBLISHED_BLOCKS)
            .chain([
                word::PEAK_TICK,
                word::SITES_OVERFLOWED,
                word::UNCOUNTED_BLOCKS,
                word::OWN_CALLS,
                word::PUBLISHED_PAGES,
                word::PEAK_PAGES,
            ])
            .chain(word::DROPPED..word::CLASSES)
        {
            self.set(index, 0);
        }
        self.set(word::HEAP_BYTES_MAX, self.get(word::HEAP_COMMITTED));
    }

    /// Lets go of a state that cannot be kept.
    pub fn give_up(&self) {
        self.head.store(ptr::null_mut(), Ordering::Release);
        self.fd.store(-1, Ordering::Release);
    }

    /// Replaces a thread's region by zeroed private memory at the same place.
    ///
    /// # Safety
    /// `region` was mapped by [`State::map_slot`] and nobody else uses it.
    pub unsafe fn privatize_region(&self, region: usize) -> bool {
        let Some(layout) = self.layout() else {
            return false;
        };
        let length = bytes_of(layout.thread_stride());
        // SAFETY: the caller's duty.
        region != 0
            && unsafe { sys::map_anonymous(region, length, sys::PROT_READ_WRITE, true) }.is_ok()
    }

    /// Makes a memfd with everything known so far and maps it in place of the
    /// private memory. `extent` is what there is of sites and log now.
    pub fn go_public(&self, extent: (u32, u64)) -> bool {
        let (Some(layout), Some(own)) = (self.layout(), self.head()) else {
            return false;
        };
        let Some(parent) = self.parent.lock().take() else {
            return false;
        };
        let Some(fd) = memfd(&layout) else {
            return false;
        };
        let (own, length) = (own.expose_provenance(), bytes_of(layout.thread(0)));
        // SAFETY: our own fresh file at an address of the kernel's choice.
        let Ok(shared) = (unsafe { sys::map_shared(fd, 0, length, None) }) else {
            sys::close(fd);
            return false;
        };
        // SAFETY: whole mappings of this layout; the last step replaces memory that has
        // just been copied by the copy, at the same place.
        let mapped = unsafe {
            copy_words(
                own,
                shared,
                layout
                    .module(self.get(word::MODULE_COUNT))
                    .max(HEADER_BYTES),
            );
            copy_stacks(&layout, parent.head, shared, &parent);
            copy_range(&layout, own, shared, &parent, extent);
            let calls = bytes_of(layout.calls(0));
            copy_words(own + calls, shared + calls, CALLS_BYTES);
            let mapped = sys::map_shared(fd, 0, length, Some(own));
            let _ = sys::unmap(shared, length);
            let _ = sys::unmap(parent.head, length);
            mapped
        };
        if mapped.is_err() {
            return false;
        }
        self.remember(fd);
        true
    }

    /// Moves a thread's private region into the memfd, at the same place.
    pub fn publish_region(&self, slot: u64, region: usize) -> bool {
        let (Some(layout), Some(fd)) = (self.layout(), self.fd()) else {
            return false;
        };
        let length = bytes_of(layout.thread_stride());
        let used = THREAD_HEADER_BYTES + self.get(word::SITE_COUNT) * COUNTERS_BYTES;
        let offset = layout.thread(slot);
        // SAFETY: the region is of this layout; the copy takes its place.
        unsafe {
            let Ok(shared) = sys::map_shared(fd, offset, length, None) else {
                return false;
            };
            copy_words(region, shared, used.min(layout.thread_stride()));
            let _ = sys::unmap(shared, length);
            sys::map_shared(fd, offset, length, Some(region)).is_ok()
        }
    }
}

/// Copies the parent's part of sites and log.
///
/// # Safety
/// Both are mappings of this layout.
unsafe fn copy_stacks(layout: &Layout, from: usize, to: usize, parent: &Parent) {
    let (sites, log) = (bytes_of(layout.site(0)), bytes_of(layout.log()));
    // SAFETY: within both mappings: the extent was checked when it was written.
    unsafe {
        copy_words(
            from + sites,
            to + sites,
            u64::from(parent.sites) * SITE_BYTES,
        );
        copy_words(from + log, to + log, parent.log_used);
    }
}

/// Copies sites and log from the parent's extent up to `extent`.
///
/// # Safety
/// As [`copy_stacks`].
unsafe fn copy_range(layout: &Layout, from: usize, to: usize, parent: &Parent, extent: (u32, u64)) {
    let first = bytes_of(layout.site(u64::from(parent.sites)));
    let log = bytes_of(layout.log() + parent.log_used);
    // SAFETY: as in copy_stacks.
    unsafe {
        let sites = u64::from(extent.0.saturating_sub(parent.sites));
        copy_words(from + first, to + first, sites * SITE_BYTES);
        let bytes = extent.1.saturating_sub(parent.log_used);
        copy_words(from + log, to + log, bytes);
    }
}
