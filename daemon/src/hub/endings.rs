//! What the end of a connection means for its process.
//!
//! # Design
//! The process's own word in its state comes first. Without one, a pidfd tells
//! whether it lives: dead means killed (its parent may know better, see
//! `Hub::note_exit`); alive without its heap means exec; alive with it means
//! that it closed our descriptor and may come back.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pageshim_wire::process::word;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::record::{End, Record};
use super::{Inner, procfs, registry};
use crate::books::report::{Exit, State};

/// How long a process that closed its connection is waited for before `settle`
/// stops counting it, and before it is taken for dead where the kernel has no pidfd.
const GRACE: Duration = Duration::from_millis(200);
const GRACE_BLIND: Duration = Duration::from_secs(2);

/// A handle on the end of a process.
#[expect(
    deprecated,
    reason = "an OwnedFd keeps its number while it is owned, which is all the unsafe successor asks for"
)]
pub fn watch(pid: u32) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(procfs::pidfd(pid)?, Interest::READABLE).ok()
}

/// Returns when the process has ended; never without a pidfd.
pub async fn ended(pidfd: Option<&AsyncFd<OwnedFd>>) {
    match pidfd {
        Some(pidfd) => {
            // An error means the handle is of no use any more: as good as gone.
            let _ = pidfd.readable().await;
        }
        None => std::future::pending().await,
    }
}

/// The connection is over: finds out what that means for the process.
pub async fn lost(
    inner: &Inner,
    record: &Arc<Record>,
    generation: u64,
    pidfd: Option<&AsyncFd<OwnedFd>>,
) {
    if !record.is_current(generation) {
        return;
    }
    inner.clock.remove(record.token);
    if let Some(end) = end_of(record, generation, pidfd).await {
        finish(inner, record, end, Some(generation)).await;
    }
}

/// How the process ended, waiting for that if need be; `None` when it has
/// connected again.
async fn end_of(record: &Record, generation: u64, pidfd: Option<&AsyncFd<OwnedFd>>) -> Option<End> {
    if let Some(end) = own_word(record) {
        return Some(end);
    }
    let wait = match pidfd {
        Some(_) => GRACE,
        // It was gone, and waited for, before a handle could be had.
        None if procfs::is_gone(record.peer_pid) => Duration::ZERO,
        None => GRACE_BLIND,
    };
    let gone = tokio::select! {
        () = ended(pidfd) => true,
        () = tokio::time::sleep(wait) => pidfd.is_none(),
        () = replaced(record, generation) => return None,
    };
    if !gone {
        let base = record.header(word::HEAP_BASE).unwrap_or(0);
        if !procfs::has_heap(record.peer_pid, base) {
            return Some(End::now(State::Exited, Exit::default(), true));
        }
        // Alive without a connection: it closed ours, and may come back.
        record.active.store(false, Ordering::Release);
        tokio::select! {
            () = ended(pidfd) => {}
            () = replaced(record, generation) => return None,
        }
    }
    let killed = || End::now(State::Killed, Exit::default(), false);
    Some(own_word(record).unwrap_or_else(killed))
}

/// Returns when the connection is not the process's latest any more.
async fn replaced(record: &Record, generation: u64) {
    loop {
        let changed = record.changed.notified();
        if !record.is_current(generation) {
            return;
        }
        // A change between the check and the wait is caught by the next look.
        let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
    }
}

/// What the process itself left in its state about its end.
fn own_word(record: &Record) -> Option<End> {
    let status = record.header(word::EXIT_STATUS).unwrap_or(0);
    match record.header(word::EXIT_STATE)? {
        1 => {
            let code = Some((status & 0xff) as i32);
            let exit = Exit { code, signal: None };
            Some(End::now(State::Exited, exit, false))
        }
        2 => Some(End::now(State::Exited, Exit::default(), true)),
        _ => None,
    }
}

/// Takes the final look, off this thread and a few at a time.
pub async fn finish(inner: &Inner, record: &Arc<Record>, end: End, generation: Option<u64>) {
    let _turn = inner.finals.acquire().await;
    let finishing = Arc::clone(record);
    let finished = tokio::task::spawn_blocking(move || finishing.finish(end, generation)).await;
    if !matches!(finished, Ok(true)) {
        return;
    }
    inner.clock.remove(record.token);
    let mut registry = registry::lock(inner);
    if !end.exec
        && let Some(exit) = registry.take_note(record)
    {
        record.amend(exit);
    }
    registry.fold(inner.config.keep_exited);
    drop(registry);
    record.active.store(false, Ordering::Release);
}
