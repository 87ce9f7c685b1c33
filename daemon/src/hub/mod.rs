//! The running daemon's heart: who is connected, what is known, who may ask.
//!
//! # Design
//! ```text
//! connections  accept, greet, read frames                   (one task each)
//! endings      what the end of a connection means for its process
//! registry     records by age, totals of forgotten ones
//! record       one process: its memfd and book, or what remains of them
//! clock        writes the tick into connected processes
//! bills        who holds the resident pages, on demand
//! checks       what is lost, on demand
//! whys         why a block is alive, on demand
//! patrol       checks of running processes now and then
//! judged       rules held against it, and the checks before
//! samples      asks now and then how much of a heap is resident
//! reports      report, metrics, capture: look at every record once, then resolve names
//! ```
//! Heavy work runs in `spawn_blocking`. Locks: the registry's is held for
//! moments; a record's while it is looked at. Never two records' at once.
//!
//! # Memory
//! Bounded, whatever processes do: names 24 MiB (`symbols::cache`), ended
//! processes 200,000 sites or about 25 MB together (`registry`), a connection
//! 16 KiB and at most one frame of 256 KiB. A running process costs 4 bytes a
//! site and 12 to 20 a stack node: 40 MB for a million sites. Trace events are
//! counted and not kept. While a report is made, blazesym adds what the debug
//! information of the files it needs takes (libc's: 30 MB).
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

mod bills;
mod charts;
mod checks;
mod clock;
mod connections;
mod endings;
mod inside;
mod judged;
mod leads;
mod patrol;
mod procfs;
mod record;
mod registry;
mod reports;
mod samples;
mod settle;
mod syscalls;
mod whys;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::bill::report::Waste;
use crate::books::history::Checks;
use crate::books::report::{Exit, Report};
use crate::books::sizes::Sizes;
use crate::books::suppress::Rules;
use crate::books::syscalls::Syscalls;
use crate::books::why::Question;
use crate::capture::CaptureError;
use crate::heatmap::report::{Asked, Chart};
use crate::ingest::socket::Socket;
use crate::symbols::Symbols;
use crate::whatif::report::WhatIf;

pub use checks::{LONGEST as LONGEST_CHECK, NoCheck, Roots};

pub use crate::books::filter::Filter;
pub use crate::ingest::socket::HubError;

/// How a hub runs.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Where processes connect.
    pub socket: PathBuf,
    /// Ended processes kept in detail (200 is a good number); older ones are in totals only.
    pub keep_exited: usize,
    /// Suppressions for the lost blocks of all processes.
    pub suppressions: Rules,
    /// Running processes are checked so often; `None` for on request only.
    pub check_every: Option<Duration>,
}

/// The heart; clones are handles to the same one.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

/// What all handles and tasks share.
struct Inner {
    config: HubConfig,
    socket: Socket,
    registry: Mutex<registry::Registry>,
    clock: clock::Clock,
    symbols: Symbols,
    /// Connections accepted and not yet past their hello.
    greeting: AtomicUsize,
    /// Connections open.
    open: AtomicUsize,
    errors: connections::Errors,
    series_dropped: AtomicU64,
    ready: AtomicBool,
    stop: Notify,
    /// Final looks at ended processes at a time: each may take much memory for a moment.
    finals: Semaphore,
    /// Samples of resident bytes at a time.
    samples: Semaphore,
}

impl Hub {
    /// Binds the socket and starts accepting. Must run inside a tokio runtime.
    pub async fn start(config: HubConfig) -> Result<Self, HubError> {
        let (socket, listener) = Socket::bind(&config.socket)?;
        let inner = Arc::new(Inner {
            config,
            socket,
            registry: Mutex::default(),
            clock: clock::Clock::default(),
            symbols: Symbols::default(),
            greeting: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            errors: connections::Errors::default(),
            series_dropped: AtomicU64::new(0),
            ready: AtomicBool::new(true),
            stop: Notify::new(),
            finals: Semaphore::new(2),
            samples: Semaphore::new(1),
        });
        tokio::spawn(connections::accept(Arc::clone(&inner), listener));
        tokio::spawn(clock::run(Arc::clone(&inner)));
        if let Some(every) = inner.config.check_every {
            tokio::spawn(patrol::run(Arc::clone(&inner), every));
        }
        Ok(Self { inner })
    }

