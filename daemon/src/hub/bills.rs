//! The bill of a process: taken when somebody asks, kept for a while, and after its end.
//!
//! A bill costs its process nothing but the locks of its page tables for moments,
//! and the daemon a read of all records. So one is taken on demand only, and the
//! next not before [`REST`] has passed, or [`inside::rest`] of what the last one cost.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::clock::now_ns;
use super::inside;
use super::leads::resolve;
use super::record::Record;
use crate::bill::cost::Cost;
use crate::bill::pinners::{Billed, largest, pinners};
use crate::bill::report::{Bill, Entry, Outside, Pinner, Shares, Site};
use crate::books::report::{Frame, Leak};
use crate::books::summary::age;
use crate::books::when::rfc3339;
use crate::symbols::Session;
use crate::target::survey::{self, Survey};
use crate::web::{headline, names, units, words};

/// Least time between two bills of a process.
const REST: Duration = Duration::from_secs(2);
/// Sites listed in a bill.
const SITES: usize = 100;
/// Pinners listed.
const PINNERS: usize = 20;
/// Pinners listed where a bill is not the subject.
const PINNERS_BRIEF: usize = 5;
/// How long a bill's word on a site is passed on.
const PINNED_FOR: Duration = Duration::from_secs(60);
/// Sites listed of a process that ended.
const SITES_ENDED: usize = 20;

/// A bill and what is kept beside it.
#[derive(Debug)]
pub struct Kept {
    /// As reported, but for its age.
    pub bill: Bill,
    /// Bytes that return when a site's blocks are freed, sites with none left out;
    /// of an ended process nothing.
    pinned: Option<HashMap<u32, u64>>,
    /// CLOCK_MONOTONIC, ns.
    at_ns: u64,
    took: Duration,
}

impl Kept {
    /// The bill with its age at `now_ns`.
    pub fn aged(&self, now_ns: u64) -> Bill {
        let age_seconds = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        Bill {
            age_seconds,
            ..self.bill.clone()
        }
    }

    /// What is worth keeping of an ended process.
    pub fn ended(&self) -> Self {
        let mut bill = self.bill.clone();
        bill.sites.truncate(SITES_ENDED);
        Self {
            bill,
            pinned: None,
            at_ns: self.at_ns,
            took: self.took,
        }
    }

    /// What reports carry: no sites, the first pinners.
    pub fn brief(&self, now_ns: u64) -> Bill {
        let mut bill = self.aged(now_ns);
        bill.sites.clear();
        bill.pinners.truncate(PINNERS_BRIEF);
        bill
    }

    /// What returns when a site's blocks are freed; `None` when that is not of now.
    pub fn pinned(&self, site: u32) -> Option<u64> {
        let age_ns = now_ns().saturating_sub(self.at_ns);
        let pinned = self.pinned.as_ref();
        let pinned = pinned.filter(|_| u128::from(age_ns) < PINNED_FOR.as_nanos())?;
        Some(pinned.get(&site).copied().unwrap_or(0))
    }

    fn is_recent(&self) -> bool {
        let rest = inside::rest(REST, self.took);
        u128::from(now_ns().saturating_sub(self.at_ns)) < rest.as_nanos()
    }
}

/// The bill of a process, a new one when it is time; why there is none, or no newer one.
pub fn of(session: &mut Session<'_>, record: &Arc<Record>) -> (Option<Arc<Kept>>, Option<String>) {
    let _turn = record
        .billing
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let last = record.bill();
    let Some(state) = record.state() else {
        let why = "not looked at while it ran; ask for the bill before its end";
        let why = last.is_none().then(|| why.to_owned());
        return (last, why);
    };
    if last.as_ref().is_some_and(|last| last.is_recent()) {
        return (last, None);
    }
    match inside::look(record, &state, survey::take) {
        Ok(survey) => {
            let kept = Arc::new(keep(session, record, survey));
            record.set_bill(Arc::clone(&kept));
            (Some(kept), None)
        }
        Err(trouble) => (last, Some(trouble.to_string())),
    }
}

/// The entry of `/waste.json`, without its advice.
pub fn entry(session: &mut Session<'_>, record: &Arc<Record>) -> Entry {
    let (kept, why_not) = of(session, record);
    let process = record.look().process;
    Entry {
        process: process.id,
        pid: process.pid,
        name: process.name,
        state: process.state.name().to_owned(),
        bill: kept.map(|kept| kept.aged(record.until_ns())),
        why_not,
        advice: Vec::new(),
    }
}

