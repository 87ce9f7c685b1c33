//! The connection to the daemon: handshake, hand-over of the memfd, frames.
//!
//! # Design
//! One non-blocking socket. Whoever has a frame to send sends it under a lock it
//! never waits for long; a socket that is full for [`WAIT_MS`] loses the frame,
//! counted. A lost or absent daemon is looked for again once a second, from
//! upkeep, with the same memfd and so with the whole history.
//!
//! # Failure
//! The program goes on; nothing here prints, but for a daemon that refuses us.
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pageshim_core::sync::Lock;
use pageshim_core::sys;
use pageshim_wire::VERSION;
use pageshim_wire::frame::{HEAD_BYTES, Head, Hello, Kind};
use pageshim_wire::layout::MAGIC;
use pageshim_wire::process::{Drop as Dropped, word};

use crate::boot;
use crate::config::Line;
use crate::world::STATE;

const WAIT_MS: u32 = 20;
const RETRY_MS: u64 = 1000;
const FD_LOWEST: i32 = 900;
const SYSTEM_SOCKET: &[u8] = b"/run/pageshim/pageshim.sock";

#[derive(Clone, Copy)]
struct Link {
    fd: i32,
    identity: (u64, u64),
    refused: bool,
}

static LINK: Lock<Link> = Lock::new(Link {
    fd: -1,
    identity: (0, 0),
    refused: false,
});
static NEXT_TRY_MS: AtomicU64 = AtomicU64::new(0);

impl Link {
    /// True while the descriptor is still the socket we opened.
    fn is_open(&self) -> bool {
        self.fd >= 0 && sys::identity(self.fd) == Some(self.identity)
    }

    fn close(&mut self) {
        if self.is_open() {
            sys::close(self.fd);
        }
        self.fd = -1;
    }

    /// Sends one frame whole, or closes the connection when it went out in part.
    fn send(&mut self, kind: Kind, payload: &[u8], passed: Option<i32>) -> bool {
        let head = Head {
            len: u32::try_from(payload.len()).unwrap_or(0),
            kind,
            time_ns: sys::fast_monotonic_ns(),
        }
        .encode();
        let total = HEAD_BYTES + payload.len();
        let mut sent = 0;
        while sent < total {
            let first = head.get(sent..).unwrap_or(&[]);
            let second = payload
                .get(sent.saturating_sub(HEAD_BYTES)..)
                .unwrap_or(&[]);
            let passed = passed.filter(|_| sent == 0);
            match sys::send(self.fd, first, second, passed) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.0 == sys::EINTR => {}
                Err(error) if error.0 == sys::EAGAIN => {
                    if !sys::wait_writable(self.fd, WAIT_MS) {
                        STATE.count_drop(Dropped::SocketFull);
                        if sent > 0 {
                            self.close();
                        }
                        return false;
                    }
                }
                Err(_) => {
                    self.close();
                    return false;
                }
            }
        }
        STATE.add(word::EVENTS + kind as usize, 1);
        true
    }

    fn open(&mut self) -> bool {
        let Some(memfd) = STATE.fd() else {
            return false;
        };
        let Some(fd) = dial() else {
            return false;
        };
        self.fd = sys::move_high(fd, FD_LOWEST);
        self.identity = sys::identity(self.fd).unwrap_or((0, 0));
        let hello = Hello {
            magic: MAGIC,
            version: VERSION,
            token: STATE.get(word::TOKEN),
            pid: sys::process_id(),
        };
        self.send(Kind::Hello, &hello.encode(), Some(memfd))
    }

    /// Reads what the daemon has to say: nothing, its refusal, or its end.
    fn listen(&mut self) {
        let mut bytes = [0; 300];
        match sys::receive(self.fd, &mut bytes) {
            Ok(0) => self.close(),
            Ok(count) => {
                let (head, text) = bytes.split_at(HEAD_BYTES);
                let kind = head
                    .try_into()
                    .ok()
                    .and_then(|head| Head::decode(head).ok());
                if count > HEAD_BYTES && kind.is_none_or(|head| head.kind == Kind::Refused) {
                    self.refused = true;
                    self.close();
                    complain(text.get(..count - HEAD_BYTES).unwrap_or(&[]));
                }
            }
            Err(error) if error.0 == sys::EAGAIN || error.0 == sys::EINTR => {}
            Err(_) => self.close(),
        }
    }
}

