//! The first frame of a connection.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use pageshim_wire::VERSION;
use pageshim_wire::frame::{Head, Hello, Kind};
use pageshim_wire::process::word;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::frames::Frames;
use super::{Refusal, SharedState};

/// How long a client may take to say hello.
pub const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// How long an answer may take to be written.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Descriptors looked at in one message; the kernel closes more.
const DESCRIPTORS: usize = 4;

/// A client that said a sound hello.
#[derive(Debug)]
pub struct Arrival {
    /// What it said.
    pub hello: Hello,
    /// Its state.
    pub state: SharedState,
    /// Its process id as the daemon sees it; 0 when it cannot.
    pub peer_pid: u32,
    /// Its user.
    pub uid: u32,
    /// What was read past the hello.
    pub frames: Frames,
}

/// Waits for hello and checks all of it.
pub async fn greet(stream: &UnixStream) -> Result<Arrival, Refusal> {
    let credentials = stream.peer_cred().map_err(|_| Refusal::Gone)?;
    let own = rustix::process::geteuid().as_raw();
    if credentials.uid() != own && own != 0 {
        let peer = credentials.uid();
        return Err(Refusal::User { peer, own });
    }
    let slow = |_| Refusal::Slow(HELLO_LIMIT.as_secs());
    let (hello, fd, frames) = tokio::time::timeout(HELLO_LIMIT, hello(stream))
        .await
        .map_err(slow)??;
    let state = SharedState::check(fd.ok_or(Refusal::NoMemfd)?)?;
    if hello.token == 0 || hello.token != state.header(word::TOKEN) {
        return Err(Refusal::Token);
    }
    Ok(Arrival {
        hello,
        state,
        peer_pid: credentials
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0),
        uid: credentials.uid(),
        frames,
    })
}

/// Says welcome.
pub async fn welcome(stream: &mut UnixStream) -> io::Result<()> {
    answer(stream, Kind::Welcome, &[]).await
}

/// Says why not. The client may be gone already; that is its business.
pub async fn refuse(stream: &mut UnixStream, refusal: &Refusal) {
    let _ = answer(stream, Kind::Refused, refusal.to_string().as_bytes()).await;
}

async fn answer(stream: &mut UnixStream, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let head = Head {
        len: u32::try_from(payload.len()).unwrap_or(0),
        kind,
        time_ns: 0,
    };
    let frame = [&head.encode()[..], payload].concat();
    tokio::time::timeout(ANSWER_LIMIT, stream.write_all(&frame)).await?
}

/// Reads until the first frame is whole, keeping the first descriptor that came.
async fn hello(stream: &UnixStream) -> Result<(Hello, Option<OwnedFd>, Frames), Refusal> {
    let mut frames = Frames::default();
    let mut memfd = None;
    let mut begun = false;
    loop {
        let mut part = [0; 4096];
        let received = stream
            .async_io(Interest::READABLE, || receive(stream, &mut part))
            .await;
        let (count, fd) = match received {
            Ok((count, fd)) if count > 0 => (count, fd),
            _ if begun => return Err(Refusal::Gone),
            _ => return Err(Refusal::Knocked),
        };
        begun = true;
        memfd = memfd.or(fd);
        frames.push(&part[..count]);
        if let Some((head, payload)) = frames.next()? {
            if head.kind != Kind::Hello {
                return Err(Refusal::NotHello);
            }
            let hello = Hello::decode(payload)?;
            if hello.version != VERSION {
                return Err(Refusal::Version {
                    theirs: hello.version,
                });
            }
            return Ok((hello, memfd, frames));
        }
    }
}

/// One message: its bytes, and its first descriptor. Surplus ones are closed.
fn receive(stream: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(into)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = rustix::net::recvmsg(stream, &mut parts, &mut control, flags)?;
    let mut first = None;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = ancillary {
            for fd in descriptors {
                first.get_or_insert(fd);
            }
        }
    }
    Ok((message.bytes, first))
}
