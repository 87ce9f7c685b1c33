//! `/metrics`: one look at every process, as Prometheus text.
//!
//! # Design
//! Processes are grouped by name ([`group`]), each group becomes series
//! ([`series`]) inside a [`page::Page`], which knows every family's help and
//! type once. Gauges speak of running processes; counters include ended and
//! forgotten ones, so they never go down. A group that would pass
//! [`SERIES_MAX`] is left out whole and counted: half a group would lie.
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

mod group;
mod page;
mod series;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;

use crate::books::pages::ClassSlots;
use crate::books::report::{Frame, Leak, Process};
use crate::books::tally::Tally;

use page::Page;

/// Sites shown of each name.
pub const TOP_SITES: usize = 20;
/// Most series of one scrape.
const SERIES_MAX: usize = 5000;

/// One process as the scrape saw it.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Its numbers.
    pub process: Process,
    /// Its counters.
    pub tally: Tally,
    /// Its size classes.
    pub slots: Vec<ClassSlots>,
    /// Its largest sites; empty unless it runs.
    pub sites: Vec<Site>,
}

/// A site as metrics show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Hex of the stack's hash.
    pub id: String,
    /// Live bytes.
    pub bytes: u64,
    /// The caller of the allocation function.
    pub frame: Frame,
}

impl Site {
    /// The site of a leak whose innermost frame was resolved.
    pub fn of(leak: Leak) -> Self {
        let unknown = || Frame {
            function: leak.incomplete.clone().unwrap_or_default(),
            ..Frame::default()
        };
        Self {
            id: leak.site,
            bytes: leak.bytes,
            frame: leak.stack.into_iter().next().unwrap_or_else(unknown),
        }
    }
}

/// All that a scrape shows.
pub struct Scrape {
    /// Processes, newest first.
    pub subjects: Vec<Subject>,
    /// Counters of forgotten processes by name.
    pub folded: BTreeMap<String, Tally>,
    /// Processes running, exited, killed.
    pub states: [u64; 3],
    /// Refusals and broken streams by reason.
    pub errors: Vec<(&'static str, u64)>,
    /// Series left out by scrapes before this one.
    pub series_dropped: u64,
    /// When the scrape began.
    pub started: Instant,
}

/// The text, and how many series were left out of it.
pub fn render(scrape: Scrape) -> (String, u64) {
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.set("pageshim_build_info", &[("version", version)], 1);
    for (state, count) in ["running", "exited", "killed"].iter().zip(scrape.states) {
        page.set("pageshim_processes", &[("state", state)], count);
    }
    for (reason, count) in &scrape.errors {
        page.set(
            "pageshim_decode_errors_total",
            &[("reason", reason)],
            *count,
        );
    }
    let mut dropped = 0;
    for group in group::groups(scrape.subjects, scrape.folded) {
        let part = series::of(&group);
        if page.series() + part.series() > SERIES_MAX {
            dropped += part.series() as u64;
        } else {
            page.append(part);
        }
    }
    let all = scrape.series_dropped.saturating_add(dropped);
    page.set("pageshim_exporter_series_dropped_total", &[], all);
    page.set_f64(
        "pageshim_scrape_seconds",
        &[],
        scrape.started.elapsed().as_secs_f64(),
    );
    (page.text(ProcessCollector::for_self().collect()), dropped)
}
