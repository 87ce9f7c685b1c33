//! The tick that connected processes read instead of asking for the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pageshim_wire::process::tick_from_ms;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::Inner;
use crate::ingest::SharedState;

/// Between two ticks.
const PERIOD: Duration = Duration::from_millis(4);
/// States written per period; more take turns, so that the cost is bounded
/// (16,000 small writes a second, about one percent of a core).
const AT_ONCE: usize = 64;

/// CLOCK_MONOTONIC, ns.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// CLOCK_REALTIME, ns.
pub fn realtime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// One state to keep on time.
#[derive(Debug)]
struct Target {
    token: u64,
    state: Arc<SharedState>,
    start_ns: u64,
    last: u64,
}

/// The states of all connected processes.
#[derive(Debug, Default)]
pub struct Clock {
    targets: Mutex<Vec<Target>>,
    woken: Notify,
}

impl Clock {
    /// Keeps `state` on time from now on, in place of an older one of this token.
    pub fn add(&self, token: u64, state: Arc<SharedState>, start_ns: u64) {
        self.remove(token);
        let last = 0;
        self.lock().push(Target {
            token,
            state,
            start_ns,
            last,
        });
        self.woken.notify_one();
    }

    /// Lets go of a token's state.
    pub fn remove(&self, token: u64) {
        self.lock().retain(|target| target.token != token);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the tick where it changed; returns where to go on next time.
    fn tick(&self, first: usize, now: u64) -> usize {
        let mut targets = self.lock();
        let count = targets.len();
        for step in 0..count.min(AT_ONCE) {
            let target = &mut targets[(first + step) % count];
            let tick = tick_from_ms(now.saturating_sub(target.start_ns) / 1_000_000);
            if tick > target.last {
                target.last = tick;
                target.state.set_tick(tick);
            }
        }
        first.wrapping_add(AT_ONCE) % count.max(1)
    }

    fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Ticks while any process is connected, sleeps otherwise.
pub async fn run(inner: Arc<Inner>) {
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut first = 0;
    loop {
        if inner.clock.is_idle() {
            inner.clock.woken.notified().await;
        }
        interval.tick().await;
        first = inner.clock.tick(first, now_ns());
    }
}
