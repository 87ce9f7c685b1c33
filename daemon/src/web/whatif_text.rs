//! What-if as text: `pageshim whatif`.

use std::fmt::Write;

use crate::web::units;
use crate::web::words::clean;
use crate::whatif::report::{Advice, Cost, Entry, Site, WhatIf};

/// Sites told of each process.
const SITES: usize = 10;

/// All of it.
pub(crate) fn render(whatif: &WhatIf) -> String {
    let mut out = String::new();
    for (index, process) in whatif.processes.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        entry(&mut out, process);
    }
    out
}

fn entry(out: &mut String, entry: &Entry) {
    let _ = writeln!(
        out,
        "{} (pid {}), {}, on {}: {} in {} now, {} at the peak, {} ever",
        clean(&entry.name),
        entry.pid,
        entry.state,
        clean(&entry.heap),
        units::bytes(entry.live.bytes),
        units::counted(entry.live.blocks, "block"),
        units::bytes(entry.peak.bytes),
        units::counted(entry.total.blocks, "block"),
    );
    if let Some(why) = &entry.why_not {
        let _ = writeln!(out, "  no costs: {why}");
        return;
    }
    costs(out, &entry.costs);
    if !entry.sites.is_empty() {
        sites(out, &entry.sites);
    }
    for told in &entry.advice {
        let _ = writeln!(out, "  advice: {}", advice(told));
    }
}

/// A sentence, how sure, and why.
pub(crate) fn advice(advice: &Advice) -> String {
    format!(
        "{} ({} confidence: {})",
        clean(&advice.text),
        advice.confidence.name(),
        clean(&advice.because)
    )
}

fn known(value: Option<u64>, text: impl Fn(u64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

fn costs(out: &mut String, costs: &[Cost]) {
    let _ = writeln!(
        out,
        "  {:<9} {:<9} {:>12} {:>11} {:>11} {:>13}  ",
        "on", "basis", "OS PAGES", "PEAK", "WASTE", "SYSCALLS"
    );
    for cost in costs {
        let _ = writeln!(
            out,
            "  {:<9} {:<9} {:>12} {:>11} {:>11} {:>13}  {}",
            clean(&cost.layer),
            cost.basis.name(),
            known(cost.pages, units::count),
            known(cost.peak_bytes, units::bytes),
            known(cost.waste_bytes, units::bytes),
            known(cost.syscalls, units::count),
            clean(&cost.note),
        );
    }
}

fn pages(site: &Site, layer: &str) -> String {
    let row = site.costs.iter().find(|cost| cost.layer == layer);
    known(row.and_then(|cost| cost.pages), units::count)
}

fn sites(out: &mut String, sites: &[Site]) {
    let _ = writeln!(
        out,
        "  {:>12} {:>11} {:>6} {:>9} {:>11} {:>11} {:>9} {:>9}  SITE",
        "BLOCKS", "BYTES", "TEMP", "LIFE", "PAGE pages", "ARENA", "GLIBC", "JEMALLOC"
    );
    for site in sites.iter().take(SITES) {
        let life = site.mean_life_ms;
        let _ = writeln!(
            out,
            "  {:>12} {:>11} {:>6} {:>9} {:>11} {:>11} {:>9} {:>9}  {}  {}",
            units::count(site.total.blocks),
            units::bytes(site.total.bytes),
            units::percent(site.temporary_blocks, site.total.blocks),
            life.map_or_else(|| "-".to_owned(), |ms| units::seconds(ms / 1000.0)),
            pages(site, "page"),
            pages(site, "arena"),
            pages(site, "glibc"),
            pages(site, "jemalloc"),
            clean(&site.function),
            clean(&site.place),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: costs, sites and advice are told; what is not known is a dash; a terminal is safe.
    #[test]
    fn the_text_has_costs_sites_and_advice() {
        let text = render(&fixture::whatif());
        for needle in [
            "zoo (pid 4711), running, on gpa",
            "page      counted",
            "node_new",
            "high confidence",
            "no costs: mode sampled",
            " -  ",
        ] {
            assert!(text.contains(needle), "{needle} not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
