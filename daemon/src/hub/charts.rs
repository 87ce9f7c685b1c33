//! The chart of a process's heap: taken when somebody asks, passed on for a moment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::inside;
use super::leads::resolve;
use super::record::Record;
use crate::books::leaks::Lead;
use crate::books::report::Frame;
use crate::books::when::rfc3339;
use crate::heatmap::chart::Held;
use crate::heatmap::report::{Asked, Chart, Heap, Holder, Place as Told, Toucher, classes};
use crate::symbols::Session;
use crate::target::picture::{self, Picture};
use crate::web::{headline, names, words};

/// Least time between two charts of a process.
const REST: Duration = Duration::from_secs(1);
/// Sites whose functions are looked up.
const NAMED: usize = 400;
/// Sites listed.
const LISTED: usize = 40;

/// A chart, and of which site its cells are marked.
#[derive(Debug)]
pub struct Kept {
    picture: Picture,
    wanted: Option<u32>,
    /// By site: its id for people and its function.
    names: HashMap<u32, (String, String)>,
    taken_at: String,
    at: Instant,
}

impl Kept {
    /// Of nothing.
    #[cfg(test)]
    pub fn empty() -> Self {
        Self {
            picture: Picture::default(),
            wanted: None,
            names: HashMap::new(),
            taken_at: String::new(),
            at: Instant::now(),
        }
    }

    fn serves(&self, wanted: Option<u32>) -> bool {
        let rest = inside::rest(REST, self.picture.took);
        self.wanted == wanted && self.at.elapsed() < rest
    }
}

/// The answer of `/pages.json`.
pub fn chart(session: &mut Session<'_>, record: &Arc<Record>, asked: &Asked) -> Chart {
    let process = record.look().process;
    let (heap, why_not) = match of(session, record, asked) {
        Ok(kept) => (Some(heap(&kept, asked)), None),
        Err(why) => (None, Some(why)),
    };
    Chart {
        schema_version: crate::books::report::SCHEMA_VERSION,
        process: Some(process.id),
        pid: process.pid,
        name: process.name,
        heap,
        why_not,
    }
}

/// A chart of about now, or why there is none.
fn of(session: &mut Session<'_>, record: &Arc<Record>, asked: &Asked) -> Result<Arc<Kept>, String> {
    let mut last = record.chart.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = "a chart is of a process that runs; this one ended";
    let Some(state) = record.state() else {
        *last = None;
        return Err(ended.to_owned());
    };
    let site = asked.site.as_deref();
    let wanted = match site {
        Some(site) => Some(find(session, record, last.as_deref(), site)?),
        None => None,
    };
    if let Some(kept) = last.as_ref().filter(|kept| kept.serves(wanted)) {
        return Ok(Arc::clone(kept));
    }
    let take = |pid, place: &_, page_bytes| picture::take(pid, place, page_bytes, wanted);
    let picture = inside::look(record, &state, take).map_err(|trouble| trouble.to_string())?;
    let kept = Arc::new(Kept {
        names: named(session, record, &picture),
        picture,
        wanted,
        taken_at: rfc3339(super::clock::realtime_ns()),
        at: Instant::now(),
    });
    *last = record.end().is_none().then(|| Arc::clone(&kept));
    Ok(kept)
}

/// The number of a site by its id for people.
fn find(
    session: &mut Session<'_>,
    record: &Arc<Record>,
    last: Option<&Kept>,
    site: &str,
) -> Result<u32, String> {
    let known = last.and_then(|last| last.names.iter().find(|(_, name)| name.0 == site));
    if let Some((number, _)) = known {
        return Ok(*number);
    }
    let seen = inside::seen(record);
    let leads = record.live(0, usize::MAX);
    let ids = resolve(session, &seen, &leads, 0);
    let found = leads.iter().zip(&ids).find(|(_, leak)| leak.site == site);
    let none = || format!("no live block is of site {site}");
    found.map(|(lead, _)| lead.site).ok_or_else(none)
}

/// Ids of all sites that are shown, functions of the largest.
fn named(
    session: &mut Session<'_>,
    record: &Arc<Record>,
    picture: &Picture,
) -> HashMap<u32, (String, String)> {
    let of_cells = picture.cells.iter().flat_map(|cell| cell.sites.iter());
    let shown: HashSet<u32> = of_cells.map(|held| held.site).collect();
    let all = picture.sites.iter().enumerate();
    let all = all.filter(|(rank, held)| *rank < LISTED || shown.contains(&held.site));
    let all: Vec<u32> = all.map(|(_, held)| held.site).collect();
    let known: HashSet<u32> = all.iter().copied().collect();
    let openers = picture.cells.iter().filter_map(|cell| cell.opened);
    let openers: HashSet<u32> = openers.map(|opened| opened.0).collect();
    let leads = inside::leads(all.iter().chain(openers.difference(&known)).copied());
    let seen = inside::seen(record);
    let (large, small) = leads.split_at(leads.len().min(NAMED));
    let mut found = resolve(session, &seen, large, usize::MAX);
    found.extend(resolve(session, &seen, small, 0));
    let name = |(lead, leak): (&Lead, crate::books::report::Leak)| {
        (lead.site, (leak.site, function(&leak.stack)))
    };
    leads.iter().zip(found).map(name).collect()
}

fn function(stack: &[Frame]) -> String {
    headline::of(stack)
        .map(|headline| names::short(&words::clean(&headline.frame.function)))
        .unwrap_or_default()
}

fn heap(kept: &Kept, asked: &Asked) -> Heap {
    let picture = &kept.picture;
    let holder = |held: &Held| {
        let (site, function) = kept.names.get(&held.site).cloned().unwrap_or_default();
        Holder {
            site,
            function,
            blocks: held.blocks,
            bytes: held.bytes,
        }
    };
    let toucher = |(site, pages): &(u32, u64)| {
        let (site, function) = kept.names.get(site).cloned().unwrap_or_default();
        Toucher {
            site,
            function,
            pages: *pages,
        }
    };
    let cell = |cell: &crate::heatmap::chart::Cell| Told {
        first_touched: cell.opened.as_ref().map(toucher),
        sites: cell.sites.iter().map(holder).collect(),
        ..Told::of(cell, asked)
    };
    Heap {
        taken_at: kept.taken_at.clone(),
        took_seconds: picture.took.as_secs_f64(),
        cell_bytes: picture.cells.first().map_or(0, |cell| cell.bytes),
        moved_runs: picture.moved,
        resident_bytes: picture.cells.iter().map(|cell| cell.resident).sum(),
        classes: classes(&picture.cells),
        sites: picture.sites.iter().take(LISTED).map(holder).collect(),
        sites_total: picture.sites.len() as u64,
        cells: picture.cells.iter().map(cell).collect(),
    }
}
