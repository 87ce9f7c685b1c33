//! Draws and weights against the mathematics library and against plain counting.

use std::vec::Vec;

use super::*;

const INTERVAL: u64 = 512 << 10;
const SIZES: [usize; 9] = [0, 1, 16, 100, 4096, 65_536, 524_288, 2 << 20, 10 << 20];

fn scaled(weight: &Weight) -> (f64, f64, f64, f64) {
    let square = (INTERVAL as f64) * (INTERVAL as f64);
    (
        weight.blocks as f64 / f64::from(1 << BLOCKS_SHIFT),
        weight.bytes as f64 / f64::from(1 << BYTES_SHIFT),
        weight.blocks_variance as f64 / BLOCKS_VARIANCE_UNIT * square,
        weight.bytes_variance as f64 / BYTES_VARIANCE_UNIT * square,
    )
}

// Goal: logarithm and exponential are right. Method: many values against the library's.
#[test]
fn the_arithmetic_agrees_with_the_library() {
    let mut random = 1u64;
    for _ in 0..100_000 {
        random = spread(random);
        for value in [random, random >> (random & 63)] {
            let expected = 64.0 - (value.max(1) as f64).log2();
            let found = negative_log2_q32(value) as f64 / 4_294_967_296.0;
            assert!((found - expected).abs() < 1e-9, "{value:#x}: {found}");
        }
        let x = (random >> 11) as f64 / 9e15 * 30.0;
        for x in [x, x / 1e6, x * 10.0] {
            let expected = -(-x).exp_m1();
            assert!((chance(x) / expected - 1.0).abs() < 1e-13, "{x}");
        }
    }
    assert!(chance(2.0 / INTERVAL as f64) > 3.8e-6);
    assert_eq!((chance(0.0), chance(1e9)), (0.0, 1.0));
}

// Goal: distances are exponential. Method: mean, variance and the share below the mean of 400,000.
#[test]
fn distances_are_exponential() {
    let sampler = Sampler::new();
    sampler.begin(7, INTERVAL);
    let draws: Vec<f64> = (0..400_000)
        .map(|_| sampler.draw(INTERVAL) as f64)
        .collect();
    let count = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / count / INTERVAL as f64;
    let square = draws.iter().map(|d| d * d).sum::<f64>() / count / (INTERVAL as f64).powi(2);
    let below = draws.iter().filter(|d| **d < INTERVAL as f64).count() as f64 / count;
    assert!((mean - 1.0).abs() < 0.006, "{mean}");
    assert!((square - 2.0).abs() < 0.04, "{square}");
    assert!((below - 0.632_12).abs() < 0.003, "{below}");
}

// Goal: weights are what the formulas say. Method: each size by the library's exp.
#[test]
fn weights_follow_the_formulas() {
    for size in SIZES {
        let chance = -(-(size as f64 + 1.0) / INTERVAL as f64).exp_m1();
        let variance = (1.0 - chance) / (chance * chance);
        let (blocks, bytes, of_blocks, of_bytes) = scaled(&Weight::of(size, INTERVAL));
        let near = |found: f64, expected: f64, slack: f64| {
            assert!(
                (found - expected).abs() <= slack,
                "{size}: {found} is not {expected}"
            );
        };
        near(blocks, 1.0 / chance, 1.3e-4);
        near(bytes, size as f64 / chance, 0.1);
        near(of_blocks, variance, 1e-4 * variance + 0.01);
        let of_bytes_expected = variance * (size as f64).powi(2);
        near(
            of_bytes,
            of_bytes_expected,
            1e-4 * of_bytes_expected + INTERVAL as f64 * 0.1,
        );
    }
}

/// Allocates by `sizes` in turn until `total` bytes, and sums what the hits stand for.
fn estimate(seed: u64, sizes: &[usize], rounds: usize) -> (f64, f64, f64, f64) {
    let sampler = Sampler::new();
    sampler.begin(seed, INTERVAL);
    let mut sums = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..rounds {
        for size in sizes {
            if sampler.hits(*size, INTERVAL) {
                let weight = scaled(&Weight::of(*size, INTERVAL));
                sums.0 += weight.0;
                sums.1 += weight.1;
                sums.2 += weight.2;
                sums.3 += weight.3;
            }
        }
    }
    sums
}

// Goal: estimates are unbiased and the error bars true, at every size from 0 bytes to 10 MiB and
// for a mix. Method: 400 fixed seeds each; the mean lies within 3 of its own standard errors, and
// the mean of the estimated variances near the variance seen.
#[test]
fn estimates_are_unbiased_and_their_errors_true() {
    const SEEDS: u64 = 400;
    // Of each size enough bytes that some are hit in most runs.
    let counts = [
        (1, 40_000),
        (24, 8000),
        (100, 2000),
        (5000, 60),
        (70_000, 5),
        (3 << 20, 1),
    ];
    let mixed: Vec<usize> = counts
        .iter()
        .flat_map(|(size, count)| std::iter::repeat_n(*size, *count))
        .collect();
    let cases = SIZES.iter().map(std::slice::from_ref).chain([&mixed[..]]);
    for sizes in cases {
        let round: usize = sizes.iter().map(|size| size + 1).sum();
        let rounds = (20 * usize::try_from(INTERVAL).expect("fits") / round).clamp(20, 120_000);
        let truth = (
            (rounds * sizes.len()) as f64,
            (rounds * sizes.iter().sum::<usize>()) as f64,
        );
        let runs: Vec<_> = (0..SEEDS)
            .map(|seed| estimate(seed, sizes, rounds))
            .collect();
        let check = |what: &str, truth: f64, values: Vec<f64>, variances: Vec<f64>| {
            let count = SEEDS as f64;
            let mean = values.iter().sum::<f64>() / count;
            let seen = values.iter().map(|v| (v - truth).powi(2)).sum::<f64>() / count;
            let told = variances.iter().sum::<f64>() / count;
            let slack = 3.0 * (seen / count).sqrt() + truth * 1e-4;
            assert!(
                (mean - truth).abs() <= slack,
                "{what} of {sizes:?}: {mean}, truth {truth}"
            );
            let near = (told / seen - 1.0).abs() < 0.3;
            let none = seen.sqrt() <= truth * 1e-3;
            assert!(
                near || none,
                "{what} of {sizes:?}: variance {told}, seen {seen}"
            );
        };
        let of = |pick: fn(&(f64, f64, f64, f64)) -> f64| runs.iter().map(pick).collect();
        check("blocks", truth.0, of(|run| run.0), of(|run| run.2));
        check("bytes", truth.1, of(|run| run.1), of(|run| run.3));
    }
}

// Goal: seeds decide, and a copy of a process goes other ways. Method: three streams.
#[test]
fn seeds_decide_the_draws() {
    let stream = |seed, salt: Option<u64>| {
        let sampler = Sampler::new();
        sampler.begin(seed, INTERVAL);
        if let Some(salt) = salt {
            sampler.stir(salt);
        }
        (0..5).map(|_| sampler.draw(INTERVAL)).collect::<Vec<_>>()
    };
    assert_eq!(stream(3, None), stream(3, None));
    assert_ne!(stream(3, None), stream(4, None));
    assert_ne!(stream(3, None), stream(3, Some(9)));
}
