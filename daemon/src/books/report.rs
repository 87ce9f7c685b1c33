//! The report as users and scripts see it: `/leaks.json`, `pageshim report`, captures.
//!
//! Field names are a contract: add freely, rename never.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::growth::Growth;
use super::syscalls::Brief;
use super::why::Why;
use crate::bill::report::Bill;
use crate::whatif::report::Cost;

/// Version of this document.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything known at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// One entry per process image, newest first.
    pub processes: Vec<Process>,
    /// Sites with live blocks, most bytes first.
    pub leaks: Vec<Leak>,
}

/// Bytes and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

/// How a process stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its connection is open.
    #[default]
    Running,
    /// It ended by itself (exit, main's return, exec).
    Exited,
    /// It ended by a signal, or without a word.
    Killed,
}

impl State {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Killed => "killed",
        }
    }
}

/// How a process ended, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status.
    pub code: Option<i32>,
    /// Signal number.
    pub signal: Option<i32>,
}

/// Where the heap's committed bytes go: the first six parts sum to `committed_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Live bytes as asked for.
    pub requested_bytes: u64,
    /// Slot bytes beyond them, in live blocks.
    pub rounding_bytes: u64,
    /// Carved slots without a block.
    pub free_slot_bytes: u64,
    /// Page runs' ends and parts never carved.
    pub tail_bytes: u64,
    /// Accessible slices that serve no class now.
    pub retained_bytes: u64,
    /// Page structs, records, tables, shared state.
    pub metadata_bytes: u64,
    /// The sum of the above.
    pub committed_bytes: u64,
    /// Resident bytes of the heap now, from the kernel (0 of a process that
    /// ended, and when it could not be asked).
    pub resident_bytes: u64,
    /// The highest of all samples of that while it ran; 0 when there was none.
    #[serde(default)]
    pub resident_peak_bytes: u64,
    /// The last of them.
    #[serde(default)]
    pub resident_last_bytes: u64,
}

/// Calls to the kernel made by the layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syscalls {
    /// `mmap`.
    pub mmap: u64,
    /// `munmap`.
    pub munmap: u64,
    /// `madvise`.
    pub madvise: u64,
    /// `mremap`.
    pub mremap: u64,
    /// `mprotect`.
    pub mprotect: u64,
    /// Everything else.
    pub other: u64,
    /// Time spent in all of them, ns.
    pub nanoseconds: u64,
}

/// What a process's numbers are worth that looked at samples only: `live`, `peak`,
/// `total`, `freed`, `apis` and the account's requested, rounding and free slot bytes
/// are estimates then, and `temporary` is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// Mean bytes between samples.
    pub interval_bytes: u64,
    /// Standard errors of `live`.
    pub live_error: Amount,
    /// Standard errors of `total`.
    pub total_error: Amount,
}

/// Standard errors of a site's estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteError {
    /// Of `blocks`.
    pub blocks: u64,
    /// Of `bytes`.
    pub bytes: u64,
    /// Of `total_blocks`.
    pub total_blocks: u64,
    /// Of `total_bytes`.
    pub total_bytes: u64,
}

/// One process image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Stable id: hex of the token.
    pub id: String,
    /// Process id.
    pub pid: u32,
    /// Service name, else the file name of the first command word, else the executable's.
    pub name: String,
    /// Path of the executable.
    pub executable: String,
    /// Arguments.
    pub command: Vec<String>,
    /// Running, exited or killed.
    pub state: State,
    /// How it ended; null while it runs.
    pub exit: Option<Exit>,
    /// `exact`, `count`, …
    pub mode: String,
    /// Null when every block was looked at; else how far off the estimates may be.
    #[serde(default)]
    pub sampling: Option<Sampling>,
    /// `gpa`, `page`, …
    pub heap: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Seconds from start to end or now.
    pub seconds: f64,
    /// Live now (or at the end).
    pub live: Amount,
    /// Most live bytes, and the blocks then.
    pub peak: Amount,
    /// All ever allocated.
    pub total: Amount,
    /// All ever freed.
    pub freed: Amount,
    /// Blocks freed before their thread's next allocation.
    pub temporary: u64,
    /// Allocations by api (`malloc`, `calloc`, …).
    pub apis: BTreeMap<String, u64>,
    /// Page account.
    pub pages: Pages,
    /// The account of the sample with most requested bytes; null when there was none.
    #[serde(default)]
    pub pages_at_peak: Option<Pages>,
    /// Where its resident bytes go, without sites: the last bill that was taken while
    /// it ran; null when nobody asked for one.
    #[serde(default)]
    pub bill: Option<Bill>,
    /// System calls.
    pub syscalls: Syscalls,
    /// Who caused most of them; null where nobody asked, and in modes without stacks.
    #[serde(default)]
    pub syscall_bill: Option<Brief>,
    /// What the same requests cost on other layers; empty where blocks are not counted.
    #[serde(default)]
    pub costs: Vec<Cost>,
    /// Null until a reachability check ran.
    pub check: Option<Check>,
    /// What was not recorded, all reasons.
    pub events_dropped: u64,
    /// The same by reason, reasons with zero left out.
    pub drops: BTreeMap<String, u64>,
    /// True when repeated cycles of frames were cut from its stacks (`PAGESHIM_FOLD=1`).
    #[serde(default)]
    pub recursion_folded: bool,
    /// Captured stacks compared with full unwinds, by outcome: `equal`, `frames`, `depth`, `end`,
    /// `site`. Empty unless the process ran with `PAGESHIM_VERIFY=1`.
    #[serde(default)]
    pub verified: BTreeMap<String, u64>,
    /// Misuse by kind, kinds with zero left out.
    pub misuse: BTreeMap<String, u64>,
    /// The last few misuses with the calls that did it, the latest last.
    #[serde(default)]
    pub misuse_reports: Vec<MisuseReport>,
    /// Distinct stacks seen.
    pub sites: u64,
    /// Live blocks of sites that are not listed: of an ended process only the
    /// largest 50,000 sites are kept.
    #[serde(default)]
    pub unlisted: Amount,
    /// Threads now and ever.
    pub threads: Threads,
    /// Id of the process it was forked from.
    pub parent: Option<String>,
    /// Chains of pointers that were asked for, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Why>,
}

