//! How much of a heap is resident, asked now and then while its process runs.
//!
//! Committed is address space; only the kernel knows what of it is in RAM, and
//! only while the process lives. Reports and scrapes ask as well, but a program
//! of a second has no scrape, so each connection has a task of its own here.
//!
//! # Design
//! The first samples come soon, so that short programs are seen at all; then
//! the period grows by half each time up to [`PERIOD`], or longer when asking takes long (the
//! kernel walks all pages of the process) or when many processes are connected.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Inner;
use super::record::Record;

/// Before the first sample.
const FIRST: Duration = Duration::from_millis(4);
/// Between two samples of a process that has run for a while.
const PERIOD: Duration = Duration::from_millis(250);
/// A sample's cost times this is waited for before the next: little while a
/// program is young and may be gone soon, about one percent of a core later.
const REST: [u32; 2] = [4, 100];
/// How long it is young.
const YOUNG: Duration = Duration::from_millis(250);
/// Samples without an answer, one after the other, before a process is not asked again.
const SILENT_MAX: u32 = 4;
/// With more processes than this, each is asked less often.
const AT_FULL_RATE: usize = 8;

/// Samples until the connection `generation` is over.
pub async fn run(inner: Arc<Inner>, record: Arc<Record>, generation: u64) {
    let born = Instant::now();
    let mut pause = FIRST;
    let mut cost = Duration::ZERO;
    let mut silent = 0;
    while record.is_current(generation) {
        let rest = REST[usize::from(born.elapsed() > YOUNG)];
        tokio::time::sleep(pause.max(cost * rest)).await;
        let started = Instant::now();
        silent = if take(&inner, &record).await {
            0
        } else {
            silent + 1
        };
        if silent == SILENT_MAX {
            return;
        }
        cost = started.elapsed();
        let open = inner.open.load(Ordering::Acquire);
        pause = (pause * 3 / 2).min(longest(open));
    }
}

/// The period when `open` processes are connected.
fn longest(open: usize) -> Duration {
    PERIOD * u32::try_from(open / AT_FULL_RATE).unwrap_or(1).max(1)
}

/// One sample, off this thread; false when there is nothing to ask any more.
pub async fn take(inner: &Inner, record: &Arc<Record>) -> bool {
    let _turn = inner.samples.acquire().await;
    let record = Arc::clone(record);
    let sampled = tokio::task::spawn_blocking(move || record.sample()).await;
    matches!(sampled, Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: many processes do not cost more than a few. Method: the period by their number.
    #[test]
    fn the_period_grows_with_the_crowd() {
        assert_eq!(longest(0), PERIOD);
        assert_eq!(longest(8), PERIOD);
        assert_eq!(longest(80), PERIOD * 10);
    }
}