fn dial() -> Option<i32> {
    let config = boot::config()?;
    if let Some(path) = &config.socket {
        return sys::connect_unix(path.as_bytes()).ok();
    }
    if let Some(dir) = &config.runtime_dir {
        let dir = dir.as_bytes();
        let mut path = [0; 108];
        let name = b"/pageshim.sock";
        let end = dir.len() + name.len();
        path.get_mut(..dir.len())?.copy_from_slice(dir);
        path.get_mut(dir.len()..end)?.copy_from_slice(name);
        if let Ok(fd) = sys::connect_unix(path.get(..end)?) {
            return Some(fd);
        }
    }
    sys::connect_unix(SYSTEM_SOCKET).ok()
}

fn complain(reason: &[u8]) {
    let mut line = Line::new();
    line.text(b"pageshim: the daemon refused this process: ");
    line.text(reason);
    line.text(b"\n");
    let _ = sys::write(2, line.bytes());
}

/// Connects when a daemon is there.
pub(crate) fn connect_now() {
    NEXT_TRY_MS.store(0, Ordering::Relaxed);
    keep();
}

/// Looks after the connection, at most once a second.
pub(crate) fn keep() {
    let now = sys::coarse_ms();
    if !STATE.exists() || now < NEXT_TRY_MS.load(Ordering::Relaxed) {
        return;
    }
    NEXT_TRY_MS.store(now + RETRY_MS, Ordering::Relaxed);
    let Some(mut link) = LINK.try_lock() else {
        return;
    };
    if link.is_open() {
        link.listen();
    }
    if !link.is_open() && !link.refused {
        link.fd = -1;
        link.open();
    }
}

/// Sends a frame of words.
pub(crate) fn send_words(kind: Kind, words: &[u64]) {
    let mut bytes = [0; 64];
    for (room, word) in bytes.chunks_exact_mut(8).zip(words) {
        room.copy_from_slice(&word.to_le_bytes());
    }
    send(kind, bytes.get(..words.len() * 8).unwrap_or(&[]));
}

/// Sends a frame; false when it was dropped, which is counted.
pub(crate) fn send(kind: Kind, payload: &[u8]) -> bool {
    if !STATE.exists() {
        return false;
    }
    let mut link = LINK.lock();
    if link.is_open() {
        return link.send(kind, payload, None);
    }
    drop(link);
    // Everything but trace events is in the state as well and reaches a late daemon.
    if kind == Kind::Batch {
        STATE.count_drop(Dropped::NoDaemon);
    }
    false
}

/// Lets the daemon read this process's memory.
pub(crate) fn consent() {
    let link = LINK.lock();
    if let Some(daemon) = link.is_open().then(|| sys::peer_pid(link.fd)).flatten() {
        sys::consent(daemon);
    }
}

/// Asks the daemon to hold this process and have it checked; false when nobody can be asked. May be
/// called by a signal handler.
pub(crate) fn ask_for_check(limit_ms: u64) -> bool {
    const TRIES: usize = 100;
    let word = AtomicU32::new(0);
    for _ in 0..TRIES {
        let Some(mut link) = LINK.try_lock() else {
            sys::wait_while(&word, 0, 1);
            continue;
        };
        if !link.is_open() {
            return false;
        }
        if let Some(daemon) = sys::peer_pid(link.fd) {
            sys::consent(daemon);
        }
        return link.send(Kind::Check, &limit_ms.to_le_bytes(), None);
    }
    false
}

/// True when the daemon has closed the connection, or there was none.
pub(crate) fn is_lost() -> bool {
    let link = LINK.try_lock();
    link.is_some_and(|link| !link.is_open() || sys::has_hung_up(link.fd))
}

/// In a forked child: the connection is the parent's.
pub(crate) fn forget() {
    let mut link = LINK.lock();
    link.close();
    link.refused = false;
}

/// Takes the lock for the time of a fork.
pub(crate) fn hold() {
    LINK.hold();
}

/// Opens it again.
pub(crate) fn release() {
    // SAFETY: called by the thread that holds it, in the parent or as the child's only thread.
    #[expect(unsafe_code, reason = "one call, see above")]
    unsafe {
        LINK.release();
    }
}
