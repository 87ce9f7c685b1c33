//! Accepting, and the task of each connection.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pageshim_wire::frame::{KINDS, Kind};
use pageshim_wire::process::word;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{UnixListener, UnixStream};

use super::record::{End, Record};
use super::{Inner, procfs, registry};
use crate::books::report::{Exit, State};
use crate::ingest::frames::{Frames, check, count_batch};
use crate::ingest::handshake::{refuse, welcome};
use crate::ingest::{Refusal, SharedState, greet, refusal};

/// Connections at a time; each takes three descriptors.
const OPEN_MAX: usize = 4096;
/// How long frames may still come after the process was seen to end.
const DRAIN: Duration = Duration::from_millis(20);
/// How long a process that closed its connection is waited for before `settle`
/// stops counting it, and before it is taken for dead where the kernel has no pidfd.
const GRACE: Duration = Duration::from_millis(200);
const GRACE_BLIND: Duration = Duration::from_secs(2);

/// Refusals and broken streams by reason; each reason is logged once.
#[derive(Debug, Default)]
pub struct Errors(Mutex<BTreeMap<&'static str, u64>>);

impl Errors {
    fn count(&self, reason: &'static str, text: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(reason).or_default();
        *count += 1;
        if *count == 1 {
            tracing::warn!(
                reason,
                "{text} (further ones of this reason are counted, not logged)"
            );
        }
    }

    /// All reasons with their counts, those never met included.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |reason| counts.get(reason).copied().unwrap_or(0);
        refusal::REASONS
            .map(|reason| (reason, count(reason)))
            .to_vec()
    }
}

/// Accepts until told to stop.
pub async fn accept(inner: Arc<Inner>, listener: UnixListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = inner.stop.notified() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                inner.greeting.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(serve(Arc::clone(&inner), stream));
            }
            Err(error) => {
                // Most likely out of descriptors: others may end meanwhile.
                tracing::warn!(%error, "cannot accept a connection, trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection from accept to its end.
async fn serve(inner: Arc<Inner>, mut stream: UnixStream) {
    let open = inner.open.fetch_add(1, Ordering::AcqRel);
    let arrived = arrive(&inner, &mut stream, open).await;
    inner.greeting.fetch_sub(1, Ordering::AcqRel);
    if let Some((record, generation, frames)) = arrived {
        let pidfd = watch(record.peer_pid);
        let read = read_frames(&inner, &record, &mut stream, frames, pidfd.as_ref()).await;
        if let Err(refusal) = read {
            inner.errors.count(refusal.reason(), &refusal.to_string());
        }
        drop(stream);
        lost(&inner, &record, generation, pidfd.as_ref()).await;
    }
    inner.open.fetch_sub(1, Ordering::AcqRel);
}

async fn arrive(
    inner: &Arc<Inner>,
    stream: &mut UnixStream,
    open: usize,
) -> Option<(Arc<Record>, u64, Frames)> {
    let own = stream.peer_cred().ok().and_then(|peer| peer.pid());
    match register(inner, stream, open).await {
        Ok(arrived) => Some(arrived),
        // `settle` knocks and leaves to see how far accepting has come.
        Err(Refusal::Gone)
            if own.and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()) =>
        {
            None
        }
        Err(refusal) => {
            inner.errors.count(refusal.reason(), &refusal.to_string());
            refuse(stream, &refusal).await;
            None
        }
    }
}

async fn register(
    inner: &Arc<Inner>,
    stream: &mut UnixStream,
    open: usize,
) -> Result<(Arc<Record>, u64, Frames), Refusal> {
    if open >= OPEN_MAX {
        return Err(Refusal::TooMany(OPEN_MAX));
    }
    let mut arrival = greet(stream).await?;
    let frames = std::mem::take(&mut arrival.frames);
    let (record, state, generation) = registry::lock(inner).arrive(arrival)?;
    record.count(Kind::Hello as usize, 1);
    start_clock(inner, &record, state);
    let older = registry::lock(inner).replaced_by(&record);
    for image in older {
        let exec = End::now(State::Exited, Exit::default(), true);
        finish(inner, &image, exec, None).await;
    }
    if welcome(stream).await.is_err() {
        tracing::debug!(pid = record.pid, "left before its welcome");
    }
    Ok((record, generation, frames))
}

fn start_clock(inner: &Inner, record: &Record, state: Arc<SharedState>) {
    let start_ns = record.start_ns();
    inner.clock.add(record.token, state, start_ns);
}

/// Reads frames until the stream ends, breaks, or the process is gone and the
/// stream is silent (a child may still hold the other end).
async fn read_frames(
    inner: &Inner,
    record: &Record,
    stream: &mut UnixStream,
    mut frames: Frames,
    pidfd: Option<&AsyncFd<OwnedFd>>,
) -> Result<(), Refusal> {
    let mut part = vec![0; 16 * 1024];
    let mut gone = false;
    loop {
        while let Some((head, payload)) = frames.next()? {
            check(head.kind, payload)?;
            record.count(head.kind as usize, 1);
            if head.kind == Kind::Batch {
                let (allocations, frees) = count_batch(payload)?;
                record.count(KINDS, allocations);
                record.count(KINDS + 1, frees);
            }
        }
        let read = if gone {
            tokio::time::timeout(DRAIN, stream.read(&mut part))
                .await
                .unwrap_or(Ok(0))
        } else {
            tokio::select! {
                read = stream.read(&mut part) => read,
                () = ended(pidfd) => {
                    gone = true;
                    continue;
                }
            }
        };
        match read {
            Ok(count) if count > 0 => frames.push(&part[..count]),
            _ if frames.is_half() => {
                inner
                    .errors
                    .count("half_frame", "a connection ended inside a frame");
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

/// A handle on the end of a process.
#[expect(
    deprecated,
    reason = "an OwnedFd keeps its number while it is owned, which is all the unsafe successor asks for"
)]
fn watch(pid: u32) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(procfs::pidfd(pid)?, Interest::READABLE).ok()
}

/// Returns when the process has ended; never without a pidfd.
async fn ended(pidfd: Option<&AsyncFd<OwnedFd>>) {
    match pidfd {
        Some(pidfd) => {
            // An error means the handle is of no use any more: as good as gone.
            let _ = pidfd.readable().await;
        }
        None => std::future::pending().await,
    }
}

/// The connection is over: finds out what that means for the process.
async fn lost(
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
    let wait = if pidfd.is_some() { GRACE } else { GRACE_BLIND };
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
async fn finish(inner: &Inner, record: &Arc<Record>, end: End, generation: Option<u64>) {
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
