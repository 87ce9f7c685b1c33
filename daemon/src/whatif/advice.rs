//! Advice in plain sentences, each from numbers and with a confidence.
//!
//! # Design
//! One function a rule, over a site or the process; thresholds are high enough that what is
//! said is worth a programmer's time. A rule says what would be saved and what it does not know.

use super::report::{Advice, Confidence, Saves, Site};
use super::requests::OS_PAGE;
use crate::books::report::Process;
use crate::web::units::{bytes, count};

/// Fewer blocks are nobody's trouble.
const BLOCKS_MIN: u64 = 10_000;
/// Nor are fewer bytes.
const BYTES_MIN: u64 = 256 << 10;
/// What the heap keeps unused may be this much.
const RETAINED_MIN: u64 = 8 << 20;
/// Blocks larger than this have a page run of their own.
const RUN_MIN: u64 = 64 << 10;
/// How often such a block is made and freed before it counts as churn.
const CHURN_MIN: u64 = 500;
/// Larger blocks are not what arenas are for.
const SMALL_MAX: u64 = 1024;
/// Lives that are short enough for one piece of work.
const SHORT_MS: f64 = 100.0;

/// What to do about a process and its sites, most worth doing first.
pub fn advise(process: &Process, sites: &[Site]) -> Vec<Advice> {
    if !matches!(process.mode.as_str(), "exact" | "trace" | "count") {
        return Vec::new();
    }
    let mut all: Vec<Advice> = sites
        .iter()
        .filter_map(|site| {
            let rules = [temporary, churn, together, rounding];
            rules.into_iter().find_map(|rule| rule(process, site))
        })
        .collect();
    all.extend(retained(process));
    all.extend(page_blocks(process));
    all.sort_by_key(|advice| std::cmp::Reverse(worth(advice)));
    all
}

/// About how many nanoseconds and bytes an advice is worth, less when it is not sure.
fn worth(advice: &Advice) -> u64 {
    let saves = &advice.saves;
    let calls = saves.syscalls.saturating_mul(1000);
    let calls = calls.saturating_add(saves.calls.saturating_mul(20));
    let pages = saves.pages.saturating_mul(250);
    let sum = calls.saturating_add(pages).saturating_add(saves.bytes);
    match advice.confidence {
        Confidence::High => sum,
        Confidence::Medium => sum / 2,
        Confidence::Low => sum / 4,
    }
}

fn mean(site: &Site) -> u64 {
    site.total.bytes.checked_div(site.total.blocks).unwrap_or(0)
}

fn freed(site: &Site) -> u64 {
    site.total.blocks.saturating_sub(site.live.blocks)
}

/// `part` is at least `percent` of `whole`.
fn is_share(part: u64, whole: u64, percent: u64) -> bool {
    whole > 0 && u128::from(part) * 100 >= u128::from(whole) * u128::from(percent)
}

fn percent(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(100).min(100)
}

fn about(site: &Site, rule: &str, text: String) -> Advice {
    Advice {
        rule: rule.to_owned(),
        site: Some(site.site.clone()),
        text,
        ..Advice::default()
    }
}

/// Blocks freed before their thread's next allocation.
fn temporary(_: &Process, site: &Site) -> Option<Advice> {
    let (blocks, temporary) = (site.total.blocks, site.temporary_blocks);
    if temporary < BLOCKS_MIN || !is_share(temporary, blocks, 75) {
        return None;
    }
    let small = mean(site) <= SMALL_MAX;
    let keep = if small {
        "a variable or a buffer that is kept"
    } else {
        "one buffer that is kept"
    };
    let text = format!(
        "`{}` made {} blocks of {} on average, {} % of them freed before the next allocation: {keep} would save {} calls of malloc and free.",
        site.function,
        count(blocks),
        bytes(mean(site)),
        percent(temporary, blocks),
        count(temporary.saturating_mul(2)),
    );
    Some(Advice {
        saves: Saves {
            calls: temporary.saturating_mul(2),
            ..Saves::default()
        },
        confidence: if is_share(temporary, blocks, 95) {
            Confidence::High
        } else {
            Confidence::Medium
        },
        because: "every block was seen, and when it was freed".to_owned(),
        ..about(site, "temporary", text)
    })
}

/// Many small blocks that live for one short piece of work.
fn together(_: &Process, site: &Site) -> Option<Advice> {
    let life = site.mean_life_ms?;
    let gone = freed(site);
    let small = mean(site) <= SMALL_MAX;
    let many = gone >= BLOCKS_MIN && is_share(gone, site.total.blocks, 90);
    if !many || !small || life > SHORT_MS || is_share(site.temporary_blocks, site.total.blocks, 50)
    {
        return None;
    }
    let life = if life < 4.0 {
        "under 4 ms".to_owned()
    } else {
        format!("{life:.0} ms")
    };
    let text = format!(
        "`{}` made {} blocks of {} on average that lived {life} on average: an arena that is reset after each piece of work would save {} calls of free.",
        site.function,
        count(site.total.blocks),
        bytes(mean(site)),
        count(gone),
    );
    Some(Advice {
        saves: Saves {
            calls: gone,
            ..Saves::default()
        },
        confidence: Confidence::Medium,
        because: "how long blocks live is known, not that they die at the same time".to_owned(),
        ..about(site, "together", text)
    })
}

