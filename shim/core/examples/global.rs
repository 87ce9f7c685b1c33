//! A program on a stack of layers: counters over free lists over whole pages.
//!
//! Every `String` and `Vec` of this program comes from here; the counters say what
//! it took.

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::layer::Front;
use pageshim_core::heap::page::PageLayer;
use pageshim_core::heap::smp::Smp;
use pageshim_core::heap::stats::Stats;

static BOOKS: Accounts = Accounts::new();

#[global_allocator]
static HEAP: Front<Stats<Smp<PageLayer>>> = Front(Stats::new(Smp::new(PageLayer::new(&BOOKS))));

fn main() {
    let before = HEAP.0.counts();
    let workers: Vec<_> = (0..4)
        .map(|number| {
            std::thread::spawn(move || {
                let words: Vec<_> = (0..10_000).map(|word| format!("{number}-{word}")).collect();
                words.iter().map(String::len).sum::<usize>()
            })
        })
        .collect();
    let letters: usize = workers
        .into_iter()
        .map(|worker| worker.join().expect("a worker"))
        .sum();
    let after = HEAP.0.counts();
    let slabs = HEAP.0.parent().usage();
    println!("{letters} letters in 40000 words");
    println!(
        "{} allocations, {} frees, {} bytes at the peak, {} live now",
        after.allocations - before.allocations,
        after.frees - before.frees,
        after.peak_bytes,
        after.live_bytes()
    );
    println!(
        "{} slabs: {} requested + {} rounding + {} free slots + {} tails = {} bytes",
        HEAP.0.parent().slabs(),
        slabs.requested,
        slabs.rounding,
        slabs.free_slots,
        slabs.tails,
        slabs.committed
    );
    assert!(slabs.adds_up());
    assert!(after.allocations - before.allocations >= 40_000);
}
