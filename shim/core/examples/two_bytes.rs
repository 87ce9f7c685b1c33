//! What two bytes cost on each layer, measured: pages and system calls.
//!
//! Asking the page layer for two bytes takes a whole page and a system call, each
//! time. The same two bytes from a heap or an arena over those pages share both.
#![allow(unsafe_code)]

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::arena::Arena;
use pageshim_core::heap::gpa::Spaces;
use pageshim_core::heap::layer::{Align, Front, GpaLayer, Layer, Shape, Usage};
use pageshim_core::heap::page::{PageLayer, Pages};
use pageshim_wire::thread::{SYSCALL_NAMES, SYSCALLS, Syscall};

const COUNT: usize = 1000;
const TWO: Shape = Shape::new(2, Align::ONE);

static PAGE_BOOKS: Accounts = Accounts::new();
static GPA_BOOKS: Accounts = Accounts::new();
static ARENA_BOOKS: Accounts = Accounts::new();
static SPACES: Spaces = Spaces::new(Pages::new(&GPA_BOOKS));

const CALLS: [Syscall; SYSCALLS] = [
    Syscall::Mmap,
    Syscall::Munmap,
    Syscall::Madvise,
    Syscall::Mremap,
    Syscall::Mprotect,
    Syscall::Other,
];

fn calls(books: &Accounts) -> [u64; SYSCALLS] {
    CALLS.map(|call| books.calls(call).0)
}

/// Takes two bytes `count` times and prints what that cost.
fn measure<L: Layer>(
    name: &str,
    layer: &L,
    books: &Accounts,
    count: usize,
    usage: impl Fn() -> Usage,
) {
    let (before, held) = (calls(books), usage());
    let front = Front(layer);
    for _ in 0..count {
        let block = front.allocate(TWO).expect("two bytes");
        // SAFETY: a live block of two bytes.
        unsafe { block.write_bytes(42, 2) };
    }
    let after = calls(books);
    let spent: Vec<_> = SYSCALL_NAMES
        .iter()
        .zip(after.iter().zip(before))
        .filter(|(_, (after, before))| *after != before)
        .map(|(name, (after, before))| format!("{} {name}", *after - before))
        .collect();
    let total: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    let used = usage().requested - held.requested;
    let more = usage().committed - held.committed;
    println!(
        "{name:<6} {count:>5} x 2 bytes: {used:>5} requested, {more:>8} bytes committed, {total:>5} system calls ({})",
        if spent.is_empty() {
            "none".to_owned()
        } else {
            spent.join(", ")
        },
    );
}

fn main() {
    let page = PageLayer::new(&PAGE_BOOKS);
    println!("page size: {} bytes", page.page_bytes());
    for count in [1, COUNT] {
        measure("page", &page, &PAGE_BOOKS, count, || page.usage());
    }
    let pages = Pages::new(&GPA_BOOKS);
    let gpa = GpaLayer::open(&SPACES, pages, 1 << 30).expect("a gigabyte of address space");
    for count in [1, COUNT] {
        measure("gpa", &gpa, &GPA_BOOKS, count, || gpa.usage());
    }
    let arena = <Arena<_>>::new(PageLayer::new(&ARENA_BOOKS));
    for count in [1, COUNT] {
        let usage = || Usage {
            requested: arena.usage().requested,
            ..arena.parent().usage()
        };
        measure("arena", &arena, &ARENA_BOOKS, count, usage);
    }
    // What the text above says, held to.
    assert_eq!(page.usage().committed, (1 + COUNT) * page.page_bytes());
    assert_eq!(calls(&PAGE_BOOKS).iter().sum::<u64>(), 1 + COUNT as u64);
    assert!(calls(&ARENA_BOOKS).iter().sum::<u64>() < 10);
    let pair = arena.usage();
    println!(
        "the arena now: {} requested + {} retained + {} tail + {} metadata = {} committed",
        pair.requested, pair.retained, pair.tails, pair.metadata, pair.committed
    );
    assert!(pair.adds_up());
}
