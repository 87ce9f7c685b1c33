//! What the helper is asked and what it answers.

use serde::{Deserialize, Serialize};

/// Where the shim of a process says a lent thread may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Address of the code.
    pub entry: u64,
    /// Top of its stack.
    pub stack: u64,
    /// Address of the list of stopped threads.
    pub threads: u64,
    /// Threads it has room for, the end mark included.
    pub threads_max: u64,
    /// Address of what the lent thread goes on with.
    pub saved: u64,
}

/// What to do with which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Process id as the daemon sees it.
    pub pid: u32,
    /// Where a thread may go.
    pub door: Door,
    /// Inode of its shared state. The id may be another process's by now; only one that maps
    /// this state is written to.
    pub state_inode: u64,
    /// Filters of system calls it began under, and 1; 0 where that is not known.
    pub filters: u64,
    /// Mark in the process itself, never in a copy.
    pub in_place: bool,
    /// Longest time for the mark, ms.
    pub limit_ms: u64,
    /// It is about to end and waits for this: nothing of it goes on until a copy was searched.
    pub at_exit: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Empty when it went well, else why not.
    pub trouble: String,
    /// The kernel did not allow it: another way may do.
    pub refused: bool,
    /// Why there was no copy although one was wanted: a [`pageshim_wire::check::Reason`].
    pub reason: u64,
    /// Marked in a copy.
    pub forked: bool,
    /// How long the threads stood still, ns.
    pub pause_ns: u64,
}
