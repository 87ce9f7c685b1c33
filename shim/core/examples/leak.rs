//! A leak found at the end: who allocated, how much, and who freed twice.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::debug::{Config, DebugLayer, Ended, Report, Sink};
use pageshim_core::heap::layer::{Front, Layer};
use pageshim_core::heap::page::PageLayer;

static BOOKS: Accounts = Accounts::new();

/// Prints what the layer finds.
struct Print;

impl Sink for Print {
    fn report(&self, report: &Report<'_>) {
        println!("{:?}: {report}", report.finding);
    }
}

#[inline(never)]
fn make_list<L: Layer>(front: &Front<&L>) -> NonNull<[u32]> {
    front.duplicate(&[1, 2, 3]).expect("twelve bytes")
}

#[inline(never)]
fn forget<L: Layer>(front: &Front<&L>) {
    let _lost = front.duplicate(b"nobody frees this").expect("memory");
}

fn main() {
    let page = PageLayer::new(&BOOKS);
    let debug = <DebugLayer<'_, _>>::new(&page, Config::new(&Print));
    let front = Front(&debug);
    let list = make_list(&front);
    forget(&front);
    // SAFETY: the list is live the first time; the second free is the lesson,
    // which this layer, unlike others, survives.
    unsafe {
        front.free_slice(list);
        front.free_slice(list);
    }
    // SAFETY: no block is used any more.
    let ended = unsafe { debug.deinit() };
    println!(
        "deinit: {ended:?}; {} bytes still committed",
        page.usage().committed
    );
    assert_eq!(ended, Ended::Leaked(1));
    assert_eq!(page.usage().committed, 0);
}
