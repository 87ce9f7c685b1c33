//! One process image: from hello to what remains of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pageshim_wire::process::word;
use tokio::sync::Notify;

use super::bills::Kept;
use super::charts;
use super::clock::now_ns;
use super::judged::Judged;
use super::procfs;
use super::whys::Whys;
use crate::books::book::Book;
use crate::books::calls::Row;
use crate::books::ended::Ended;
use crate::books::growth::{self, Trend};
use crate::books::leaks::{Detail, Lead};
use crate::books::misuse::{self, Misused};
use crate::books::modules::Modules;
use crate::books::report::{Exit, Pages, State};
use crate::books::summary::Observed;
use crate::books::suppress::Rules;
use crate::books::tally::{EVENTS, Tally};
use crate::ingest::{Arrival, SharedState};
use crate::whatif::layers;

/// A process image.
#[derive(Debug)]
pub struct Record {
    /// Its key.
    pub token: u64,
    /// Its user: nobody else may take its place.
    pub uid: u32,
    /// Its id as it sees it.
    pub pid: u32,
    /// Its id as the daemon sees it; 0 when it cannot.
    pub peer_pid: u32,
    /// Token of the process it was forked from, or 0.
    pub parent: u64,
    /// Frames received by kind, then traced allocations and frees.
    pub events: [AtomicU64; EVENTS],
    /// False once its connection and its end have been dealt with.
    pub active: AtomicBool,
    /// Held while its bill is taken: others wait for that one.
    pub billing: Mutex<()>,
    /// Held while it is checked: one after another.
    pub checking: Mutex<()>,
    /// The last checks, and what rules say of the newest.
    pub judged: Judged,
    /// Chains of pointers that were asked for.
    pub whys: Whys,
    /// The last chart of its heap, locked while the next is taken.
    pub chart: Mutex<Option<Arc<charts::Kept>>>,
    /// Told when its connection is replaced or it ended.
    pub changed: Notify,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    source: Source,
    last: Observed,
    tally: Tally,
    start_ns: u64,
    end: Option<End>,
    generation: u64,
    resident: Resident,
    misused: VecDeque<Misused>,
    bill: Option<Arc<Kept>>,
    trend: Trend,
    /// The suppressions that the program brought, read when it is checked.
    rules: Rules,
}

/// What samples of resident bytes told.
#[derive(Clone, Copy, Debug, Default)]
struct Resident {
    last: u64,
    peak: u64,
    /// The page account when most bytes were requested: resident bytes stay
    /// high for a while after a program has freed everything.
    at_peak: Option<Pages>,
}

/// Where the numbers come from.
#[derive(Debug)]
enum Source {
    Live(Arc<SharedState>, Box<Book>),
    Ended(Box<Ended>),
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Exited or killed.
    pub state: State,
    /// As far as known.
    pub exit: Exit,
    /// By exec: the same pid goes on as another image.
    pub exec: bool,
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
}

impl End {
    /// Now.
    pub fn now(state: State, exit: Exit, exec: bool) -> Self {
        let at_ns = now_ns();
        Self {
            state,
            exit,
            exec,
            at_ns,
        }
    }
}

