//! The ledger: runs in, parts and costs out.

use std::collections::HashMap;

use pageshim_wire::heap::SLICE_SHIFT;
use pageshim_wire::heap::record::SITE_BITS;

use super::cost::{Alone, Cost, Parts};
use super::held::{Held, Live, Split};
use super::ranges::{Holder, Ranges, SHIFT};
use crate::target::origins::Origins;
use crate::target::pagemap::Resident;
use crate::target::snapshot::{Run, Use};

/// Site of blocks without a record.
const UNKNOWN: u32 = pageshim_wire::process::SITE_UNKNOWN;

/// Adds up one heap.
#[derive(Debug)]
pub struct Ledger {
    resident: Resident,
    /// Whether the kernel may have put huge pages there.
    huge: bool,
    parts: Parts,
    costs: HashMap<u32, Cost>,
    ranges: Ranges,
    /// The last answer of `is_whole`.
    whole: (u64, bool),
    /// OS pages in RAM by who carved them first.
    opened: HashMap<u32, Alone>,
    on_page: Vec<Held>,
    on_run: Vec<(u32, u64)>,
}

/// The slots of a run: `slot` bytes each, one for each record.
#[derive(Clone, Copy, Debug)]
struct Slots<'a> {
    slot: u64,
    records: &'a [u64],
}

/// What an OS page holds beside live blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    free: u64,
    tail: u64,
}

impl Ledger {
    /// An empty ledger over these OS pages; `huge` when huge pages may be among them.
    pub fn new(resident: Resident, huge: bool) -> Self {
        Self {
            resident,
            huge,
            parts: Parts::default(),
            costs: HashMap::new(),
            ranges: Ranges::default(),
            whole: (u64::MAX, false),
            opened: HashMap::new(),
            on_page: Vec::new(),
            on_run: Vec::new(),
        }
    }

    /// Adds a run, later ones at higher addresses. `records` has the record of each
    /// carved slot; it is empty for runs without records.
    pub fn add(&mut self, run: &Run, records: &[u64]) {
        let recorded = |slot| Slots { slot, records };
        match run.used {
            Use::Free | Use::Untouched => self.plain(run, run.used == Use::Free),
            Use::Slots { bytes: 0, .. } | Use::Single { usable: 0, .. } => {
                self.moved(run);
            }
            Use::Slots { bytes, .. } if !records.is_empty() => {
                self.run(run, recorded(u64::from(bytes)));
            }
            Use::Slots { carved: 0, .. } => self.plain(run, false),
            Use::Slots { .. } => self.unrecorded(run),
            Use::Single { usable, record } => {
                // A block of its own run lives; without a record it is nobody's.
                let unknown = Live::of(record).is_none();
                let record = if unknown { 1 << SITE_BITS } else { record };
                if unknown {
                    self.parts.unrecorded += self.resident.bytes(run.start, run.start + usable);
                }
                let records = &[record];
                self.run(
                    run,
                    Slots {
                        slot: usable,
                        records,
                    },
                );
            }
        }
    }

    /// Adds a run that could not be read whole; answers its resident bytes.
    pub fn moved(&mut self, run: &Run) -> u64 {
        let bytes = self.resident.bytes(run.start, run.start + run.bytes);
        self.parts.moved += bytes;
        self.each_page(run, |ledger, at, resident| {
            ledger.in_range(at, resident, Holder::Many);
        });
        bytes
    }

    /// Bills the resident pages of the run added last to who carved them first.
    pub fn opened(&mut self, run: &Run, origins: &Origins) {
        let bytes = self.resident.page_bytes();
        origins.each(run, |at, site| {
            if self.resident.holds(at) {
                self.opened.entry(site).or_default().add(1, bytes);
            }
        });
    }

    /// OS pages in RAM by who carved them first.
    pub fn take_opened(&mut self) -> HashMap<u32, Alone> {
        std::mem::take(&mut self.opened)
    }

