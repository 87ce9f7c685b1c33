//! Accepting, and the task of each connection.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pageshim_wire::frame::{KINDS, Kind};
use pageshim_wire::word_at;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};

use super::endings::{ended, finish, lost, watch};
use super::record::{End, Record};
use super::{Inner, checks, registry, samples};
use crate::books::report::{Exit, State};
use crate::ingest::frames::{Frames, check, count_batch};
use crate::ingest::handshake::{refuse, welcome};
use crate::ingest::{Refusal, SharedState, greet, refusal};

/// Connections at a time; each takes three descriptors.
const OPEN_MAX: usize = 4096;
/// How long frames may still come after the process was seen to end.
const DRAIN: Duration = Duration::from_millis(20);
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
        let samples = samples::run(Arc::clone(&inner), Arc::clone(&record), generation);
        let samples = tokio::spawn(samples);
        let read = read_frames(&inner, &record, &mut stream, frames, pidfd.as_ref()).await;
        samples.abort();
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
    match register(inner, stream, open).await {
        Ok(arrived) => Some(arrived),
        // `settle`, `ps`, `doctor` and `run` knock and leave.
        Err(Refusal::Knocked) => None,
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
    record: &Arc<Record>,
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
            if head.kind == Kind::Misuse {
                record.misuse(payload);
            }
            if head.kind == Kind::Exit {
                // The last moment the kernel can be asked about this process.
                samples::take(inner, record).await;
            }
            if head.kind == Kind::Check && !record.asked_last.swap(true, Ordering::AcqRel) {
                let limit = Duration::from_millis(word_at(payload, 0));
                let record = Arc::clone(record);
                tokio::task::spawn_blocking(move || checks::check_last(&record, limit));
            }
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
