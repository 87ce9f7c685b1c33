//! Leak checks in the process itself.
//!
//! # Design
//! At the end of the process, when `PAGESHIM_CHECK=exit` asks for it, the heap is marked on a
//! stack of our own (the way out may run on a signal stack of a few pages), and the result is
//! written to the shared state, where the daemon finds it.
//!
//! # Failure
//! Whatever keeps a check from its end is a reason in the section; it takes at most [`LIMIT_NS`].
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use pageshim_core::leaks::roots::{self, Sources, Still};
use pageshim_core::leaks::{self, Plan, Stopped, Sums, Table};
use pageshim_core::sys;
use pageshim_core::unwind::find_module;
use pageshim_wire::check::{Method, Reason, Trigger, option};
use pageshim_wire::process::{SITE_FIRST, word};

use crate::thread::{Thread, all_threads};
use crate::world::{self, SPACES, STATE};
use crate::{boot, tls, whole};

mod hold;
mod section;

pub(crate) use section::{Facts, Section};
pub(crate) use section::{map, unmap};

/// A check at the end of a process gives up after this.
const LIMIT_NS: u64 = 10_000_000_000;
/// The marker's stack.
const STACK_BYTES: usize = 128 << 10;

static DONE: AtomicBool = AtomicBool::new(false);

/// What one check is made with.
pub(crate) struct Order<'a> {
    pub(crate) facts: Facts,
    /// Threads that stand still, the calling one aside.
    pub(crate) threads: &'a [Still],
    /// Memory of the check's own.
    pub(crate) ours: [(usize, usize); 2],
}

/// Checks when the process ends, once.
pub(crate) fn at_exit() {
    if !boot::config().is_some_and(|config| config.check) || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let Some(section) = Section::get() else {
        return;
    };
    let mut order = Order {
        facts: Facts {
            reason: Reason::None,
            trigger: Trigger::Exit,
            method: Method::Alone,
            options: 0,
            threads: 1,
            missed: 0,
            began_ns: sys::fast_monotonic_ns(),
        },
        threads: &[],
        ours: [(0, 0); 2],
    };
    order.facts.reason = obstacle();
    if order.facts.reason != Reason::None {
        section.begin();
        section.end(&order.facts, None);
    } else if sys::thread_count() == Some(1) {
        on_own_stack(&mut order);
    } else {
        with_others_held(order.facts);
    }
}

/// Checks while a signal holds the other threads. Those it does not reach run on.
fn with_others_held(mut facts: Facts) {
    facts.method = Method::Signal;
    let signal = boot::config().map_or(0, |config| config.signal);
    let held = hold::hold(signal);
    let (stands, missed) = held
        .as_ref()
        .map_or((0, 1), |held| (held.stands, held.missed));
    facts.threads += stands as u64;
    facts.missed = missed as u64;
    let threads = Table::<Still>::new(stands);
    let (Some(held), Some(mut threads)) = (held, threads) else {
        facts.reason = Reason::System;
        if let Some(section) = Section::get() {
            section.begin();
            section.end(&facts, None);
        }
        return;
    };
    let room = threads.range();
    let mut count = 0;
    held.each(|still| {
        if let Some(place) = threads.all().get_mut(count) {
            *place = still;
            count += 1;
        }
    });
    on_own_stack(&mut Order {
        facts,
        threads: &threads.all()[..count],
        ours: [held.range, room],
    });
}

/// Why no check can be made here.
fn obstacle() -> Reason {
    if whole::is_on() || !world::records_all() {
        return Reason::NoRecords;
    }
    if sys::has_filter() {
        return Reason::Filter;
    }
    Reason::None
}

/// Carries an order through, on a stack of its own.
fn on_own_stack(order: &mut Order<'_>) {
    let Some(stack) = Table::<u8>::new(STACK_BYTES) else {
        if let Some(section) = Section::get() {
            order.facts.reason = Reason::Memory;
            section.begin();
            section.end(&order.facts, None);
        }
        return;
    };
    let call = Call {
        order: UnsafeCell::new(order),
        stack: stack.range(),
    };
    // SAFETY: the stack is ours and large enough; carry() gets what it expects.
    unsafe { switch(carry, stack.range().1, &call) };
}

