//! The process header and the module table of a shared state.
//!
//! # Design
//! The header is an array of 64-bit words, named in [`word`]. Words 0-4 belong
//! to [`crate::layout`]. Gauges and counters here are written from slow paths
//! only (a page taken, a thread started); what happens per allocation is in
//! [`crate::thread`].
//!
//! # Time
//! Times are *ticks*: a number that starts near 1 when the process starts and
//! grows by one every 4 ms for the first 37 hours, then by one a second (so
//! that 26 bits last 388 days). [`tick_from_ms`] and [`ms_from_tick`] convert.

use crate::layout::{HEADER_BYTES, MODULE_BYTES};

/// Header word numbers.
pub mod word {
    /// Random id of this process image; the daemon's key. Never zero.
    pub const TOKEN: usize = 8;
    /// Process id, as the process sees it.
    pub const PID: usize = 9;
    /// Token of the process this one was forked from, or 0.
    pub const PARENT: usize = 10;
    /// CLOCK_REALTIME at start, ns.
    pub const START_REALTIME_NS: usize = 11;
    /// CLOCK_MONOTONIC at start, ns: tick 0.
    pub const START_MONOTONIC_NS: usize = 12;
    /// [`super::Mode`] as a number.
    pub const MODE: usize = 13;
    /// [`super::Heap`] as a number.
    pub const HEAP: usize = 14;
    /// Current tick. Written by the daemon while it is connected, else by slow paths.
    pub const TICK: usize = 15;
    /// Request of the daemon: a sequence number in the high 32 bits, a
    /// [`super::Control`] in the low 32.
    pub const CONTROL: usize = 16;
    /// The last CONTROL word the process has carried out.
    pub const CONTROL_DONE: usize = 17;
    /// 0 running, 1 exited through a way we saw, 2 about to exec (best effort).
    pub const EXIT_STATE: usize = 18;
    /// Exit status where EXIT_STATE is 1.
    pub const EXIT_STATUS: usize = 19;
    /// Site ids handed out; ids are `1..SITE_COUNT`, 0 is "unknown", and starts at 1.
    pub const SITE_COUNT: usize = 20;
    /// Bytes of the stack log in use.
    pub const LOG_USED: usize = 21;
    /// Thread slots ever used.
    pub const THREAD_COUNT: usize = 22;
    /// Module slots ever used.
    pub const MODULE_COUNT: usize = 23;
    /// Most live requested bytes, at the moments published by threads.
    pub const PEAK_BYTES: usize = 24;
    /// Live blocks at that moment.
    pub const PEAK_BLOCKS: usize = 25;
    /// Live requested bytes as published (each thread keeps a remainder, see thread words).
    pub const PUBLISHED_BYTES: usize = 26;
    /// Live blocks as published.
    pub const PUBLISHED_BLOCKS: usize = 27;
    /// Address of the heap's reserve.
    pub const HEAP_BASE: usize = 28;
    /// Bytes reserved there.
    pub const HEAP_RESERVED: usize = 29;
    /// Bytes of blocks' slices made accessible by the page layer (committed, metadata not included).
    pub const HEAP_COMMITTED: usize = 30;
    /// Bytes of metadata committed: page structs, records, thread heaps, tables and this state.
    pub const METADATA: usize = 31;
    /// Tick of PEAK_BYTES.
    pub const PEAK_TICK: usize = 32;
    /// Live blocks that were allocated before counting began (not in any counter).
    pub const UNCOUNTED_BLOCKS: usize = 33;
    /// Allocations whose site table was full: counted on [`super::SITE_OVERFLOW`].
    pub const SITES_OVERFLOWED: usize = 34;
    /// Number of size classes in the class table, the last is singletons.
    pub const CLASS_COUNT: usize = 35;
    /// The kernel's page size.
    pub const OS_PAGE_BYTES: usize = 36;
    /// Depth limit of stacks in frames.
    pub const DEPTH_LIMIT: usize = 37;
    /// Length of the executable path text.
    pub const EXE_LEN: usize = 38;
    /// Length of the command line text (NUL separated).
    pub const COMMAND_LEN: usize = 39;
    /// Length of the service name text.
    pub const SERVICE_LEN: usize = 40;
    /// Mean bytes between samples in mode sampled, else 0. See [`crate::sampled`].
    pub const SAMPLE_INTERVAL: usize = 41;
    /// 1 when repeated cycles of frames are cut from stacks (PAGESHIM_FOLD).
    pub const FOLDED: usize = 42;
    /// Address of the gpa's page structs (see [`crate::heap`]); 0 on other heaps.
    pub const HEAP_STRUCTS: usize = 43;
    /// Address of the gpa's records; 0 on other heaps.
    pub const HEAP_RECORDS: usize = 44;
    /// Most bytes the heap held: of HEAP_COMMITTED, on bump heaps of those ever handed out.
    pub const HEAP_BYTES_MAX: usize = 50;
    /// Of the memory calls counted, those for memory of our own.
    pub const OWN_CALLS: usize = 51;
    /// OS pages that the published live blocks would have if each had its own.
    pub const PUBLISHED_PAGES: usize = 52;
    /// Most of those at a time.
    pub const PEAK_PAGES: usize = 53;
    /// Filters of system calls (seccomp) the program began under, and 1; 0 where the kernel does
    /// not count them.
    pub const FILTERS: usize = 54;
    /// Where a thread that a tracer lends goes to have the heap checked: address of the code, which
    /// takes a [`crate::check::Method`] and a [`crate::check::Trigger`] in rdi and rsi and needs
    /// nothing but the stack at HELD_STACK. 0 where there is none.
    pub const HELD_ENTRY: usize = 45;
    /// Top of the stack for it.
    pub const HELD_STACK: usize = 46;
    /// Address of the list of stopped threads, see [`crate::check::stopped`].
    pub const HELD_THREADS: usize = 47;
    /// Threads it has room for, the end mark included.
    pub const HELD_THREADS_MAX: usize = 48;
    /// Address of what the lent thread goes on with, see [`crate::check::saved`].
    pub const HELD_SAVED: usize = 49;
    /// First of [`super::DROPS`] counters, one for each [`super::Drop`].
    pub const DROPPED: usize = 64;
    /// First of [`super::MISUSES`] counters, one for each [`super::Misuse`].
    pub const MISUSE: usize = 80;
    /// Events sent over the socket, by frame kind: 32 words.
    pub const EVENTS: usize = 96;
    /// First of [`super::VERIFIES`] counters, one for each [`super::Verified`].
    pub const VERIFIED: usize = 128;
    /// First word of the class table, [`super::CLASS_WORDS`] words a class.
    pub const CLASSES: usize = 256;
}

