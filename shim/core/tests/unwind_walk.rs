//! Memo against plain unwind over random walks through a call tree, with every
//! way to enter and leave a frame, on several threads and coroutines at once.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "jumps, contexts, timers and hand-made frames"
)]

mod unwind_support;

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::hint::black_box;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pageshim_core::unwind::{Bounds, Memo, Regs, full};
use pageshim_wire::stack::End;
use unwind_support::*;

/// One walk: what is left to do, and the dice.
struct Walk {
    dice: u64,
    captures: usize,
    depth: usize,
    deepest: usize,
    jumps: Vec<*mut u64>,
    /// Where to swap to now and then, when this walk is a coroutine.
    contexts: Option<[*mut libc::ucontext_t; 2]>,
}

struct Thrown;

impl Walk {
    fn new(seed: u64, captures: usize) -> Self {
        Self {
            dice: seed * 2_654_435_761 + 99_991,
            captures,
            depth: 0,
            deepest: 60,
            jumps: Vec::new(),
            contexts: None,
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 20) % sides
    }

    fn done(&self) -> bool {
        self.captures == 0
    }
}

extern "C-unwind" fn go_on(walk: *mut c_void) {
    visit(unsafe { &mut *walk.cast::<Walk>() });
}

#[inline(never)]
fn wide<const N: usize>(walk: &mut Walk) {
    let space = black_box([0u8; N]);
    visit(walk);
    black_box(space);
}

#[inline(never)]
fn leaf_a(walk: &mut Walk) {
    walk.captures = walk.captures.saturating_sub(1);
    assert_eq!(probe().check(), End::Complete);
}

#[inline(never)]
fn leaf_b(walk: &mut Walk) {
    leaf_a(walk);
    if walk.roll(2) == 0 {
        leaf_a(walk);
    }
}

type Compare = extern "C-unwind" fn(*const c_void, *const c_void) -> c_int;

unsafe extern "C-unwind" {
    fn qsort(base: *mut c_void, count: usize, bytes: usize, compare: Compare);
}

extern "C-unwind" fn compare(a: *const c_void, _: *const c_void) -> c_int {
    let walk = unsafe { &mut **a.cast::<*mut Walk>() };
    if walk.roll(3) == 0 {
        visit(walk);
    }
    0
}

fn sorted(walk: &mut Walk) {
    let mut pair = [&raw mut *walk, &raw mut *walk];
    unsafe { qsort(pair.as_mut_ptr().cast(), 2, 8, compare) };
}

fn caught(walk: &mut Walk) {
    let depth = walk.depth;
    let jumps = walk.jumps.len();
    let outcome = catch_unwind(AssertUnwindSafe(|| visit(walk)));
    if let Err(thrown) = outcome {
        assert!(thrown.is::<Thrown>(), "a mismatch further in");
        walk.depth = depth;
        walk.jumps.truncate(jumps);
    }
}

fn jumped(walk: &mut Walk) {
    let depth = walk.depth;
    let mut jump = 0u64;
    walk.jumps.push(&raw mut jump);
    let mark = walk.jumps.len();
    unsafe { pst_call_catching(go_on, (&raw mut *walk).cast(), &raw mut jump) };
    walk.jumps.truncate(mark - 1);
    walk.depth = depth;
}

/// A step of the walk: leave, look, or go deeper by some kind of frame.
#[inline(never)]
fn visit(walk: &mut Walk) {
    walk.depth += 1;
    let at = walk.depth;
    while !walk.done() {
        let this = (&raw mut *walk).cast::<c_void>();
        let deep = walk.depth > walk.deepest;
        match walk.roll(if deep { 12 } else { 32 }) {
            0..4 => break,
            4..6 => leaf_a(walk),
            6..8 => leaf_b(walk),
            8 if !walk.jumps.is_empty() && walk.roll(4) == 0 => {
                // The innermost jump target may only be left to without a
                // catch_unwind in between: those push a null mark.
                let jump = walk.jumps[walk.jumps.len() - 1];
                if !jump.is_null() {
                    unsafe { pst_leave_to(jump) };
                }
            }
            9 if walk.jumps.last().is_some_and(|jump| jump.is_null()) && walk.roll(4) == 0 => {
                std::panic::resume_unwind(Box::new(Thrown));
            }
            10 | 11 => {
                if let Some([own, back]) = walk.contexts {
                    unsafe { libc::swapcontext(own, back) };
                }
            }
            12..15 => wide::<16>(walk),
            15..17 => wide::<300>(walk),
            17 => wide::<9000>(walk),
            18..20 => visit(walk),
            20..22 => unsafe { pst_call_realigned(go_on, this) },
            22..24 => unsafe { pst_call_garbage_bp(go_on, this) },
            24..26 => {
                let bytes = walk.roll(2000) as usize;
                unsafe { pst_call_dynamic(go_on, this, bytes) };
            }
            26..28 => sorted(walk),
            28 => {
                walk.jumps.push(ptr::null_mut());
                caught(walk);
                let mark = walk.jumps.iter().rposition(|jump| jump.is_null());
                walk.jumps.truncate(mark.expect("pushed above"));
            }
            29 | 30 => jumped(walk),
            _ => {}
        }
        walk.depth = at;
    }
    walk.depth = at - 1;
}

fn run(seed: u64, captures: usize) {
    let mut walk = Walk::new(seed, captures);
    probe().oracle_every = 16;
    while !walk.done() {
        caught_root(&mut walk);
    }
}

fn caught_root(walk: &mut Walk) {
    walk.jumps.clear();
    visit(walk);
}

