//! The one suite every layer runs: what a caller may rely on, whoever serves.
//!
//! # Design
//! Each function takes a layer that has at least 8 MiB to give and leaves it
//! with no live block. Layers differ in what they can do in place, so growth
//! and shrinking are tried through [`Front::reallocate`] where a move is fine,
//! and [`Layer::resize`] may say no unless the row says otherwise.
//!
//! # Failure
//! Panics with what was broken. For tests, examples and fuzzers only.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::choices::{Choices, Random};
use super::layer::{Align, Caller, Front, Layer, Shape};

/// Bytes a layer should have to run [`run`].
pub const NEEDED_BYTES: usize = 8 << 20;

/// All of it.
pub fn run<L: Layer>(layer: &L) {
    blocks(layer);
    aligned(layer);
    large_alignment(layer);
    aligned_shrink(layer);
    apart(layer);
    refusals(layer);
    random(layer, 0x5eed_1234, 2_000);
}

fn align(bytes: usize) -> Align {
    Align::new(bytes).expect("a power of two")
}

/// Writes a pattern that depends on the block's number.
fn fill(block: NonNull<u8>, bytes: usize, number: usize) {
    for offset in 0..bytes {
        // SAFETY: a live block of at least `bytes`.
        unsafe { block.add(offset).write(pattern(number, offset)) };
    }
}

fn pattern(number: usize, offset: usize) -> u8 {
    (number.wrapping_mul(31) ^ offset).to_le_bytes()[0]
}

#[track_caller]
fn intact(block: NonNull<u8>, bytes: usize, number: usize) {
    for offset in 0..bytes {
        // SAFETY: a live block of at least `bytes`.
        let found = unsafe { block.add(offset).read() };
        assert_eq!(
            found,
            pattern(number, offset),
            "byte {offset} of block {number} was lost"
        );
    }
}

#[track_caller]
fn take<L: Layer>(front: &Front<&L>, shape: Shape) -> NonNull<u8> {
    let block = front
        .allocate(shape)
        .unwrap_or_else(|| panic!("{shape:?} was refused"));
    assert!(
        shape.align.fits(block.addr().get()),
        "{shape:?} answered {block:?}"
    );
    block
}

/// Reallocates and checks that the content came along.
#[track_caller]
fn regrow<L: Layer>(front: &Front<&L>, block: NonNull<u8>, shape: Shape, to: usize) -> NonNull<u8> {
    fill(block, shape.requested, to);
    // SAFETY: a live block with this shape.
    let moved = unsafe { front.reallocate(block, shape, to) };
    let moved = moved.unwrap_or_else(|| panic!("{shape:?} to {to} was refused"));
    assert!(shape.align.fits(moved.addr().get()));
    if to != 0 {
        intact(moved, shape.requested.min(to), to);
    }
    moved
}

/// T1: a hundred values taken, freed, grown to twenty thousand bytes, resized in
/// place down to nothing, empty requests and types.
pub fn blocks<L: Layer>(layer: &L) {
    let front = Front(layer);
    let word = Shape::of::<u32>();
    let mut held = [None; 100];
    for (number, place) in held.iter_mut().enumerate() {
        let block = take(&front, word);
        fill(block, 4, number);
        *place = Some(block);
    }
    for (number, place) in held.iter().enumerate() {
        let block = place.expect("taken above");
        intact(block, 4, number);
        // SAFETY: live, freed once.
        unsafe { front.free(block, word) };
    }
    let mut shape = Shape::bytes(100);
    let mut block = take(&front, shape);
    for to in [200, 20_000, 50] {
        block = regrow(&front, block, shape, to);
        shape = shape.resized(to);
    }
    fill(block, 50, 7);
    // SAFETY: live with this shape; a layer may decline.
    if unsafe { front.resize(block, shape, 25) } {
        intact(block, 25, 7);
        shape = shape.resized(25);
    }
    // SAFETY: live with this shape; to nothing always works and frees.
    assert!(unsafe { front.resize(block, shape, 0) });
    empty_requests(&front);
}

