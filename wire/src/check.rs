//! What a reachability check found: one section of the shared state.
//!
//! # Design
//! ```text
//! 0           header   CHECK_HEADER_BYTES   words named in [`word`]; the chain asked for [`chain`];
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
pub const LINK_WORDS: usize = 6;

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
    /// Whose chain this check looked for, a [`super::Wanted`]; 0 for none.
    pub const WHY: usize = 22;
    /// Links written from [`CHAIN`].
    pub const LINKS: usize = 23;
    /// Links that found no place: they lie between the first and the second half of those written.
    pub const LEFT_OUT: usize = 24;
    /// [`super::Chain`]: what was looked for, and what the links are.
    pub const CHAIN_STATE: usize = 25;
    /// Class of the block at the chain's end.
    pub const CHAIN_CLASS: usize = 26;
    /// Bytes from that block's start to the address that was asked for.
    pub const CHAIN_INTO: usize = 27;
    /// Of a process that ends and asked to be checked first: a word of [`super::turn`], the daemon's to
    /// write.
    pub const TURN: usize = 28;
    /// Not 0 when that process does not wait any longer.
    pub const WITHDRAWN: usize = 29;
    /// Whose chain the next check on request is to look for, a [`super::Wanted`]; 0 for none.
    /// The daemon writes it before it asks.
    pub const ASKED: usize = 30;
    /// [`super::option`] bits that who asks for a check wants; the daemon's to write.
    pub const WANTED: usize = 31;
    /// Bytes of text from [`super::SUPPRESSIONS_AT`].
    pub const SUPPRESSIONS_BYTES: usize = 40;
    /// First word of the chain, root first.
    pub const CHAIN: usize = 128;
}

/// What the daemon does about a process that waits for its last check.
pub mod turn {
    /// It has not begun.
    pub const NOBODYS: u64 = 0;
    /// It has begun.
    pub const TAKEN: u64 = 1;
    /// There is a result.
    pub const DONE: u64 = 2;
    /// The process could not be held, or not copied.
    pub const REFUSED: u64 = 3;
    /// The search took too long.
    pub const TOO_LONG: u64 = 4;
    /// The copy died of what it met.
    pub const DAMAGED: u64 = 5;
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
    /// [`super::Root`] for the first link of a chain from a root, 0 for blocks. A block that the
    /// loader keeps is both.
    pub const KIND: usize = 0;
    /// Address of the word that points on (in a root), or of the block; of a
    /// register its number, in the order of [`super::saved::REGISTERS`].
    pub const ADDRESS: usize = 1;
    /// Requested bytes of the block; of a root in a thread, its tid.
    pub const BYTES: usize = 2;
    /// Site of the block.
    pub const SITE: usize = 3;
    /// Bytes from the block's start to the word in it that points on; of thread-local
    /// storage from the word to the thread's control block, 0 behind that.
    pub const OFFSET: usize = 4;
    /// Bytes from the block's start to where the pointer to it points.
    pub const INTO: usize = 5;
}

/// Words of a stopped thread in the buffer at [`crate::process::word::HELD_THREADS`]: its
/// id, stack pointer, the 15 other general registers, and where its thread-local storage is.
pub mod stopped {
    /// Words of one thread.
    pub const WORDS: usize = 18;
    /// Thread id; 0 ends the list.
    pub const TID: usize = 0;
    /// Beside that 0: threads that are not in the list, because they did not stop in time.
    pub const MISSED: usize = 1;
    /// Stack pointer.
    pub const SP: usize = 1;
    /// First of the other registers.
    pub const REGISTERS: usize = 2;
    /// Where its thread-local storage ends: the control block that `fs` points to.
    pub const CONTROL: usize = 17;
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
    /// A copy would be the first process of a new process id namespace.
    Namespace = 8,
}
/// Name of each [`Reason`].
pub const REASON_NAMES: [&str; 9] = [
    "none",
    "no_records",
    "fork",
    "filter",
    "memory",
    "too_long",
    "system",
    "damaged",
    "namespace",
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
    /// Blocks without a record.
    Unrecorded = 7,
}
/// Name of each [`Root`].
pub const ROOT_NAMES: [&str; 8] = [
    "block",
    "global",
    "stack",
    "register",
    "tls",
    "mapping",
    "runtime",
    "unrecorded",
];

/// What came of looking for a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Chain {
    /// None was asked for.
    None = 0,
    /// From a root to the block.
    Reached = 1,
    /// No root leads to it; the links lead from a block that nothing points to, or of a ring.
    Lost = 2,
    /// There is no live block with a record there, or of this site and class.
    Nothing = 3,
    /// There was no memory for the search.
    Memory = 4,
    /// It took too long.
    TooLong = 5,
    /// The way was not found again: the program ran on and changed it.
    Moved = 6,
}

/// Whose chain is wanted, in one word: an address of user space, or with the highest bit set a
/// site, and above it which class of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The block that this address lies in.
    Address(u64),
    /// Any live block of a site, of this class or of any.
    Site(u32, Option<Class>),
}

impl Wanted {
    const SITE: u64 = 1 << 63;

    /// As a word.
    pub const fn pack(self) -> u64 {
        match self {
            Self::Address(address) => address & !Self::SITE,
            Self::Site(site, None) => Self::SITE | site as u64,
            Self::Site(site, Some(class)) => Self::SITE | (class as u64 + 1) << 32 | site as u64,
        }
    }

    /// Back from a word; `None` for 0 and for what is no such word.
    pub const fn unpack(word: u64) -> Option<Self> {
        if word & Self::SITE == 0 {
            return match word {
                0 => None,
                address => Some(Self::Address(address)),
            };
        }
        let class = match (word & !Self::SITE) >> 32 {
            0 => None,
            1 => Some(Class::Definite),
            2 => Some(Class::Indirect),
            3 => Some(Class::Possible),
            4 => Some(Class::Reachable),
            _ => return None,
        };
        Some(Self::Site(word as u32, class))
    }
}

const _: () = assert!((word::CHAIN + CHAIN_MAX * LINK_WORDS) as u64 * 8 <= SUPPRESSIONS_AT);

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: what is wanted survives its word, and noise is nothing. Method: each kind and back.
    #[test]
    fn wanted_survives_its_word() {
        for wanted in [
            Wanted::Address(0x7f00_1234_5678),
            Wanted::Site(7, None),
            Wanted::Site(u32::MAX, Some(Class::Definite)),
            Wanted::Site(0, Some(Class::Reachable)),
        ] {
            assert_eq!(Wanted::unpack(wanted.pack()), Some(wanted));
        }
        for noise in [0, u64::MAX, 1 << 63 | 5 << 32] {
            assert_eq!(Wanted::unpack(noise), None);
        }
    }
}