/// Captures a thread: more on request, for a long run.
fn env_captures() -> usize {
    let wanted = std::env::var("UNWIND_CAPTURES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(15_000)
}

// Goal: memo == plain unwind == libgcc, site and hash one to one, over random
// walks with calls, callbacks, exceptions and jumps.
#[test]
fn random_walks_match() {
    let threads: Vec<_> = (1..=4)
        .map(|seed| {
            std::thread::spawn(move || {
                run(seed, env_captures());
                let probe = probe();
                (probe.captures, probe.hits, probe.reused, probe.shared)
            })
        })
        .collect();
    for thread in threads {
        let (captures, hits, reused, shared) = thread.join().expect("no mismatch");
        assert!(
            captures >= 15_000 && hits > 0 && reused > captures * 3,
            "{captures} {hits} {reused}"
        );
        assert!(shared > 1000, "prefixes are found: {shared}");
    }
}

extern "C" fn walker(low: u32, high: u32) {
    let at = low as usize | (high as usize) << 32;
    let walk = unsafe { &mut *ptr::with_exposed_provenance_mut::<Walk>(at) };
    let [own, back] = walk.contexts.expect("made with contexts");
    loop {
        while !walk.done() {
            caught_root(walk);
        }
        unsafe { libc::swapcontext(own, back) };
    }
}

// Goal: the same while many coroutines take turns in mid-walk.
#[test]
fn interleaved_coroutines_match() {
    const COUNT: usize = 24;
    let contexts = zeroed((COUNT + 1) * size_of::<libc::ucontext_t>()).cast::<libc::ucontext_t>();
    let mut walks: Vec<Walk> = (0..COUNT).map(|n| Walk::new(n as u64 + 77, 400)).collect();
    for (n, walk) in walks.iter_mut().enumerate() {
        let (own, back) = unsafe { (contexts.add(n), contexts.add(COUNT)) };
        (walk.contexts, walk.deepest) = (Some([own, back]), 20);
        let at = (&raw mut *walk).expose_provenance();
        let entry =
            unsafe { core::mem::transmute::<*const (), extern "C" fn()>(walker as *const ()) };
        unsafe {
            libc::getcontext(own);
            (*own).uc_stack.ss_sp = zeroed(1 << 20).cast();
            (*own).uc_stack.ss_size = 1 << 20;
            libc::makecontext(own, entry, 2, at as u32, (at >> 32) as u32);
        }
    }
    probe().oracle_every = 16;
    let mut order = Walk::new(5, 1);
    let all = walks.as_ptr();
    while (0..COUNT).any(|n| unsafe { !(*all.add(n)).done() }) {
        let next = order.roll(COUNT as u64) as usize;
        unsafe { libc::swapcontext(contexts.add(COUNT), contexts.add(next)) };
    }
    assert!(probe().captures >= COUNT * 400);
}

thread_local! {
    /// Complete stacks, others.
    static TICKS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// What the timer's handler unwinds with; no allocation in there.
struct Async {
    memo: &'static mut Memo,
    bounds: Bounds,
}

static ASYNC: AtomicPtr<Async> = AtomicPtr::new(ptr::null_mut());

extern "C" fn tick(_: c_int) {
    let mut regs = Regs {
        pc: 0,
        sp: 0,
        bp: 0,
    };
    caller_regs(&raw mut regs);
    let this = ASYNC.load(Ordering::Relaxed);
    let this = unsafe { this.as_mut() }.expect("set before the timer");
    let captured = this.memo.capture(rows(), &regs, &mut this.bounds, 1024);
    let mut plain = [0; 1024];
    let (depth, end) = full(rows(), regs, &mut Bounds::default(), &mut plain);
    let same = depth == captured.depth && (0..depth).all(|i| this.memo.pc(i) == plain[i]);
    if !same || end != captured.end {
        eprintln!(
            "timer: {captured:?} against {depth} {end:?}: {:x?}",
            &plain[..depth]
        );
        std::process::abort();
    }
    let (complete, cut) = TICKS.get();
    TICKS.set(match end {
        End::Complete => (complete + 1, cut),
        _ => (complete, cut + 1),
    });
}

// Goal: a stack interrupted anywhere (prologues, libc's assembly, the unwinder
// itself) is the same with and without memo, and nearly always complete. The
// rest: stack probes and realigning prologues with the CFA in a scratch register,
// PLT stubs and jumps without table, lazy binding, libgcc while it rewrites
// saved registers. Method: a timer every 200 us over a walk; own memo.
#[test]
fn stacks_interrupted_anywhere_match() {
    unsafe {
        let own = Box::new(Async {
            memo: Memo::at(zeroed(Memo::BYTES)),
            bounds: Bounds::default(),
        });
        ASYNC.store(Box::into_raw(own), Ordering::Relaxed);
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = tick as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(
            libc::sigaction(libc::SIGRTMIN() + 3, &action, ptr::null_mut()),
            0
        );
        let mut event: libc::sigevent = core::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGRTMIN() + 3;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = core::mem::zeroed();
        assert_eq!(
            libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer),
            0
        );
        let every = libc::timespec {
            tv_sec: 0,
            tv_nsec: 200_000,
        };
        let spec = libc::itimerspec {
            it_interval: every,
            it_value: every,
        };
        libc::timer_settime(timer, 0, &spec, ptr::null_mut());
        run(31, 6_000);
        libc::timer_delete(timer);
    }
    let (complete, cut) = TICKS.get();
    println!("interrupted: {complete} complete, {cut} cut short");
    assert!(
        complete > 100 && cut * 10 < complete,
        "{complete} against {cut}"
    );
}
