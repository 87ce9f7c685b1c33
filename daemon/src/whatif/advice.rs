//! Advice in plain sentences, each from numbers and with a confidence.
//!
//! # Design
//! One function a rule, over a site or the process; thresholds are high enough that what is
//! said is worth a programmer's time. A rule says what would be saved and what it does not know.

mod process;

use super::report::{Advice, Confidence, Saves, Site};
use super::requests::OS_PAGE;
use crate::books::report::Process;
use crate::web::units::{bytes, count};

/// Fewer blocks are nobody's trouble.
const BLOCKS_MIN: u64 = 10_000;
/// Nor are fewer bytes.
const BYTES_MIN: u64 = 256 << 10;
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
    all.extend(process::retained(process));
    all.extend(process::page_blocks(process));
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

#[cfg(test)]
mod tests;
