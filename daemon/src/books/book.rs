//! The book of a running process: what is decoded once, and how to look again.

use pageshim_wire::layout::Layout;
use pageshim_wire::process::Mode;
use pageshim_wire::stack::Record;
use pageshim_wire::word_at;

use super::calls;
use super::check::{self, Last, Row};
use super::header::Header;
use super::leaks::{Detail, Lead, Rank, Top, incomplete};
use super::modules::Modules;
use super::report::Sampling;
use super::sampled::Variance;
use super::sites::{Counted, each_site};
use super::stacks::Stacks;
use super::summary::{Observed, observe};
use super::suppress::Rules;
use super::threads::ThreadSums;
use super::view::View;

/// What is kept of a running process between looks.
#[derive(Debug)]
pub struct Book {
    layout: Layout,
    stacks: Stacks,
    modules: Modules,
    names: Vec<String>,
    counts: Counted,
    last: Option<Last>,
}

impl Book {
    /// An empty book for a state of this layout.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            stacks: Stacks::default(),
            modules: Modules::default(),
            names: Vec::new(),
            counts: Counted::default(),
            last: None,
        }
    }

    /// Reads the numbers, and decodes modules that are new; `None` when the
    /// state cannot be read at all.
    pub fn look(&mut self, view: &dyn View) -> Option<Observed> {
        let header = Header::read(view, &self.layout)?;
        let mut threads = ThreadSums::read(view, &self.layout, header.thread_count());
        if header.mode() == Mode::Count.name() {
            threads.only_counted();
        }
        let interval = header.interval();
        self.counts = Counted {
            sites: header.site_count(),
            threads: header.thread_count(),
            sampled: interval.is_some(),
        };
        self.modules = Modules::read(view, &self.layout, header.module_count(), &self.modules);
        if interval.is_some() {
            threads.make_whole();
        }
        let mut observed = observe(&header, &threads);
        self.last = Last::read(view, &self.layout, self.counts.sites, self.last.take());
        observed.process.check = self.last.as_ref().map(|last| last.check.clone());
        if let Some(interval) = interval {
            let process = &mut observed.process;
            process.sampling = Some(self.sampling(view, interval));
            // Each was rounded on its own.
            process.peak.bytes = process.peak.bytes.min(process.total.bytes);
            process.peak.blocks = process.peak.blocks.min(process.total.blocks);
        }
        self.names = threads.names;
        Some(observed)
    }

    /// How far off the estimates of a sampled process may be.
    fn sampling(&self, view: &dyn View, interval: u64) -> Sampling {
        let mut variance = Variance::default();
        each_site(view, &self.layout, self.counts, |_, sums| {
            variance.add(&sums.variance);
        });
        Sampling {
            interval_bytes: interval,
            live_error: variance.of_live(interval),
            total_error: variance.of_total(interval),
        }
    }

    /// Decodes stacks that are new since the last time.
    pub fn decode(&mut self, view: &dyn View) {
        self.stacks.update(view, &self.layout, self.counts.sites);
    }

    /// The `most` live sites of at least `min_bytes`, as of the last look.
    pub fn live(&self, view: &dyn View, min_bytes: u64, most: usize) -> Vec<Lead> {
        self.top_live(view, min_bytes, most).finish()
    }

    /// The same before it is sorted, with what was offered to it.
    pub fn top_live(&self, view: &dyn View, min_bytes: u64, most: usize) -> Top {
        let mut top = Top::new(Rank::Live, most);
        each_site(view, &self.layout, self.counts, |site, sums| {
            let live = sums.live();
            if live.blocks > 0 && live.bytes >= min_bytes {
                top.offer(site, sums);
            }
        });
        top
    }

    /// What the last check found of a site.
    pub fn found(&self, site: u32) -> Row {
        self.last
            .as_ref()
            .map_or_else(Row::default, |last| last.row(site))
    }

    /// The suppressions that the program itself brought.
    pub fn rules(&self, view: &dyn View) -> Rules {
        check::rules(view, &self.layout)
    }

    /// The `most` sites by all bytes they ever allocated.
    pub fn largest(&self, view: &dyn View, most: usize) -> Vec<Lead> {
        let mut top = Top::new(Rank::Total, most);
        each_site(view, &self.layout, self.counts, |site, sums| {
            top.offer(site, sums);
        });
        top.finish()
    }

    /// OS pages all sites were the first to carve, and the `most` sites that carved any.
    pub fn touched(&self, view: &dyn View, most: usize) -> (u64, Vec<Lead>) {
        let mut top = Top::new(Rank::Touched, most);
        each_site(view, &self.layout, self.counts, |site, sums| {
            if sums.touched > 0 {
                top.offer(site, sums);
            }
        });
        (top.touched(), top.finish())
    }

    /// Who caused which system calls.
    pub fn calls(&self, view: &dyn View) -> Vec<calls::Row> {
        calls::read(view, &self.layout)
    }

    /// What is known of a site; its stack as of the last [`Self::decode`].
    pub fn detail(&self, view: &dyn View, site: u32) -> Detail {
        self.published(view, site)
            .unwrap_or_else(|| Detail::unknown(site))
    }

    fn published(&self, view: &dyn View, site: u32) -> Option<Detail> {
        let record = Record::of_site(view, &self.layout, site)?;
        let mut entry = [0; 8];
        let read = view.read(self.layout.site(u64::from(site)), &mut entry);
        Some(Detail {
            hash: if read { word_at(&entry, 0) } else { 0 },
            tick: record.tick,
            thread: self.thread(record.thread),
            incomplete: incomplete(record.end),
            frames: self.stacks.frames(site)?,
        })
    }

    fn thread(&self, slot: u16) -> String {
        self.names
            .get(usize::from(slot))
            .cloned()
            .unwrap_or_default()
    }

    /// The modules as of the last look.
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// Nodes of the stack tree.
    #[cfg(test)]
    pub fn nodes(&self) -> usize {
        self.stacks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::super::view::Bytes;
    use super::*;

    // Goal: a site's numbers, stack, thread and age come together. Method: two sites by hand.
    #[test]
    fn leads_get_their_details() {
        let mut state = State::new();
        state.thread(0, 1, "main");
        state
            .stack(2, &[0x10, 0x20], (0, 0))
            .stack(3, &[0x30], (2, 1));
        state.site_counters(0, 2, [1, 100, 1, 100, 1]);
        state.site_counters(0, 3, [5, 50, 1, 10, 0]);
        state.site_counters(0, 0, [2, 7, 0, 0, 0]);
        let view = state.view();
        let mut book = Book::new(state.layout);
        assert!(book.look(&view).is_some());
        book.decode(&view);
        let sites = |leads: Vec<Lead>| leads.iter().map(|lead| lead.site).collect::<Vec<_>>();
        assert_eq!(sites(book.live(&view, 0, 10)), [3, 0]);
        assert_eq!(sites(book.live(&view, 8, 10)), [3]);
        assert_eq!(sites(book.largest(&view, 2)), [2, 3]);
        let detail = book.detail(&view, 3);
        assert_eq!(
            (detail.hash, detail.tick, detail.thread.as_str()),
            (0x1003, 250, "main")
        );
        assert_eq!((detail.frames, detail.incomplete), (vec![0x30, 0x20], None));
        assert!(book.detail(&view, 0).incomplete.is_some());
        assert_eq!(book.detail(&view, 4_000_000_000).frames, Vec::<u64>::new());
    }

    // Goal: no bytes, however random, panic or hang a reader.
    // Method: a xorshift overwrites parts of a sound state, many rounds, everything is read.
    #[test]
    fn random_states_are_survived() {
        let mut sound = State::new();
        sound
            .thread(0, 1, "main")
            .stack(2, &[1, 2], (0, 0))
            .stack(3, &[3], (2, 1));
        sound.module(0, (0x1000, 0x2000), b"id", "/x");
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..60 {
            let mut state = sound.clone();
            for _ in 0..400 {
                let word = random() % (state.bytes.len() as u64 / 8);
                let near = 5 + random() % (2048 - 5);
                let value = if random() % 2 == 0 {
                    random()
                } else {
                    random() % 300
                };
                state.put(word * 8, value);
                state.put(near * 8, value);
                state.put(state.layout.site(random() % 256), random());
                state.put(state.layout.log() + random() % 512 * 8, value);
            }
            read_all(&state.view(), state.layout);
        }
    }

    fn read_all(view: &Bytes, layout: Layout) {
        let mut book = Book::new(layout);
        assert!(book.look(view).is_some());
        book.decode(view);
        for lead in book.live(view, 0, usize::MAX) {
            let detail = book.detail(view, lead.site);
            for frame in detail.frames {
                book.modules().find(frame, detail.tick);
            }
        }
        assert!(book.nodes() < 1 << 16);
    }
}
