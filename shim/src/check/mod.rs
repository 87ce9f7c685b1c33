//! Leak checks in the process itself.
//!
//! # Design
//! At the end of a process with one thread, when `PAGESHIM_CHECK=exit` asks for it, the heap is
//! marked on a stack of our own (the way out may run on a signal stack of a few pages), and the result
//! is written to the shared state ([`section`]), where the daemon finds it. One with more threads has
//! itself held and copied by the daemon ([`helped`]). When the daemon asks a process whose threads it
//! may not stop, [`hold`] stops them by a signal. [`mark`] is for a process that is held already, or a
//! copy of one.
//!
//! # Failure
//! Whatever keeps a check from its end is a reason in the section; it takes a bounded time ([`marking`]).
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, Ordering};

use pageshim_core::leaks::Table;
use pageshim_core::leaks::roots::{RED_ZONE, Still};
use pageshim_core::sys;
use pageshim_wire::check::{Method, Reason, Trigger, stopped};

use crate::{boot, fork, tls, whole, world};

mod apart;
mod chain;
mod filter;
mod helped;
mod hold;
mod marking;
mod section;
mod signalled;

use apart::Ground;
pub(crate) use apart::let_go_of_files;
use helped::{Answer, Interrupted};
pub(crate) use section::{Facts, Section};
pub(crate) use section::{map, unmap};
pub(crate) use signalled::at_signal;

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
    /// Nothing else runs: this is a copy.
    pub(crate) copied: bool,
}

/// Checks when the process ends, once.
pub(crate) fn at_exit() {
    if !boot::config().is_some_and(|config| config.check) || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    here(Trigger::Exit);
}

/// Checks because the daemon asked this process to. The calling thread holds no lock of ours.
pub(crate) fn on_request() {
    here(Trigger::Request);
}

/// Checks in the running process.
fn here(trigger: Trigger) {
    if Section::get().is_none() || fork::is_copy() {
        return;
    }
    let mut facts = Facts::new(trigger, Method::Alone);
    facts.threads = 1;
    facts.reason = obstacle();
    if facts.reason != Reason::None {
        fail(&facts);
    } else if sys::thread_count() == Some(1) {
        on_own_stack(&mut Order {
            facts,
            threads: &[],
            ours: [(0, 0); 2],
            copied: false,
        });
    } else if trigger == Trigger::Exit {
        with_help(facts);
    } else {
        with_others_held(facts);
    }
}

/// Has the daemon hold the process, or else a copy searched of which only this thread is known.
fn with_help(mut facts: Facts) {
    match helped::ask(marking::limit_ns(facts.trigger) / 1_000_000) {
        Answer::Done => return,
        Answer::Failed(reason) => {
            facts.reason = reason;
            return fail(&facts);
        }
        Answer::Nobody => {}
    }
    facts.miss_the_others();
    on_own_stack(&mut Order {
        facts,
        threads: &[],
        ours: [(0, 0); 2],
        copied: false,
    });
}

/// Checks in a process, or a copy of one, that a tracer holds; `threads` are those that stand still,
/// `missed` did not stop in time. Runs on a stack in our own statics, and knows neither thread nor lock.
pub(crate) fn mark(
    method: Method,
    trigger: Trigger,
    threads: &[[u64; stopped::WORDS]],
    missed: u64,
) {
    let mut facts = Facts::new(trigger, method);
    facts.threads = threads.len() as u64;
    facts.missed = missed;
    facts.reason = records();
    let stills = Table::<Still>::new(threads.len());
    let Some(mut stills) = stills.filter(|_| facts.reason == Reason::None) else {
        if facts.reason == Reason::None {
            facts.reason = Reason::Memory;
        }
        return fail(&facts);
    };
    let word = |value: u64| usize::try_from(value).unwrap_or(0);
    for (still, thread) in stills.all().iter_mut().zip(threads) {
        still.low = word(thread[stopped::SP]).saturating_sub(RED_ZONE);
        still.tid = u32::try_from(thread[stopped::TID]).unwrap_or(0);
        still.control = word(thread[stopped::CONTROL]);
        let registers = thread.iter().skip(stopped::REGISTERS);
        for (place, value) in still.registers.iter_mut().zip(registers) {
            *place = word(*value);
        }
    }
    let mut handler = (0, 0);
    // What waits in a signal's handler counts as it was before.
    if let Some(interrupted) = Interrupted::get().filter(|_| trigger == Trigger::Exit) {
        let is_it = |still: &&mut Still| still.tid == interrupted.own.tid;
        if let Some(still) = stills.all().iter_mut().find(is_it) {
            *still = interrupted.own;
        }
        handler = interrupted.stack;
    }
    let room = stills.range();
    let mut order = Order {
        facts,
        threads: &stills.all()[..threads.len()],
        ours: [room, handler],
        copied: method == Method::Fork,
    };
    run(&mut order, None, (0, 0));
}

fn fail(facts: &Facts) {
    if let Some(section) = Section::get() {
        section.begin();
        section.end(facts, None);
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
        return fail(&facts);
    };
    let room = threads.range();
    let count = held.copy_to(threads.all());
    on_own_stack(&mut Order {
        facts,
        threads: &threads.all()[..count],
        ours: [held.range, room],
        copied: false,
    });
}

/// Whether a check could be made here, as things are.
pub(crate) fn is_possible() -> bool {
    Section::get().is_some() && obstacle() == Reason::None
}

/// Why no check can be made here.
fn obstacle() -> Reason {
    match records() {
        Reason::None if filter::is_own() => Reason::Filter,
        reason => reason,
    }
}

fn records() -> Reason {
    if whole::is_on() || !world::records_all() {
        return Reason::NoRecords;
    }
    Reason::None
}

/// Carries an order through, on a stack of its own.
fn on_own_stack(order: &mut Order<'_>) {
    let Some(stack) = Table::<u8>::new(STACK_BYTES) else {
        order.facts.reason = Reason::Memory;
        return fail(&order.facts);
    };
    let call = Call {
        order: UnsafeCell::new(order),
        stack: stack.range(),
    };
    // SAFETY: the stack is ours and large enough; carry() gets what it expects.
    unsafe { switch(carry, stack.range().1, (&raw const call).cast()) };
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
    run: unsafe extern "C" fn(usize, *const c_void),
    top: usize,
    call: *const c_void,
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
unsafe extern "C" fn carry(low: usize, call: *const c_void) {
    // SAFETY: what on_own_stack() passed, which waits for this call.
    let call = unsafe { &*call.cast::<Call<'_, '_>>() };
    // SAFETY: on_own_stack() waits for this call, and nobody else has the order.
    let order = unsafe { &mut **call.order.get() };
    let own = Still {
        low,
        registers: [0; 15],
        tid: sys::thread_id(),
        control: tls::control_block(),
    };
    if !filter::is_any() && order.facts.missed == 0 {
        return run(order, Some(own), call.stack);
    }
    // What a filter does not know may end who calls it, the copy; and in a copy nobody runs.
    let ground = Ground {
        own,
        stack: call.stack,
        damaged: false,
        limit_ns: marking::limit_ns(order.facts.trigger),
    };
    apart::look(order, &ground);
}

/// Marks, and writes what was found. `stack` is the one this runs on.
fn run(order: &mut Order<'_>, own: Option<Still>, stack: (usize, usize)) {
    let Some(mut section) = Section::get() else {
        return;
    };
    section.begin();
    match marking::look(order, own, stack, &mut section) {
        Ok(sums) => section.end(&order.facts, Some(&sums)),
        Err(reason) => {
            order.facts.reason = reason;
            section.end(&order.facts, None);
        }
    }
}
