//! One mark of this process's memory: what is no root, whose blocks are kept, how long it may take.

use core::sync::atomic::AtomicU8;

use pageshim_core::leaks::aim::Watch;
use pageshim_core::leaks::roots::{self, Sources, Still};
use pageshim_core::leaks::{self, Plan, Stopped, Sums, Table};
use pageshim_core::sys;
use pageshim_core::unwind::find_module;
use pageshim_wire::check::{Reason, Trigger, Wanted, option};
use pageshim_wire::process::{SITE_FIRST, word};

use super::chain::{self, Ground};
use super::{Order, Section};
use crate::thread::{Thread, all_threads};
use crate::tls;
use crate::world::{SPACES, STATE};

/// A check at the end of a process gives up after this.
const EXIT_LIMIT_NS: u64 = 10_000_000_000;
/// One that was asked for, after this.
const REQUEST_LIMIT_NS: u64 = 100_000_000_000;
/// Lies among our statics.
static HERE: AtomicU8 = AtomicU8::new(0);

/// How long a check may take.
pub(super) fn limit_ns(trigger: Trigger) -> u64 {
    match trigger {
        Trigger::Exit => EXIT_LIMIT_NS,
        Trigger::Request => REQUEST_LIMIT_NS,
    }
}

/// Marks; `own` is the calling thread, `stack` the one this runs on.
pub(super) fn look(
    order: &Order<'_>,
    own: Option<Still>,
    stack: (usize, usize),
    section: &mut Section,
) -> Result<Sums, Reason> {
    // In a program that has closed all of ours, nobody else moves the clock on.
    STATE.advance_tick();
    let _spare = sys::Spare::to_open(b"/proc/self/maps\0");
    let mut threads = Table::<Still>::new(order.threads.len() + 1).ok_or(Reason::Memory)?;
    let mut known = 0;
    for still in order.threads.iter().copied().chain(own) {
        threads.all()[known] = still;
        known += 1;
    }
    let mut storage =
        Table::<(usize, usize)>::new(all_threads().count() + 1).ok_or(Reason::Memory)?;
    let (below, above) = tls::around();
    let blocks = all_threads().map(Thread::storage);
    for (place, block) in storage
        .all()
        .iter_mut()
        .zip(blocks.chain([tls::control_block()]))
    {
        *place = (block.saturating_sub(below), block + above);
    }
    let mut keeps = Runtime::new().ok_or(Reason::Memory)?;
    let mut excluded = Excluded::new().ok_or(Reason::Memory)?;
    excluded.add(stack);
    excluded.add(section.range());
    for range in [threads.range(), storage.range(), keeps.0.range()] {
        excluded.add(range);
    }
    let stills = &threads.all()[..known];
    let storage = &*storage.all();
    order.ours.into_iter().for_each(|range| excluded.add(range));
    excluded.all_of_ours();
    let sites = keeps.0.all();
    let kept = |site: u32| sites.get(site as usize).is_some_and(|kept| *kept != 0);
    let limit = limit_ns(order.facts.trigger);
    let mut trouble = None;
    let plan = Plan {
        careful: order.facts.missed > 0 && !order.copied,
        copied: order.copied,
        ..Plan::within_ns(limit)
    };
    let missed = order.facts.missed > 0;
    let strict = order.facts.options & option::STRICT != 0;
    let target = *section;
    let wanted = target.asked(order.facts.trigger);
    let mut watch = Watch::new(section, wanted.unwrap_or(Wanted::Address(0)));
    let found = leaks::check(
        &SPACES,
        plan,
        kept,
        |walk| {
            walk.own_ranges()
                .into_iter()
                .for_each(|range| excluded.add(range));
            let mut sources = Sources {
                threads: stills,
                storage,
                first: tls::first(),
                excluded: excluded.ranges(),
                strict,
                missed,
            };
            trouble = roots::walk(&mut sources, walk)?;
            Ok(())
        },
        &mut watch,
    );
    if let (Some(wanted), Ok(_), None) = (wanted, &found, trouble) {
        let aim = watch.aim();
        let ground = Ground {
            plan,
            threads: stills,
            storage,
            kept,
            excluded: &mut excluded,
            strict,
            missed,
        };
        chain::tell(target, wanted, aim.as_ref(), ground);
    }
    match (found, trouble) {
        (Ok(sums), None) => Ok(sums),
        (Ok(_), Some(_)) => Err(Reason::System),
        (Err(Stopped::Memory), _) => Err(Reason::Memory),
        (Err(Stopped::TooLong), _) => Err(Reason::TooLong),
    }
}

/// Sites of blocks that the loader keeps for itself, a byte each.
struct Runtime(Table<u8>);

impl Runtime {
    fn new() -> Option<Self> {
        let count = u32::try_from(STATE.get(word::SITE_COUNT)).ok()?;
        let mut sites = Table::new(count as usize)?;
        if let Some(loader) = find_module(sys::loader_base()) {
            for site in SITE_FIRST..count {
                let leaf = STATE.leaf(site);
                if leaf.is_some_and(|pc| (loader.start..loader.end).contains(&pc)) {
                    sites.all()[site as usize] = 1;
                }
            }
        }
        Some(Self(sites))
    }
}

/// Ranges that are no roots.
pub(super) struct Excluded {
    table: Table<(usize, usize)>,
    count: usize,
}

impl Excluded {
    /// Room for what there is now, and some more.
    fn new() -> Option<Self> {
        let threads = all_threads().count();
        let mut own = Self {
            table: Table::new(64 + threads * 3)?,
            count: 0,
        };
        own.add(own.table.range());
        Some(own)
    }

    pub(super) fn add(&mut self, range: (usize, usize)) {
        if range.0 < range.1
            && let Some(room) = self.table.all().get_mut(self.count)
        {
            *room = range;
            self.count += 1;
        }
    }

    pub(super) fn ranges(&mut self) -> &mut [(usize, usize)] {
        let count = self.count;
        &mut self.table.all()[..count]
    }

    /// The heap and its books, what we know of threads, the shared state, our own statics.
    fn all_of_ours(&mut self) {
        for space in SPACES.iter() {
            let (base, span) = space.range();
            self.add((space.books().0, base + span));
        }
        let Some(layout) = STATE.layout() else { return };
        let bytes = |length: u64| usize::try_from(length).unwrap_or(0);
        if let Some(head) = STATE.head() {
            self.add((head.addr(), head.addr() + bytes(layout.thread(0))));
        }
        for thread in all_threads() {
            let at = core::ptr::from_ref(thread).addr();
            self.add((at, at + size_of::<Thread>()));
            self.add(thread.trace.range());
            let region = thread.track.region();
            if region != 0 {
                self.add((region, region + bytes(layout.thread_stride())));
            }
        }
        let statics = find_module((&raw const HERE).addr() as u64);
        if let Some(module) = statics {
            self.add((bytes(module.start), bytes(module.end)));
        }
    }
}