    /// Parts and costs by site.
    pub fn finish(mut self) -> (Parts, HashMap<u32, Cost>) {
        let last = self.ranges.end(0);
        self.alone_in_range(last);
        (self.parts, self.costs)
    }

    fn each_page(&mut self, run: &Run, mut each: impl FnMut(&mut Self, u64, u64)) {
        let page = self.resident.page_bytes().max(1);
        let mut at = run.start;
        while at < run.start + run.bytes {
            let resident = if self.resident.holds(at) { page } else { 0 };
            each(self, at, resident);
            at += page;
        }
    }

    /// A run without slots.
    fn plain(&mut self, run: &Run, free: bool) {
        self.each_page(run, |ledger, at, resident| {
            ledger.in_range(at, resident, Holder::None);
            if free {
                ledger.parts.retained += resident;
            } else {
                ledger.tail(at, resident);
            }
        });
    }

    /// Bytes that were never handed out: without huge pages only use makes them resident.
    fn tail(&mut self, at: u64, bytes: u64) {
        let page = bytes > 0 && bytes == self.resident.page_bytes();
        if self.huge && page && self.is_whole(at >> SHIFT << SHIFT) {
            self.parts.huge += bytes;
        } else {
            self.parts.tails += bytes;
        }
    }

    /// Whether all of the 2 MiB range is resident, as a huge page is.
    fn is_whole(&mut self, range: u64) -> bool {
        if self.whole.0 != range {
            let bytes = self.resident.bytes(range, range + (1 << SHIFT));
            self.whole = (range, bytes == 1 << SHIFT);
        }
        self.whole.1
    }

    /// A run whose blocks have no records: split by how many are in use.
    fn unrecorded(&mut self, run: &Run) {
        let Use::Slots {
            bytes,
            carved,
            used,
            ..
        } = run.used
        else {
            return;
        };
        let end = run.start + u64::from(bytes) * u64::from(carved);
        let slots = self.resident.bytes(run.start, end);
        let live = u128::from(slots) * u128::from(used) / u128::from(carved.max(1));
        let live = u64::try_from(live).unwrap_or(slots).min(slots);
        self.parts.unrecorded += slots;
        let holder = if used == 0 {
            self.parts.retained += slots;
            Holder::None
        } else {
            self.parts.requested += live;
            self.parts.free_slots += slots - live;
            let cost = self.costs.entry(UNKNOWN).or_default();
            cost.blocks += u64::from(used);
            cost.live += u64::from(used) * u64::from(bytes);
            cost.requested += live;
            cost.free_slots += slots - live;
            Holder::Many
        };
        self.each_page(run, |ledger, at, resident| {
            ledger.in_range(at, resident, holder);
            let page = ledger.resident.page_bytes();
            let behind = (at + page).saturating_sub(end.max(at));
            ledger.tail(at, behind.min(resident));
        });
    }

    /// A run with records.
    fn run(&mut self, run: &Run, slots: Slots<'_>) {
        let alive = slots
            .records
            .iter()
            .any(|record| Live::of(*record).is_some());
        self.on_run.clear();
        let (mut loose, mut counted) = (0, 0);
        let mut holder = Holder::None;
        self.each_page(run, |ledger, at, resident| {
            let rest = ledger.look(run, slots, at, &mut counted);
            let here = ledger.bill_page(resident, rest.free);
            holder = holder.and(here);
            ledger.in_range(at, resident, here);
            if resident > 0 {
                ledger.tail(at, rest.tail);
                match here {
                    Holder::None if alive => loose += rest.free,
                    Holder::None => ledger.parts.retained += rest.free,
                    Holder::One(_) | Holder::Many => {}
                }
            }
        });
        self.bill_run(loose);
        if let Holder::One(site) = holder {
            let bytes = self.resident.bytes(run.start, run.start + run.bytes);
            let slices = run.bytes >> SLICE_SHIFT;
            self.cost(site).slices.add(slices, bytes);
        }
    }

