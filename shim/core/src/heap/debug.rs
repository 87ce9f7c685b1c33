//! A layer that reuses nothing and checks everything: leaks, double and invalid
//! frees, wrong sizes and alignments, writes past a block or after its free.
//!
//! # Design
//! Small blocks are slots of buckets (see `bucket`), larger ones come from the
//! parent one by one. Two tables know every bucket and every large block, so a
//! wild pointer is looked up, never followed. Behind each block lies a canary.
//! Each block keeps `FRAMES` addresses of its allocation and of its free; with
//! `FRAMES` 0 nothing is stored for them.
//!
//! A bucket goes back to the parent when all slots taken from it were freed; a
//! program that wants no address ever to return sets [`Config::never_unmap`].
//!
//! # Invariants
//! D1. A slot is handed out once in its bucket's life.
//! D2. `requested + rounding + free_slots + tails + retained + metadata =
//!     committed` (see [`DebugLayer::usage`]).
//! D3. Reports are made without the lock, about copies.
//!
//! # Concurrency
//! As its mutex `M`: any thread with [`SpinMutex`], one with `NoMutex`, or a
//! mutex of the caller's. Two frees of one block at once are a double free.
//!
//! # Failure
//! `None` past the memory limit or when the parent refuses; nothing leaks then.
#![allow(unsafe_code)]

mod bucket;
mod fault;
mod report;
mod state;
mod table;

use core::cell::UnsafeCell;
use core::ptr::NonNull;

pub use report::{Capture, Finding, Report, Silent, Sink, caller_only};

use self::fault::{Fault, Faults, Trace};
use self::state::State;
use super::layer::{Align, Caller, Held, Layer, Mutex, Shape, SpinMutex, Usage};

/// Byte that fills a fresh block.
pub const FILL_FRESH: u8 = 0xAA;
/// Byte that fills a freed block.
pub const FILL_FREED: u8 = 0xDD;

/// What to check and keep. Start from [`Config::new`].
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// Most requested bytes live at once; `None` for no limit.
    pub memory_limit: Option<usize>,
    /// Freed memory is kept until the end, so no address is ever used twice.
    pub never_unmap: bool,
    /// Books of freed blocks are kept, so that late double frees show as such.
    pub retain_metadata: bool,
    /// A report for every call.
    pub verbose: bool,
    /// Fresh memory of the parent is zero.
    pub parent_zeroes: bool,
    /// A resize replaces the allocation trace.
    pub resize_traces: bool,
    /// Fresh blocks are filled with [`FILL_FRESH`].
    pub fill_fresh: bool,
    /// Freed small blocks are filled, and looked at before their bucket goes.
    pub check_write_after_free: bool,
    /// Pattern behind blocks and in buckets; one of its own for each instance.
    pub canary: u64,
    /// Bytes of a bucket: a power of two, at least 1024.
    pub bucket_bytes: usize,
    /// How traces are made.
    pub capture: Capture,
    /// Where reports go.
    pub sink: &'a dyn Sink,
}

impl core::fmt::Debug for Config<'_> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Config")
            .field("memory_limit", &self.memory_limit)
            .field("bucket_bytes", &self.bucket_bytes)
            .finish_non_exhaustive()
    }
}

impl<'a> Config<'a> {
    /// All checks, no limit, buckets of 128 KiB, the caller's address as trace.
    pub const fn new(sink: &'a dyn Sink) -> Self {
        Self {
            memory_limit: None,
            never_unmap: false,
            retain_metadata: false,
            verbose: false,
            parent_zeroes: true,
            resize_traces: false,
            fill_fresh: true,
            check_write_after_free: true,
            canary: 0x9d1c_54e8_73a6_0bf7,
            bucket_bytes: 128 * 1024,
            capture: caller_only,
            sink,
        }
    }
}

/// What was live at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing.
    Clean,
    /// This many blocks.
    Leaked(usize),
}

/// See the module's text.
#[derive(Debug)]
pub struct DebugLayer<'a, P: Layer, M: Mutex = SpinMutex, const FRAMES: usize = 8> {
    parent: P,
    config: Config<'a>,
    mutex: M,
    state: UnsafeCell<State<FRAMES>>,
}

// SAFETY: the state is used under the mutex, which is Sync itself, and its
// pointers lead to memory of the parent, which is Sync, too.
unsafe impl<P: Layer + Sync, M: Mutex + Sync, const FRAMES: usize> Sync
    for DebugLayer<'_, P, M, FRAMES>
{
}
// SAFETY: the state belongs to the value alone.
unsafe impl<P: Layer + Send, M: Mutex + Send, const FRAMES: usize> Send
    for DebugLayer<'_, P, M, FRAMES>
{
}

impl<'a, P: Layer, M: Mutex, const FRAMES: usize> DebugLayer<'a, P, M, FRAMES> {
    /// Bytes of books for each small block.
    pub const SLOT_BOOKS_BYTES: usize = size_of::<bucket::Slot<FRAMES>>();

    /// A debug layer over `parent`.
    ///
    /// # Panics
    /// When `config.bucket_bytes` is not a power of two of at least 1024.
    pub const fn new(parent: P, config: Config<'a>) -> Self {
        assert!(
            config.bucket_bytes.is_power_of_two() && config.bucket_bytes >= 1024,
            "bucket_bytes must be a power of two of at least 1024"
        );
        Self {
            parent,
            mutex: M::OPEN,
            state: UnsafeCell::new(State::new(config.memory_limit)),
            config,
        }
    }

