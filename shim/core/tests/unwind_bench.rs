//! What a capture costs. Run by hand:
//! `cargo test --release -p pageshim-core --test unwind_bench -- --ignored --nocapture`
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "clock reads and hand-made captures"
)]

mod unwind_support;

use core::hint::black_box;
use pageshim_core::unwind::{Bounds, Memo, Regs, full};
use unwind_support::{caller_regs, rows, zeroed};

const ROUNDS: usize = 2_000_000;

struct Bench {
    memo: &'static mut Memo,
    bounds: Bounds,
    sum: u64,
    depth: usize,
    new: usize,
}

impl Bench {
    #[inline(never)]
    fn capture(&mut self) {
        let mut regs = Regs {
            pc: 0,
            sp: 0,
            bp: 0,
        };
        caller_regs(&raw mut regs);
        let captured = self.memo.capture(rows(), &regs, &mut self.bounds, 1024);
        self.sum ^= captured.hash;
        self.depth = captured.depth;
        self.new += captured.new_frames;
    }

    #[inline(never)]
    fn regs_only(&mut self) {
        let mut regs = Regs {
            pc: 0,
            sp: 0,
            bp: 0,
        };
        caller_regs(&raw mut regs);
        self.sum ^= black_box(regs).pc;
    }

    #[inline(never)]
    fn plain(&mut self, rounds: usize) {
        let mut out = [0; 1024];
        let mut regs = Regs {
            pc: 0,
            sp: 0,
            bp: 0,
        };
        caller_regs(&raw mut regs);
        self.memo.capture(rows(), &regs, &mut self.bounds, 1024);
        for _ in 0..rounds {
            self.depth = full(rows(), regs, &mut self.bounds, &mut out).0;
        }
    }
}

/// `deeper` more frames, then `leaf`; `KIND` makes distinct functions.
#[inline(never)]
fn chain<const KIND: u64>(bench: &mut Bench, deeper: usize, leaf: &mut dyn FnMut(&mut Bench)) {
    let frame = black_box([KIND; 3]);
    if deeper == 0 {
        leaf(bench);
    } else {
        chain::<KIND>(bench, deeper - 1, leaf);
    }
    black_box(frame);
}

/// CPU time of this thread: a busy machine must not show.
fn cpu_ns() -> u64 {
    let mut now: libc::timespec = unsafe { core::mem::zeroed() };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn time(name: &str, bench: &mut Bench, rounds: usize, run: impl FnOnce(&mut Bench)) {
    bench.new = 0;
    let start = cpu_ns();
    run(bench);
    let ns = (cpu_ns() - start) as f64 / rounds as f64;
    let new = bench.new as f64 / rounds as f64;
    println!(
        "{name:<28} depth {:>4}  new {new:>5.1}  {ns:>7.1} ns",
        bench.depth
    );
}

// Goal: the figures in the room's report. Method: loops at three depths.
#[test]
#[ignore = "a benchmark"]
fn captures_cost() {
    let mut bench = Bench {
        memo: unsafe { Memo::at(zeroed(Memo::BYTES)) },
        bounds: Bounds::default(),
        sum: 0,
        depth: 0,
        new: 0,
    };
    for depth in [1, 20, 90, 800] {
        chain::<1>(&mut bench, depth, &mut |bench| {
            time("registers only", bench, ROUNDS, |b| {
                (0..ROUNDS).for_each(|_| b.regs_only());
            });
            time("full, rows hot", bench, ROUNDS / 10, |b| {
                b.plain(ROUNDS / 10);
            });
            time("memo, same stack", bench, ROUNDS, |b| {
                (0..ROUNDS).for_each(|_| b.capture());
            });
            time("memo, 1 new", bench, ROUNDS, |b| {
                for _ in 0..ROUNDS / 2 {
                    b.capture();
                    b.capture();
                }
            });
            time("memo, 5 new frames", bench, ROUNDS, |b| {
                for _ in 0..ROUNDS / 2 {
                    chain::<2>(b, 3, &mut Bench::capture);
                    chain::<3>(b, 3, &mut Bench::capture);
                }
            });
            time("memo, another caller outside", bench, ROUNDS, |b| {
                for _ in 0..ROUNDS / 2 {
                    once::<4>(b, &mut |b| chain::<2>(b, 8, &mut Bench::capture));
                    once::<5>(b, &mut |b| chain::<2>(b, 8, &mut Bench::capture));
                }
            });
        });
    }
    println!("row misses {}, memo {} bytes", rows().misses(), Memo::BYTES);
}

/// One frame of a distinct function and the same size.
#[inline(never)]
fn once<const KIND: u64>(bench: &mut Bench, leaf: &mut dyn FnMut(&mut Bench)) {
    let frame = black_box([KIND; 3]);
    leaf(bench);
    black_box(frame);
}
