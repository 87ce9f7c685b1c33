//! What several of the tests need: books, parents, a sink that remembers.

use std::fs;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Mutex;

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::debug::{Finding, Report, Sink};
use pageshim_core::heap::gpa::Spaces;
use pageshim_core::heap::layer::{Align, Caller, GpaLayer, Layer, Shape};
use pageshim_core::heap::page::{PageLayer, Pages};
use pageshim_wire::thread::{SYSCALLS, Syscall};

pub(crate) const HERE: Caller = Caller::at(0x1234);
pub(crate) const PAGE: usize = 4096;

pub(crate) fn accounts() -> &'static Accounts {
    Box::leak(Box::new(Accounts::new()))
}

/// A page layer with books of its own.
pub(crate) fn pages() -> PageLayer {
    PageLayer::new(accounts())
}

pub(crate) fn gpa() -> GpaLayer {
    let accounts = accounts();
    let pages = Pages::new(accounts);
    let spaces: &'static Spaces = Box::leak(Box::new(Spaces::new(pages)));
    GpaLayer::open(spaces, pages, 1 << 30).expect("address space for a test")
}

/// A buffer of `bytes`, for as long as the test process lives.
pub(crate) fn buffer(bytes: usize) -> &'static mut [MaybeUninit<u8>] {
    Box::leak(vec![MaybeUninit::new(0xFF); bytes].into_boxed_slice())
}

pub(crate) fn align(bytes: usize) -> Align {
    Align::new(bytes).expect("a power of two")
}

pub(crate) fn shape(requested: usize, at: usize) -> Shape {
    Shape::new(requested, align(at))
}

/// Allocates and fills; the fill finds memory that is not there.
#[track_caller]
pub(crate) fn take(layer: &impl Layer, shape: Shape) -> NonNull<u8> {
    let block = layer.allocate(shape, HERE).expect("memory");
    assert!(shape.align.fits(block.addr().get()));
    // SAFETY: a fresh block of this many bytes.
    unsafe { block.write_bytes(0x5A, shape.requested) };
    block
}

pub(crate) fn free(layer: &impl Layer, block: NonNull<u8>, shape: Shape) {
    // SAFETY: tests free what they took; wrong calls go to layers that check.
    unsafe { layer.free(block, shape, HERE) };
}

pub(crate) fn resize(layer: &impl Layer, block: NonNull<u8>, shape: Shape, to: usize) -> bool {
    // SAFETY: as in free().
    unsafe { layer.resize(block, shape, to, HERE) }
}

pub(crate) fn remap(
    layer: &impl Layer,
    block: NonNull<u8>,
    shape: Shape,
    to: usize,
) -> Option<NonNull<u8>> {
    // SAFETY: as in free().
    unsafe { layer.remap(block, shape, to, HERE) }
}

pub(crate) fn byte(block: NonNull<u8>, offset: usize) -> u8 {
    // SAFETY: tests read within live blocks.
    unsafe { block.add(offset).read() }
}

pub(crate) fn poke(block: NonNull<u8>, offset: usize, value: u8) {
    // SAFETY: memory of the layer under test, mapped.
    unsafe { block.as_ptr().wrapping_add(offset).write(value) };
}

/// System calls of a layer's books so far: `(mmap, munmap, mremap, all)`.
pub(crate) fn calls(accounts: &Accounts) -> (u64, u64, u64, u64) {
    const ALL: [Syscall; SYSCALLS] = [
        Syscall::Mmap,
        Syscall::Munmap,
        Syscall::Madvise,
        Syscall::Mremap,
        Syscall::Mprotect,
        Syscall::Other,
    ];
    let count = |call| accounts.calls(call).0;
    let all = ALL.into_iter().map(count).sum();
    (
        count(Syscall::Mmap),
        count(Syscall::Munmap),
        count(Syscall::Mremap),
        all,
    )
}

/// Bytes of `[start, start + bytes)` that are mapped, as the kernel says.
pub(crate) fn mapped_bytes(start: usize, bytes: usize) -> usize {
    mapped(start, bytes, |_| true)
}

/// As [`mapped_bytes`], writable ones only.
pub(crate) fn writable_bytes(start: usize, bytes: usize) -> usize {
    mapped(start, bytes, |rights| rights.starts_with("rw"))
}

fn mapped(start: usize, bytes: usize, wanted: impl Fn(&str) -> bool) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("a proc file system");
    let within = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let from = usize::from_str_radix(from, 16).ok()?.max(start);
        let to = usize::from_str_radix(to, 16).ok()?.min(start + bytes);
        wanted(rest).then(|| to.saturating_sub(from))
    };
    maps.lines().filter_map(within).sum()
}

/// What a report said, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) finding: Finding,
    pub(crate) block: usize,
    pub(crate) held: Shape,
    pub(crate) given: Shape,
    pub(crate) offset: usize,
    pub(crate) traces: [Vec<usize>; 3],
    pub(crate) stopped: bool,
    pub(crate) text: String,
}

/// A sink that remembers and never stops anything.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Vec<Said>>);

impl Memory {
    pub(crate) fn leaked() -> &'static Self {
        Box::leak(Box::default())
    }

    /// Everything said since the last call.
    pub(crate) fn heard(&self) -> Vec<Said> {
        std::mem::take(&mut self.0.lock().expect("no panic in a sink"))
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.heard().into_iter().map(|said| said.finding).collect()
    }

    fn keep(&self, report: &Report<'_>, stopped: bool) {
        let traces = [report.allocated, report.freed, report.now].map(<[usize]>::to_vec);
        let said = Said {
            finding: report.finding,
            block: report.block,
            held: report.held,
            given: report.given,
            offset: report.offset,
            traces,
            stopped,
            text: report.to_string(),
        };
        self.0.lock().expect("no panic in a sink").push(said);
    }
}

impl Sink for Memory {
    fn report(&self, report: &Report<'_>) {
        self.keep(report, false);
    }
    fn stop(&self, report: &Report<'_>) {
        self.keep(report, true);
    }
}

/// Runs each input that was kept for a fuzz target.
pub(crate) fn each_seed(target: &str, run: impl Fn(&[u8])) {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/seeds/");
    let mut count = 0;
    for file in fs::read_dir(format!("{seeds}{target}")).expect("seeds") {
        let path = file.expect("a seed").path();
        println!("{}", path.display());
        run(&fs::read(path).expect("a seed"));
        count += 1;
    }
    assert!(count > 10, "seeds are there");
}
