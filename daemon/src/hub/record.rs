//! One process image: from hello to what remains of it.
//!
//! # Design
//! ```text
//! here      who it is, its life from arrival to end
//! look      its numbers anew, samples of resident bytes, growth
//! answers   what reports ask of the last look
//! source    the state of a running process, or what is kept of an ended one
//! resident  the last, highest and fullest sample
//! ```

mod answers;
mod look;
mod resident;
mod source;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pageshim_wire::process::word;
use tokio::sync::Notify;

use super::bills::Kept;
use super::charts;
use super::clock::now_ns;
use super::judged::Judged;
use super::whys::Whys;
use crate::books::growth::Trend;
use crate::books::misuse::{self, Misused};
use crate::books::report::{Exit, State};
use crate::books::summary::Observed;
use crate::books::suppress::Rules;
use crate::books::tally::{EVENTS, Tally};
use crate::ingest::{Arrival, SharedState};
use resident::Resident;
use source::Source;

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
    /// It has asked for its last check, which a process does once.
    pub asked_last: AtomicBool,
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
            asked_last: AtomicBool::new(false),
            judged: Judged::default(),
            whys: Whys::default(),
            chart: Mutex::new(None),
            changed: Notify::new(),
            inside: Mutex::new(Inside {
                source: Source::live_from(&state),
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
        inside.source = Source::live_from(&state);
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

    /// Notes a frame about misuse.
    pub fn misuse(&self, payload: &[u8]) {
        if let Some(new) = Misused::decode(payload) {
            misuse::note(&mut self.lock().misused, new);
        }
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
        inside.source.end();
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
}
