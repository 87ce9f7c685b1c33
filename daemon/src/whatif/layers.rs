//! What our own layers cost.

use super::models;
use super::report::{Basis, Cost};
use super::requests::{OS_PAGE, Requests};
use crate::books::report::Process;

/// The arena makes room in steps of at least this, and of half of what it has.
const ARENA_STEP: u64 = 1 << 20;
/// Bytes that one OS page of an arena's start bits covers.
const STARTS_REACH: u64 = OS_PAGE * 8 * 16;
/// Bytes of the page layer's table for an OS page, and how much of it is committed at once.
const TABLE_ENTRY: u64 = 24;
const TABLE_STEP: u64 = 256 << 10;
/// Address ranges made before the first block: a layer's own, its books' and the gpa's.
const RESERVES: u64 = 3;
/// Mappings that blocks of the page layer may be, as the kernel is usually set.
const MAPPINGS: u64 = 65_530 / 5 * 4;

/// A row each layer and model.
pub fn costs(requests: &Requests, process: &Process) -> Vec<Cost> {
    let mut costs = vec![page(requests, process)];
    costs.extend(arena(requests, process));
    costs.retain(|cost| cost.layer != process.heap);
    costs.push(measured(requests, process));
    costs.extend(models::costs(requests, process));
    costs
}

/// Pages, peak, and what of the pages is not asked for.
fn cost(layer: &str, basis: Basis, held: u64, peak: u64, live: u64) -> Cost {
    let pages = held.div_ceil(OS_PAGE);
    Cost {
        layer: layer.to_owned(),
        basis,
        pages: Some(pages),
        peak_bytes: Some(peak.max(held)),
        waste_bytes: Some(pages.saturating_mul(OS_PAGE).saturating_sub(live)),
        ..Cost::default()
    }
}

fn page(requests: &Requests, process: &Process) -> Cost {
    let held = requests.pages.saturating_mul(OS_PAGE);
    let peak = requests.pages_max.saturating_mul(OS_PAGE);
    let table = requests.pages_max.saturating_mul(TABLE_ENTRY);
    let blocks = process.total.blocks.saturating_add(process.freed.blocks);
    let calls = blocks.saturating_add_signed(requests.page_calls);
    let mut note =
        "each block has OS pages of its own, a call to map and one to unmap them".to_owned();
    if process.peak.blocks > MAPPINGS {
        note.push_str("; so many blocks need a higher vm.max_map_count");
    }
    Cost {
        syscalls: Some(calls.saturating_add(table.div_ceil(TABLE_STEP) + RESERVES)),
        note,
        ..cost("page", Basis::Counted, held, peak, process.live.bytes)
    }
}

/// Calls by which an arena grows to `filled` bytes, its start bits included.
pub fn arena_calls(filled: u64) -> u64 {
    let (mut committed, mut starts, mut calls) = (0u64, 0u64, 0);
    while committed < filled {
        let grown = committed.saturating_add(ARENA_STEP.max(committed / 2));
        committed = grown.div_ceil(ARENA_STEP).saturating_mul(ARENA_STEP);
        calls += 1;
        let needed = (committed / (STARTS_REACH / OS_PAGE) + 8).div_ceil(OS_PAGE);
        calls += u64::from(needed > starts);
        starts = starts.max(needed);
    }
    calls
}

fn arena(requests: &Requests, process: &Process) -> Vec<Cost> {
    let Some(packed) = requests.packed else {
        return Vec::new();
    };
    // Nothing that was touched goes back.
    let held = packed.most.div_ceil(OS_PAGE).saturating_mul(OS_PAGE);
    let row = |layer: &str, note: String| Cost {
        syscalls: Some(arena_calls(packed.most) + RESERVES),
        note,
        ..cost(layer, Basis::Counted, held, held, process.live.bytes)
    };
    let threads = match process.threads.total {
        0 | 1 => "",
        _ => ", counted for each thread by itself",
    };
    let note = format!("nothing is freed but the last block{threads}");
    let buffer = format!("fits PAGESHIM_HEAP=fixed:{held}");
    vec![row("arena", note), row("fixed", buffer)]
}

