//! A thread's state: its heap, what it counts, its last stack.
//!
//! # Design
//! One mapping per thread, never unmapped; a new thread takes over the state of
//! one that ended, heap, counters' slot and all. The heap comes first, so the
//! address in a page's owner word is the address in the thread's slot.
//!
//! `gate` is zero exactly when the plain fast path may run: not inside us
//! already (a signal handler may call malloc while its thread is), not recording.
#![allow(unsafe_code)]

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};

use pageshim_core::heap::billing::Who;
use pageshim_core::heap::gpa::{Block, Heap, HeapState, all_heaps};
use pageshim_core::sample::Sampler;
use pageshim_core::sys;
use pageshim_core::track::{Counters, Track};
use pageshim_core::unwind::{Bounds, Memo};
use pageshim_wire::frame::Kind;
use pageshim_wire::process::{Drop as Dropped, Mode, word as process_word};
use pageshim_wire::thread::word;

use crate::world::{ACCOUNTS, OWN, SPACES, STATE};
use crate::{boot, fold, link, sampled, tls, trace, verify, whole, world};

/// Inside our own slow path: nothing of ours may be entered again.
pub(crate) const BUSY: u8 = 1;
/// Blocks of this thread get records.
pub(crate) const RECORDING: u8 = 2;
/// Records name the call stack.
pub(crate) const STACKS: u8 = 4;
/// Every event is streamed as well.
pub(crate) const TRACING: u8 = 8;

/// Blocks come from the heap of `PAGESHIM_HEAP`, not from the thread's own.
pub(crate) const WHOLE: u8 = 16;

/// Blocks that samples fall on get records, the others take the plain fast path.
pub(crate) const SAMPLING: u8 = 32;
/// The thread records but has no counters: no slot was left for it in the state.
const UNCOUNTED: u8 = 64;

/// The gate of a thread that is outside us.
fn open_gate() -> u8 {
    let whole = if whole::is_on() { WHOLE } else { 0 };
    let recording = match world::mode() {
        Mode::Off => 0,
        Mode::Count => RECORDING,
        Mode::Sampled => SAMPLING,
        Mode::Exact => RECORDING | STACKS,
        Mode::Trace => RECORDING | STACKS | TRACING,
    };
    recording | whole
}

/// See the module's text.
#[repr(C, align(64))]
pub(crate) struct Thread {
    heap: MaybeUninit<Heap>,
    gate: Cell<u8>,
    countdown: Cell<u32>,
    every: Cell<u32>,
    upkeep_ms: Cell<u64>,
    pub(crate) track: Track,
    pub(crate) sampler: Sampler,
    slot: Cell<u64>,
    control_block: Cell<usize>,
    rounds: Cell<u32>,
    pub(crate) trace: trace::Buffer,
    pub(crate) verify: verify::Room,
    pub(crate) folded: fold::Room,
    bounds: UnsafeCell<Bounds>,
    memo: UnsafeCell<Memo>,
}

/// The right to be inside us; gives up on drop.
pub(crate) struct Inside<'a>(&'a Thread);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Thread {
    /// Where the gate and the heap are, for [`crate::plain`].
    pub(crate) const GATE_AT: usize = core::mem::offset_of!(Self, gate);
    pub(crate) const HEAP_AT: usize = core::mem::offset_of!(Self, heap);
    pub(crate) const LEFT_AT: usize = core::mem::offset_of!(Self, sampler) + Sampler::LEFT_AT;

    /// Its counters, for the paths that know its gate.
    ///
    /// # Safety
    /// The gate is `RECORDING`, with any of `STACKS` and `TRACING`, and nothing else:
    /// without counters it would be [`UNCOUNTED`] as well.
    #[inline(always)]
    pub(crate) unsafe fn counters(&self) -> Counters {
        // SAFETY: attach() and stop_counting() keep the bit.
        unsafe { self.track.counters_unchecked() }
    }

    /// Says for whom what follows is done: system calls are billed to that site.
    #[inline]
    pub(crate) fn works_for(&self, site: u32) {
        self.heap().set_cause(site);
    }

    /// Counts the pages a slow path has just carved for `site`.
    pub(crate) fn note_touched(&self, site: u32) {
        let touched = self.heap().take_touched();
        if touched > 0 && site != 0 {
            self.track.touched(site, touched.into());
        }
    }

    /// Stops counting: the region is another process's now.
    pub(crate) fn stop_counting(&self) {
        self.gate.set(self.gate.get() | UNCOUNTED);
        self.track.stop();
    }