    /// Everything known that `filter` asks for, symbolized.
    pub async fn report(&self, filter: &Filter) -> Report {
        let filter = filter.clone();
        self.blocking(move |inner| reports::report(inner, &filter))
            .await
    }

    /// Who holds the resident pages of the processes `filter` takes.
    pub async fn waste(&self, filter: &Filter) -> Waste {
        let filter = filter.clone();
        self.blocking(move |inner| reports::waste(inner, &filter))
            .await
    }

    /// The size classes of the processes `filter` takes.
    pub async fn sizes(&self, filter: &Filter) -> Sizes {
        let filter = filter.clone();
        self.blocking(move |inner| reports::sizes(inner, &filter))
            .await
    }

    /// System calls of the processes `filter` takes, by who caused them.
    pub async fn syscalls(&self, filter: &Filter) -> Syscalls {
        let filter = filter.clone();
        self.blocking(move |inner| reports::syscalls(inner, &filter))
            .await
    }

    /// What the requests of the processes `filter` takes would cost elsewhere.
    pub async fn whatif(&self, filter: &Filter) -> WhatIf {
        let filter = filter.clone();
        self.blocking(move |inner| reports::whatif(inner, &filter))
            .await
    }

    /// A picture of a running process's heap.
    pub async fn chart(&self, asked: &Asked) -> Chart {
        let asked = asked.clone();
        self.blocking(move |inner| reports::chart(inner, &asked))
            .await
    }

    /// Checks the running process `wanted` (pid, name or id) for lost blocks; its id, or
    /// why not.
    pub async fn check(&self, wanted: &str, roots: Roots) -> Result<String, NoCheck> {
        let wanted = wanted.to_owned();
        self.blocking(move |inner| reports::check(inner, &wanted, roots))
            .await
    }

    /// Checks the running process `wanted` (pid, name or id), and looks for the chain of pointers
    /// that is asked for; its id.
    pub async fn why(&self, wanted: &str, question: &Question) -> Result<String, NoCheck> {
        let (wanted, question) = (wanted.to_owned(), question.clone());
        self.blocking(move |inner| reports::why(inner, &wanted, &question))
            .await
    }

    /// The last checks of the process `wanted` (pid, name or id).
    pub async fn checks(&self, wanted: &str) -> Option<Checks> {
        let wanted = wanted.to_owned();
        self.blocking(move |inner| reports::checks(inner, &wanted))
            .await
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        self.blocking(reports::metrics).await
    }

    /// Whether the socket is being listened on.
    pub fn ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire)
    }

    /// What a parent knows from `wait()`: the exact end of its child.
    pub fn note_exit(&self, pid: u32, exit: Exit) {
        registry::lock(&self.inner).note_exit(pid, exit);
    }

    /// Waits until every connection of `pid` and of its forks has drained, at most `limit`.
    pub async fn settle(&self, pid: u32, limit: Duration) {
        settle::settle(&self.inner, pid, limit).await;
    }

    /// Writes all processes now known to a capture file.
    pub async fn write_capture(&self, path: &Path) -> Result<(), CaptureError> {
        let path = path.to_owned();
        self.blocking(move |inner| reports::capture(inner, &path))
            .await
    }

    /// Stops accepting and removes the socket. Open connections go on.
    pub fn shutdown(&self) {
        self.inner.ready.store(false, Ordering::Release);
        self.inner.stop.notify_one();
        self.inner.socket.unlink();
    }

    /// Runs `work` where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> T {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .expect("work does not panic, and blocking tasks are not cancelled")
    }
}
