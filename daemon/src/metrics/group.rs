//! Processes of one name, added up.

use std::collections::BTreeMap;

use pageshim_wire::check::CLASS_NAMES;

use super::{Site, Subject, TOP_SITES};
use crate::books::report::{Amount, Pages, Sampling, State};
use crate::books::tally::Tally;
use crate::books::threads::{more, plus};

/// All processes of one name.
#[derive(Debug, Default)]
pub struct Group {
    /// The name.
    pub name: String,
    /// How many run.
    pub running: u64,
    /// Live, of those that run.
    pub live: Amount,
    /// What of that comes from samples.
    pub sampled: Sampled,
    /// Sum of their peaks.
    pub peak: Amount,
    /// Their pages.
    pub pages: Pages,
    /// Their slots by slot bytes: live, free.
    pub slots: BTreeMap<u64, (u64, u64)>,
    /// Their threads.
    pub threads: u64,
    /// Live by leak class: of those that run, else of the last that ended.
    pub leaks: BTreeMap<String, Amount>,
    /// Longest pause of a reachability check, ns.
    pub pause_ns: u64,
    /// Counters of all, forgotten ones included.
    pub tally: Tally,
    /// Largest sites of those that run, most bytes first.
    pub sites: Vec<Site>,
}

/// What running processes in mode sampled add to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    /// How many.
    pub processes: u64,
    /// The largest of their intervals.
    pub interval_bytes: u64,
    /// Squares of the standard errors of live bytes and blocks.
    squares: [f64; 2],
}

impl Sampled {
    fn add(&mut self, sampling: &Sampling) {
        self.processes += 1;
        self.interval_bytes = self.interval_bytes.max(sampling.interval_bytes);
        let errors = [sampling.live_error.bytes, sampling.live_error.blocks];
        for (sum, error) in self.squares.iter_mut().zip(errors) {
            *sum += (error as f64).powi(2);
        }
    }

    /// Standard errors of live bytes and blocks; processes are independent.
    pub fn live_error(&self) -> [f64; 2] {
        self.squares.map(f64::sqrt)
    }
}

/// Groups: names with a running process first, by name; then the others,
/// the most recent first; then those known by their totals only.
pub fn groups(subjects: Vec<Subject>, folded: BTreeMap<String, Tally>) -> Vec<Group> {
    let mut order: Vec<String> = Vec::new();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for subject in subjects {
        let name = subject.process.name.clone();
        let group = groups.entry(name.clone()).or_insert_with(|| {
            order.push(name.clone());
            let name = name.clone();
            Group {
                name,
                ..Group::default()
            }
        });
        group.add(subject);
    }
    for (name, tally) in folded {
        let group = groups.entry(name.clone()).or_insert_with(|| {
            order.push(name.clone());
            let name = name.clone();
            Group {
                name,
                ..Group::default()
            }
        });
        group.tally.add(&tally);
    }
    let mut listed: Vec<Group> = order
        .iter()
        .filter_map(|name| groups.remove(name))
        .collect();
    // A stable sort: those not running keep their order.
    listed.sort_by(|a, b| {
        let by_name = || {
            if a.running > 0 {
                a.name.cmp(&b.name)
            } else {
                std::cmp::Ordering::Equal
            }
        };
        (a.running == 0).cmp(&(b.running == 0)).then_with(by_name)
    });
    listed.iter_mut().for_each(Group::finish);
    listed
}

impl Group {
    fn add(&mut self, subject: Subject) {
        self.tally.add(&subject.tally);
        let process = subject.process;
        let runs = process.state == State::Running;
        let pause = process.check.as_ref().map_or(0, |check| check.pause_ns);
        self.pause_ns = self.pause_ns.max(pause);
        let first = self.leaks.is_empty();
        if runs && self.running == 0 {
            // What an ended process left is of no interest while another runs.
            self.leaks.clear();
        }
        if runs || (self.running == 0 && first) {
            for (class, amount) in classes(&process) {
                let sum = self.leaks.entry(class).or_default();
                *sum = plus(*sum, amount);
            }
        }
        if !runs {
            return;
        }
        self.running += 1;
        self.live = plus(self.live, process.live);
        if let Some(sampling) = &process.sampling {
            self.sampled.add(sampling);
        }
        self.peak = plus(self.peak, process.peak);
        add_pages(&mut self.pages, &process.pages);
        for slots in subject.slots {
            let sum = self.slots.entry(slots.slot_bytes).or_default();
            more(&mut sum.0, slots.live);
            more(&mut sum.1, slots.free);
        }
        more(&mut self.threads, process.threads.live);
        self.sites.extend(subject.sites);
    }

    /// Merges sites of the same stack and keeps the largest.
    fn finish(&mut self) {
        let mut merged: BTreeMap<String, Site> = BTreeMap::new();
        for site in self.sites.drain(..) {
            match merged.get_mut(&site.id) {
                Some(known) => more(&mut known.bytes, site.bytes),
                None => {
                    merged.insert(site.id.clone(), site);
                }
            }
        }
        self.sites = merged.into_values().collect();
        self.sites.sort_by_key(|site| std::cmp::Reverse(site.bytes));
        self.sites.truncate(TOP_SITES);
    }

    /// Live bytes of the sites that are not shown.
    pub fn other_sites(&self) -> u64 {
        let shown = self
            .sites
            .iter()
            .fold(0u64, |sum, site| sum.saturating_add(site.bytes));
        self.live.bytes.saturating_sub(shown)
    }
}

/// Live blocks by leak class; `live` until a check has run.
fn classes(process: &crate::books::report::Process) -> Vec<(String, Amount)> {
    let whole = process
        .check
        .as_ref()
        .filter(|check| check.trouble.is_none());
    let Some(check) = whole else {
        return vec![("live".to_owned(), process.live)];
    };
    let amount = |class: &&str| Some(((*class).to_owned(), check.classes.named(class)?));
    CLASS_NAMES.iter().filter_map(amount).collect()
}

fn add_pages(sum: &mut Pages, pages: &Pages) {
    more(&mut sum.requested_bytes, pages.requested_bytes);
    more(&mut sum.rounding_bytes, pages.rounding_bytes);
    more(&mut sum.free_slot_bytes, pages.free_slot_bytes);
    more(&mut sum.tail_bytes, pages.tail_bytes);
    more(&mut sum.retained_bytes, pages.retained_bytes);
    more(&mut sum.metadata_bytes, pages.metadata_bytes);
    more(&mut sum.committed_bytes, pages.committed_bytes);
    more(&mut sum.resident_bytes, pages.resident_bytes);
}