    /// The thread's heap.
    #[inline]
    pub(crate) fn heap(&self) -> &'static Heap {
        // SAFETY: placed in make(), before any reference to the thread exists; never unmapped.
        unsafe { &*self.heap.as_ptr() }
    }

    /// Zero when the plain fast path may run.
    #[inline]
    pub(crate) fn gate(&self) -> u8 {
        self.gate.get()
    }

    /// The plain fast path of a thread that samples: a slot for at most
    /// [`pageshim_core::heap::gpa::classes::DIRECT_MAX`] bytes when no sample falls on it.
    ///
    /// The countdown is 0 in other modes, so they leave at the first test. The gate
    /// is read anew on purpose: with one read, the test that comes before this
    /// in the plain path would cost an instruction more.
    #[inline(always)]
    pub(crate) fn take_unsampled(&self, requested: usize) -> Option<Block> {
        let left = self.sampler.past(requested)?;
        // SAFETY: our own cell; only the compiler is kept from joining two reads.
        if unsafe { self.gate.as_ptr().read_volatile() } != SAMPLING {
            return None;
        }
        let block = self.heap().take_fast(requested)?;
        self.sampler.advance(left);
        Some(block)
    }

    /// Enters, unless the thread is inside already.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let gate = self.gate.get();
        if gate & BUSY != 0 {
            return None;
        }
        self.gate.set(gate | BUSY);
        Some(Inside(self))
    }

    /// The heap holds much free memory that should go back: looks, at upkeep's pace,
    /// whether it is time, from the slow path that its bell in the gate leads to.
    pub(crate) fn answer_bell(&self) {
        if self.is_due() {
            crate::upkeep::pace(self);
            if !self.heap().upkeep() {
                self.gate.set(self.gate.get() & !Heap::BELL);
            }
        }
    }

    /// Closes the gate of a thread known to be outside, and opens it to what it was,
    /// around few instructions and no way out between: [`Thread::enter`] without its
    /// test and its drop. The fences hold what lies between in place; a signal handler
    /// runs in this very thread.
    #[inline(always)]
    pub(crate) fn close(&self, gate: u8) {
        self.gate.set(gate | BUSY);
        compiler_fence(Ordering::SeqCst);
    }

    /// See [`Thread::close`].
    #[inline(always)]
    pub(crate) fn open(&self, gate: u8) {
        compiler_fence(Ordering::SeqCst);
        self.gate.set(gate);
    }

    /// Opens the gate from a cold end.
    pub(crate) fn leave(&self) {
        self.open(self.gate.get() & !BUSY);
    }

    /// Counts down to the next upkeep, which somebody else sees to: false when it is due.
    #[inline(always)]
    pub(crate) fn has_time(&self) -> bool {
        let (left, due) = self.countdown.get().overflowing_sub(1);
        self.countdown.set(left);
        if due {
            self.countdown.set(0);
        }
        !due
    }

    /// Counts down to the next upkeep; true when it is due.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        let left = self.countdown.get();
        self.countdown.set(left.saturating_sub(1));
        left == 0
    }

    /// The next upkeep is due after this many allocations.
    pub(crate) fn due_in(&self, allocations: u32) {
        self.countdown.set(allocations);
        self.every.set(allocations);
    }

    /// How many allocations lay between the last two upkeeps.
    pub(crate) fn upkeep_every(&self) -> u32 {
        self.every.get().max(1)
    }

    /// Milliseconds since the last upkeep, which is now.
    pub(crate) fn since_upkeep(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.upkeep_ms.replace(now_ms))
    }

    /// Slot number in the shared state.
    pub(crate) fn slot(&self) -> u64 {
        self.slot.get()
    }

    /// Bounds and memo, for one capture.
    ///
    /// # Safety
    /// The caller is this thread and holds [`Inside`]: no other borrow exists.
    #[expect(clippy::mut_from_ref, reason = "one owner, see Safety")]
    pub(crate) unsafe fn unwinding(&self) -> (&mut Bounds, &mut Memo) {
        // SAFETY: the caller's duty.
        unsafe { (&mut *self.bounds.get(), &mut *self.memo.get()) }
    }

    /// Starts counting in the thread's region of a state made by this process.
    pub(crate) fn count_into(&self, slot: u64) {
        match STATE.map_slot(slot) {
            Some(region) => {
                // SAFETY: a fresh mapping of this thread's own region.
                unsafe { self.track.set_region(region) };
                self.slot.set(slot);
                self.introduce();
            }
            None => STATE.count_drop(Dropped::Threads),
        }
    }

    /// In a forked child: counts from zero in private memory at the same place, as
    /// slot 0. False without memory.
    ///
    /// # Safety
    /// The region is this thread's, and nobody else in this process uses it.
    pub(crate) unsafe fn begin_private(&self) -> bool {
        self.slot.set(0);
        self.control_block.set(tls::control_block());
        // SAFETY: the caller's duty.
        unsafe { STATE.privatize_region(self.track.region()) }
    }

    /// Writes who the thread is into its region.
    pub(crate) fn introduce(&self) {
        let track = &self.track;
        track.set(word::STATE, 1);
        track.set(word::TID, u64::from(sys::thread_id()));
        track.set(word::STARTED, STATE.tick());
        track.bump(word::GENERATION, 1);
        self.note_name();
        link::send_words(
            Kind::Thread,
            &[self.slot.get(), u64::from(sys::thread_id()), 1],
        );
    }

    /// The thread's name may change at any time; looked at now and then.
    pub(crate) fn note_name(&self) {
        let mut name = [0u8; 16];
        // SAFETY: PR_GET_NAME (16) writes at most 16 bytes; no allocation, no lock.
        unsafe { libc::prctl(16, name.as_mut_ptr()) };
        let (low, high) = name.split_at(8);
        for (index, half) in [low, high].into_iter().enumerate() {
            let half = u64::from_le_bytes(half.try_into().unwrap_or([0; 8]));
            self.track.set(word::NAME + index, half);
        }
    }

    fn make() -> Option<&'static Self> {
        let bytes = size_of::<Self>().next_multiple_of(pageshim_core::OS_PAGE_BYTES);
        let at = OWN.map(bytes)?;
        ACCOUNTS.add(process_word::METADATA, i64::try_from(bytes).ok()?);
        let thread = ptr::with_exposed_provenance_mut::<Self>(at);
        // SAFETY: fresh zeroed memory, page aligned; zero is valid for all fields but the heap.
        unsafe {
            let heap = (&raw mut (*thread).heap).cast();
            (&raw mut (*thread).control_block).write(Cell::new(tls::control_block()));
            Heap::place(heap, &SPACES, &ACCOUNTS, world::records_all());
            Some(&*thread)
        }
    }

    /// Where the thread's storage ends that the loader gave it; 0 once it has ended.
    pub(crate) fn storage(&self) -> usize {
        self.control_block.get()
    }

    /// The state left behind by a thread that ended, or one with our own control
    /// block, whose thread ended without a word.
    fn inherit() -> Option<&'static Self> {
        let own = tls::control_block();
        all_threads().find(|thread| {
            let stale = thread.heap().state() == HeapState::Running as u32
                && thread.control_block.get() == own;
            stale || thread.heap().adopt()
        })
    }

    /// The thread ends: its memory waits for an heir.
    pub(crate) fn park(&'static self) {
        let Some(_inside) = self.enter() else { return };
        self.track.publish(&STATE);
        trace::flush(self);
        self.note_name();
        self.track.set(word::STATE, 2);
        link::send_words(
            Kind::Thread,
            &[self.slot.get(), self.track.get(word::TID), 2],
        );
        self.control_block.set(0);
        tls::set(None);
        self.heap().park();
    }

    /// How often the end of the thread was put off for later destructors.
    pub(crate) fn next_round(&self) -> u32 {
        self.rounds.set(self.rounds.get() + 1);
        self.rounds.get()
    }
}

