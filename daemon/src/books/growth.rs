//! Whether a site's blocks become more: a leak that is still reachable, or a cache that is full?
//!
//! # Design
//! Live bytes of the [`SITES_MAX`] largest sites, noted now and then. When a series has
//! [`POINTS_MAX`] points every second one goes and the next are taken half as often, so that they
//! reach back to the process's first minutes in 100 KiB. The slope is that of the later half of
//! them: what a program fills when it starts is no leak.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Sites looked at in a process.
pub const SITES_MAX: usize = 64;
/// Points of a site.
const POINTS_MAX: usize = 32;
/// Points a slope needs.
const POINTS_MIN: usize = 4;
/// Seconds between the first points.
const FIRST: f64 = 1.0;

/// How a site's live bytes go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Share of all blocks ever allocated here that were freed.
    pub released_percent: f64,
    /// Slope of the site's live bytes, all classes, over `span_seconds`; null of a site that was
    /// not among the largest for long enough.
    pub bytes_per_minute: Option<f64>,
    /// Time the slope was seen over; 0 without one.
    pub span_seconds: f64,
}

/// The series of one process.
#[derive(Clone, Debug)]
pub struct Trend {
    series: HashMap<u32, Vec<(f64, u64)>>,
    period: f64,
    due: f64,
}

impl Default for Trend {
    fn default() -> Self {
        Self {
            series: HashMap::new(),
            period: FIRST,
            due: FIRST,
        }
    }
}

impl Trend {
    /// Whether the next points are due, `seconds` after the start.
    pub fn is_due(&self, seconds: f64) -> bool {
        seconds >= self.due
    }

    /// Notes the live bytes of the largest sites. The next points are due not before
    /// `rest_seconds`. A site that is no longer among the largest is forgotten.
    pub fn note(&mut self, seconds: f64, rest_seconds: f64, largest: &[(u32, u64)]) {
        let mut before = std::mem::take(&mut self.series);
        let mut full = false;
        for (site, bytes) in largest.iter().take(SITES_MAX) {
            let mut points = before.remove(site).unwrap_or_default();
            points.push((seconds, *bytes));
            full |= points.len() >= POINTS_MAX;
            self.series.insert(*site, points);
        }
        if full {
            self.period *= 2.0;
            self.series.values_mut().for_each(thin);
        }
        self.due = seconds + self.period.max(rest_seconds);
    }

    /// Bytes per minute of a site, and over how many seconds; `None` when too little is known.
    pub fn slope(&self, site: u32) -> Option<(f64, f64)> {
        let points = self.series.get(&site)?;
        let (first, last) = (points.first()?.0, points.last()?.0);
        let later = points.partition_point(|point| point.0 < f64::midpoint(first, last));
        let later = points
            .get(later..)
            .filter(|later| later.len() >= POINTS_MIN)?;
        let span = last - later.first()?.0;
        (span > 0.0).then(|| (60.0 * least_squares(later), span))
    }
}

/// Every second point, the newest kept.
fn thin(points: &mut Vec<(f64, u64)>) {
    let newest = points.len().wrapping_sub(1);
    let mut index = 0;
    points.retain(|_| {
        let keep = (newest - index).is_multiple_of(2);
        index += 1;
        keep
    });
}

/// Bytes a second of the line nearest to all points.
fn least_squares(points: &[(f64, u64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, u64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (time, bytes) = (mean(&|point| point.0), mean(&|point| point.1 as f64));
    let both = mean(&|point| (point.0 - time) * (point.1 as f64 - bytes));
    let square = mean(&|point| (point.0 - time).powi(2));
    if square > 0.0 { both / square } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: u32, bytes: impl Fn(f64) -> u64) -> Trend {
        let mut trend = Trend::default();
        for step in 0..seconds * 4 {
            let now = f64::from(step) / 4.0;
            if trend.is_due(now) {
                trend.note(now, 0.0, &[(7, bytes(now)), (8, 1000)]);
            }
        }
        trend
    }

    // Goal: a leak has its slope, a cache that is full none, whatever it was at first.
    // Method: a line, a ramp that ends after a tenth of the time, and a constant.
    #[test]
    fn slopes_are_those_of_the_later_half() {
        for seconds in [10, 100, 10_000] {
            let (slope, span) = run(seconds, |now| (now * 100.0) as u64)
                .slope(7)
                .expect("enough");
            assert!((slope - 6000.0).abs() < 60.0, "{slope}");
            assert!(span > 0.3 * f64::from(seconds) && span <= f64::from(seconds));
        }
        let ramp = run(1000, |now| (now.min(100.0) * 1e6) as u64);
        assert_eq!(ramp.slope(7).map(|slope| slope.0), Some(0.0));
        assert_eq!(ramp.slope(8).map(|slope| slope.0), Some(0.0));
        assert_eq!(ramp.slope(9), None);
        assert_eq!(run(3, |_| 1).slope(7), None, "too early");
    }

    // Goal: memory and time are bounded. Method: a long run, more sites than are kept, a rest.
    #[test]
    fn what_is_kept_is_bounded() {
        let mut trend = run(100_000, |_| 1);
        assert!(
            trend
                .series
                .values()
                .all(|points| points.len() < POINTS_MAX)
        );
        assert!(trend.period > 1000.0);
        let many: Vec<(u32, u64)> = (0..500).map(|site| (site, 1)).collect();
        trend.note(100_001.0, 9_000.0, &many);
        assert_eq!(trend.series.len(), SITES_MAX);
        assert!(!trend.is_due(109_000.0) && trend.is_due(109_001.0));
    }
}
