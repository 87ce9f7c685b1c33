//! Waiting until what a process said has all been read.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Inner, registry};

/// Between two looks.
const STEP: Duration = Duration::from_millis(2);

/// See `Hub::settle`.
pub async fn settle(inner: &Inner, pid: u32, limit: Duration) {
    let drained = async {
        knock(inner).await;
        while inner.greeting.load(Ordering::Acquire) > 0 || busy(inner, pid) {
            tokio::time::sleep(STEP).await;
        }
    };
    // What has not drained by then is simply not waited for.
    let _ = tokio::time::timeout(limit, drained).await;
}

/// Connects and leaves: connections are accepted in order, so once this one was
/// dealt with, all that were made before it have been accepted.
async fn knock(inner: &Inner) {
    if let Ok(mut stream) = UnixStream::connect(inner.socket.path()).await {
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0]).await;
    }
}

/// Whether `pid` has not been seen to end yet, or one of its forks is still being read.
fn busy(inner: &Inner, pid: u32) -> bool {
    let records = registry::lock(inner).records.clone();
    let mut family = HashSet::new();
    let mut busy = false;
    // Parents say hello before their children: one pass meets all descendants.
    for record in records {
        let own = record.is_pid(pid);
        if own || family.contains(&record.parent) {
            family.insert(record.token);
            let open = record.active.load(Ordering::Acquire);
            // The end is set a moment before its parent's note is applied: only
            // then is the record inactive.
            busy |= open || (own && record.end().is_none());
        }
    }
    busy
}