/// Whom the page layer bills the calling thread's system calls to.
pub(crate) static WHO: Who = || tls::get().map_or(0, |thread| thread.heap().cause());

/// Every thread state ever made.
pub(crate) fn all_threads() -> impl Iterator<Item = &'static Thread> {
    all_heaps().map(|heap| {
        // SAFETY: all registered heaps but the emergency ones, which do not register, begin a Thread.
        unsafe { &*ptr::from_ref(heap).cast::<Thread>() }
    })
}

/// The calling thread's state, made or inherited on its first call. `None` while
/// the process is being set up by this very thread, or without memory.
#[cold]
#[inline(never)]
pub(crate) fn attach() -> Option<&'static Thread> {
    if !boot::ready() {
        return None;
    }
    let thread = match Thread::inherit() {
        Some(thread) => thread,
        None => Thread::make()?,
    };
    thread.control_block.set(tls::control_block());
    thread.rounds.set(0);
    let mut gate = open_gate();
    thread.gate.set(gate | BUSY);
    tls::set(Some(thread));
    // SAFETY: this thread, and BUSY keeps signal handlers out.
    let (bounds, memo) = unsafe { thread.unwinding() };
    *bounds = stack_bounds();
    memo.forget();
    if world::recording() {
        if thread.track.is_set() {
            thread.introduce();
        } else if let Some(slot) = STATE.new_slot() {
            thread.count_into(slot);
        } else {
            STATE.count_drop(Dropped::Threads);
        }
        if !thread.track.is_set() {
            gate |= UNCOUNTED;
        }
    }
    crate::life::watch(thread);
    if gate & SAMPLING != 0 {
        sampled::begin(thread);
    }
    if gate & !SAMPLING == 0 {
        thread.heap().set_bell(Some(&thread.gate));
    }
    thread.gate.set(gate);
    Some(thread)
}

/// The calling thread's stack, as far as it is known without asking libc, whose
/// `pthread_getattr_np` allocates under a lock (and may be what called us).
/// Other threads' stacks are probed page by page as they are read.
fn stack_bounds() -> Bounds {
    unsafe extern "C" {
        static __libc_stack_end: usize;
    }
    const MAIN_STACK_ROOM: u64 = 120 << 20;
    if sys::thread_id() != sys::process_id() {
        return Bounds::default();
    }
    // SAFETY: set by the loader before any code of ours runs.
    let end = unsafe { __libc_stack_end } as u64;
    let hi = end.next_multiple_of(pageshim_core::OS_PAGE_BYTES as u64);
    // The kernel keeps this much below the main stack free of other mappings.
    Bounds::new(hi - MAIN_STACK_ROOM, hi)
}