fn empty_requests<L: Layer>(front: &Front<&L>) {
    let empty = take(front, Shape::new(0, align(64)));
    // SAFETY: an empty block.
    let grown = unsafe { front.reallocate(empty, Shape::new(0, align(64)), 10) };
    let grown = grown.expect("ten bytes");
    assert!(align(64).fits(grown.addr().get()));
    // SAFETY: live; to nothing frees.
    let gone = unsafe { front.reallocate(grown, Shape::new(10, align(64)), 0) };
    assert!(gone.is_some());
    let unit = front.create(()).expect("no memory needed");
    // SAFETY: created above.
    unsafe { front.destroy(unit) };
    let units = front.slice::<()>(usize::MAX).expect("no memory needed");
    // SAFETY: as above.
    unsafe { front.free_slice(units) };
    let text = front.duplicate_ended(b"page", 0).expect("five bytes");
    // SAFETY: live, five bytes.
    let read = unsafe { core::slice::from_raw_parts(text.cast::<u8>().as_ptr(), 5) };
    assert_eq!(read, b"page\0");
    // SAFETY: live, one longer than its length.
    unsafe { front.free(text.cast(), Shape::bytes(5)) };
}

/// T2: every alignment from 1 to 64, ten bytes grown to a hundred and back.
pub fn aligned<L: Layer>(layer: &L) {
    let front = Front(layer);
    for log2 in 0..=6 {
        let mut shape = Shape::new(10, align(1 << log2));
        let mut block = take(&front, shape);
        for to in [100, 10] {
            block = regrow(&front, block, shape, to);
            shape = shape.resized(to);
        }
        // SAFETY: live; to nothing frees.
        assert!(unsafe { front.resize(block, shape, 0) });
    }
}

/// T3: an alignment of half a page through growing and shrinking, then of
/// several pages.
pub fn large_alignment<L: Layer>(layer: &L) {
    let front = Front(layer);
    for large in [crate::OS_PAGE_BYTES / 2, crate::OS_PAGE_BYTES * 4] {
        let mut shape = Shape::new(500, align(large));
        let mut block = take(&front, shape);
        for to in [100, 5_000, 10, 20_000] {
            block = regrow(&front, block, shape, to);
            shape = shape.resized(to);
        }
        // SAFETY: live, freed once.
        unsafe { front.free(block, shape) };
    }
}

/// T4: two pages and fifty bytes at a large alignment shrink to one page and
/// more, with other blocks around; the content stays.
pub fn aligned_shrink<L: Layer>(layer: &L) {
    let front = Front(layer);
    let page = crate::OS_PAGE_BYTES;
    let large = align(page / 2);
    let mut shape = Shape::new(2 * page + 50, large);
    let mut block = take(&front, shape);
    // Blocks that happen to sit at twice the alignment are pushed aside first.
    let mut stuck = [None; 10];
    let mut count = 0;
    while align(page * 2).fits(block.addr().get()) && count < stuck.len() {
        stuck[count] = Some(block);
        count += 1;
        block = take(&front, shape);
    }
    for aside in stuck.into_iter().flatten() {
        // SAFETY: live, freed once.
        unsafe { front.free(aside, shape) };
    }
    // SAFETY: live, more than 61 bytes.
    unsafe {
        block.write(0x12);
        block.add(60).write(0x34);
    }
    for to in [page + 1, page / 2 + 61, 61] {
        // SAFETY: live with this shape.
        let moved = unsafe { front.reallocate(block, shape, to) };
        block = moved.expect("less than it holds");
        shape = shape.resized(to);
        // SAFETY: live, at least 61 bytes.
        let kept = unsafe { (block.read(), block.add(60).read()) };
        assert_eq!(kept, (0x12, 0x34));
        assert!(large.fits(block.addr().get()));
    }
    // SAFETY: live, freed once.
    unsafe { front.free(block, shape) };
}