struct Call<'a, 'b> {
    order: UnsafeCell<&'a mut Order<'b>>,
    stack: (usize, usize),
}

/// Saves the caller's registers on its stack and calls `run` with their place on another one.
///
/// # Safety
/// `top` is 16-aligned, below it lies memory enough, and `call` is what `run` takes.
#[unsafe(naked)]
unsafe extern "C" fn switch(
    run: unsafe extern "C" fn(usize, &Call<'_, '_>),
    top: usize,
    call: &Call<'_, '_>,
) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rbx, rsp",
        "mov rax, rdi",
        "mov rsp, rsi",
        "mov rdi, rbx",
        "mov rsi, rdx",
        "call rax",
        "mov rsp, rbx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// `low` is the stack pointer of the calling thread, whose registers lie there.
unsafe extern "C" fn carry(low: usize, call: &Call<'_, '_>) {
    // SAFETY: on_own_stack() waits for this call, and nobody else has the order.
    let order = unsafe { &mut **call.order.get() };
    let own = Still {
        low,
        registers: [0; 15],
    };
    run(order, Some(own), call.stack);
}

/// Marks, and writes what was found. `stack` is the one this runs on.
pub(crate) fn run(order: &mut Order<'_>, own: Option<Still>, stack: (usize, usize)) {
    let Some(mut section) = Section::get() else {
        return;
    };
    section.begin();
    match mark(order, own, stack, &mut section) {
        Ok(sums) => section.end(&order.facts, Some(&sums)),
        Err(reason) => {
            order.facts.reason = reason;
            section.end(&order.facts, None);
        }
    }
}

fn mark(
    order: &Order<'_>,
    own: Option<Still>,
    stack: (usize, usize),
    section: &mut Section,
) -> Result<Sums, Reason> {
    let mut threads = Table::<Still>::new(order.threads.len() + 1).ok_or(Reason::Memory)?;
    let mut known = 0;
    for still in order.threads.iter().copied().chain(own) {
        threads.all()[known] = still;
        known += 1;
    }
    let mut keeps = Runtime::new().ok_or(Reason::Memory)?;
    let mut excluded = Excluded::new().ok_or(Reason::Memory)?;
    excluded.add(stack);
    excluded.add(section.range());
    for range in [threads.range(), keeps.0.range()] {
        excluded.add(range);
    }
    order.ours.into_iter().for_each(|range| excluded.add(range));
    excluded.all_of_ours();
    let sites = keeps.0.all();
    let kept = |site: u32| sites.get(site as usize).is_some_and(|kept| *kept != 0);
    let mut trouble = None;
    let storage = [tls::control_block()];
    let found = leaks::check(
        &SPACES,
        Plan {
            careful: order.facts.missed > 0,
            ..Plan::within_ns(LIMIT_NS)
        },
        kept,
        |walk| {
            walk.own_ranges()
                .into_iter()
                .for_each(|range| excluded.add(range));
            let mut sources = Sources {
                threads: &threads.all()[..known],
                storage: &storage,
                excluded: excluded.ranges(),
                strict: order.facts.options & option::STRICT != 0,
            };
            trouble = roots::walk(&mut sources, walk)?;
            Ok(())
        },
        section,
    );
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
struct Excluded {
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

    fn add(&mut self, range: (usize, usize)) {
        if range.0 < range.1
            && let Some(room) = self.table.all().get_mut(self.count)
        {
            *room = range;
            self.count += 1;
        }
    }

    fn ranges(&mut self) -> &mut [(usize, usize)] {
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
        let statics = find_module((&raw const DONE).addr() as u64);
        if let Some(module) = statics {
            self.add((bytes(module.start), bytes(module.end)));
        }
    }
}