/// Reasons something was not recorded; counters from [`word::DROPPED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// The socket was full for longer than the stated bound.
    SocketFull = 0,
    /// No daemon was connected (streamed events only; state loses nothing).
    NoDaemon = 1,
    /// No thread slot was left.
    Threads = 2,
    /// The stack log or site table was full; counted on the overflow site.
    Sites = 3,
    /// No module slot was left.
    Modules = 4,
    /// A record could not be placed (no memory for the side table).
    Records = 5,
    /// An allocation made inside the shim's own slow path or a signal within it.
    Nested = 6,
    /// A stack that could not be finished (its known part was kept).
    Unwind = 7,
}
/// How many [`Drop`] reasons there are.
pub const DROPS: usize = 8;
/// Prometheus label of each [`Drop`].
pub const DROP_NAMES: [&str; DROPS] = [
    "socket_full",
    "no_daemon",
    "threads",
    "sites",
    "modules",
    "records",
    "nested",
    "unwind",
];

/// Misuse by the host, reported and survived; counters from [`word::MISUSE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Misuse {
    /// A block freed twice.
    DoubleFree = 0,
    /// A pointer into our heap that no block starts at.
    InvalidFree = 1,
    /// A pointer that is not ours and not glibc's.
    ForeignFree = 2,
    /// `free_sized` or sized delete with another size.
    SizeMismatch = 3,
    /// `free_aligned_sized` or aligned delete with another alignment.
    AlignmentMismatch = 4,
    /// `delete` of a `malloc` block or the like.
    KindMismatch = 5,
    /// A canary was overwritten.
    Overflow = 6,
    /// Memory was written after its free.
    WriteAfterFree = 7,
}
/// How many [`Misuse`] kinds there are.
pub const MISUSES: usize = 8;
/// Name of each [`Misuse`].
pub const MISUSE_NAMES: [&str; MISUSES] = [
    "double_free",
    "invalid_free",
    "foreign_free",
    "size_mismatch",
    "alignment_mismatch",
    "kind_mismatch",
    "overflow",
    "write_after_free",
];

