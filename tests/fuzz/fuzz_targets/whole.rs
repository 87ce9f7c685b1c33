//! The heaps of whole processes, wrong frees and wild addresses included.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../shim/core/tests/layers/adapters.rs"]
#[allow(dead_code)]
mod adapters;
#[path = "../../../shim/core/tests/layers/wild.rs"]
mod wild;

fuzz_target!(|bytes: &[u8]| wild::run(bytes));
