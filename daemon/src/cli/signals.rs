//! Which signals were ignored when we started: they stay so for the child.
//!
//! A handler of ours would be reset to the default by the child's exec, which
//! would undo `nohup` and a shell's `&`. So no handler is set where the signal
//! is ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Handlers for the signals that concern `run` and `daemon`.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    quit: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// For `run`: what is ignored stays ignored. Must be called inside a tokio runtime.
    pub(crate) fn beside_child() -> std::io::Result<Self> {
        Self::except(ignored())
    }

    /// For `daemon`, which has no child: a signal somebody sends is meant for it, `&` or not.
    pub(crate) fn all() -> std::io::Result<Self> {
        Self::except(0)
    }

    fn except(ignored: u64) -> std::io::Result<Self> {
        let handler = |kind: SignalKind| {
            let bit = 1u64 << (kind.as_raw_value() - 1);
            if ignored & bit != 0 {
                Ok(None)
            } else {
                signal(kind).map(Some)
            }
        };
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            quit: handler(SignalKind::quit())?,
            terminate: handler(SignalKind::terminate())?,
            hangup: handler(SignalKind::hangup())?,
        })
    }

    /// The next signal somebody sent.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            () = received(&mut self.interrupt) => libc::SIGINT,
            () = received(&mut self.quit) => libc::SIGQUIT,
            () = received(&mut self.terminate) => libc::SIGTERM,
            () = received(&mut self.hangup) => libc::SIGHUP,
        }
    }
}

async fn received(handler: &mut Option<Signal>) {
    if let Some(signal) = handler
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// The kernel's mask of ignored signals, from /proc; zero when it cannot be read.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    // Goal: the mask is really read. Method: Rust ignores SIGPIPE in every program, bit 12.
    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert_ne!(super::ignored() & 1 << 12, 0);
    }
}
