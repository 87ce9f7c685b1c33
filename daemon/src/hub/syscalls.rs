//! The bill of system calls of a process, with names.

use std::collections::{BTreeMap, HashMap};

use pageshim_wire::process::Mode;
use pageshim_wire::thread::SYSCALL_NAMES;

use super::bills::function;
use super::inside;
use super::leads::{Seen, resolve};
use crate::books::calls::{Cause, Row, bounded};
use crate::books::leaks::Lead;
use crate::books::report::Leak;
use crate::books::syscalls::{Brief, Entry, Made, Pairs, Site};
use crate::symbols::Session;

/// Sites listed.
const SITES: usize = 100;
/// Causes that reports carry.
const BRIEF: usize = 3;
const OS_PAGE: u64 = 4096;

/// The entry of `/syscalls.json`.
pub fn entry(session: &mut Session<'_>, seen: &Seen) -> Entry {
    let rows = seen.record.calls();
    let (touched, touchers) = seen.record.touched(SITES);
    let sites_total = rows.iter().filter(|row| site_of(row).is_some()).count();
    let process = &seen.observed.process;
    Entry {
        process: process.id.clone(),
        pid: process.pid,
        name: process.name.clone(),
        state: process.state.name().to_owned(),
        why_not: why_not(&process.mode),
        totals: totals(&rows),
        avoidable: avoidable(&rows),
        first_touched_pages: touched,
        first_touched_bytes: touched.saturating_mul(OS_PAGE),
        sites: sites(session, seen, &bounded(&rows, SITES), &touchers),
        sites_total: sites_total as u64,
    }
}

/// What reports carry; `None` where calls have no sites.
pub fn brief(session: &mut Session<'_>, seen: &Seen) -> Option<Brief> {
    if why_not(&seen.observed.process.mode).is_some() {
        return None;
    }
    let rows = seen.record.calls();
    let first: Vec<Row> = rows.iter().take(BRIEF).copied().collect();
    Some(Brief {
        avoidable: avoidable(&rows),
        sites: sites(session, seen, &first, &[]),
    })
}

fn why_not(mode: &str) -> Option<String> {
    if [Mode::Exact.name(), Mode::Trace.name()].contains(&mode) {
        return None;
    }
    Some(format!(
        "not kept by site: mode {mode} takes no stack where the heap asks the kernel; run with PAGESHIM_MODE=exact"
    ))
}

/// The layers' calls by kind.
fn totals(rows: &[Row]) -> BTreeMap<String, Made> {
    let mut totals = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.program) {
        for (name, made) in kinds(row) {
            totals.entry(name).or_insert(Made::NONE).add(&made);
        }
    }
    totals
}

fn avoidable(rows: &[Row]) -> Pairs {
    let mut sum = Pairs::NONE;
    rows.iter().for_each(|row| sum.add(&row.pairs));
    sum
}

fn kinds(row: &Row) -> impl Iterator<Item = (String, Made)> {
    let names = SYSCALL_NAMES.iter().map(|name| (*name).to_owned());
    names.zip(row.made).filter(|(_, made)| made.calls > 0)
}

const fn site_of(row: &Row) -> Option<u32> {
    match row.cause {
        Cause::Site(site) => Some(site),
        _ => None,
    }
}

/// Rows with names, then sites that carved pages and caused no call.
fn sites(session: &mut Session<'_>, seen: &Seen, rows: &[Row], touchers: &[Lead]) -> Vec<Site> {
    let touched: HashMap<u32, u64> = touchers
        .iter()
        .map(|lead| (lead.site, lead.sums.touched))
        .collect();
    let callers: Vec<u32> = rows.iter().filter_map(site_of).collect();
    let silent = touchers.iter().map(|lead| lead.site);
    let silent: Vec<u32> = silent.filter(|site| !callers.contains(site)).collect();
    let wanted = callers.iter().chain(&silent).copied();
    let leads = inside::leads(wanted.clone());
    let leaks: HashMap<u32, Leak> = wanted
        .zip(resolve(session, seen, &leads, usize::MAX))
        .collect();
    let pages = |site: u32| touched.get(&site).copied().unwrap_or(0);
    let mut all: Vec<Site> = rows.iter().map(|row| named(row, &leaks, pages)).collect();
    all.extend(silent.into_iter().map(|site| Site {
        cause: "site".to_owned(),
        party: "heap".to_owned(),
        ..known(site, &leaks, pages(site))
    }));
    all
}

fn named(row: &Row, leaks: &HashMap<u32, Leak>, pages: impl Fn(u32) -> u64) -> Site {
    let (cause, words) = match row.cause {
        Cause::Site(_) => ("site", ""),
        Cause::NoStack => ("start", "requests without a stack"),
        Cause::Upkeep => ("upkeep", "pageshim upkeep"),
        Cause::Others => ("others", "other sites"),
    };
    let base = match row.cause {
        // Pages are carved by the layers' work, not by the program's own mappings.
        Cause::Site(site) => known(site, leaks, if row.program { 0 } else { pages(site) }),
        _ => Site {
            function: words.to_owned(),
            ..Site::default()
        },
    };
    Site {
        cause: cause.to_owned(),
        party: if row.program { "program" } else { "heap" }.to_owned(),
        calls: kinds(row).collect(),
        nanoseconds: row.nanoseconds(),
        ranges: row.got.0,
        range_bytes: row.got.1,
        avoidable: row.pairs,
        live_ranges: row.live.0,
        live_bytes: row.live.1,
        ..base
    }
}

/// A site by its name, with the pages it carved first.
fn known(site: u32, leaks: &HashMap<u32, Leak>, pages: u64) -> Site {
    let leak = leaks.get(&site).cloned().unwrap_or_default();
    Site {
        function: function(&leak.stack),
        site: leak.site,
        stack: leak.stack,
        first_touched_pages: pages,
        first_touched_bytes: pages.saturating_mul(OS_PAGE),
        ..Site::default()
    }
}
