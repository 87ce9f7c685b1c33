//! The chart as JSON and the page show it. Field names are a contract: add, never rename.

use serde::{Deserialize, Serialize};

use super::chart::{self, Cell};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Id, pid or name; else the newest that runs.
    pub process: Option<String>,
    /// Site in hex: only cells with a block of it match.
    pub site: Option<String>,
    /// Slot bytes (0 for singletons): only cells with a run of that class match.
    pub slot: Option<u32>,
}

/// `/pages.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// Version of this document.
    pub schema_version: u32,
    /// Id, as in the report; null when there is no such process.
    pub process: Option<String>,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub name: String,
    /// Null when there is none; `why_not` says why.
    pub heap: Option<Heap>,
    /// Why there is none.
    pub why_not: Option<String>,
}

/// One heap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heap {
    /// RFC 3339, UTC.
    pub taken_at: String,
    /// Seconds it took. The process was not stopped.
    pub took_seconds: f64,
    /// Bytes of a cell: 64 KiB, or more where there would be too many.
    pub cell_bytes: u64,
    /// Runs that changed while they were read, or made no sense.
    pub moved_runs: u64,
    /// Bytes in RAM, of all cells.
    pub resident_bytes: u64,
    /// Classes there are, by slot bytes; 0 for singletons.
    pub classes: Vec<u32>,
    /// Sites with most bytes, most first.
    pub sites: Vec<Holder>,
    /// Sites there are.
    pub sites_total: u64,
    /// Cells, by address and without a gap.
    pub cells: Vec<Place>,
}

/// A site with blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Site id, as in the report.
    pub site: String,
    /// First function that says something; empty when not looked up.
    pub function: String,
    /// Live blocks with a byte there.
    pub blocks: u64,
    /// Bytes of their slots there.
    pub bytes: u64,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Address, hex.
    pub start: String,
    /// Bytes.
    pub bytes: u64,
    /// `in_use`, else `retained`, else `free`, else `untouched`: the first that any byte is.
    pub state: String,
    /// Bytes of runs with a live block.
    pub in_use_bytes: u64,
    /// Bytes of runs without one that are kept.
    pub retained_bytes: u64,
    /// Bytes of free runs not in RAM.
    pub free_bytes: u64,
    /// Bytes never used.
    pub untouched_bytes: u64,
    /// Bytes in RAM.
    pub resident_bytes: u64,
    /// Bytes of slots with a live block.
    pub live_bytes: u64,
    /// Runs with a byte here.
    pub runs: u64,
    /// Slots that begin here, and there is room for.
    pub slots: u64,
    /// Of them, carved.
    pub carved_slots: u64,
    /// Of them, with a live block.
    pub live_slots: u64,
    /// Classes by slot bytes, most bytes first; 0 for singletons.
    pub classes: Vec<u32>,
    /// The first sites, most bytes first.
    pub sites: Vec<Holder>,
    /// How many there are.
    pub sites_total: u64,
    /// Who first carved most of its OS pages in RAM; null when that is not known.
    #[serde(default)]
    pub first_touched: Option<Toucher>,
    /// Whether the filter takes it; true without one.
    pub matches: bool,
}

/// A site that was the first to carve OS pages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Toucher {
    /// Site id, as in the report.
    pub site: String,
    /// First function that says something; empty when not looked up.
    pub function: String,
    /// OS pages.
    pub pages: u64,
}

impl Place {
    /// Of a cell, without its sites.
    pub fn of(cell: &Cell, asked: &Asked) -> Self {
        let class = |slot: u32| cell.classes.iter().any(|class| class.0 == slot);
        let state = [
            (cell.in_use, "in_use"),
            (cell.retained, "retained"),
            (cell.free, "free"),
        ];
        let state = state.iter().find(|state| state.0 > 0);
        Self {
            start: format!("0x{:x}", cell.start),
            bytes: cell.bytes,
            state: state.map_or("untouched", |state| state.1).to_owned(),
            in_use_bytes: cell.in_use,
            retained_bytes: cell.retained,
            free_bytes: cell.free,
            untouched_bytes: cell.untouched,
            resident_bytes: cell.resident,
            live_bytes: cell.live,
            runs: cell.runs,
            slots: cell.slots[0],
            carved_slots: cell.slots[1],
            live_slots: cell.slots[2],
            classes: cell.classes.iter().map(|class| class.0).collect(),
            sites: Vec::new(),
            first_touched: None,
            sites_total: cell.sites_total,
            matches: asked.slot.is_none_or(class) && (asked.site.is_none() || cell.wanted),
        }
    }
}

/// The classes of all cells, smallest first, singletons last.
pub fn classes(cells: &[Cell]) -> Vec<u32> {
    let all = cells.iter().flat_map(|cell| cell.classes.iter());
    let mut found: Vec<u32> = all.map(|class| class.0).collect();
    found.sort_unstable_by_key(|slot| slot.wrapping_sub(1));
    found.dedup();
    found
}

/// True when cells are more than a slice.
pub fn is_merged(cell_bytes: u64) -> bool {
    cell_bytes > chart::cell_bytes(0)
}