/// Blocks much smaller than their slots.
fn rounding(_: &Process, site: &Site) -> Option<Advice> {
    if site.total.blocks == 0 || !is_share(site.rounding_bytes, site.total.bytes, 25) {
        return None;
    }
    let each = site.rounding_bytes as f64 / site.total.blocks as f64;
    let lost = (each * site.live.blocks as f64) as u64;
    if lost < BYTES_MIN {
        return None;
    }
    let text = format!(
        "`{}` holds {} blocks of {} on average in slots {each:.0} bytes larger: several to a block, or a pool of their size, would save {}.",
        site.function,
        count(site.live.blocks),
        bytes(mean(site)),
        bytes(lost),
    );
    Some(Advice {
        saves: Saves {
            bytes: lost,
            pages: lost / OS_PAGE,
            ..Saves::default()
        },
        confidence: Confidence::Medium,
        because: "live blocks are taken to be rounded as all were".to_owned(),
        ..about(site, "rounding", text)
    })
}

/// Large blocks made and freed again and again.
fn churn(process: &Process, site: &Site) -> Option<Advice> {
    let gone = freed(site);
    if mean(site) < RUN_MIN || gone < CHURN_MIN || !is_share(gone, site.total.blocks, 90) {
        return None;
    }
    let calls = &process.syscalls;
    let made = [
        calls.mmap,
        calls.munmap,
        calls.madvise,
        calls.mremap,
        calls.mprotect,
    ];
    let made = made.into_iter().fold(0, u64::saturating_add);
    let share = gone.saturating_mul(2).min(made);
    let text = format!(
        "`{}` made and freed {} blocks of {} on average; the heap called the kernel {} times to map and return memory: a buffer that is kept would save those calls and the page faults after them.",
        site.function,
        count(gone),
        bytes(mean(site)),
        count(made),
    );
    let paid = made >= gone;
    Some(Advice {
        saves: Saves {
            syscalls: share,
            calls: gone.saturating_mul(2),
            ..Saves::default()
        },
        confidence: if paid {
            Confidence::High
        } else {
            Confidence::Low
        },
        because: if paid {
            "there are as many calls to the kernel as such blocks".to_owned()
        } else {
            "the heap kept most of the memory for the next block, so calls are few".to_owned()
        },
        ..about(site, "churn", text)
    })
}

/// Memory the heap holds for nobody.
fn retained(process: &Process) -> Option<Advice> {
    let pages = &process.pages;
    let held = pages.resident_bytes.max(pages.resident_last_bytes);
    let bill = process.bill.as_ref().map(|bill| bill.parts.retained_bytes);
    // Committed memory that was never touched is not resident.
    let unused = bill.unwrap_or_else(|| {
        pages
            .retained_bytes
            .min(held.saturating_sub(pages.requested_bytes))
    });
    if process.heap != "gpa" || unused < RETAINED_MIN || !is_share(unused, held, 25) {
        return None;
    }
    let text = format!(
        "{} of {} resident bytes are free runs: malloc_trim(0) after the work that needed them gives them back.",
        bytes(unused),
        bytes(held),
    );
    Some(Advice {
        rule: "retained".to_owned(),
        text,
        saves: Saves {
            bytes: unused,
            pages: unused / OS_PAGE,
            ..Saves::default()
        },
        confidence: if bill.is_some() {
            Confidence::High
        } else {
            Confidence::Low
        },
        because: if bill.is_some() {
            "the kernel was asked for each page".to_owned()
        } else {
            "which of them are resident was not asked; free runs go back by themselves after a second".to_owned()
        },
        ..Advice::default()
    })
}

/// A heap of pages for blocks that are much smaller.
fn page_blocks(process: &Process) -> Option<Advice> {
    let live = process.live;
    let small = is_share(OS_PAGE, live.bytes.checked_div(live.blocks)?.max(1), 400);
    if process.heap != "page" || live.blocks < 64 || !small {
        return None;
    }
    let held = live.blocks.saturating_mul(OS_PAGE);
    let lost = held.saturating_sub(live.bytes);
    let text = format!(
        "{} live blocks of {} on average hold an OS page each: PAGESHIM_HEAP=gpa or arena packs them and would save about {}.",
        count(live.blocks),
        bytes(live.bytes / live.blocks),
        bytes(lost),
    );
    Some(Advice {
        rule: "page_blocks".to_owned(),
        text,
        saves: Saves {
            bytes: lost,
            pages: lost / OS_PAGE,
            syscalls: process.total.blocks.saturating_add(process.freed.blocks),
            ..Saves::default()
        },
        confidence: Confidence::High,
        because: "every block was counted".to_owned(),
        ..Advice::default()
    })
}

#[cfg(test)]
mod tests {
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
}
