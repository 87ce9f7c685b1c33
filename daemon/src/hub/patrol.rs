//! `--check-every`: running processes are checked now and then, unasked.
//!
//! One at a time, never while another check runs, and together no more than a hundredth of the
//! time: a check makes its process stand still for a moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clock::now_ns;
use super::record::Record;
use super::{Inner, Roots, registry, reports};

/// Between two looks at who is due.
const LOOK: Duration = Duration::from_secs(1);
/// What a check took times this is waited for before the next one.
const REST_TIMES: u32 = 99;

/// When each process was last tried.
#[derive(Debug, Default)]
struct Rounds(HashMap<u64, u64>);

impl Rounds {
    /// Who of `running` (token and start) has waited longest, when that is `every` or longer.
    fn next(&mut self, running: &[(u64, u64)], now: u64, every: Duration) -> Option<u64> {
        let known: HashSet<u64> = running.iter().map(|(token, _)| *token).collect();
        self.0.retain(|token, _| known.contains(token));
        let last = |token: &u64, start: &u64| self.0.get(token).copied().unwrap_or(*start);
        let waited = running
            .iter()
            .map(|(token, start)| (now.saturating_sub(last(token, start)), *token));
        let (longest, token) = waited.max()?;
        (u128::from(longest) >= every.as_nanos()).then_some(token)
    }

    fn tried(&mut self, token: u64, now: u64) {
        self.0.insert(token, now);
    }
}

/// Checks until the hub stops.
pub async fn run(inner: Arc<Inner>, every: Duration) {
    let mut rounds = Rounds::default();
    let mut told = HashSet::new();
    while inner.ready.load(Ordering::Acquire) {
        tokio::time::sleep(LOOK.min(every)).await;
        let running = running(&inner);
        let ids: Vec<(u64, u64)> = running
            .iter()
            .map(|record| (record.token, record.start_ns()))
            .collect();
        let busy = running
            .iter()
            .any(|record| record.checking.try_lock().is_err());
        let Some(token) = rounds.next(&ids, now_ns(), every).filter(|_| !busy) else {
            continue;
        };
        let Some(record) = running.into_iter().find(|record| record.token == token) else {
            continue;
        };
        let started = Instant::now();
        if let Err(why) = check(&inner, &record).await
            && told.insert(token)
        {
            tracing::warn!(
                pid = record.pid,
                "not checked, as --check-every asks: {why}"
            );
        }
        rounds.tried(token, now_ns());
        tokio::time::sleep(started.elapsed() * REST_TIMES).await;
    }
}

fn running(inner: &Inner) -> Vec<Arc<Record>> {
    let records = registry::lock(inner).records.clone();
    let runs = |record: &Arc<Record>| record.end().is_none();
    records.into_iter().filter(runs).collect()
}

async fn check(inner: &Arc<Inner>, record: &Arc<Record>) -> Result<(), String> {
    let (inner, record) = (Arc::clone(inner), Arc::clone(record));
    let checked =
        tokio::task::spawn_blocking(move || reports::check_record(&inner, &record, Roots::Own));
    checked
        .await
        .map_err(|error| error.to_string())?
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: each gets its turn, none sooner than asked, the gone are forgotten. Method: two processes,
    // a second a step.
    #[test]
    fn each_gets_its_turn() {
        let every = Duration::from_secs(10);
        let second = |n: u64| n * 1_000_000_000;
        let mut rounds = Rounds::default();
        let both = [(1, second(0)), (2, second(4))];
        let mut order = Vec::new();
        for now in 0..40 {
            if let Some(token) = rounds.next(&both, second(now), every) {
                rounds.tried(token, second(now));
                order.push((now, token));
            }
        }
        assert_eq!(
            order,
            [(10, 1), (14, 2), (20, 1), (24, 2), (30, 1), (34, 2)]
        );
        assert_eq!(rounds.next(&[], second(99), every), None);
        assert!(rounds.0.is_empty());
    }
}
