//! Sites chosen for a report: numbers first, stacks only for those that remain.

use pageshim_wire::check::Class;
use pageshim_wire::process::{SITE_OVERFLOW, SITE_UNKNOWN};
use pageshim_wire::stack::End;

use super::check::{Part, Row, parts};
use super::growth::Growth;
use super::report::{Amount, Frame, Leak, Process, Sampling, SiteError};
use super::sites::SiteSums;
use super::summary::age;
use super::threads::{more, plus};

/// A site and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Its id in its process.
    pub site: u32,
    /// Its counters.
    pub sums: SiteSums,
    /// Which of its blocks, once a check has told them apart; else all.
    pub part: Option<Part>,
}

impl Lead {
    /// The live blocks meant.
    pub fn amount(&self) -> Amount {
        self.part.map_or(self.sums.live(), |part| part.amount)
    }

    /// Their class.
    pub fn class_name(&self) -> &'static str {
        self.part.map_or("live", |part| part.class_name())
    }

    /// One lead for each class that the last check found.
    pub fn by_class(self, found: &Row) -> impl Iterator<Item = Self> + use<> {
        let parts = parts(found, self.sums.live()).into_iter();
        parts.map(move |part| Self {
            part: Some(part),
            ..self
        })
    }
}

/// What there is to know of a site beyond its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Hash of the stack.
    pub hash: u64,
    /// When it was first seen.
    pub tick: u64,
    /// Who saw it first.
    pub thread: String,
    /// Null when the stack is whole.
    pub incomplete: Option<&'static str>,
    /// Program counters, leaf first.
    pub frames: Vec<u64>,
}

/// What ranks a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Live bytes, then live blocks.
    Live,
    /// All bytes ever.
    Total,
    /// OS pages carved first.
    Touched,
}

impl Rank {
    fn of(self, sums: &SiteSums) -> (u64, u64) {
        let amount = match self {
            Self::Live => sums.live(),
            Self::Total => sums.allocated,
            Self::Touched => return (sums.touched, sums.allocated.bytes),
        };
        (amount.bytes, amount.blocks)
    }
}

/// Keeps the highest `most` of many leads in twice their room.
#[derive(Debug)]
pub struct Top {
    rank: Rank,
    most: usize,
    leads: Vec<Lead>,
    offered: Amount,
    touched: u64,
}

impl Top {
    /// Keeps `most` by `rank`.
    pub const fn new(rank: Rank, most: usize) -> Self {
        Self {
            rank,
            most,
            leads: Vec::new(),
            offered: Amount {
                bytes: 0,
                blocks: 0,
            },
            touched: 0,
        }
    }

    /// Considers a site.
    pub fn offer(&mut self, site: u32, sums: &SiteSums) {
        self.offered = plus(self.offered, sums.live());
        more(&mut self.touched, sums.touched);
        self.leads.push(Lead {
            site,
            sums: *sums,
            part: None,
        });
        if self.leads.len() >= self.most.saturating_mul(2).max(64) {
            self.cut();
        }
    }

    /// Live blocks of all sites offered.
    pub const fn offered(&self) -> Amount {
        self.offered
    }

    /// OS pages that all sites offered were the first to carve.
    pub const fn touched(&self) -> u64 {
        self.touched
    }

    /// The leads kept, highest first, ties by site id.
    pub fn finish(mut self) -> Vec<Lead> {
        self.cut();
        let rank = self.rank;
        self.leads
            .sort_by_key(|lead| (std::cmp::Reverse(rank.of(&lead.sums)), lead.site));
        self.leads
    }

    fn cut(&mut self) {
        if self.leads.len() > self.most {
            let rank = self.rank;
            let key = |lead: &Lead| (std::cmp::Reverse(rank.of(&lead.sums)), lead.site);
            self.leads.select_nth_unstable_by_key(self.most, key);
            self.leads.truncate(self.most);
        }
    }
}

