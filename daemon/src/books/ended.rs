//! What is kept of a process that ended, when its memfd is closed.
//!
//! Bounded: [`SITES_MAX`] sites with live blocks, most bytes first, and the
//! largest by total bytes. Their stacks are kept as a tree of their own.

use std::collections::HashSet;

use super::book::Book;
use super::calls::{Cause, Row, bounded};
use super::check::Row as Found;
use super::leaks::{Detail, Lead};
use super::modules::Modules;
use super::report::Amount;
use super::sites::SiteSums;
use super::stacks::{Node, Stacks};
use super::threads::plus;
use super::view::View;

/// Most live sites kept of one ended process.
pub const SITES_MAX: usize = 50_000;
/// Sites kept for their total bytes.
pub const LARGEST: usize = 1000;

/// Sites kept for the system calls they caused.
const CALLERS: usize = 200;

/// One site, by its final numbers.
#[derive(Clone, Debug)]
struct Kept {
    lead: Lead,
    found: Found,
    hash: u64,
    tick: u32,
    thread: u16,
    incomplete: Option<&'static str>,
    leaf: Node,
}

/// The remains of a book.
#[derive(Debug)]
pub struct Ended {
    sites: Vec<Kept>,
    stacks: Stacks,
    modules: Modules,
    names: Vec<String>,
    live: usize,
    ranked: usize,
    calls: Vec<Row>,
    touched: u64,
    unlisted: Amount,
    by_site: Vec<u32>,
}

impl Ended {
    /// Takes from `book` what is worth keeping.
    pub fn of(book: &mut Book, view: &dyn View) -> Self {
        book.decode(view);
        Self::bounded(book, view, SITES_MAX)
    }

    fn bounded(book: &Book, view: &dyn View, most: usize) -> Self {
        let top = book.top_live(view, 0, most);
        let offered = top.offered();
        let mut leads = top.finish();
        let live = leads.len();
        let kept = leads.iter().map(|lead| lead.sums.live());
        let kept = kept.fold(Amount::default(), plus);
        let known: HashSet<u32> = leads.iter().map(|lead| lead.site).collect();
        let largest = book.largest(view, LARGEST).into_iter();
        leads.extend(largest.filter(|lead| !known.contains(&lead.site)));
        let ranked = leads.len();
        let calls = bounded(&book.calls(view), CALLERS);
        let known: HashSet<u32> = leads.iter().map(|lead| lead.site).collect();
        leads.extend(callers(&calls, &known));
        let mut ended = Self {
            sites: Vec::with_capacity(leads.len()),
            stacks: Stacks::default(),
            modules: book.modules().clone(),
            names: Vec::new(),
            live,
            ranked,
            calls,
            touched: book.touched(view, 0).0,
            unlisted: Amount {
                bytes: offered.bytes.saturating_sub(kept.bytes),
                blocks: offered.blocks.saturating_sub(kept.blocks),
            },
            by_site: Vec::new(),
        };
        for lead in leads {
            let found = book.found(lead.site);
            ended.keep(lead, found, book.detail(view, lead.site));
        }
        ended.stacks.seal();
        ended.by_site = (0..ended.sites.len() as u32).collect();
        let sites = &ended.sites;
        ended
            .by_site
            .sort_unstable_by_key(|index| sites[*index as usize].lead.site);
        ended
    }

    fn keep(&mut self, lead: Lead, found: Found, detail: Detail) {
        let known = self.names.iter().position(|name| *name == detail.thread);
        let thread = known.unwrap_or_else(|| {
            self.names.push(detail.thread);
            self.names.len() - 1
        });
        self.sites.push(Kept {
            lead,
            found,
            hash: detail.hash,
            tick: u32::try_from(detail.tick).unwrap_or(u32::MAX),
            thread: u16::try_from(thread).unwrap_or(u16::MAX),
            incomplete: detail.incomplete,
            leaf: self.stacks.insert(&detail.frames),
        });
    }

    /// The live sites of at least `min_bytes`, at most `most`.
    pub fn live(&self, min_bytes: u64, most: usize) -> Vec<Lead> {
        let leads = self.sites[..self.live].iter().map(|kept| kept.lead);
        leads
            .filter(|lead| lead.sums.live().bytes >= min_bytes)
            .take(most)
            .collect()
    }

