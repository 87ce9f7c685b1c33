//! A hub in a test, and clients made by hand.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pageshim_wire::VERSION;
use pageshim_wire::frame::{HEAD_BYTES, Head, Hello, Kind};
use pageshim_wire::layout::MAGIC;
use pageshim_wire::process::word;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::{Filter, Hub, HubConfig, registry};
use crate::books::fake::State as Fake;
use crate::books::report::{Process, Report, State};
use crate::books::suppress::Rules;

/// A hub in a directory of its own.
pub struct Host {
    /// The hub.
    pub hub: Hub,
    /// Where its socket `s.sock` is.
    pub dir: PathBuf,
}

impl Host {
    /// Starts one that keeps two ended processes.
    pub async fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("pageshim-hub-{name}-{}", std::process::id()));
        let config = HubConfig {
            socket: dir.join("s.sock"),
            keep_exited: 2,
            suppressions: Rules::default(),
            check_every: None,
        };
        let hub = Hub::start(config).await.expect("a fresh place");
        Self { hub, dir }
    }

    /// Connects.
    pub async fn client(&self) -> Client {
        Client(
            UnixStream::connect(self.dir.join("s.sock"))
                .await
                .expect("listening"),
        )
    }

    /// All of it.
    pub async fn report(&self) -> Report {
        self.hub.report(&Filter::default()).await
    }

    /// The process of a token, once `when` holds for it; one that has ended, once all that follows
    /// from that is done.
    pub async fn process(&self, token: u64, when: impl Fn(&Process) -> bool) -> Process {
        for _ in 0..500 {
            let id = format!("{token:016x}");
            let found = self
                .report()
                .await
                .processes
                .into_iter()
                .find(|found| found.id == id);
            if let Some(process) = found.filter(&when)
                && (process.state == State::Running || !self.is_active(token))
            {
                return process;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "process {token:x} never came to be so: {:?}",
            self.report().await.processes
        );
    }

    fn is_active(&self, token: u64) -> bool {
        let registry = registry::lock(&self.hub.inner);
        let mut records = registry.records.iter();
        records.any(|record| record.token == token && record.active.load(Ordering::Acquire))
    }

    /// The value of a series in `/metrics`.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.hub.metrics().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().expect("a number"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.hub.shutdown();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What a shim does, by hand.
pub struct Client(pub UnixStream);

impl Client {
    /// Sends bytes with descriptors beside them.
    pub async fn send(&self, bytes: &[u8], descriptors: &[&OwnedFd]) {
        let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        }
        let mut send = || {
            let parts = [IoSlice::new(bytes)];
            Ok(rustix::net::sendmsg(
                &self.0,
                &parts,
                &mut control,
                SendFlags::NOSIGNAL,
            )?)
        };
        self.0
            .async_io(Interest::WRITABLE, &mut send)
            .await
            .expect("open");
    }

    /// Says hello for a state and reads the answer.
    pub async fn hello(&mut self, token: u64, pid: u32, memfd: &OwnedFd) -> (Kind, String) {
        self.send(&hello(token, pid, VERSION), &[memfd]).await;
        self.answer().await
    }

    /// The daemon's answer.
    pub async fn answer(&mut self) -> (Kind, String) {
        let mut head = [0; HEAD_BYTES];
        self.0.read_exact(&mut head).await.expect("an answer");
        let head = Head::decode(&head).expect("ours");
        let mut text = vec![0; head.len as usize];
        self.0.read_exact(&mut text).await.expect("whole");
        (head.kind, String::from_utf8(text).expect("text"))
    }

    /// Sends a frame.
    pub async fn frame(&mut self, kind: Kind, payload: &[u8]) {
        self.0.write_all(&frame(kind, payload)).await.expect("open");
    }

    /// Waits for the daemon to close.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(7), self.0.read_to_end(&mut rest));
        let _ = read.await.expect("closed in time");
    }
}

/// A frame's bytes.
pub fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        len: payload.len() as u32,
        kind,
        time_ns: 1,
    };
    [&head.encode()[..], payload].concat()
}

/// A hello's bytes.
pub fn hello(token: u64, pid: u32, version: u32) -> Vec<u8> {
    let hello = Hello {
        magic: MAGIC,
        version,
        token,
        pid,
    };
    frame(Kind::Hello, &hello.encode())
}

/// A state in sealed memory.
pub fn memfd(fake: &Fake, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("state", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)
        .expect("memory");
    rustix::io::pwrite(&fd, &fake.bytes, 0).expect("memory");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("sealing");
    fd
}

/// Sets a header word from outside.
pub fn set(fd: &OwnedFd, index: usize, value: u64) {
    rustix::io::pwrite(fd, &value.to_le_bytes(), index as u64 * 8).expect("writable");
}

/// A process with one site: 3 blocks of 30 bytes, 1 freed.
pub fn state(token: u64, pid: u32, name: &str) -> Fake {
    let mut fake = Fake::new();
    fake.set(word::TOKEN, token).set(word::PID, u64::from(pid));
    fake.set(
        word::START_MONOTONIC_NS,
        super::clock::now_ns() - 5_000_000_000,
    );
    fake.text(
        pageshim_wire::process::EXE_TEXT,
        word::EXE_LEN,
        format!("/bin/{name}").as_bytes(),
    );
    fake.class_table(&[[32, 4096, 100]]);
    fake.thread(0, 1, "main").class(0, 0, [3, 90, 1, 30]);
    fake.stack(2, &[0x7f00_0010], (0, 0))
        .site_counters(0, 2, [3, 90, 1, 30, 0]);
    fake
}

/// A sound state of one site, sealed.
pub fn good(token: u64, pid: u32, name: &str) -> OwnedFd {
    memfd(&state(token, pid, name), SealFlags::SHRINK)
}
