//! What a reachability check found: one section of the shared state.
//!
//! # Design
//! ```text
//! 0           header   CHECK_HEADER_BYTES   words named in [`word`]; the chain asked for;
//!                                           from SUPPRESSIONS_AT the program's suppressions
//! rows        site_capacity * ROW_BYTES     one a site id, words named in [`row`]
//! ```
//! Only whoever marks writes here: the process itself when it ends, or a fork of it
//! that shares this section. [`word::SEQUENCE`] is odd while it writes, so a reader
//! that sees the same even number before and after has one whole result. Rows of
//! sites that hold nothing stay untouched, and with them the pages they lie on.
//!
//! Classes are Memcheck's: a block is *reachable* when a chain of pointers to the
//! starts of blocks leads to it from a root, *possible* when each chain has a pointer
//! into the middle of a block, *indirect* when only lost blocks point to it, and
//! *definite* when none does.

/// Bytes of the section's header.
pub const CHECK_HEADER_BYTES: u64 = 8192;
/// Where in it the program's own suppressions are, as text.
pub const SUPPRESSIONS_AT: u64 = 4096;
/// Most bytes of that text.
pub const SUPPRESSIONS_MAX: u64 = 3072;
/// Bytes of one site's row.
pub const ROW_BYTES: u64 = 128;
/// Links a chain may have.
pub const CHAIN_MAX: usize = 64;
/// Words of one link, see [`link`].
pub const LINK_WORDS: usize = 4;

/// Header word numbers.
pub mod word {
    /// Twice the number of results so far; odd while one is written.
    pub const SEQUENCE: usize = 0;
    /// [`super::State`] of the last check.
    pub const STATE: usize = 1;
    /// [`super::Reason`] it is not what was asked for.
    pub const REASON: usize = 2;
    /// [`super::Trigger`].
    pub const TRIGGER: usize = 3;
    /// [`super::Method`].
    pub const METHOD: usize = 4;
    /// How long the threads stood still, ns.
    pub const PAUSE_NS: usize = 5;
    /// How long it took from the stop to the result, ns.
    pub const DURATION_NS: usize = 6;
    /// Bytes read: roots and blocks.
    pub const SCANNED_BYTES: usize = 7;
    /// Bytes of roots among them.
    pub const ROOT_BYTES: usize = 8;
    /// Threads whose registers were seen.
    pub const THREADS: usize = 9;
    /// Threads that did not stop in time: their stacks were read whole.
    pub const THREADS_MISSED: usize = 10;
    /// Tick of the snapshot.
    pub const TICK: usize = 11;
    /// First of [`super::CLASSES`] pairs (blocks, bytes).
    pub const CLASSES: usize = 12;
    /// Live blocks without a record, which have no site and no requested size: none of the classes.
    pub const UNRECORDED: usize = 20;
    /// [`super::option`] bits the check went by.
    pub const OPTIONS: usize = 21;
    /// Address whose chain was asked for, or 0; a site id when below `1 << 22`.
    pub const WHY: usize = 22;
    /// Links written from [`CHAIN`].
    pub const LINKS: usize = 23;
    /// [`super::option`] bits that who asks for a check wants; the daemon's to write.
    pub const WANTED: usize = 24;
    /// Bytes of text from [`super::SUPPRESSIONS_AT`].
    pub const SUPPRESSIONS_BYTES: usize = 40;
    /// First word of the chain, root first.
    pub const CHAIN: usize = 128;
}

/// Words of a site's row.
pub mod row {
    /// First of [`super::CLASSES`] pairs (blocks, bytes).
    pub const CLASSES: usize = 0;
    /// Blocks and bytes that only this site's definite blocks lead to: a pair.
    pub const HELD: usize = 8;
    /// First of [`super::CLASSES`] birth ticks: the oldest block of the class.
    pub const OLDEST: usize = 10;
    /// Address of one block in the worst class the site has.
    pub const EXAMPLE: usize = 14;
}

