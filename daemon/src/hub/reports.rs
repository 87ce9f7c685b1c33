//! Everything asked of the hub that needs a look at all processes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::checks::{self, NoCheck, Roots};
use super::leads::{Seen, misuse, resolve, resolve_mixed, written_mixed};
use super::record::Record;
use super::{Inner, bills, charts, inside, judged, registry, syscalls, whys};
use crate::bill::report::{Bill, Waste};
use crate::books::filter::Filter;
use crate::books::history::Checks;
use crate::books::leaks::Lead;
use crate::books::report::{Process, Report, SCHEMA_VERSION, State};
use crate::books::sizes::{Entry, Sizes};
use crate::books::summary::Observed;
use crate::books::syscalls::Syscalls;
use crate::books::why::Question;
use crate::capture::{CaptureError, Counts, Writer};
use crate::heatmap::report::{Asked, Chart};
use crate::metrics::{self, Scrape, Site, Subject};
use crate::symbols::Session;
use crate::whatif::entry;
use crate::whatif::report::{self as whatif, WhatIf};

/// Sites whose stacks are resolved together.
const CHUNK: usize = 200;
/// Sites of a process that a scrape looks at: twice what it shows, so that
/// processes of one name can be merged.
const TOP: usize = 2 * metrics::TOP_SITES;
/// Most processes that are billed at one request, running ones first.
const BILLS: usize = 16;
/// Sites kept in a capture for their total bytes.
const LARGEST: usize = 1000;

/// All records, newest first.
fn records(inner: &Inner) -> Vec<Arc<Record>> {
    registry::lock(inner)
        .records
        .iter()
        .rev()
        .cloned()
        .collect()
}

/// The report `filter` asks for.
pub fn report(inner: &Inner, filter: &Filter) -> Report {
    let plain = filter.query.as_deref().is_none_or(str::is_empty);
    let limit = filter.limit.unwrap_or(usize::MAX);
    let most = if plain { limit } else { usize::MAX };
    let mut session = inner.symbols.session();
    let mut bills_left = if filter.limit == Some(0) { 0 } else { BILLS };
    let mut seen = Vec::new();
    for record in records(inner) {
        let mut observed = record.look();
        if filter.takes_process(&observed.process) {
            observed.process.bill = bill(&mut session, &record, &mut bills_left);
            let most = if filter.class.is_some() {
                usize::MAX
            } else {
                most
            };
            let mut leads = record.by_class(record.live(filter.min_bytes, most));
            leads.retain(|lead| filter.takes_class(lead.class_name()));
            seen.push(look_judged(inner, &mut session, record, observed, leads));
        }
    }
    let leads = ranked(&mut seen, most);
    let mut leaks = Vec::new();
    for chunk in leads.chunks(CHUNK) {
        let resolved = resolve_mixed(&mut session, &seen, chunk);
        leaks.extend(resolved.into_iter().filter(|leak| filter.takes(leak)));
        if leaks.len() >= limit {
            break;
        }
    }
    leaks.truncate(limit);
    Report {
        schema_version: SCHEMA_VERSION,
        processes: processes(&mut session, &seen, filter.limit != Some(0)),
        leaks,
    }
}

/// A look at a process, with what the rules say of its check.
fn look_judged(
    inner: &Inner,
    session: &mut Session<'_>,
    record: Arc<Record>,
    observed: Observed,
    leads: Vec<Lead>,
) -> Seen {
    let verdict = Arc::default();
    let mut seen = Seen {
        record,
        observed,
        leads,
        verdict,
    };
    judged::judge(session, &mut seen, &inner.config.suppressions);
    seen
}

/// The last bill; of the first few running processes a new one.
fn bill(session: &mut Session<'_>, record: &Arc<Record>, left: &mut usize) -> Option<Bill> {
    if *left > 0 && record.end().is_none() {
        *left -= 1;
        bills::of(session, record);
    }
    let kept = record.bill()?;
    Some(kept.brief(record.until_ns()))
}

/// The records of the processes `filter` takes, running ones first.
fn wanted(inner: &Inner, filter: &Filter) -> Vec<Arc<Record>> {
    let mut wanted = records(inner);
    wanted.retain(|record| filter.takes_process(&record.look().process));
    wanted.sort_by_key(|record| record.end().is_some());
    wanted
}