/// What it really cost where it ran.
fn measured(requests: &Requests, process: &Process) -> Cost {
    let (now, most) = requests.committed;
    let (held, peak, note) = match process.heap.as_str() {
        "gpa" => resident(requests, process),
        // Nothing that was touched goes back.
        "arena" | "fixed" => (most, most, "bytes handed out"),
        _ => (now, most, "bytes of blocks' pages"),
    };
    Cost {
        syscalls: Some(requests.calls),
        note: format!("where it ran: {note}"),
        ..cost(
            &process.heap,
            Basis::Measured,
            held,
            peak,
            process.live.bytes,
        )
    }
}

fn resident(requests: &Requests, process: &Process) -> (u64, u64, &'static str) {
    let pages = &process.pages;
    if pages.resident_peak_bytes == 0 {
        let (now, most) = requests.committed;
        return (
            now,
            most,
            "committed bytes, of which not all need be resident",
        );
    }
    let now = match pages.resident_bytes {
        0 => pages.resident_last_bytes,
        now => now,
    };
    // A sample may have missed the peak, when at least what was asked for was held.
    let peak = pages.resident_peak_bytes.max(process.peak.bytes);
    let note = "resident bytes by the kernel, the peak that of samples or of live bytes";
    (now, peak.min(requests.committed.1.max(now)), note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::report::Amount;
    use crate::whatif::requests::Packed;

    fn process() -> Process {
        let amount = |bytes, blocks| Amount { bytes, blocks };
        Process {
            heap: "gpa".to_owned(),
            live: amount(5000, 10),
            peak: amount(9000, 20),
            total: amount(90_000, 100),
            freed: amount(85_000, 90),
            ..Process::default()
        }
    }

    fn of<'a>(costs: &'a [Cost], layer: &str) -> &'a Cost {
        costs
            .iter()
            .find(|cost| cost.layer == layer)
            .expect("there")
    }

    // Goal: each layer's numbers follow from the counters. Method: ten small blocks by hand.
    #[test]
    fn layers_cost_what_their_design_says() {
        let requests = Requests {
            pages: 11,
            pages_max: 21,
            page_calls: -2,
            packed: Some(Packed {
                filled: 9000,
                most: 12_289,
            }),
            calls: 7,
            committed: (65_536, 131_072),
            ..Requests::default()
        };
        let costs = costs(&requests, &process());
        let page = of(&costs, "page");
        assert_eq!((page.pages, page.peak_bytes), (Some(11), Some(21 * 4096)));
        assert_eq!(page.waste_bytes, Some(11 * 4096 - 5000));
        assert_eq!(page.syscalls, Some(100 + 90 - 2 + 1 + 3));
        let arena = of(&costs, "arena");
        assert_eq!((arena.pages, arena.peak_bytes), (Some(4), Some(4 * 4096)));
        assert_eq!(of(&costs, "fixed").note, "fits PAGESHIM_HEAP=fixed:16384");
        let gpa = of(&costs, "gpa");
        assert_eq!((gpa.peak_bytes, gpa.syscalls), (Some(131_072), Some(7)));
    }

    // Goal: an arena's calls are those of its chunks and start bits. Method: sizes by hand.
    #[test]
    fn an_arena_grows_by_half() {
        assert_eq!(arena_calls(0), 0);
        assert_eq!(arena_calls(1), 2, "a mebibyte and its bits");
        assert_eq!(arena_calls(1 << 20), 2);
        assert_eq!(arena_calls((1 << 20) + 1), 4);
    }

    // Goal: count mode, other heaps and hostile numbers do no harm. Method: one of each.
    #[test]
    fn what_is_not_known_is_left_out() {
        let mut process = process();
        process.heap = "page".to_owned();
        process.total.blocks = u64::MAX;
        let requests = Requests {
            pages: u64::MAX,
            pages_max: u64::MAX,
            page_calls: i64::MIN,
            ..Requests::default()
        };
        let costs = costs(&requests, &process);
        let rows: Vec<&str> = costs.iter().map(|cost| cost.layer.as_str()).collect();
        assert_eq!(rows, ["page"]);
        assert_eq!(costs[0].basis, Basis::Measured);
    }
}
