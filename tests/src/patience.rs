//! How long a case has waited, as far as it could look.
//!
//! A machine can stand still for a minute (its host has other work, a laptop sleeps), and
//! everyone finds the deadline passed at once. Time in which nobody ran is nobody's fault.

use std::time::{Duration, Instant};

/// The most that counts between two looks.
const STEP: Duration = Duration::from_secs(1);

/// A deadline that is looked at more often than once a second.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    /// It ends after `limit`.
    pub fn new(limit: Duration) -> Self {
        Self {
            left: limit,
            looked: Instant::now(),
        }
    }

    /// True once the limit has passed. Asked after the condition that is waited for has been looked at.
    pub fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let since = now.duration_since(self.looked).min(STEP);
        self.left = self.left.saturating_sub(since);
        self.looked = now;
        self.left.is_zero()
    }
}
