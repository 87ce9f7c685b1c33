//! Rust's ways to keep and to lose blocks, each by a function of its own. With an argument it
//! ends as programs do.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};

static KEPT: OnceLock<Box<[u8; 201]>> = OnceLock::new();
static TABLE: Mutex<Vec<Box<[u8; 202]>>> = Mutex::new(Vec::new());

thread_local! {
    static LOCAL: RefCell<Option<Box<[u8; 203]>>> = const { RefCell::new(None) };
    static RAW: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}
static INNER: Mutex<Option<&'static u8>> = Mutex::new(None);

struct Node {
    _other: RefCell<Option<Rc<Node>>>,
    _more: [u8; 40],
}

#[inline(never)]
fn forgotten() {
    std::mem::forget(black_box(Box::new([1u8; 204]))); // definite
}

#[inline(never)]
fn leaked() -> &'static [u8; 205] {
    Box::leak(Box::new([2u8; 205])) // definite: nobody keeps it
}

#[inline(never)]
fn leaked_text() {
    black_box(String::from("a text that nobody drops ").repeat(4).leak()); // definite
}

#[inline(never)]
fn in_cycle(next: Option<Rc<Node>>) -> Rc<Node> {
    Rc::new(Node { _other: RefCell::new(next), _more: [3; 40] })
}

#[inline(never)]
fn cycle() {
    let first = in_cycle(None);
    let second = in_cycle(Some(first.clone()));
    *first._other.borrow_mut() = Some(second); // definite 1, indirect 1
}

#[inline(never)]
fn raw_parts() -> Box<[u8; 206]> {
    Box::new([4; 206])
}

#[inline(never)]
fn in_static() -> Box<[u8; 201]> {
    Box::new([5; 201])
}

#[inline(never)]
fn in_table() -> Box<[u8; 202]> {
    Box::new([6; 202])
}

#[inline(never)]
fn in_local() -> Box<[u8; 203]> {
    Box::new([7; 203])
}

#[inline(never)]
fn by_local() -> Box<[u8; 207]> {
    Box::new([8; 207])
}

#[inline(never)]
fn inner_part() -> &'static [u8; 208] {
    Box::leak(Box::new([9; 208]))
}

#[inline(never)]
fn shared() -> Arc<[u8; 209]> {
    Arc::new([10; 209])
}

#[inline(never)]
fn lose() {
    for _ in 0..3 {
        forgotten();
    }
    black_box(leaked());
    leaked_text();
    cycle();
    let parts = Box::into_raw(raw_parts());
    black_box(parts as usize);
}

#[inline(never)]
fn keep() {
    KEPT.set(in_static()).unwrap();
    let mut table = TABLE.lock().unwrap();
    for _ in 0..10 {
        table.push(in_table());
    }
    LOCAL.with(|local| *local.borrow_mut() = Some(in_local()));
    RAW.with(|raw| raw.set(Box::into_raw(by_local()).cast()));
    *INNER.lock().unwrap() = Some(&inner_part()[100]); // possible
    std::mem::forget(shared());
    let kept = Arc::into_raw(shared());
    // Into its middle, behind the counts: possible.
    RAW.with(|_| PART.store(kept.cast_mut().cast(), std::sync::atomic::Ordering::Relaxed));
}

static PART: std::sync::atomic::AtomicPtr<u8> =
    std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());

#[inline(never)]
fn wipe() {
    black_box([0u8; 16384]);
}

fn main() {
    lose();
    keep();
    wipe();
    println!("planted");
    black_box(RAW.get());
    if std::env::args().len() > 1 {
        return;
    }
    // Without destructors: what thread-local storage holds is held.
    unsafe { _exit(0) }
}

unsafe extern "C" {
    fn _exit(status: i32) -> !;
}
