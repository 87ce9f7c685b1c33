//! The chart of a process's heap: taken when somebody asks, passed on for a moment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use pageshim_wire::process::{Control, Heap as Layer, word};

use super::leads::{Seen, resolve};
use super::record::Record;
use crate::books::leaks::Lead;
use crate::books::report::Frame;
use crate::books::sites::SiteSums;
use crate::books::when::rfc3339;
use crate::heatmap::chart::Held;
use crate::heatmap::report::{Asked, Chart, Heap, Holder, Place as Told, classes};
use crate::ingest::SharedState;
use crate::symbols::Session;
use crate::target::picture::{self, Picture};
use crate::target::snapshot::Place;
use crate::target::survey::Trouble;
use crate::web::{headline, names, words};

/// Least time between two charts of a process.
const REST: Duration = Duration::from_secs(1);
/// And this many times what the last one took.
const REST_TIMES: u32 = 20;
/// Sites whose functions are looked up.
const NAMED: usize = 400;
/// Sites listed.
const LISTED: usize = 40;
/// How long a process may take to let us in.
const CONSENT: Duration = Duration::from_millis(400);

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
        let rest = REST.max(self.picture.took * REST_TIMES);
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
    let picture = look(record, &state, wanted).map_err(|trouble| trouble.to_string())?;
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
    let seen = seen(record);
    let leads = record.live(0, usize::MAX);
    let ids = resolve(session, &seen, &leads, 0);
    let found = leads.iter().zip(&ids).find(|(_, leak)| leak.site == site);
    let none = || format!("no live block is of site {site}");
    found.map(|(lead, _)| lead.site).ok_or_else(none)
}

fn seen(record: &Arc<Record>) -> Seen {
    Seen {
        record: Arc::clone(record),
        observed: record.look(),
        leads: Vec::new(),
    }
}

/// Reads the process; asks for its consent once where the kernel wants that.
fn look(record: &Record, state: &SharedState, wanted: Option<u32>) -> Result<Picture, Trouble> {
    if Layer::from_word(state.header(word::HEAP)) != Some(Layer::Gpa) {
        return Err(Trouble::NoBooks);
    }
    let page_bytes = state.header(word::OS_PAGE_BYTES);
    if record.peer_pid == 0 || !page_bytes.is_power_of_two() || page_bytes > 1 << 16 {
        return Err(Trouble::Nonsense);
    }
    let take = || picture::take(record.peer_pid, &place(state), page_bytes, wanted);
    match take() {
        Err(Trouble::Refused) => {
            let asked = state.ask(Control::Consent);
            let started = Instant::now();
            while state.header(word::CONTROL_DONE) != asked && started.elapsed() < CONSENT {
                std::thread::sleep(Duration::from_millis(10));
            }
            take()
        }
        other => other,
    }
}

fn place(state: &SharedState) -> Place {
    let classes = state.header(word::CLASS_COUNT);
    Place {
        base: state.header(word::HEAP_BASE),
        reserved: state.header(word::HEAP_RESERVED),
        committed: state.header(word::HEAP_COMMITTED),
        structs: state.header(word::HEAP_STRUCTS),
        records: state.header(word::HEAP_RECORDS),
        single: u8::try_from(classes.saturating_sub(1)).unwrap_or(u8::MAX),
    }
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
    let leads: Vec<Lead> = all
        .map(|(_, held)| Lead {
            site: held.site,
            sums: SiteSums::default(),
        })
        .collect();
    let seen = seen(record);
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
    let cell = |cell: &crate::heatmap::chart::Cell| Told {
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
