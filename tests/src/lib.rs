//! The harness of the end-to-end cases: real shim, real daemon, real programs.
//!
//! # Design
//! ```text
//! tests/*.rs      cases, one file per area, or a directory of rooms
//!   trial         a program with and without the shim must say the same
//!   underrun      the same through `pageshim run`, with a planted leak
//!   daemon        a daemon of the case's own: socket, port, data directory
//!   view, metrics what an operator sees: /leaks.json and /metrics, parsed
//!   raw           a peer that breaks the protocol on purpose
//!   browser       a chromium that presses keys
//!   planted       programs that lose blocks, their classes, Memcheck's word
//!   job           one program run, with a deadline
//!   patience      the deadline of everything that is waited for
//!   programs      victims from tests/programs, compiled once
//!   ways          how a running program is checked, each way forced
//!   setting       settings of the whole system, changed for a moment
//!   places, temp  where the built files are; directories that go away
//! ```
//! # Invariants
//! I1. A case owns everything it touches, so cases run side by side.
//! I2. Nothing sleeps and hopes: [`wait_until`] polls a condition up to a deadline.
//! I3. Whatever a case started is dead and its directory gone when it ends.

pub mod browser;
pub mod daemon;
pub mod http;
pub mod job;
pub mod metrics;
pub mod patience;
pub mod places;
pub mod planted;
pub mod programs;
pub mod raw;
pub mod setting;
pub mod temp;
pub mod trial;
pub mod underrun;
pub mod view;
pub mod ways;

use std::time::Duration;

pub use browser::Browser;
pub use daemon::Daemon;
pub use job::{Ended, Job, Outcome, Running};
pub use patience::Patience;
pub use setting::Setting;
pub use temp::Temp;
pub use trial::{Preload, Trial};
pub use view::View;
pub use ways::Way;

/// How long a case waits for something that normally takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `probe` answers, and fails the case with `what` after `limit`.
///
/// # Panics
/// When the deadline passes: the case has failed.
pub fn wait_until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut patience = Patience::new(limit);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(!patience.is_over(), "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// True when the case runs as root (some cases need another user to act as).
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
