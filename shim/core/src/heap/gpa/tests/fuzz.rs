//! Random work on heaps against a model, and a walk over everything after it.
//!
//! Deterministic: the seed is printed, and PAGESHIM_FUZZ_SEED runs that one again.
//! The same driver is a fuzz target, whose finds are run again here.

use std::time::{Duration, Instant};
use std::{env, fs, println};

use crate::heap::choices::Random;
use crate::heap::gpa::driver::{Driver, run};

const SECONDS: u64 = 10;

// Goal: no action in any order breaks content, records, lists, runs or sums. Method: random actions of
// several owners for ten seconds, a new seed each 20,000 steps, the walk every 500; at the end all goes.
#[test]
fn random_owners_keep_everything_whole() {
    let given = env::var("PAGESHIM_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let start = Instant::now();
    let mut seed = given.unwrap_or(0x9e37_79b9_7f4a_7c15);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        println!("PAGESHIM_FUZZ_SEED={seed}");
        let mut choices = Random::new(seed);
        let mut driver = Driver::default();
        for step in 0..20_000 {
            driver.step(&mut choices);
            if step % 500 == 0 {
                driver.walk();
            }
        }
        driver.end(&mut choices);
        if given.is_some() {
            break;
        }
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d) | 1;
    }
}

// Goal: what the fuzzer kept, as rare or once wrong, stays right. Method: its inputs, from the tree.
#[test]
fn what_the_fuzzer_found_stays_right() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/seeds/gpa");
    let mut count = 0;
    for file in fs::read_dir(seeds).expect("seeds of the gpa").flatten() {
        println!("{}", file.path().display());
        run(&fs::read(file.path()).expect("a seed"));
        count += 1;
    }
    assert!(count > 10, "seeds are there");
}
