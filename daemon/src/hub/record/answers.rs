//! What reports ask of a record, as of its last look.

use std::sync::Arc;

use super::Record;
use crate::books::calls::Row;
use crate::books::leaks::{Detail, Lead};
use crate::books::misuse::Misused;
use crate::books::modules::Modules;
use crate::books::tally::Tally;
use crate::ingest::SharedState;

impl Record {
    /// A header word of the state, while there is one.
    pub fn header(&self, index: usize) -> Option<u64> {
        self.lock().source.state().map(|state| state.header(index))
    }

    /// The state, while it runs.
    pub fn state(&self) -> Option<Arc<SharedState>> {
        let inside = self.lock();
        let runs = inside.end.is_none();
        inside.source.state().filter(|_| runs).map(Arc::clone)
    }

    /// Live sites as of the last look.
    pub fn live(&self, min_bytes: u64, most: usize) -> Vec<Lead> {
        self.lock().source.live(min_bytes, most)
    }

    /// Leads split by what the last check found, where there was one.
    pub fn by_class(&self, leads: Vec<Lead>) -> Vec<Lead> {
        let inside = self.lock();
        let check = inside.last.process.check.as_ref();
        if check.is_none_or(|check| check.trouble.is_some()) {
            return leads;
        }
        let split = |lead: Lead| lead.by_class(&inside.source.found(lead.site));
        leads.into_iter().flat_map(split).collect()
    }

    /// Sites by total bytes as of the last look.
    pub fn largest(&self, most: usize) -> Vec<Lead> {
        self.lock().source.largest(most)
    }

    /// Who caused which system calls.
    pub fn calls(&self) -> Vec<Row> {
        self.lock().source.calls()
    }

    /// OS pages that sites were the first to carve: of all sites, and the first `most`.
    pub fn touched(&self, most: usize) -> (u64, Vec<Lead>) {
        self.lock().source.touched(most)
    }

    /// Stacks and modules for some of the leads.
    pub fn details(&self, leads: &[Lead]) -> (Vec<Detail>, Modules) {
        self.lock().source.details(leads)
    }

    /// The last misuses with their stacks, as of the last look, and the modules.
    pub fn misused(&self) -> (Vec<Misused>, Modules) {
        let mut inside = self.lock();
        inside.learn_misuse();
        let modules = if inside.misused.is_empty() {
            Modules::default()
        } else {
            inside.source.modules().clone()
        };
        (inside.misused.iter().cloned().collect(), modules)
    }

    /// Sites kept after the end: what the budget counts.
    pub fn kept_sites(&self) -> usize {
        self.lock().source.kept_sites()
    }

    /// Name and counters, for the totals of forgotten processes.
    pub fn remains(&self) -> (String, Tally) {
        let inside = self.lock();
        (inside.last.process.name.clone(), inside.tally.clone())
    }
}