/// Bills of the processes `filter` takes, and what to do about them.
pub fn waste(inner: &Inner, filter: &Filter) -> Waste {
    let mut session = inner.symbols.session();
    let entry = |record: Arc<Record>| {
        let mut entry = bills::entry(&mut session, &record);
        entry.advice = cost(&mut session, record, true).advice;
        entry
    };
    Waste {
        schema_version: SCHEMA_VERSION,
        processes: wanted(inner, filter)
            .into_iter()
            .take(BILLS)
            .map(entry)
            .collect(),
    }
}

/// Checks the process that is asked for: of several the newest that runs.
pub fn check(inner: &Inner, wanted: &str, roots: Roots) -> Result<String, NoCheck> {
    let record = newest(inner, wanted).ok_or(NoCheck::Unknown)?;
    check_record(inner, &record, roots).map_err(NoCheck::Failed)
}

/// Has the process that is asked for say why a block of its is alive; its id.
pub fn why(inner: &Inner, wanted: &str, question: &Question) -> Result<String, NoCheck> {
    let record = newest(inner, wanted).ok_or(NoCheck::Unknown)?;
    let found = whys::find(&record, question)?;
    let mut session = inner.symbols.session();
    let observed = record.look();
    let seen = look_judged(inner, &mut session, record, observed, Vec::new());
    let told = whys::tell(&mut session, &seen, question, &found);
    seen.record.whys.keep(told);
    Ok(seen.observed.process.id)
}

/// The process of this pid, name or id: of several the newest that runs.
fn newest(inner: &Inner, name: &str) -> Option<Arc<Record>> {
    let filter = Filter {
        process: Some(name.to_owned()),
        ..Filter::default()
    };
    wanted(inner, &filter).into_iter().next()
}

/// Checks a process, and judges what was found; its id.
pub fn check_record(inner: &Inner, record: &Arc<Record>, roots: Roots) -> Result<String, String> {
    checks::check(record, roots)?;
    let mut session = inner.symbols.session();
    let seen = look_judged(
        inner,
        &mut session,
        Arc::clone(record),
        record.look(),
        Vec::new(),
    );
    Ok(seen.observed.process.id)
}

/// The last checks of the process that is asked for: of several the newest that runs.
pub fn checks(inner: &Inner, wanted: &str) -> Option<Checks> {
    let record = newest(inner, wanted)?;
    let observed = record.look();
    let mut session = inner.symbols.session();
    let seen = look_judged(inner, &mut session, record, observed, Vec::new());
    Some(seen.record.judged.checks(&seen.observed.process))
}

/// The chart of the process that is asked for: of the newest that runs when there are
/// several, or none is named.
pub fn chart(inner: &Inner, asked: &Asked) -> Chart {
    let filter = Filter {
        process: asked.process.clone(),
        ..Filter::default()
    };
    let found = wanted(inner, &filter);
    let chosen = found.first();
    let runs = |record: &&Arc<Record>| asked.process.is_some() || record.end().is_none();
    let Some(record) = chosen.filter(runs) else {
        return Chart {
            schema_version: SCHEMA_VERSION,
            ..Chart::default()
        };
    };
    charts::chart(&mut inner.symbols.session(), record, asked)
}

/// Size classes of the processes `filter` takes.
pub fn sizes(inner: &Inner, filter: &Filter) -> Sizes {
    let looks = records(inner).into_iter().map(|record| record.look());
    let taken = looks.filter(|observed| filter.takes_process(&observed.process));
    Sizes {
        schema_version: SCHEMA_VERSION,
        processes: taken.map(Entry::of).collect(),
    }
}

/// System calls of the processes `filter` takes, by who caused them.
pub fn syscalls(inner: &Inner, filter: &Filter) -> Syscalls {
    let mut session = inner.symbols.session();
    let entry = |record| syscalls::entry(&mut session, &inside::seen(record));
    let wanted = wanted(inner, filter);
    Syscalls {
        schema_version: SCHEMA_VERSION,
        processes: wanted.iter().take(BILLS).map(entry).collect(),
    }
}

/// What the requests of the processes `filter` takes would cost elsewhere: running ones first,
/// sites of the first few.
pub fn whatif(inner: &Inner, filter: &Filter) -> WhatIf {
    let mut session = inner.symbols.session();
    let entry = |(place, record)| cost(&mut session, record, place < BILLS);
    WhatIf {
        schema_version: SCHEMA_VERSION,
        processes: wanted(inner, filter)
            .into_iter()
            .enumerate()
            .map(entry)
            .collect(),
    }
}

