//! Looking at a process anew: its numbers, what is resident, how its sites grow.

use std::sync::atomic::Ordering;
use std::time::Instant;

use pageshim_wire::process::word;

use super::source::Source;
use super::{Inside, Record};
use crate::books::growth;
use crate::books::leaks::Lead;
use crate::books::report::State;
use crate::books::summary::Observed;
use crate::hub::clock::now_ns;
use crate::hub::procfs;
use crate::whatif::layers;

impl Record {
    /// Reads the numbers anew, or gives the final ones.
    pub fn look(&self) -> Observed {
        let mut inside = self.lock();
        inside.look(self);
        let resident = inside.ask_resident(self).unwrap_or(0);
        let end_ns = inside.end.map_or_else(now_ns, |end| end.at_ns);
        let seconds = end_ns.saturating_sub(inside.start_ns) as f64 / 1e9;
        let mut observed = inside.last.clone();
        observed.tally = inside.tally.clone();
        let pages = &mut observed.process.pages;
        pages.resident_bytes = resident;
        pages.resident_peak_bytes = inside.resident.peak;
        pages.resident_last_bytes = inside.resident.last;
        observed.process.pages_at_peak = inside.resident.at_peak;
        if let Some(requests) = &observed.requests {
            observed.process.costs = layers::costs(requests, &observed.process);
        }
        if inside.end.is_some() {
            observed.process.threads.live = 0;
        }
        if let Source::Ended(ended) = &inside.source {
            observed.process.unlisted = ended.unlisted();
        }
        observed.process.why = self.whys.newest_first();
        observed.process.seconds = seconds;
        observed.process.state = inside.end.map_or(State::Running, |end| end.state);
        observed.process.exit = inside.end.map(|end| end.exit);
        observed
    }

    /// Asks for resident bytes between two looks; false when there is nothing
    /// to ask any more.
    pub fn sample(&self) -> bool {
        let mut inside = self.lock();
        if inside.end.is_some() {
            return false;
        }
        // The kernel first: after an exit notice it is a race with the end. What
        // the state says can be read later too.
        let Some(resident) = inside.resident_now(self) else {
            return false;
        };
        inside.look(self);
        let Inside {
            resident: kept,
            last,
            ..
        } = &mut *inside;
        kept.note(resident, &last.process.pages);
        inside.note_trend();
        true
    }

    /// Bytes per minute of a site, and over how many seconds.
    pub fn slope(&self, site: u32) -> Option<(f64, f64)> {
        self.lock().trend.slope(site)
    }
}

impl Inside {
    /// Reads what can be read; a state that cannot be keeps its last numbers.
    pub(super) fn look(&mut self, record: &Record) {
        if let Source::Live(state, book) = &mut self.source
            && let Some(observed) = book.look(&**state)
        {
            self.tally.raise(&observed.tally);
            if observed.process.check.is_some() && self.rules.is_empty() {
                self.rules = book.rules(&**state);
            }
            self.last = observed;
        }
        let seen = record
            .events
            .each_ref()
            .map(|counter| counter.load(Ordering::Relaxed));
        self.tally.raise_events(&seen);
    }

    /// Notes how much the largest sites hold, when it is time: no more than a hundredth of it.
    fn note_trend(&mut self) {
        let seconds = now_ns().saturating_sub(self.start_ns) as f64 / 1e9;
        let Source::Live(state, book) = &self.source else {
            return;
        };
        if !self.trend.is_due(seconds) {
            return;
        }
        let started = Instant::now();
        let leads = book.live(&**state, 0, growth::SITES_MAX);
        let bytes = |lead: &Lead| (lead.site, lead.amount().bytes);
        let largest: Vec<(u32, u64)> = leads.iter().map(bytes).collect();
        let rest = 100.0 * started.elapsed().as_secs_f64();
        self.trend.note(seconds, rest, &largest);
    }

    /// Finds the stacks of misuses while there is a state to find them in.
    pub(super) fn learn_misuse(&mut self) {
        if self.misused.is_empty() {
            return;
        }
        if let Source::Live(state, book) = &mut self.source {
            book.decode(&**state);
            for misused in &mut self.misused {
                misused.learn(|site| book.detail(&**state, site));
            }
        }
    }

    /// Resident bytes of the heap; `None` when it ended or the kernel does not say.
    fn resident_now(&self, record: &Record) -> Option<u64> {
        let (Source::Live(state, _), None) = (&self.source, self.end) else {
            return None;
        };
        let base = state.header(word::HEAP_BASE);
        let bytes = state.header(word::HEAP_RESERVED);
        procfs::resident(record.peer_pid, base, bytes)
    }

    /// The same, remembered with the account just read.
    fn ask_resident(&mut self, record: &Record) -> Option<u64> {
        let resident = self.resident_now(record)?;
        self.resident.note(resident, &self.last.process.pages);
        Some(resident)
    }
}