/// Words of a link of a chain.
pub mod link {
    /// [`super::Root`] for the first link, 0 for blocks.
    pub const KIND: usize = 0;
    /// Address of the word that points on (in a root), or of the block.
    pub const ADDRESS: usize = 1;
    /// Requested bytes of the block; of a root in a thread, its tid.
    pub const BYTES: usize = 2;
    /// Site of the block, and in the high 32 bits the offset of the word in it that points on.
    pub const SITE: usize = 3;
}

/// Words of a stopped thread in the buffer at [`crate::process::word::HELD_THREADS`]: its
/// id, stack pointer, then the 15 other general registers.
pub mod stopped {
    /// Words of one thread.
    pub const WORDS: usize = 17;
    /// Thread id; 0 ends the list.
    pub const TID: usize = 0;
    /// Stack pointer.
    pub const SP: usize = 1;
    /// First of the other registers.
    pub const REGISTERS: usize = 2;
}

/// Words of the block at [`crate::process::word::HELD_SAVED`]: what the thread that was lent for a
/// check goes on with when it is done, system calls cut short to be made again.
pub mod saved {
    /// Words in all.
    pub const WORDS: usize = 19;
    /// First of rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    pub const REGISTERS: usize = 0;
    /// Stack pointer.
    pub const SP: usize = 15;
    /// Program counter.
    pub const PC: usize = 16;
    /// Flags.
    pub const FLAGS: usize = 17;
    /// Written by the entry when it is done: of a fork a process id or a negative error,
    /// else 1. The tracer writes 0 before.
    pub const CHILD: usize = 18;
}

/// Bits of [`word::OPTIONS`].
pub mod option {
    /// Roots are those of LeakSanitizer: no other writable mappings.
    pub const STRICT: u64 = 1;
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// There was none.
    None = 0,
    /// It goes on.
    Running = 1,
    /// The result is whole.
    Done = 2,
    /// There is no result; the reason says why.
    Failed = 3,
}

/// What asked for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Trigger {
    /// The process ended.
    Exit = 0,
    /// A person or a program did.
    Request = 1,
}

/// How the heap was held still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Method {
    /// A fork was marked while the process went on.
    Fork = 0,
    /// Marked in the process while the daemon held its threads.
    Held = 1,
    /// Marked in the process while a signal held its other threads.
    Signal = 2,
    /// Marked by the only thread there was.
    Alone = 3,
}
/// Name of each [`Method`].
pub const METHOD_NAMES: [&str; 4] = ["fork", "held", "signal", "alone"];

/// Why a check failed, or was made another way than by fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Reason {
    /// Nothing to say.
    None = 0,
    /// Blocks have no records in this mode or heap.
    NoRecords = 1,
    /// The fork was refused.
    Fork = 2,
    /// A filter of system calls (seccomp) made a fork too dangerous.
    Filter = 3,
    /// No memory for the marks.
    Memory = 4,
    /// It took too long.
    TooLong = 5,
    /// A system call needed for it failed.
    System = 6,
    /// Whoever marked died of it: the memory is damaged.
    Damaged = 7,
}
/// Name of each [`Reason`].
pub const REASON_NAMES: [&str; 8] = [
    "none",
    "no_records",
    "fork",
    "filter",
    "memory",
    "too_long",
    "system",
    "damaged",
];

/// A class of blocks; index of its pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Class {
    /// Nothing points to it.
    Definite = 0,
    /// Only lost blocks point to it.
    Indirect = 1,
    /// Only a pointer into a block leads to it.
    Possible = 2,
    /// A root leads to it.
    Reachable = 3,
}
/// How many classes there are.
pub const CLASSES: usize = 4;
/// Name of each [`Class`].
pub const CLASS_NAMES: [&str; CLASSES] = ["definite", "indirect", "possible", "reachable"];

/// What kind of place a chain begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Root {
    /// A block, no root.
    Block = 0,
    /// Writable data of a module.
    Global = 1,
    /// A thread's stack.
    Stack = 2,
    /// A thread's registers.
    Register = 3,
    /// Thread-local storage, thread-specific values.
    Tls = 4,
    /// Another writable mapping.
    Mapping = 5,
    /// The loader or libc keeps it for itself.
    Runtime = 6,
}
/// Name of each [`Root`].
pub const ROOT_NAMES: [&str; 7] = [
    "block", "global", "stack", "register", "tls", "mapping", "runtime",
];
