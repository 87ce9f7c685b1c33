//! The bill as JSON and pages show it. Field names are a contract: add, never rename.

use serde::{Deserialize, Serialize};

use super::cost::{Alone, Cost, Parts};
use crate::books::report::Frame;
use crate::whatif::report::Advice;

/// `/waste.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waste {
    /// Version of this document.
    pub schema_version: u32,
    /// One entry a process: running ones, and ended ones that were looked at.
    pub processes: Vec<Entry>,
}

/// A process and its bill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Id, as in the report.
    pub process: String,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub name: String,
    /// `running`, `exited`, `killed`.
    pub state: String,
    /// Null when there is none; `why_not` says why.
    pub bill: Option<Bill>,
    /// Why there is no bill, or none of now.
    pub why_not: Option<String>,
    /// What to do about it, most worth doing first; as in `/whatif.json`.
    #[serde(default)]
    pub advice: Vec<Advice>,
}

/// Where the resident bytes of one heap go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bill {
    /// RFC 3339, UTC.
    pub taken_at: String,
    /// Seconds since then (of a process that ended: until its end).
    pub age_seconds: f64,
    /// Seconds it took. The process was not stopped.
    pub took_seconds: f64,
    /// The parts; they sum to `resident_bytes`.
    pub parts: Shares,
    /// Resident bytes of the heap and of its books.
    pub resident_bytes: u64,
    /// The same as smaps has it, read a moment before.
    pub smaps_bytes: u64,
    /// `resident_bytes` minus `smaps_bytes`.
    pub difference_bytes: i64,
    /// How much of `smaps_bytes` the parts explain, at most 100.
    pub explained_percent: f64,
    /// What else of the process is resident, from smaps.
    pub outside: Outside,
    /// Runs that changed while they were read: their bytes are `parts.moved_bytes`.
    pub moved_runs: u64,
    /// Committed bytes (not all of them resident) of further reserves, which a limit on
    /// address space leads to: not billed, but among `outside.anonymous_bytes`.
    pub unseen_bytes: u64,
    /// Bytes of blocks without records, split by counts.
    pub unrecorded_bytes: u64,
    /// Null when no huge page was there; else how `huge_excess_bytes` was found.
    pub huge_pages: Option<String>,
    /// Sites by resident bytes billed to them.
    pub sites: Vec<Site>,
    /// Sites with live blocks, listed or not.
    pub sites_total: u64,
    /// Sites whose blocks keep OS pages resident that hold little else, by what they keep.
    pub pinners: Vec<Pinner>,
}

/// Resident bytes by what they are, each byte once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Live blocks, as asked for.
    pub requested_bytes: u64,
    /// Slot bytes beyond that.
    pub rounding_bytes: u64,
    /// Slots without a block, in page runs that live blocks keep.
    pub free_slot_bytes: u64,
    /// Never handed out.
    pub tail_bytes: u64,
    /// Page runs without any live block.
    pub retained_bytes: u64,
    /// Never touched, resident because a huge page covers them.
    pub huge_excess_bytes: u64,
    /// pageshim's books: page structs, records, shared state.
    pub metadata_bytes: u64,
    /// Of runs that changed while they were read.
    pub moved_bytes: u64,
}

/// Resident bytes that are not the heap's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// Stacks of threads.
    pub stack_bytes: u64,
    /// Mapped files: programs, libraries, data.
    pub file_bytes: u64,
    /// Anonymous memory the program mapped itself, and pageshim's tables among it.
    pub anonymous_bytes: u64,
    /// Shared memory, and what the kernel maps.
    pub other_bytes: u64,
}

/// Pages, slices or ranges with one site's blocks only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Only {
    /// How many.
    pub count: u64,
    /// Resident bytes of them.
    pub bytes: u64,
}

/// One site's bill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Site id, as in the report.
    pub site: String,
    /// Live blocks.
    pub blocks: u64,
    /// Their requested bytes, resident or not.
    pub live_bytes: u64,
    /// Resident requested bytes.
    pub requested_bytes: u64,
    /// Resident rounding.
    pub rounding_bytes: u64,
    /// Free slots on pages it keeps, split among all who keep them.
    pub free_slot_bytes: u64,
    /// What returns to the kernel when only these blocks are freed.
    pub pinned_bytes: u64,
    /// Age of the oldest block.
    pub oldest_seconds: f64,
    /// OS pages only this site's blocks keep resident.
    pub alone_pages: Only,
    /// 64 KiB slices of page runs with no other site's blocks; page runs return whole.
    pub alone_slices: Only,
    /// 2 MiB ranges with no other site's blocks.
    pub alone_ranges: Only,
    /// Heap in RAM whose OS pages it was the first to carve, whoever uses them now.
    #[serde(default)]
    pub first_touched: Only,
    /// Thread that saw the stack first.
    pub thread: String,
    /// Leaf first.
    pub stack: Vec<Frame>,
}

/// One site that keeps pages with few blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pinner {
    /// Site id.
    pub site: String,
    /// The function that asked, beyond allocation wrappers.
    pub function: String,
    /// Blocks on the pages.
    pub blocks: u64,
    /// OS pages with no other site's blocks.
    pub pages: u64,
    /// Their resident bytes: what would return if OS pages returned one by one.
    pub bytes: u64,
    /// Bytes of them without a block.
    pub idle_bytes: u64,
    /// What returns when only these blocks are freed: page runs return whole.
    pub pinned_bytes: u64,
    /// Age of the oldest of the blocks.
    pub oldest_seconds: f64,
    /// All of it in a sentence.
    pub sentence: String,
}

impl Shares {
    /// The parts of a heap with the books' resident bytes.
    pub fn of(parts: &Parts, metadata_bytes: u64) -> Self {
        Self {
            requested_bytes: parts.requested,
            rounding_bytes: parts.rounding,
            free_slot_bytes: parts.free_slots,
            tail_bytes: parts.tails,
            retained_bytes: parts.retained,
            huge_excess_bytes: parts.huge,
            metadata_bytes,
            moved_bytes: parts.moved,
        }
    }
}

impl From<Alone> for Only {
    fn from(alone: Alone) -> Self {
        let Alone { count, bytes } = alone;
        Self { count, bytes }
    }
}

impl Site {
    /// The numbers; who it is, is for the caller to add.
    pub fn of(cost: &Cost, oldest_seconds: f64) -> Self {
        Self {
            blocks: cost.blocks,
            live_bytes: cost.live,
            requested_bytes: cost.requested,
            rounding_bytes: cost.rounding,
            free_slot_bytes: cost.free_slots,
            pinned_bytes: cost.slices.bytes,
            oldest_seconds,
            alone_pages: cost.pages.into(),
            alone_slices: cost.slices.into(),
            alone_ranges: cost.ranges.into(),
            ..Self::default()
        }
    }
}
