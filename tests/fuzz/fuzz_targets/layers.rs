//! Any layer, picked by the first byte, against patterns in every block.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../shim/core/tests/layers/adapters.rs"]
mod adapters;
#[path = "../../../shim/core/tests/layers/driven.rs"]
mod driven;
#[path = "../../../shim/core/tests/layers/every.rs"]
#[allow(dead_code)]
mod every;

fuzz_target!(|bytes: &[u8]| driven::run(bytes));