/// Names the sites that are shown, keeps what is asked for later.
fn keep(session: &mut Session<'_>, record: &Arc<Record>, survey: Survey) -> Kept {
    let seen = inside::seen(record);
    let sites = largest(&survey.costs, SITES);
    let pins = pinners(&survey.costs, PINNERS);
    let mut resolved = |billed: &[Billed]| {
        let leads = inside::leads(billed.iter().map(|(site, _)| *site));
        resolve(session, &seen, &leads, usize::MAX)
    };
    let seconds = seen.observed.process.seconds;
    let opened = |site: &u32| survey.opened.get(site).copied().unwrap_or_default();
    let site = |((number, cost), leak): (&Billed, Leak)| Site {
        first_touched: opened(number).into(),
        ..site(cost, leak, seconds)
    };
    let pinner = |((_, cost), leak): (&Billed, Leak)| pinner(cost, &leak, seconds);
    let mut bill = whole(&survey);
    bill.sites = sites.iter().zip(resolved(&sites)).map(site).collect();
    bill.pinners = pins.iter().zip(resolved(&pins)).map(pinner).collect();
    let pinned = |(site, cost): (&u32, &Cost)| (*site, cost.slices.bytes);
    Kept {
        bill,
        pinned: Some(
            survey
                .costs
                .iter()
                .map(pinned)
                .filter(|pinned| pinned.1 > 0)
                .collect(),
        ),
        at_ns: now_ns(),
        took: survey.took,
    }
}

/// The bill without its sites.
fn whole(survey: &Survey) -> Bill {
    let around = &survey.around;
    let metadata = around.books + around.state;
    let resident = survey.parts.sum() + metadata;
    let smaps = around.slices + metadata;
    let apart = resident.abs_diff(smaps);
    let huge = "some of the heap is in huge pages; wholly resident 2 MiB ranges are taken for them";
    Bill {
        taken_at: rfc3339(super::clock::realtime_ns()),
        took_seconds: survey.took.as_secs_f64(),
        parts: Shares::of(&survey.parts, metadata),
        resident_bytes: resident,
        smaps_bytes: smaps,
        difference_bytes: resident.cast_signed() - smaps.cast_signed(),
        explained_percent: 100.0 - units::share(apart, smaps).min(100.0),
        outside: Outside {
            stack_bytes: around.stacks,
            file_bytes: around.files,
            anonymous_bytes: around.anonymous,
            other_bytes: around.other,
        },
        moved_runs: survey.moved_runs,
        unseen_bytes: survey.unseen,
        unrecorded_bytes: survey.parts.unrecorded,
        huge_pages: (around.huge > 0).then(|| huge.to_owned()),
        sites_total: survey.costs.len() as u64,
        ..Bill::default()
    }
}

fn site(cost: &Cost, leak: Leak, seconds: f64) -> Site {
    Site {
        site: leak.site,
        thread: leak.thread,
        stack: leak.stack,
        ..Site::of(cost, age(seconds, cost.oldest))
    }
}

fn pinner(cost: &Cost, leak: &Leak, seconds: f64) -> Pinner {
    let (blocks, oldest) = cost.pinning;
    let mut pinner = Pinner {
        site: leak.site.clone(),
        function: function(&leak.stack),
        blocks,
        pages: cost.pages.count,
        bytes: cost.pages.bytes,
        idle_bytes: cost.idle,
        pinned_bytes: cost.slices.bytes,
        oldest_seconds: age(seconds, oldest),
        sentence: String::new(),
    };
    pinner.sentence = sentence(&pinner);
    pinner
}

/// The name a site goes by in sentences.
pub fn function(stack: &[Frame]) -> String {
    let headline = headline::of(stack);
    headline.map_or_else(
        || "a stack that is not known".to_owned(),
        |headline| names::short(&words::clean(&headline.frame.function)),
    )
}

/// "12 blocks of `session_new` (oldest 3 h) pin 41 MiB of RAM, of which 40 MiB hold no block".
fn sentence(pinner: &Pinner) -> String {
    let verb = if pinner.blocks == 1 { "pins" } else { "pin" };
    let returns = match pinner.pinned_bytes {
        0 => "they share page runs with other sites, so nothing returns when only they are freed"
            .to_owned(),
        bytes => format!("{} return when only they are freed", units::bytes(bytes)),
    };
    format!(
        "{} of `{}` (oldest {}) {verb} {} in {}, {} of it without a block; {returns}",
        units::counted(pinner.blocks, "block"),
        pinner.function,
        units::seconds(pinner.oldest_seconds),
        units::bytes(pinner.bytes),
        units::counted(pinner.pages, "OS page"),
        units::bytes(pinner.idle_bytes),
    )
}