impl Record {
    /// The record of a new arrival, and its state.
    pub fn new(arrival: Arrival) -> (Arc<Self>, Arc<SharedState>) {
        let state = Arc::new(arrival.state);
        let book = Box::new(Book::new(*state.layout()));
        let record = Self {
            token: arrival.hello.token,
            uid: arrival.uid,
            pid: arrival.hello.pid,
            peer_pid: arrival.peer_pid,
            parent: state.header(word::PARENT),
            events: [const { AtomicU64::new(0) }; EVENTS],
            active: AtomicBool::new(true),
            billing: Mutex::new(()),
            checking: Mutex::new(()),
            judged: Judged::default(),
            whys: Whys::default(),
            chart: Mutex::new(None),
            changed: Notify::new(),
            inside: Mutex::new(Inside {
                source: Source::Live(Arc::clone(&state), book),
                last: Observed::default(),
                tally: Tally::default(),
                start_ns: state.header(word::START_MONOTONIC_NS),
                end: None,
                generation: 1,
                resident: Resident::default(),
                misused: VecDeque::new(),
                bill: None,
                trend: Trend::default(),
                rules: Rules::default(),
            }),
        };
        (Arc::new(record), state)
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process connected again (with this state): goes on where it was.
    pub fn reconnect(&self, state: SharedState) -> (Arc<SharedState>, u64) {
        let state = Arc::new(state);
        let mut inside = self.lock();
        let book = Box::new(Book::new(*state.layout()));
        inside.source = Source::Live(Arc::clone(&state), book);
        inside.end = None;
        inside.generation += 1;
        self.active.store(true, Ordering::Release);
        self.changed.notify_waiters();
        (state, inside.generation)
    }

    /// Whether the connection `generation` is still the latest of a process that has not ended.
    pub fn is_current(&self, generation: u64) -> bool {
        let inside = self.lock();
        inside.generation == generation && inside.end.is_none()
    }

    /// When it started, CLOCK_MONOTONIC ns.
    pub fn start_ns(&self) -> u64 {
        self.lock().start_ns
    }

    /// How it ended; `None` while it runs.
    pub fn end(&self) -> Option<End> {
        self.lock().end
    }

    /// Whether it goes by this process id.
    pub fn is_pid(&self, pid: u32) -> bool {
        self.peer_pid == pid || (self.pid == pid && self.peer_pid == 0)
    }

    /// Corrects how it ended by what its parent saw.
    pub fn amend(&self, exit: Exit) {
        if let Some(end) = &mut self.lock().end {
            end.exit = exit;
            end.state = if exit.signal.is_some() {
                State::Killed
            } else {
                State::Exited
            };
        }
    }

    /// A header word of the state, while there is one.
    pub fn header(&self, index: usize) -> Option<u64> {
        match &self.lock().source {
            Source::Live(state, _) => Some(state.header(index)),
            Source::Ended(_) => None,
        }
    }

    /// The state, while it runs.
    pub fn state(&self) -> Option<Arc<SharedState>> {
        let inside = self.lock();
        match &inside.source {
            Source::Live(state, _) if inside.end.is_none() => Some(Arc::clone(state)),
            _ => None,
        }
    }

    /// The last bill taken.
    pub fn bill(&self) -> Option<Arc<Kept>> {
        self.lock().bill.clone()
    }

    /// The program's own suppressions.
    pub fn rules(&self) -> Rules {
        self.lock().rules.clone()
    }

    /// Keeps a bill; of a process that ended meanwhile only what is kept of those.
    pub fn set_bill(&self, kept: Arc<Kept>) {
        let mut inside = self.lock();
        let ended = inside.end.is_some();
        inside.bill = Some(if ended { Arc::new(kept.ended()) } else { kept });
    }

    /// Its end, or now, CLOCK_MONOTONIC ns.
    pub fn until_ns(&self) -> u64 {
        self.lock().end.map_or_else(now_ns, |end| end.at_ns)
    }

    /// Counts an event.
    pub fn count(&self, kind: usize, more: u64) {
        if let Some(counter) = self.events.get(kind) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

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

    /// Live sites as of the last look.
    pub fn live(&self, min_bytes: u64, most: usize) -> Vec<Lead> {
        match &self.lock().source {
            Source::Live(state, book) => book.live(&**state, min_bytes, most),
            Source::Ended(ended) => ended.live(min_bytes, most),
        }
    }

    /// Leads split by what the last check found, where there was one.
    pub fn by_class(&self, leads: Vec<Lead>) -> Vec<Lead> {
        let inside = self.lock();
        let check = inside.last.process.check.as_ref();
        if check.is_none_or(|check| check.trouble.is_some()) {
            return leads;
        }
        let found = |site| match &inside.source {
            Source::Live(_, book) => book.found(site),
            Source::Ended(ended) => ended.found(site),
        };
        let split = |lead: Lead| lead.by_class(&found(lead.site));
        leads.into_iter().flat_map(split).collect()
    }

    /// Sites by total bytes as of the last look.
    pub fn largest(&self, most: usize) -> Vec<Lead> {
        match &self.lock().source {
            Source::Live(state, book) => book.largest(&**state, most),
            Source::Ended(ended) => ended.largest(most),
        }
    }

    /// Who caused which system calls.
    pub fn calls(&self) -> Vec<Row> {
        match &self.lock().source {
            Source::Live(state, book) => book.calls(&**state),
            Source::Ended(ended) => ended.calls().to_vec(),
        }
    }

    /// OS pages that sites were the first to carve: of all sites, and the first `most`.
    pub fn touched(&self, most: usize) -> (u64, Vec<Lead>) {
        match &self.lock().source {
            Source::Live(state, book) => book.touched(&**state, most),
            Source::Ended(ended) => ended.touched(most),
        }
    }

    /// Stacks and modules for some of the leads.
    pub fn details(&self, leads: &[Lead]) -> (Vec<Detail>, Modules) {
        match &mut self.lock().source {
            Source::Live(state, book) => {
                book.decode(&**state);
                let details = leads.iter().map(|lead| book.detail(&**state, lead.site));
                (details.collect(), book.modules().clone())
            }
            Source::Ended(ended) => (ended.details(leads), ended.modules().clone()),
        }
    }

    /// Notes a frame about misuse.
    pub fn misuse(&self, payload: &[u8]) {
        if let Some(new) = Misused::decode(payload) {
            misuse::note(&mut self.lock().misused, new);
        }
    }

    /// The last misuses with their stacks, as of the last look, and the modules.
    pub fn misused(&self) -> (Vec<Misused>, Modules) {
        let mut inside = self.lock();
        inside.learn_misuse();
        let modules = match &inside.source {
            _ if inside.misused.is_empty() => Modules::default(),
            Source::Live(_, book) => book.modules().clone(),
            Source::Ended(ended) => ended.modules().clone(),
        };
        (inside.misused.iter().cloned().collect(), modules)
    }

    /// Takes the final look, keeps what is worth keeping and closes the memfd.
    /// Does nothing when it ended before, or (for the end of a connection) when
    /// it has connected again since; true when it ended now.
    pub fn finish(&self, end: End, generation: Option<u64>) -> bool {
        let mut inside = self.lock();
        let stale = generation.is_some_and(|of| of != inside.generation);
        if stale || inside.end.is_some() {
            return false;
        }
        inside.look(self);
        inside.learn_misuse();
        if let Source::Live(state, book) = &mut inside.source {
            let ended = Ended::of(book, &**state);
            inside.source = Source::Ended(Box::new(ended));
        }
        inside.end = Some(end);
        inside.bill = inside.bill.as_deref().map(|kept| Arc::new(kept.ended()));
        drop(inside);
        self.judged.end();
        self.forget_chart();
        self.changed.notify_waiters();
        true
    }

    /// Nobody asks for the chart of a process that ended. One that is being taken holds
    /// the lock, and is let go where it was asked for.
    fn forget_chart(&self) {
        if let Ok(mut chart) = self.chart.try_lock() {
            *chart = None;
        }
    }

    /// Sites kept after the end: what the budget counts.
    pub fn kept_sites(&self) -> usize {
        match &self.lock().source {
            Source::Live(..) => 0,
            Source::Ended(ended) => ended.len(),
        }
    }

    /// Name and counters, for the totals of forgotten processes.
    pub fn remains(&self) -> (String, Tally) {
        let inside = self.lock();
        (inside.last.process.name.clone(), inside.tally.clone())
    }
}

impl Inside {
    /// Reads what can be read; a state that cannot be keeps its last numbers.
    fn look(&mut self, record: &Record) {
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
    fn learn_misuse(&mut self) {
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

impl Resident {
    fn note(&mut self, resident: u64, account: &Pages) {
        self.last = resident;
        self.peak = self.peak.max(resident);
        let most = self.at_peak.map(|pages| pages.requested_bytes);
        if most.is_none_or(|most| account.requested_bytes > most) {
            self.at_peak = Some(Pages {
                resident_bytes: resident,
                resident_peak_bytes: self.peak,
                resident_last_bytes: resident,
                ..*account
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the highest sample is kept, and the account of the fullest. Method: up, then down.
    #[test]
    fn the_fullest_sample_keeps_its_account() {
        let mut resident = Resident::default();
        let account = |requested_bytes| Pages {
            requested_bytes,
            ..Pages::default()
        };
        for (bytes, requested) in [(10, 1), (50, 9), (60, 2), (20, 3)] {
            resident.note(bytes, &account(requested));
        }
        let at_peak = resident.at_peak.expect("sampled");
        assert_eq!((resident.last, resident.peak), (20, 60));
        assert_eq!((at_peak.requested_bytes, at_peak.resident_bytes), (9, 50));
    }
}