/// How a capture compared with a full unwind; counters from [`word::VERIFIED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Verified {
    /// The same stack.
    Equal = 0,
    /// As deep, but another program counter in it.
    Frames = 1,
    /// Deeper, or less deep.
    Depth = 2,
    /// The same frames, but another reason to end there.
    End = 3,
    /// The same stack, but a site that had stood for another one.
    Site = 4,
}
/// How many [`Verified`] kinds there are.
pub const VERIFIES: usize = 5;
/// Name of each [`Verified`].
pub const VERIFIED_NAMES: [&str; VERIFIES] = ["equal", "frames", "depth", "end", "site"];

/// `PAGESHIM_MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Serve only.
    Off = 0,
    /// Totals only.
    Count = 1,
    /// Poisson samples.
    Sampled = 2,
    /// Every block belongs to its call stack.
    Exact = 3,
    /// Exact, and every allocation event streamed.
    Trace = 4,
}

impl Mode {
    /// The mode of a header word.
    pub const fn from_word(word: u64) -> Option<Self> {
        Some(match word {
            0 => Self::Off,
            1 => Self::Count,
            2 => Self::Sampled,
            3 => Self::Exact,
            4 => Self::Trace,
            _ => return None,
        })
    }

    /// The name users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Count => "count",
            Self::Sampled => "sampled",
            Self::Exact => "exact",
            Self::Trace => "trace",
        }
    }
}

/// `PAGESHIM_HEAP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Heap {
    /// The general purpose layer.
    Gpa = 0,
    /// Checks everything, reuses nothing.
    Debug = 1,
    /// Every allocation its own pages.
    Page = 2,
    /// Bump, never freed one by one.
    Arena = 3,
    /// Bump over a bounded buffer.
    Fixed = 4,
}

impl Heap {
    /// The heap of a header word.
    pub const fn from_word(word: u64) -> Option<Self> {
        Some(match word {
            0 => Self::Gpa,
            1 => Self::Debug,
            2 => Self::Page,
            3 => Self::Arena,
            4 => Self::Fixed,
            _ => return None,
        })
    }

    /// The name users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpa => "gpa",
            Self::Debug => "debug",
            Self::Page => "page",
            Self::Arena => "arena",
            Self::Fixed => "fixed",
        }
    }
}

/// What the daemon may ask through [`word::CONTROL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Control {
    /// Nothing.
    None = 0,
    /// Return free pages to the kernel now.
    Trim = 1,
    /// Let the daemon read this process's memory, where the kernel wants consent (Yama).
    Consent = 2,
    /// Check reachability in the process itself, where the daemon may not stop its threads.
    Check = 3,
}

/// Site id that stands for "stack not known" (early or nested allocations).
pub const SITE_UNKNOWN: u32 = 0;
/// Site id that collects what did not fit the site table.
pub const SITE_OVERFLOW: u32 = 1;
/// First id of a real stack; `SITE_COUNT` starts here.
pub const SITE_FIRST: u32 = 2;

