//! What a thread counts in mode sampled: each block for what it stands for.
//!
//! The words are those of exact counting, in the units of
//! [`pageshim_wire::sampled`]; the last four of a site hold variances instead. A
//! block freed before its thread's next allocation is not known to be, because
//! that next one is not looked at.

use pageshim_wire::process::ms_from_tick;
use pageshim_wire::sampled::{blocks, site_word as variance};
use pageshim_wire::thread::{Api, class_word, lifetime_bucket, site_word, word};

use super::{Counters, Track};
use crate::sample::Weight;
use crate::state::State;

/// A sampled block as the books see it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Size class.
    pub class: usize,
    /// Site.
    pub site: u32,
    /// What it stands for.
    pub weight: Weight,
}

/// Pairs of site words whose difference is what is live.
const PAIRS: [(usize, usize); 2] = [
    (variance::ALLOCATIONS_VARIANCE, variance::FREES_VARIANCE),
    (
        variance::ALLOCATED_BYTES_VARIANCE,
        variance::FREED_BYTES_VARIANCE,
    ),
];

impl Track {
    /// Counts a sampled block that was just made.
    pub fn sampled(&self, state: &State, sample: &Sample, api: Api) {
        let Some(counters) = self.counters() else {
            return;
        };
        let weight = &sample.weight;
        counters.add_sample(sample);
        if api != Api::Malloc {
            counters.add(word::API + api as usize, weight.blocks);
        }
        if counters.grew_by(weight.bytes, weight.blocks) {
            self.publish(state);
        }
    }

    /// Counts a sampled block that is about to be freed.
    pub fn sample_freed(&self, state: &State, sample: &Sample, birth: u64) {
        let Some(counters) = self.counters() else {
            return;
        };
        let weight = &sample.weight;
        counters.drop_sample(sample);
        // A life within a tick is the rest of all frees, as in exact counting.
        if state.tick() != birth {
            let ms = ms_from_tick(state.tick()).saturating_sub(ms_from_tick(birth));
            counters.add(word::LIFETIME + lifetime_bucket(ms), weight.blocks);
            let sum = ms.wrapping_mul(blocks(weight.blocks));
            counters.add(word::LIFETIME_SUM_MS, sum);
        }
        if counters.shrank_by(weight.bytes, weight.blocks) {
            self.publish(state);
        }
    }

    /// As [`Track::begin_inherited`], for the words only samples have.
    pub fn begin_inherited_samples<'a, T: Iterator<Item = &'a Self>>(
        &self,
        sites: u32,
        others: impl Fn() -> T,
    ) {
        for site in (1..sites).map(Self::site) {
            for (allocated, freed) in PAIRS {
                self.balance(site + allocated, site + freed, others());
            }
        }
    }

    /// Counts one sampled live block that was inherited.
    pub fn inherit_sample(&self, sample: &Sample) {
        if let Some(counters) = self.counters() {
            counters.add_sample(sample);
        }
    }
}

impl Counters {
    fn add_sample(self, sample: &Sample) {
        let weight = &sample.weight;
        let class = Track::class(sample.class);
        self.add(class + class_word::ALLOCATIONS, weight.blocks);
        self.add(class + class_word::ALLOCATED_BYTES, weight.bytes);
        let site = Track::site(sample.site);
        self.add(site + site_word::ALLOCATIONS, weight.blocks);
        self.add(site + site_word::ALLOCATED_BYTES, weight.bytes);
        let variances = (weight.blocks_variance, weight.bytes_variance);
        self.add(site + variance::ALLOCATIONS_VARIANCE, variances.0);
        self.add(site + variance::ALLOCATED_BYTES_VARIANCE, variances.1);
    }

    fn drop_sample(self, sample: &Sample) {
        let weight = &sample.weight;
        let class = Track::class(sample.class);
        self.add(class + class_word::FREES, weight.blocks);
        self.add(class + class_word::FREED_BYTES, weight.bytes);
        let site = Track::site(sample.site);
        self.add(site + site_word::FREES, weight.blocks);
        self.add(site + site_word::FREED_BYTES, weight.bytes);
        let variances = (weight.blocks_variance, weight.bytes_variance);
        self.add(site + variance::FREES_VARIANCE, variances.0);
        self.add(site + variance::FREED_BYTES_VARIANCE, variances.1);
    }
}