    /// What it draws from.
    pub const fn parent(&self) -> &P {
        &self.parent
    }

    /// Runs `work` on the state under the lock.
    fn with<R>(&self, work: impl FnOnce(&mut State<FRAMES>) -> R) -> R {
        let _held = Held::new(&self.mutex);
        // SAFETY: the mutex is held, and no work calls back into the layer.
        work(unsafe { &mut *self.state.get() })
    }

    fn trace(&self, caller: Caller) -> Trace<FRAMES> {
        let mut frames = [0; FRAMES];
        if FRAMES > 0 {
            let known = (self.config.capture)(caller, &mut frames).min(FRAMES);
            frames[known..].fill(0);
        }
        frames
    }

    /// Tells the sink what a call found (D3).
    fn tell(&self, faults: &Faults<FRAMES>) {
        for fault in faults.iter() {
            fault.with_report(|report| {
                if fault.stops() {
                    self.config.sink.stop(report);
                } else {
                    self.config.sink.report(report);
                }
            });
        }
    }

    fn say(&self, finding: Finding, block: usize, held: Shape, given: Shape, now: Trace<FRAMES>) {
        if self.config.verbose {
            let fault = Fault::plain(finding, block, held, given, now);
            fault.with_report(|report| self.config.sink.report(report));
        }
    }

    /// Requested bytes live now.
    pub fn requested_bytes(&self) -> usize {
        self.with(|state| state.requested)
    }

    /// Sets the most requested bytes that may be live; blocks beyond it stay.
    pub fn set_memory_limit(&self, limit: Option<usize>) {
        self.with(|state| state.limit = limit);
    }

    /// Where the memory is.
    pub fn usage(&self) -> Usage {
        self.with(|state| state.usage(&self.config))
    }

    /// Reports each live block as a leak; answers how many. May be called at any
    /// time; other threads' work in between may or may not show.
    pub fn detect_leaks(&self) -> usize {
        let mut cursor = state::Cursor::default();
        let mut count = 0;
        while let Some(leak) = self.with(|state| state.next_live(&self.config, &mut cursor)) {
            leak.with_report(|report| self.config.sink.report(report));
            count += 1;
        }
        count
    }

    /// Looks at every canary and every freed slot now and reports what was
    /// overwritten; answers how many blocks were.
    pub fn check_memory(&self) -> usize {
        let mut cursor = state::Cursor::default();
        let mut count = 0;
        while let Some(fault) = self.with(|state| state.next_written(&self.config, &mut cursor)) {
            fault.with_report(|report| self.config.sink.report(report));
            count += 1;
        }
        count
    }

    /// Forgets freed blocks that were kept, and gives their memory back.
    pub fn flush_retained_metadata(&self) {
        self.with(|state| state.flush(&self.parent, &self.config));
    }

    /// Reports leaks, then gives all memory back.
    ///
    /// # Safety
    /// No block of this layer is used any more, leaked ones included.
    pub unsafe fn deinit(self) -> Ended {
        match self.detect_leaks() {
            0 => Ended::Clean,
            count => Ended::Leaked(count),
        }
    }

    /// Gives all memory back and reports nothing about leaks (as dropping does).
    ///
    /// # Safety
    /// As [`DebugLayer::deinit`].
    pub unsafe fn deinit_without_leak_checks(self) {}
}

impl<P: Layer, M: Mutex, const FRAMES: usize> Drop for DebugLayer<'_, P, M, FRAMES> {
    fn drop(&mut self) {
        if self.config.check_write_after_free {
            self.check_memory();
        }
        self.state.get_mut().release(&self.parent, &self.config);
    }
}

// SAFETY: slots are handed out once (D1), large blocks are the parent's.
unsafe impl<P: Layer, M: Mutex, const FRAMES: usize> Layer for DebugLayer<'_, P, M, FRAMES> {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        let trace = self.trace(caller);
        let block = self.with(|state| state.allocate(&self.parent, &self.config, shape, trace))?;
        self.say(
            Finding::Allocated,
            block.addr().get(),
            shape,
            Shape::new(0, Align::ONE),
            trace,
        );
        Some(block)
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, caller: Caller) -> bool {
        // SAFETY: the caller's duty, passed on.
        unsafe { self.change(block, shape, to, false, caller) }.is_some()
    }

    unsafe fn remap(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's duty, passed on.
        unsafe { self.change(block, shape, to, true, caller) }
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, caller: Caller) {
        let trace = self.trace(caller);
        let faults = self.with(|state| state.free(&self.parent, &self.config, block, shape, trace));
        self.tell(&faults);
        if faults.freed {
            let address = block.addr().get();
            self.say(Finding::Freed, address, shape, shape, trace);
        }
    }
}

impl<P: Layer, M: Mutex, const FRAMES: usize> DebugLayer<'_, P, M, FRAMES> {
    /// # Safety
    /// As [`Layer::remap`].
    unsafe fn change(
        &self,
        block: NonNull<u8>,
        shape: Shape,
        to: usize,
        may_move: bool,
        caller: Caller,
    ) -> Option<NonNull<u8>> {
        let trace = self.trace(caller);
        let change = state::Change {
            block,
            shape,
            to,
            may_move,
            trace,
        };
        let (answer, faults) = self.with(|state| state.change(&self.parent, &self.config, &change));
        self.tell(&faults);
        if let Some(place) = answer {
            let now = shape.resized(to);
            self.say(Finding::Resized, place.addr().get(), now, shape, trace);
        }
        answer
    }
}
