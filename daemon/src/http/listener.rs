//! Connections that cannot hurt: at most [`CONNECTIONS`], each cut when it stands still.
//!
//! # Invariants
//! I1. A connection that has written nothing for [`PATIENCE`] is closed, however
//!     busily it reads: half a request sent byte by byte, an idle keep-alive and
//!     a reader that stopped reading all end here.
//! I2. An open connection holds a permit; without one, clients wait in the
//!     kernel's queue.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Most connections at a time.
pub(crate) const CONNECTIONS: usize = 256;
/// Longest time without a written byte. Longer than any report or check takes.
const PATIENCE: Duration = crate::hub::LONGEST_CHECK.saturating_add(Duration::from_secs(20));

/// A listener that hands out guarded connections.
#[derive(Debug)]
pub(crate) struct Guarded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    patience: Duration,
}

impl Guarded {
    /// Guards `listener`.
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            patience: PATIENCE,
        }
    }
}

impl axum::serve::Listener for Guarded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            stream,
            deadline: Box::pin(sleep(self.patience)),
            patience: self.patience,
            _permit: permit,
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One guarded connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    patience: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// I1: pending becomes an error after the deadline.
    fn patient<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_pending() && self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    fn progressed(&mut self) {
        let next = Instant::now() + self.patience;
        self.deadline.as_mut().reset(next);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, into);
        self.patient(context, poll)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(1..)) = poll {
            self.progressed();
        }
        self.patient(context, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    // Goal: I1 for a client that keeps sending and never ends its request.
    // Method: a connection with little patience, and a byte every few milliseconds.
    #[tokio::test]
    async fn a_busy_client_without_a_request_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let mut guarded = Guarded {
            patience: Duration::from_millis(60),
            ..Guarded::new(listener)
        };
        let client = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("accepts");
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let (mut connection, _) = axum::serve::Listener::accept(&mut guarded).await;
        let mut all = Vec::new();
        let read =
            tokio::time::timeout(Duration::from_secs(5), connection.read_to_end(&mut all)).await;
        let error = read
            .expect("ends by itself")
            .expect_err("not the client's end");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        client.await.expect("client ends");
    }
}
