//! All processes known, and the totals of those forgotten.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Inner;
use super::record::Record;
use crate::books::report::{Exit, State};
use crate::books::tally::Tally;
use crate::ingest::{Arrival, Refusal, SharedState};

/// Sites kept of all ended processes together (about 100 bytes each).
const SITES_KEPT: usize = 200_000;
/// Exits noted before their process is known to have ended.
const NOTED_MAX: usize = 1024;
/// Names with totals of their own; later ones share `other`.
const NAMES_MAX: usize = 512;

/// Records, oldest first.
#[derive(Debug, Default)]
pub struct Registry {
    /// In order of hello.
    pub records: Vec<Arc<Record>>,
    /// Totals of forgotten processes by name.
    pub folded: BTreeMap<String, Tally>,
    /// How many were forgotten: exited, killed.
    pub forgotten: [u64; 2],
    noted: VecDeque<(u32, Exit)>,
}

/// The registry, for a moment.
pub fn lock(inner: &Inner) -> MutexGuard<'_, Registry> {
    inner
        .registry
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// A new connection of a process known or not: its record, its state, the
    /// connection's generation.
    pub fn arrive(
        &mut self,
        arrival: Arrival,
    ) -> Result<(Arc<Record>, Arc<SharedState>, u64), Refusal> {
        let known = self
            .records
            .iter()
            .find(|record| record.token == arrival.hello.token);
        if let Some(record) = known {
            if record.uid != arrival.uid {
                return Err(Refusal::Token);
            }
            let (state, generation) = record.reconnect(arrival.state);
            return Ok((Arc::clone(record), state, generation));
        }
        let (record, state) = Record::new(arrival);
        self.records.push(Arc::clone(&record));
        Ok((record, state, 1))
    }

    /// Running images of the same process as `record`, other than it: it has
    /// called exec since. Without a pid of our own view nothing is sure: two
    /// containers may each have a process 7.
    pub fn replaced_by(&self, record: &Record) -> Vec<Arc<Record>> {
        let same = |other: &&Arc<Record>| {
            other.token != record.token
                && record.peer_pid != 0
                && (other.pid, other.peer_pid) == (record.pid, record.peer_pid)
                && other.end().is_none()
        };
        self.records.iter().filter(same).cloned().collect()
    }

    /// A parent's word on how its child ended.
    pub fn note_exit(&mut self, pid: u32, exit: Exit) {
        let newest = self.records.iter().rev().find(|record| record.is_pid(pid));
        match newest.map(|record| (record, record.end())) {
            Some((record, Some(end))) if !end.exec => record.amend(exit),
            _ => {
                self.noted.truncate(NOTED_MAX - 1);
                self.noted.push_front((pid, exit));
            }
        }
    }

    /// What is noted about a process that just ended by itself.
    pub fn take_note(&mut self, record: &Record) -> Option<Exit> {
        let at = self.noted.iter().position(|(pid, _)| record.is_pid(*pid))?;
        self.noted.remove(at).map(|(_, exit)| exit)
    }

    /// Forgets the processes that ended first, beyond `keep` or beyond the
    /// budget of sites; their counters go to the totals. By end, not by start:
    /// the parent of many (a shell, a build) began first and is asked for most.
    pub fn fold(&mut self, keep: usize) {
        let ended = |record: &Arc<Record>| Some((record.end()?.at_ns, record.kept_sites()));
        let mut facts: Vec<(u64, usize)> = self.records.iter().filter_map(ended).collect();
        facts.sort_unstable();
        let mut sites: usize = facts.iter().map(|(_, kept)| kept).sum();
        let mut count = facts.len();
        let mut before = 0;
        for (at_ns, kept) in facts {
            if count <= keep && (sites <= SITES_KEPT || count <= 1) {
                break;
            }
            count -= 1;
            sites -= kept;
            before = at_ns;
        }
        self.forget(before);
    }

    /// Forgets what ended at `until` or before.
    fn forget(&mut self, until: u64) {
        let is_old = |record: &Arc<Record>| record.end().is_some_and(|end| end.at_ns <= until);
        let (old, kept) = std::mem::take(&mut self.records)
            .into_iter()
            .partition(is_old);
        self.records = kept;
        let old: Vec<Arc<Record>> = old;
        for record in old {
            let state = record.end().map_or(State::Exited, |end| end.state);
            self.forgotten[usize::from(state == State::Killed)] += 1;
            let (name, tally) = record.remains();
            self.add_total(name, &tally);
        }
    }

    fn add_total(&mut self, name: String, tally: &Tally) {
        let known = self.folded.contains_key(&name);
        let name = if known || self.folded.len() < NAMES_MAX {
            name
        } else {
            "other".to_owned()
        };
        self.folded.entry(name).or_default().add(tally);
    }
}
