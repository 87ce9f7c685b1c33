//! A buffer on the stack: no system call, and a clean no when it is full.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::first::First;
use pageshim_core::heap::fixed::Fixed;
use pageshim_core::heap::layer::{Front, Shape};
use pageshim_core::heap::page::PageLayer;

static BOOKS: Accounts = Accounts::new();

fn main() {
    let mut room = [MaybeUninit::uninit(); 100];
    let mut fixed = Fixed::<Cell<usize>>::new(&mut room);
    for wanted in [40, 40, 40] {
        let before = fixed.end_index();
        let answer = Front(&fixed).allocate(Shape::bytes(wanted));
        let usage = fixed.usage();
        println!(
            "{wanted} bytes with {before} of {} used: {}; {} requested + {} retained + {} tail = {}",
            fixed.capacity(),
            if answer.is_some() {
                "served"
            } else {
                "refused, nothing changed"
            },
            usage.requested,
            usage.retained,
            usage.tails,
            usage.committed,
        );
        assert!(usage.adds_up());
        assert_eq!(answer.is_some(), before + wanted <= 100);
    }
    fixed.reset();
    println!("after a reset: {} used", fixed.end_index());

    // The same with something to fall back on.
    let first = First::new(fixed, PageLayer::new(&BOOKS));
    for wanted in [60, 60] {
        let block = Front(&first)
            .allocate(Shape::bytes(wanted))
            .expect("memory");
        let place = if first.buffer().owns(block) {
            "the buffer"
        } else {
            "a page"
        };
        println!("{wanted} bytes from {place}");
    }
    let fallback = first.fallback().usage();
    println!(
        "the fallback holds {} bytes for {}",
        fallback.committed, fallback.requested
    );
    assert_eq!(fallback.requested, 60);
}
