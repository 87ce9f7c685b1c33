//! Each rule fires where it should, and stays silent where it should not.

use super::*;
use crate::bill::report::{Bill, Shares};
use crate::books::report::{Amount, Pages, Syscalls};

fn process() -> Process {
    Process {
        mode: "exact".to_owned(),
        heap: "gpa".to_owned(),
        ..Process::default()
    }
}

/// A site that made `blocks` of `size`, of which `live` are left.
fn site(size: u64, blocks: u64, live: u64) -> Site {
    Site {
        site: "ab".to_owned(),
        function: "make".to_owned(),
        total: Amount {
            bytes: size * blocks,
            blocks,
        },
        live: Amount {
            bytes: size * live,
            blocks: live,
        },
        mean_life_ms: (live < blocks).then_some(1000.0),
        ..Site::default()
    }
}

/// The rules that fire for one site.
fn rules(process: &Process, site: Site) -> Vec<(String, Confidence)> {
    let all = advise(process, &[site]);
    all.into_iter()
        .map(|advice| (advice.rule, advice.confidence))
        .collect()
}

fn fired(rule: &str, confidence: Confidence) -> Vec<(String, Confidence)> {
    vec![(rule.to_owned(), confidence)]
}

// Goal: temporary blocks are told, others are not. Method: shares around the threshold.
#[test]
fn temporary_blocks() {
    let with = |temporary_blocks| Site {
        temporary_blocks,
        ..site(48, 100_000, 0)
    };
    assert_eq!(
        rules(&process(), with(99_000)),
        fired("temporary", Confidence::High)
    );
    assert_eq!(
        rules(&process(), with(80_000)),
        fired("temporary", Confidence::Medium)
    );
    assert_eq!(rules(&process(), with(60_000)), []);
    let few = Site {
        temporary_blocks: 9_999,
        ..site(48, 9_999, 0)
    };
    assert_eq!(rules(&process(), few), []);
    let said = &advise(&process(), &[with(99_000)])[0];
    assert!(
        said.text
            .contains("`make` made 100,000 blocks of 48 B on average, 99 % of them"),
        "{}",
        said.text
    );
    assert_eq!(said.saves.calls, 198_000);
}

// Goal: small blocks of short lives are told; large, lasting or few ones are not.
#[test]
fn blocks_that_die_together() {
    let with = |life, site| Site {
        mean_life_ms: Some(life),
        ..site
    };
    let many = |size| site(size, 50_000, 10);
    assert_eq!(
        rules(&process(), with(5.0, many(64))),
        fired("together", Confidence::Medium)
    );
    assert_eq!(rules(&process(), with(500.0, many(64))), []);
    assert_eq!(rules(&process(), with(5.0, many(4096))), []);
    assert_eq!(rules(&process(), with(5.0, site(64, 50_000, 30_000))), []);
}

// Goal: rounding is told where it is large, of live blocks only.
#[test]
fn rounded_blocks() {
    let with = |rounding_bytes, live| Site {
        rounding_bytes,
        ..site(17, 40_000, live)
    };
    assert_eq!(
        rules(&process(), with(15 * 40_000, 40_000)),
        fired("rounding", Confidence::Medium)
    );
    assert_eq!(rules(&process(), with(3 * 40_000, 40_000)), []);
    assert_eq!(rules(&process(), with(15 * 40_000, 100)), []);
}

// Goal: churn of large blocks is told, more surely when the kernel was called for it.
#[test]
fn large_blocks_that_churn() {
    let large = || site(1 << 20, 5000, 1);
    let mut called = process();
    called.syscalls = Syscalls {
        madvise: 5000,
        ..Syscalls::default()
    };
    assert_eq!(rules(&called, large()), fired("churn", Confidence::High));
    assert_eq!(rules(&process(), large()), fired("churn", Confidence::Low));
    assert_eq!(rules(&called, site(1 << 20, 5000, 5000)), []);
    assert_eq!(rules(&called, site(1000, 5000, 1)), []);
    assert_eq!(rules(&called, site(1 << 20, 400, 1)), []);
}

// Goal: retained memory is told when it is much, surely when it was looked at.
#[test]
fn memory_that_is_kept() {
    let mut process = process();
    process.pages = Pages {
        retained_bytes: 64 << 20,
        resident_bytes: 100 << 20,
        ..Pages::default()
    };
    assert_eq!(
        rules(&process, site(1, 1, 1)),
        fired("retained", Confidence::Low)
    );
    let parts = Shares {
        retained_bytes: 50 << 20,
        ..Shares::default()
    };
    process.bill = Some(Bill {
        parts,
        ..Bill::default()
    });
    assert_eq!(
        rules(&process, site(1, 1, 1)),
        fired("retained", Confidence::High)
    );
    process.bill = Some(Bill::default());
    assert_eq!(rules(&process, site(1, 1, 1)), []);
    process.bill = None;
    process.pages.requested_bytes = 99 << 20;
    assert_eq!(rules(&process, site(1, 1, 1)), []);
}

// Goal: small blocks on whole pages are told, pages of data are not, nor other heaps.
#[test]
fn a_page_a_block() {
    let mut process = process();
    process.heap = "page".to_owned();
    process.live = Amount {
        bytes: 2000,
        blocks: 1000,
    };
    assert_eq!(
        rules(&process, site(1, 1, 1)),
        fired("page_blocks", Confidence::High)
    );
    process.live.bytes = 4_000_000;
    assert_eq!(rules(&process, site(1, 1, 1)), []);
    process.heap = "gpa".to_owned();
    process.live.bytes = 2000;
    assert_eq!(rules(&process, site(1, 1, 1)), []);
}

// Goal: samples give no advice; the most worth comes first; hostile numbers do no harm.
#[test]
fn order_and_limits() {
    let with = |size, blocks| Site {
        temporary_blocks: blocks,
        ..site(size, blocks, 0)
    };
    let sites = [with(8, 20_000), with(8, 90_000)];
    let all = advise(&process(), &sites);
    assert!(all[0].saves.calls > all[1].saves.calls);
    let sampled = Process {
        mode: "sampled".to_owned(),
        ..process()
    };
    assert_eq!(advise(&sampled, &sites), []);
    let most = Amount {
        bytes: u64::MAX,
        blocks: u64::MAX,
    };
    let hostile = Site {
        total: most,
        live: most,
        temporary_blocks: u64::MAX,
        rounding_bytes: u64::MAX,
        ..Site::default()
    };
    assert!(!advise(&process(), &[hostile]).is_empty());
}