    /// What the last check found of a site.
    pub fn found(&self, site: u32) -> Found {
        let of = |index: &u32| self.sites[*index as usize].lead.site;
        let at = self.by_site.binary_search_by_key(&site, of);
        at.map_or_else(
            |_| Found::default(),
            |at| self.sites[self.by_site[at] as usize].found,
        )
    }

    /// The kept sites by all bytes they ever allocated.
    pub fn largest(&self, most: usize) -> Vec<Lead> {
        let ranked = self.sites[..self.ranked].iter();
        let mut leads: Vec<Lead> = ranked.map(|kept| kept.lead).collect();
        leads.sort_by_key(|lead| std::cmp::Reverse(lead.sums.allocated.bytes));
        leads.truncate(most);
        leads
    }

    /// Who caused which system calls.
    pub fn calls(&self) -> &[Row] {
        &self.calls
    }

    /// OS pages all sites were the first to carve, and the kept sites that carved any.
    pub fn touched(&self, most: usize) -> (u64, Vec<Lead>) {
        let leads = self.sites[..self.ranked].iter().map(|kept| kept.lead);
        let mut leads: Vec<Lead> = leads.filter(|lead| lead.sums.touched > 0).collect();
        leads.sort_by_key(|lead| std::cmp::Reverse(lead.sums.touched));
        leads.truncate(most);
        (self.touched, leads)
    }

    /// What is known of the sites among `leads`, in their order.
    pub fn details(&self, leads: &[Lead]) -> Vec<Detail> {
        let detail = |lead: &Lead| {
            let site = |index: &u32| self.sites[*index as usize].lead.site;
            match self.by_site.binary_search_by_key(&lead.site, site) {
                Ok(at) => self.detail(&self.sites[self.by_site[at] as usize]),
                Err(_) => Detail::unknown(lead.site),
            }
        };
        leads.iter().map(detail).collect()
    }

    fn detail(&self, kept: &Kept) -> Detail {
        Detail {
            hash: kept.hash,
            tick: u64::from(kept.tick),
            thread: self
                .names
                .get(usize::from(kept.thread))
                .cloned()
                .unwrap_or_default(),
            incomplete: kept.incomplete,
            frames: self.stacks.climb(kept.leaf),
        }
    }

    /// The modules at the end.
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// Live blocks of sites that were not kept.
    pub const fn unlisted(&self) -> Amount {
        self.unlisted
    }

    /// Sites kept: what the daemon's budget counts.
    pub fn len(&self) -> usize {
        self.sites.len()
    }
}

/// Sites with system calls that are not `known`, without sums.
fn callers(calls: &[Row], known: &HashSet<u32>) -> Vec<Lead> {
    let site = |row: &Row| match row.cause {
        Cause::Site(site) => Some(site),
        _ => None,
    };
    let sites: HashSet<u32> = calls.iter().filter_map(site).collect();
    let lead = |site| Lead {
        site,
        sums: SiteSums::default(),
        part: None,
    };
    sites.difference(known).copied().map(lead).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;

    // Goal: an ended process tells the same as its book did. Method: compare details of both.
    #[test]
    fn the_remains_agree_with_the_book() {
        let mut state = State::new();
        state.thread(0, 1, "main");
        state
            .stack(2, &[0x10, 0x20], (0, 0))
            .stack(3, &[0x30], (2, 1));
        state.site_counters(0, 2, [9, 900, 9, 900, 9]);
        state.site_counters(0, 3, [5, 50, 1, 10, 0]);
        let view = state.view();
        let mut book = Book::new(state.layout);
        book.look(&view).expect("whole");
        let ended = Ended::of(&mut book, &view);
        assert_eq!(ended.live(0, 9), book.live(&view, 0, 9));
        assert_eq!(ended.largest(9), book.largest(&view, 9));
        for lead in ended.largest(9) {
            assert_eq!(ended.details(&[lead]), [book.detail(&view, lead.site)]);
        }
        assert_eq!((ended.len(), ended.unlisted()), (2, Amount::default()));
        let none = Ended::bounded(&book, &view, 0);
        let all = Amount {
            bytes: 40,
            blocks: 4,
        };
        assert_eq!((none.live(0, 9).len(), none.unlisted()), (0, all));
        assert!(ended.live(41, 9).is_empty());
    }
}