/// Words of one size class in the class table.
pub const CLASS_WORDS: usize = 4;
/// Most size classes a header can describe.
pub const CLASSES_MAX: usize = 96;
/// Words of one class.
pub mod class {
    /// Bytes of a slot; 0 for the singleton class, whose blocks differ.
    pub const SLOT_BYTES: usize = 0;
    /// Bytes of the page runs that serve this class now.
    pub const PAGE_BYTES: usize = 1;
    /// Slots carved from them so far (free or used); singletons: bytes of their slots.
    pub const CAPACITY: usize = 2;
    /// Page runs.
    pub const PAGES: usize = 3;
}

/// Byte offset and room of the executable's path in the header.
pub const EXE_TEXT: (u64, usize) = (8 * 1024, 1024);
/// Byte offset and room of the command line (arguments NUL separated, cut to fit).
pub const COMMAND_TEXT: (u64, usize) = (9 * 1024, 4096);
/// Byte offset and room of the service name.
pub const SERVICE_TEXT: (u64, usize) = (13 * 1024, 256);

/// Words of a module slot.
pub mod module {
    /// 0 empty, 1 loaded, 2 unloaded. Written last.
    pub const STATE: usize = 0;
    /// First mapped address.
    pub const START: usize = 1;
    /// One past the last mapped address.
    pub const END: usize = 2;
    /// Load bias: address in process minus address in file.
    pub const BIAS: usize = 3;
    /// Tick when first seen.
    pub const LOADED: usize = 4;
    /// Tick when found unloaded.
    pub const UNLOADED: usize = 5;
    /// Bytes of the build id (at most 32).
    pub const BUILD_ID_LEN: usize = 6;
    /// Bytes of the path (at most 416).
    pub const PATH_LEN: usize = 7;
    /// Byte offset of the build id in the slot.
    pub const BUILD_ID_AT: usize = 64;
    /// Byte offset of the path in the slot.
    pub const PATH_AT: usize = 96;
    /// Room for the path.
    pub const PATH_MAX: usize = 416;
}

const LINEAR_TICKS: u64 = 1 << 25;
const LINEAR_MS: u64 = LINEAR_TICKS * 4;
/// Largest tick; the clock stays there.
pub const TICK_MAX: u64 = (1 << 26) - 1;

/// The tick `ms` milliseconds after the process started.
pub const fn tick_from_ms(ms: u64) -> u64 {
    let tick = if ms < LINEAR_MS {
        ms / 4
    } else {
        LINEAR_TICKS + (ms - LINEAR_MS) / 1000
    };
    if tick > TICK_MAX { TICK_MAX } else { tick }
}

/// Milliseconds after the process's start that `tick` began.
pub const fn ms_from_tick(tick: u64) -> u64 {
    if tick < LINEAR_TICKS {
        tick * 4
    } else {
        LINEAR_MS + (tick - LINEAR_TICKS) * 1000
    }
}

const _: () = assert!((word::CLASSES + CLASSES_MAX * CLASS_WORDS) * 8 <= EXE_TEXT.0 as usize);
const _: () = assert!(SERVICE_TEXT.0 + SERVICE_TEXT.1 as u64 <= HEADER_BYTES);
const _: () = assert!((module::PATH_AT + module::PATH_MAX) as u64 == MODULE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: ticks never run backwards and convert within their resolution. Method: around the bend.
    #[test]
    fn ticks_are_monotone_and_invertible() {
        let mut last = 0;
        for ms in [0, 3, 4, LINEAR_MS - 1, LINEAR_MS, LINEAR_MS + 999, u64::MAX] {
            let tick = tick_from_ms(ms);
            assert!(tick >= last && tick <= TICK_MAX);
            last = tick;
            assert!(ms_from_tick(tick) <= ms);
        }
        assert_eq!(
            ms_from_tick(tick_from_ms(LINEAR_MS + 5000)),
            LINEAR_MS + 5000
        );
    }
}
