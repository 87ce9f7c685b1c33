//! Several owners of gpa heaps against a model, with a walk over all they hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pageshim_core::heap::gpa::driver;

fuzz_target!(|bytes: &[u8]| driver::run(bytes));
