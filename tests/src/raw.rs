//! A peer that speaks the protocol by hand, so that cases can break it.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pageshim_wire::VERSION;
use pageshim_wire::frame::{HEAD_BYTES, Head, Hello, Kind};
use pageshim_wire::layout::{Layout, MAGIC, word};
use pageshim_wire::process;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Connects as a shim would.
///
/// # Panics
/// When nobody listens.
pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket)
        .unwrap_or_else(|e| panic!("cannot connect to {}: {e}", socket.display()));
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout can be set");
    stream
}

/// A frame: head and payload.
pub fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        len: u32::try_from(payload.len()).expect("short"),
        kind,
        time_ns: 1,
    };
    [&head.encode()[..], payload].concat()
}

/// A correct HELLO for `token`, from this process.
pub fn hello(token: u64) -> Vec<u8> {
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
        token,
        pid: std::process::id(),
    };
    frame(Kind::Hello, &hello.encode())
}

/// Sends `bytes` with `fd` beside them.
///
/// # Panics
/// When the kernel refuses; a daemon that has closed already is no error.
pub fn send_with(stream: &UnixStream, bytes: &[u8], fd: &impl AsFd) {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
    assert!(
        matches!(sent, Ok(_) | Err(rustix::io::Errno::PIPE)),
        "sendmsg: {sent:?}"
    );
}

/// Sends `bytes`; a daemon that has closed already is no error.
pub fn send(mut stream: &UnixStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// What the daemon answered until it closed: `(kind, payload)` of each frame.
///
/// # Panics
/// When it neither closes nor answers within the read time-out.
pub fn answers_until_closed(mut stream: &UnixStream) -> Vec<(Kind, String)> {
    let mut answers = Vec::new();
    loop {
        let mut head = [0; HEAD_BYTES];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the daemon neither answered nor closed; so far {answers:?}")
            }
            Err(_) => return answers,
        }
        let head = Head::decode(&head).expect("the daemon speaks frames");
        let mut payload = vec![0; usize::try_from(head.len).expect("small")];
        stream.read_exact(&mut payload).expect("a whole frame");
        answers.push((head.kind, String::from_utf8_lossy(&payload).into_owned()));
    }
}

/// A memfd of `bytes`, holding `head` at its start, with the seals a shim sets or none.
///
/// # Panics
/// When the kernel has no memfd.
pub fn memfd(head: &[u8], bytes: u64, sealed: bool) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("pageshim-case", flags).expect("memfd_create");
    ftruncate(&fd, bytes).expect("ftruncate");
    let written = rustix::io::pwrite(&fd, head, 0).expect("pwrite");
    assert_eq!(written, head.len());
    if sealed {
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .expect("fcntl_add_seals");
    }
    fd
}

/// A small, correct layout for hand-made states.
///
/// # Panics
/// Never: the capacities are valid.
pub fn layout() -> Layout {
    Layout::new(256, 4096, 2).expect("valid capacities")
}

/// A header that says [`layout`] and names `token`, otherwise zeros.
pub fn header(token: u64) -> Vec<u8> {
    let layout = layout();
    let mut bytes = vec![0; 4096];
    let mut put = |index: usize, value: u64| {
        bytes[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
    };
    put(word::MAGIC, MAGIC);
    put(word::VERSION, u64::from(VERSION));
    put(word::SITE_CAPACITY, layout.site_capacity);
    put(word::LOG_BYTES, layout.log_bytes);
    put(word::THREAD_CAPACITY, layout.thread_capacity);
    put(process::word::TOKEN, token);
    put(process::word::PID, u64::from(std::process::id()));
    put(process::word::MODE, process::Mode::Exact as u64);
    put(process::word::SITE_COUNT, 2);
    bytes
}

/// How a peer that is no daemon behaves towards a shim.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// Accepts and never reads, so that the socket fills up.
    Silent,
    /// Closes each connection at once.
    Closing,
    /// Answers with bytes that are no frame.
    Garbage,
    /// Refuses politely, as a daemon of another version would.
    Refusing,
}

/// Runs `work` while such a peer listens on `socket`; answers how many connected and what
/// `work` did.
///
/// # Panics
/// When the socket cannot be bound.
pub fn beside<T>(peer: Peer, socket: &Path, work: impl FnOnce() -> T) -> (usize, T) {
    let listener = UnixListener::bind(socket)
        .unwrap_or_else(|e| panic!("cannot bind {}: {e}", socket.display()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            let mut kept = Vec::new();
            let mut count = 0;
            while let Ok((stream, _)) = listener.accept() {
                if done.load(Ordering::Acquire) {
                    break;
                }
                count += 1;
                match peer {
                    Peer::Silent => kept.push(stream),
                    Peer::Closing => {}
                    Peer::Garbage => {
                        send(&stream, &[0xa5; 4096]);
                        kept.push(stream);
                    }
                    Peer::Refusing => {
                        send(&stream, &frame(Kind::Refused, b"version 2 is spoken here"));
                    }
                }
            }
            count
        });
        let wake = Wake(&done, socket);
        let result = work();
        drop(wake);
        (accepting.join().expect("the peer only accepts"), result)
    })
}

/// Ends the accepting thread, also when the work beside it panics.
struct Wake<'a>(&'a AtomicBool, &'a Path);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        drop(UnixStream::connect(self.1));
    }
}
