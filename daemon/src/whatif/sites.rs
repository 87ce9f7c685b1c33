//! What one site's requests cost elsewhere, from its own few counters.
//!
//! Its peak is not kept, and sizes only as a sum: numbers that need the size of each block
//! are estimates from the mean.

use super::models::{glibc_chunk, jemalloc_class};
use super::report::{Basis, Cost, Site};
use super::requests::OS_PAGE;
use crate::books::report::{Amount, Leak};

/// Bytes of an arena's header and, on average, of its padding of a block.
const ARENA_MORE: u64 = 16 + 4;

/// The site of a leak, with `function` and `place` as people read them.
pub fn site(leak: Leak, function: String, place: String) -> Site {
    let total = Amount {
        bytes: leak.total_bytes,
        blocks: leak.total_blocks,
    };
    let live = Amount {
        bytes: leak.bytes,
        blocks: leak.blocks,
    };
    let freed = total.blocks.saturating_sub(live.blocks);
    Site {
        site: leak.site,
        function,
        place,
        total,
        live,
        temporary_blocks: leak.temporary_blocks,
        rounding_bytes: leak.total_rounding_bytes,
        mean_life_ms: (freed > 0).then(|| leak.lifetime_ms as f64 / freed as f64),
        costs: costs(total, live, leak.temporary_blocks),
        stack: leak.stack,
    }
}

fn mean(amount: Amount) -> u64 {
    amount.bytes.checked_div(amount.blocks).unwrap_or(0)
}

/// OS pages with one block each, all of the mean size.
fn own_pages(amount: Amount) -> u64 {
    let each = mean(amount).max(1).div_ceil(OS_PAGE);
    amount.blocks.saturating_mul(each)
}

fn costs(total: Amount, live: Amount, temporary: u64) -> Vec<Cost> {
    let freed = total.blocks.saturating_sub(live.blocks);
    let row = |layer, basis, bytes, note| row(layer, basis, bytes, live.bytes, note);
    let kept = total.blocks.saturating_sub(temporary);
    let packed = kept.saturating_mul(mean(total).saturating_add(ARENA_MORE));
    let modelled = |of: fn(u64) -> u64| live.blocks.saturating_mul(of(mean(live)));
    let mapped = own_pages(live).saturating_mul(OS_PAGE);
    let mean_size = "live blocks of the mean size";
    let once = "all blocks ever but temporary ones: an arena frees all at once";
    let page = row("page", Basis::Estimated, mapped, mean_size);
    vec![
        Cost {
            syscalls: Some(total.blocks.saturating_add(freed)),
            ..page
        },
        row("arena", Basis::Estimated, packed, once),
        row("glibc", Basis::Model, modelled(glibc_chunk), mean_size),
        row(
            "jemalloc",
            Basis::Model,
            modelled(jemalloc_class),
            mean_size,
        ),
    ]
}

fn row(layer: &str, basis: Basis, bytes: u64, live_bytes: u64, note: &str) -> Cost {
    Cost {
        layer: layer.to_owned(),
        basis,
        pages: Some(bytes.div_ceil(OS_PAGE)),
        peak_bytes: None,
        waste_bytes: Some(bytes.saturating_sub(live_bytes)),
        syscalls: None,
        note: note.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a site's rows follow from its counters; none divides by zero. Method: by hand, and empty.
    #[test]
    fn a_sites_rows_follow_from_its_counters() {
        let leak = Leak {
            blocks: 10,
            bytes: 1000,
            total_blocks: 110,
            total_bytes: 11_000,
            temporary_blocks: 60,
            lifetime_ms: 400,
            ..Leak::default()
        };
        let site = site(leak, "f".to_owned(), "f.c:1".to_owned());
        let pages = |layer: &str| {
            let row = site.costs.iter().find(|cost| cost.layer == layer);
            row.and_then(|cost| cost.pages)
        };
        assert_eq!(site.mean_life_ms, Some(4.0));
        assert_eq!((pages("page"), pages("arena")), (Some(10), Some(2)));
        assert_eq!((pages("glibc"), pages("jemalloc")), (Some(1), Some(1)));
        let page = &site.costs[0];
        assert_eq!(
            (page.syscalls, page.waste_bytes),
            (Some(210), Some(40_960 - 1000))
        );
        let none = super::site(Leak::default(), String::new(), String::new());
        assert_eq!((none.mean_life_ms, none.costs[0].pages), (None, Some(0)));
        let most = Leak {
            blocks: u64::MAX,
            bytes: u64::MAX,
            total_blocks: 1,
            ..Leak::default()
        };
        assert_eq!(
            super::site(most, String::new(), String::new()).costs.len(),
            4
        );
    }
}
