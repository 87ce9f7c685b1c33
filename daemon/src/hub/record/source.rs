//! Where a record's numbers come from: the state of a process that runs, or what was kept of it.

use std::sync::Arc;

use crate::books::book::Book;
use crate::books::calls::Row;
use crate::books::check::Row as Found;
use crate::books::ended::Ended;
use crate::books::leaks::{Detail, Lead};
use crate::books::modules::Modules;
use crate::ingest::SharedState;

/// Where the numbers come from.
#[derive(Debug)]
pub(super) enum Source {
    /// It runs: the state and what was read of it.
    Live(Arc<SharedState>, Box<Book>),
    /// It ended.
    Ended(Box<Ended>),
}

impl Source {
    /// Of a process that runs: nothing read yet.
    pub(super) fn live_from(state: &Arc<SharedState>) -> Self {
        let book = Box::new(Book::new(*state.layout()));
        Self::Live(Arc::clone(state), book)
    }

    /// The state, while there is one.
    pub(super) fn state(&self) -> Option<&Arc<SharedState>> {
        match self {
            Self::Live(state, _) => Some(state),
            Self::Ended(_) => None,
        }
    }

    /// Live sites as of the last look.
    pub(super) fn live(&self, min_bytes: u64, most: usize) -> Vec<Lead> {
        match self {
            Self::Live(state, book) => book.live(&**state, min_bytes, most),
            Self::Ended(ended) => ended.live(min_bytes, most),
        }
    }

    /// What the last check found of a site.
    pub(super) fn found(&self, site: u32) -> Found {
        match self {
            Self::Live(_, book) => book.found(site),
            Self::Ended(ended) => ended.found(site),
        }
    }

    /// Sites by total bytes as of the last look.
    pub(super) fn largest(&self, most: usize) -> Vec<Lead> {
        match self {
            Self::Live(state, book) => book.largest(&**state, most),
            Self::Ended(ended) => ended.largest(most),
        }
    }

    /// Who caused which system calls.
    pub(super) fn calls(&self) -> Vec<Row> {
        match self {
            Self::Live(state, book) => book.calls(&**state),
            Self::Ended(ended) => ended.calls().to_vec(),
        }
    }

    /// OS pages that sites were the first to carve: of all sites, and the first `most`.
    pub(super) fn touched(&self, most: usize) -> (u64, Vec<Lead>) {
        match self {
            Self::Live(state, book) => book.touched(&**state, most),
            Self::Ended(ended) => ended.touched(most),
        }
    }

    /// Stacks and modules for some of the leads.
    pub(super) fn details(&mut self, leads: &[Lead]) -> (Vec<Detail>, Modules) {
        match self {
            Self::Live(state, book) => {
                book.decode(&**state);
                let details = leads.iter().map(|lead| book.detail(&**state, lead.site));
                (details.collect(), book.modules().clone())
            }
            Self::Ended(ended) => (ended.details(leads), ended.modules().clone()),
        }
    }

    /// Its modules, as far as they were looked up.
    pub(super) fn modules(&self) -> &Modules {
        match self {
            Self::Live(_, book) => book.modules(),
            Self::Ended(ended) => ended.modules(),
        }
    }

    /// Sites kept after the end.
    pub(super) fn kept_sites(&self) -> usize {
        match self {
            Self::Live(..) => 0,
            Self::Ended(ended) => ended.len(),
        }
    }

    /// Keeps what is worth keeping and lets go of the state.
    pub(super) fn end(&mut self) {
        if let Self::Live(state, book) = self {
            let ended = Ended::of(book, &**state);
            *self = Self::Ended(Box::new(ended));
        }
    }
}