/// One call that misused the heap. Stacks are leaf first, empty when not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MisuseReport {
    /// Kind, as in `misuse`.
    pub kind: String,
    /// The pointer of the last time, hex.
    pub address: String,
    /// How often by this call.
    pub count: u64,
    /// The call.
    pub call: Vec<Frame>,
    /// Where the block had been allocated.
    pub allocated: Vec<Frame>,
    /// Where it had been freed first.
    pub freed: Vec<Frame>,
}

/// Thread counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// Running now.
    pub live: u64,
    /// Ever started.
    pub total: u64,
}

/// One site's live blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Id of the process.
    pub process: String,
    /// Site id: hex of the stack's hash, stable between runs of one build where addresses are.
    pub site: String,
    /// `live` until a check ran, then `definite`, `indirect`, `possible`, `reachable`, and `live`
    /// for what was allocated since.
    pub class: String,
    /// Live blocks.
    pub blocks: u64,
    /// Live requested bytes.
    pub bytes: u64,
    /// Blocks that only these definite ones lead to; null of other classes.
    #[serde(default)]
    pub held: Option<Amount>,
    /// The pattern that takes these lost blocks out of the findings; null when none does.
    #[serde(default)]
    pub suppressed: Option<String>,
    /// Whether they become more; null of a process that ended.
    #[serde(default)]
    pub growth: Option<Growth>,
    /// Bytes that would return to the kernel if only these were freed; null when not computed.
    pub pinned_bytes: Option<u64>,
    /// All blocks ever allocated here.
    pub total_blocks: u64,
    /// All bytes ever allocated here.
    pub total_bytes: u64,
    /// Blocks freed before their thread's next allocation.
    pub temporary_blocks: u64,
    /// Sum of the lifetimes of blocks freed, ms.
    #[serde(default)]
    pub lifetime_ms: u64,
    /// Slot bytes beyond the requests, over all blocks ever.
    #[serde(default)]
    pub total_rounding_bytes: u64,
    /// Null of an exact process; else how far off these numbers may be.
    #[serde(default)]
    pub error: Option<SiteError>,
    /// Upper bound of the oldest live block's age: time since the site was first seen.
    pub oldest_seconds: f64,
    /// Thread that saw the stack first.
    pub thread: String,
    /// Null when the stack is whole, else why it ends where it does.
    pub incomplete: Option<String>,
    /// Leaf first; the first frame is the caller of the allocation function.
    pub stack: Vec<Frame>,
}

impl Leak {
    /// This leak as JSON, with `stack` as the inside of its list of frames.
    pub fn written_with(&self, stack: &[u8]) -> Vec<u8> {
        // Plain data: serde_json has nothing to refuse.
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        debug_assert!(text.ends_with(b"\"stack\":[]}"), "its last field, empty");
        text.truncate(text.len().saturating_sub(2));
        text.extend_from_slice(stack);
        text.extend_from_slice(b"]}");
        text
    }
}

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Demangled name, or `fun_1a2b@libfoo.so` where there is no symbol.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Line.
    pub line: Option<u32>,
    /// File name of the module.
    pub module: String,
    /// Its whole path, as the process saw it; empty where it is not known.
    #[serde(default)]
    pub module_path: String,
    /// Address in the process, hex.
    pub address: String,
    /// True for a function inlined into the next frame.
    pub inlined: bool,
}