    /// Collects the live blocks of the OS page at `at` in `on_page`.
    fn look(&mut self, run: &Run, slots: Slots<'_>, at: u64, counted: &mut u64) -> Rest {
        let to = at + self.resident.page_bytes();
        let end = run.start + slots.slot * slots.records.len() as u64;
        let mut rest = Rest {
            free: 0,
            tail: to.saturating_sub(end.max(at)),
        };
        self.on_page.clear();
        let mut index = (at - run.start) / slots.slot;
        while let Some(record) = slots.records.get(index as usize) {
            let from = run.start + index * slots.slot;
            if from >= to {
                break;
            }
            let (low, high) = (from.max(at), (from + slots.slot).min(to));
            match Live::of(*record) {
                None => rest.free += high - low,
                Some(live) => {
                    let asked = slots.slot - live.slack.min(slots.slot);
                    let requested = (from + asked).clamp(low, high) - low;
                    let begins = u64::from(from >= at);
                    self.on_page.push(Held {
                        site: live.site,
                        requested,
                        rounding: high - low - requested,
                        begins,
                        live: begins * asked,
                        fresh: u64::from(index >= *counted),
                        oldest: live.birth,
                    });
                }
            }
            index += 1;
        }
        self.group();
        if self.on_page.len() == 1 && self.resident.holds(at) {
            *counted = index.max(*counted);
        }
        rest
    }

    /// One entry a site in `on_page`.
    fn group(&mut self) {
        let first = self.on_page.first().map(|held| held.site);
        if self.on_page.iter().any(|held| Some(held.site) != first) {
            self.on_page.sort_unstable_by_key(|held| held.site);
        }
        self.on_page.dedup_by(|next, held| {
            let same = next.site == held.site;
            if same {
                held.join(next);
            }
            same
        });
    }

    /// Bills a page to those in `on_page`; answers who they are.
    fn bill_page(&mut self, resident: u64, free: u64) -> Holder {
        let groups = std::mem::take(&mut self.on_page);
        let all: u64 = groups.iter().map(Held::bytes).sum();
        let mut split = Split::new(free, all);
        for held in &groups {
            self.on_run.push((held.site, held.bytes()));
            let share = split.next(held.bytes());
            let cost = self.cost(held.site);
            cost.blocks += held.begins;
            cost.live += held.live;
            cost.oldest = cost.oldest.min(held.oldest);
            if resident > 0 {
                cost.requested += held.requested;
                cost.rounding += held.rounding;
                cost.free_slots += share;
                self.parts.requested += held.requested;
                self.parts.rounding += held.rounding;
                self.parts.free_slots += share;
            }
        }
        let holder = match &groups[..] {
            [] => Holder::None,
            [one] => {
                if resident > 0 {
                    let cost = self.cost(one.site);
                    cost.pages.add(1, resident);
                    cost.idle += resident - one.bytes();
                    cost.pinning.0 += one.fresh;
                    cost.pinning.1 = cost.pinning.1.min(one.oldest);
                }
                Holder::One(one.site)
            }
            _ => Holder::Many,
        };
        self.on_page = groups;
        holder
    }

    /// Bills free pages of a run to all who have blocks in it.
    fn bill_run(&mut self, loose: u64) {
        if loose == 0 {
            return;
        }
        self.parts.free_slots += loose;
        let shares = std::mem::take(&mut self.on_run);
        let mut split = Split::new(loose, shares.iter().map(|share| share.1).sum());
        for (site, bytes) in &shares {
            let share = split.next(*bytes);
            self.cost(*site).free_slots += share;
        }
        self.on_run = shares;
    }

    fn in_range(&mut self, at: u64, resident: u64, holder: Holder) {
        let over = self.ranges.add(at, resident, holder);
        self.alone_in_range(over);
    }

    fn alone_in_range(&mut self, over: Option<(u32, u64)>) {
        if let Some((site, bytes)) = over {
            self.cost(site).ranges.add(1, bytes);
        }
    }

    fn cost(&mut self, site: u32) -> &mut Cost {
        self.costs.entry(site).or_default()
    }
}