/// What the requests of a process would cost elsewhere, `in_detail` by site.
fn cost(session: &mut Session<'_>, record: Arc<Record>, in_detail: bool) -> whatif::Entry {
    let mut observed = record.look();
    observed.process.bill = bill(session, &record, &mut 0);
    let mut leads = match in_detail {
        true => record.largest(LARGEST),
        false => Vec::new(),
    };
    entry::choose(&mut leads, |lead| {
        let total = lead.sums.allocated;
        (total.blocks, total.bytes)
    });
    let seen = Seen {
        record,
        observed,
        leads: Vec::new(),
        verdict: Arc::default(),
    };
    let sites = resolve(session, &seen, &leads, usize::MAX);
    entry::entry(&seen.observed.process, sites)
}

/// The processes with their reports of misuse, and `brief`ly who caused system calls.
fn processes(session: &mut Session<'_>, seen: &[Seen], brief: bool) -> Vec<Process> {
    let process = |seen: &Seen| Process {
        misuse_reports: misuse(session, seen),
        syscall_bill: brief.then(|| syscalls::brief(session, seen)).flatten(),
        ..seen.observed.process.clone()
    };
    seen.iter().map(process).collect()
}

/// The leads of all processes, most live bytes first.
fn ranked(seen: &mut [Seen], most: usize) -> Vec<(usize, Lead)> {
    let mut all: Vec<(usize, Lead)> = Vec::new();
    for (index, seen) in seen.iter_mut().enumerate() {
        let leads = std::mem::take(&mut seen.leads).into_iter();
        all.extend(leads.map(|lead| (index, lead)));
    }
    all.sort_by_key(|(index, lead)| {
        let live = lead.amount();
        (
            std::cmp::Reverse((live.bytes, live.blocks)),
            *index,
            lead.site,
        )
    });
    all.truncate(most);
    all
}

/// The text of `/metrics`: every process is looked at once, so the numbers agree.
pub fn metrics(inner: &Inner) -> String {
    let started = Instant::now();
    let (folded, forgotten) = {
        let registry = registry::lock(inner);
        (registry.folded.clone(), registry.forgotten)
    };
    let mut states = [0, forgotten[0], forgotten[1]];
    let mut subjects = Vec::new();
    let mut session = inner.symbols.session();
    for record in records(inner) {
        let observed = record.look();
        let running = observed.process.state == State::Running;
        states[observed.process.state as usize] += 1;
        let leads = if running {
            record.live(0, TOP)
        } else {
            Vec::new()
        };
        let seen = Seen {
            record,
            observed,
            leads,
            verdict: Arc::default(),
        };
        let leaks = resolve(&mut session, &seen, &seen.leads, 1);
        subjects.push(Subject {
            sites: leaks.into_iter().map(Site::of).collect(),
            process: seen.observed.process,
            tally: seen.observed.tally,
            slots: seen.observed.slots,
        });
    }
    let scrape = Scrape {
        subjects,
        folded,
        states,
        errors: inner.errors.all(),
        series_dropped: inner.series_dropped.load(Ordering::Relaxed),
        started,
    };
    let (text, dropped) = metrics::render(scrape);
    inner.series_dropped.fetch_add(dropped, Ordering::Relaxed);
    text
}

/// Writes everything known to a file, a chunk at a time.
pub fn capture(inner: &Inner, path: &Path) -> Result<(), CaptureError> {
    let mut session = inner.symbols.session();
    let look = |record: Arc<Record>| {
        let observed = record.look();
        let leads = record.by_class(record.live(0, usize::MAX));
        look_judged(inner, &mut session, record, observed, leads)
    };
    let mut seen: Vec<Seen> = records(inner).into_iter().map(look).collect();
    let leads = ranked(&mut seen, usize::MAX);
    let largest: Vec<(usize, Lead)> = seen
        .iter()
        .enumerate()
        .flat_map(|(index, seen)| {
            let largest = seen.record.largest(LARGEST).into_iter();
            largest.map(move |lead| (index, lead))
        })
        .filter(|(_, lead)| lead.sums.live().blocks == 0)
        .collect();
    let processes = processes(&mut session, &seen, true);
    let counts = Counts {
        processes: processes.len(),
        leaks: leads.len(),
        sites: largest.len(),
    };
    let mut writer = Writer::create(path, counts)?;
    writer.processes(&processes)?;
    for chunk in leads.chunks(CHUNK) {
        writer.leaks_written(&written_mixed(&mut session, &seen, chunk))?;
    }
    for chunk in largest.chunks(CHUNK) {
        writer.sites_written(&written_mixed(&mut session, &seen, chunk))?;
    }
    writer.finish()
}
