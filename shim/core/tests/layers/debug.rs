//! The debug layer, D1 to D26.

mod blocks;
mod choices;
mod misuse;
mod traces;

use std::ptr::NonNull;

use pageshim_core::heap::debug::{Config, DebugLayer, Ended};
use pageshim_core::heap::layer::{Caller, Layer, Shape, SpinMutex};
use pageshim_core::heap::page::PageLayer;

use crate::support::{Memory, pages};

/// A trace of three made of the caller's address.
fn three(caller: Caller, frames: &mut [usize]) -> usize {
    for (step, frame) in frames.iter_mut().take(3).enumerate() {
        *frame = caller.address() + step;
    }
    frames.len().min(3)
}

fn config(sink: &'static Memory) -> Config<'static> {
    Config {
        capture: three,
        ..Config::new(sink)
    }
}

type Debug<P = PageLayer> = DebugLayer<'static, P, SpinMutex, 4>;

fn debug(change: impl FnOnce(&mut Config<'static>)) -> (Debug, &'static Memory) {
    let sink = Memory::leaked();
    let mut config = config(sink);
    change(&mut config);
    (DebugLayer::new(pages(), config), sink)
}

fn plain() -> (Debug, &'static Memory) {
    debug(|_| ())
}

fn end(debug: Debug) -> Ended {
    // SAFETY: tests touch no block afterwards.
    unsafe { debug.deinit() }
}

fn free_from(layer: &impl Layer, block: NonNull<u8>, shape: Shape, caller: usize) {
    // SAFETY: the debug layer checks what it is given.
    unsafe { layer.free(block, shape, Caller::at(caller)) };
}

const SMALL: Shape = Shape::bytes(100);
const LARGE: Shape = Shape::bytes(100_000);
