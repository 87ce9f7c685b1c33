//! Collections of the Rust ecosystem on our layers, through `allocator-api2`.
#![allow(missing_docs)]

use std::cell::Cell;
use std::mem::MaybeUninit;

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::arena::Arena;
use pageshim_core::heap::debug::{Config, DebugLayer, Silent};
use pageshim_core::heap::fixed::Fixed;
use pageshim_core::heap::layer::{Front, Layer};
use pageshim_core::heap::page::PageLayer;
use pageshim_core::heap::smp::Smp;
use pageshim_core::heap::stats::Stats;

static ACCOUNTS: Accounts = Accounts::new();

fn collections(memory: impl Allocator + Copy) {
    let mut numbers = Vec::new_in(memory);
    numbers.extend(0..10_000u64);
    numbers.truncate(100);
    numbers.shrink_to_fit();
    assert_eq!(numbers.iter().sum::<u64>(), 4950);
    let boxed = Box::new_in([7u8; 300], memory);
    assert_eq!(boxed[299], 7);
    let mut nested = Vec::new_in(memory);
    for length in 0..100usize {
        let mut inner = Vec::new_in(memory);
        inner.resize(length, length);
        nested.push(inner);
    }
    assert_eq!(nested.iter().map(Vec::len).sum::<usize>(), 4950);
    let empty: Vec<(), _> = Vec::new_in(memory);
    assert!(empty.is_empty());
}

fn on<L: Layer>(layer: L) {
    let stats = Stats::new(layer);
    collections(Front(&stats));
    let counts = stats.counts();
    assert!(counts.allocations > 100);
    assert_eq!((counts.live_blocks(), counts.live_bytes()), (0, 0));
}

// Goal: collections work on layers and give all back. Method: vectors and boxes over several, counted.
#[test]
fn collections_live_on_layers() {
    on(PageLayer::new(&ACCOUNTS));
    on(<Arena<_>>::new(PageLayer::new(&ACCOUNTS)));
    on(Smp::<_, 4>::new(PageLayer::new(&ACCOUNTS)));
    let config = Config::new(&Silent);
    on(<DebugLayer<'_, _>>::new(PageLayer::new(&ACCOUNTS), config));
}

// Goal: a full layer is an error, not an abort. Method: try_reserve over a small buffer.
#[test]
fn a_full_buffer_is_an_error() {
    let mut buffer = [MaybeUninit::uninit(); 1000];
    let fixed = Fixed::<Cell<usize>>::new(&mut buffer);
    let mut bytes: Vec<u8, _> = Vec::new_in(Front(&fixed));
    assert!(bytes.try_reserve(900).is_ok());
    assert!(bytes.try_reserve(2000).is_err());
    assert!(bytes.capacity() >= 900);
}