/// Blocks of mixed sizes never overlap, and frees of some leave others alone.
pub fn apart<L: Layer>(layer: &L) {
    let front = Front(layer);
    let shape = |number: usize| Shape::new(1 + number * 37 % 700, align(1 << (number % 5)));
    let mut held = [None; 200];
    for (number, place) in held.iter_mut().enumerate() {
        let block = take(&front, shape(number));
        fill(block, shape(number).requested, number);
        *place = Some(block);
    }
    for parity in [0, 1] {
        for (number, place) in held.iter_mut().enumerate() {
            if number % 2 == parity {
                let block = place.take().expect("taken above");
                intact(block, shape(number).requested, number);
                // SAFETY: live, freed once.
                unsafe { front.free(block, shape(number)) };
            }
        }
    }
}

/// Sizes no machine has are refused and change nothing.
pub fn refusals<L: Layer>(layer: &L) {
    let front = Front(layer);
    let page = crate::OS_PAGE_BYTES;
    for requested in [
        usize::MAX,
        usize::MAX - page + 1,
        isize::MAX.cast_unsigned(),
    ] {
        for at in [Align::ONE, align(page), align(1 << 40)] {
            assert!(front.allocate(Shape::new(requested, at)).is_none());
        }
    }
    assert!(front.slice::<u64>(usize::MAX / 2).is_none());
    let shape = Shape::bytes(40);
    let block = take(&front, shape);
    fill(block, 40, 3);
    // SAFETY: live with this shape.
    let (resized, moved) = unsafe {
        (
            front.resize(block, shape, usize::MAX),
            front.reallocate(block, shape, usize::MAX - 7),
        )
    };
    assert!(!resized && moved.is_none());
    intact(block, 40, 3);
    // SAFETY: live, freed once.
    unsafe { front.free(block, shape) };
}

/// Random allocations, frees and reallocations against patterns in every block.
pub fn random<L: Layer>(layer: &L, seed: u64, steps: usize) {
    random_with(layer, seed, steps, |_| ());
}

/// [`random`], with a look at the layer after every step, given the requested
/// bytes that are live.
pub fn random_with<L: Layer>(layer: &L, seed: u64, steps: usize, after: impl FnMut(usize)) {
    driven(layer, &mut Random::new(seed), steps, after);
}

/// The same by anybody's choices, at most `steps` of them.
pub fn driven<L: Layer>(
    layer: &L,
    choices: &mut impl Choices,
    steps: usize,
    mut after: impl FnMut(usize),
) {
    const HELD: usize = 64;
    let front = Front(layer);
    let mut held: [Option<(NonNull<u8>, Shape)>; HELD] = [None; HELD];
    let mut live = 0;
    for _ in 0..steps {
        if choices.are_over() {
            break;
        }
        let number = choices.below(HELD);
        let wish = choices.shape();
        held[number] = match held[number] {
            None => front.allocate(wish).map(|block| (block, wish)),
            Some((block, shape)) => {
                intact(block, shape.requested, number);
                live -= shape.requested;
                change(&front, block, shape, wish.requested, choices)
            }
        };
        if let Some((block, shape)) = held[number] {
            assert!(shape.align.fits(block.addr().get()));
            fill(block, shape.requested, number);
            live += shape.requested;
        }
        after(live);
    }
    for (number, place) in held.iter().enumerate() {
        if let Some((block, shape)) = *place {
            intact(block, shape.requested, number);
            // SAFETY: live, freed once.
            unsafe { front.free(block, shape) };
            live -= shape.requested;
            after(live);
        }
    }
}

/// Frees, resizes or reallocates one block.
fn change<L: Layer>(
    front: &Front<&L>,
    block: NonNull<u8>,
    shape: Shape,
    to: usize,
    choices: &mut impl Choices,
) -> Option<(NonNull<u8>, Shape)> {
    match choices.below(4) {
        0 => {
            // SAFETY: live with this shape.
            let done = unsafe { front.0.resize(block, shape, to, Caller::here()) };
            Some((block, if done { shape.resized(to) } else { shape }))
        }
        1 => {
            // SAFETY: live with this shape; a refusal leaves it so.
            let moved = unsafe { front.reallocate(block, shape, to) };
            Some(moved.map_or((block, shape), |moved| (moved, shape.resized(to))))
        }
        _ => {
            // SAFETY: live, freed once.
            unsafe { front.free(block, shape) };
            None
        }
    }
}