impl Detail {
    /// A site of which only the numbers are known.
    pub fn unknown(site: u32) -> Self {
        let incomplete = match site {
            SITE_UNKNOWN => "not captured: allocated while the profiler could not unwind",
            SITE_OVERFLOW => "not kept: the site table was full",
            _ => "not kept: the record of this stack is missing",
        };
        Self {
            hash: u64::from(site),
            tick: 0,
            thread: String::new(),
            incomplete: Some(incomplete),
            frames: Vec::new(),
        }
    }
}

/// Why a stack ends where it does, in words; `None` when it is whole.
pub const fn incomplete(end: End) -> Option<&'static str> {
    Some(match end {
        End::Complete => return None,
        End::DepthLimit => "cut at the depth limit",
        End::NoTable => "ends at code without unwind tables",
        End::BadRule => "ends at an unwind rule that cannot be followed",
        End::OutOfBounds => "ends outside the stack's bounds",
        End::NoProgress => "ends where frames stopped going outwards",
    })
}

impl Lead {
    /// How the site's bytes go, `slope` as [`super::growth::Trend`] has it.
    pub fn growth(&self, slope: Option<(f64, f64)>) -> Growth {
        let (all, freed) = (self.sums.allocated.blocks, self.sums.freed.blocks);
        Growth {
            released_percent: 100.0 * freed.min(all) as f64 / all.max(1) as f64,
            bytes_per_minute: slope.map(|slope| slope.0),
            span_seconds: slope.map_or(0.0, |slope| slope.1),
        }
    }

    /// Standard errors of a sampled process's site.
    fn error(&self, sampling: &Sampling) -> SiteError {
        let variance = &self.sums.variance;
        let live = variance.of_live(sampling.interval_bytes);
        let total = variance.of_total(sampling.interval_bytes);
        SiteError {
            blocks: live.blocks,
            bytes: live.bytes,
            total_blocks: total.blocks,
            total_bytes: total.bytes,
        }
    }
}

/// The leak of a site of `process`.
pub fn leak(process: &Process, lead: &Lead, detail: Detail, stack: Vec<Frame>) -> Leak {
    let live = lead.amount();
    let definite = |part: &Part| part.class == Some(Class::Definite);
    let born = lead.part.map_or(0, |part| part.oldest);
    Leak {
        process: process.id.clone(),
        site: format!("{:016x}", detail.hash),
        class: lead.class_name().to_owned(),
        blocks: live.blocks,
        bytes: live.bytes,
        held: lead.part.filter(definite).map(|part| part.held),
        suppressed: None,
        growth: None,
        pinned_bytes: None,
        total_blocks: lead.sums.allocated.blocks,
        total_bytes: lead.sums.allocated.bytes,
        temporary_blocks: lead.sums.temporary,
        lifetime_ms: lead.sums.lifetime_ms,
        total_rounding_bytes: lead.sums.rounding,
        error: process.sampling.map(|sampling| lead.error(&sampling)),
        oldest_seconds: age(process.seconds, born.max(detail.tick)),
        thread: detail.thread,
        incomplete: detail.incomplete.map(str::to_owned),
        stack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the highest are kept whatever the order. Method: 1,000 offers, 10 kept, ties by id.
    #[test]
    fn the_highest_are_kept() {
        let mut top = Top::new(Rank::Live, 10);
        for site in 0..1000u32 {
            let bytes = u64::from(site * 7919 % 1000 / 2);
            let allocated = Amount { bytes, blocks: 1 };
            top.offer(
                site,
                &SiteSums {
                    allocated,
                    ..SiteSums::default()
                },
            );
        }
        let kept = top.finish();
        let bytes: Vec<u64> = kept.iter().map(|lead| lead.sums.allocated.bytes).collect();
        assert_eq!(bytes, [499, 499, 498, 498, 497, 497, 496, 496, 495, 495]);
        assert!(kept[0].site < kept[1].site);
    }
}
