//! A server to ask, over a real connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::sync::oneshot;

use super::source::Fixture;
use crate::http::{Config, Server};

/// A server on a thread of its own; stops when dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub(super) fn start(token: Option<&str>) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let mut config = Config::new("127.0.0.1:0", "/l/libpageshim.so".into(), "/s".into());
        config.token = token.map(ToOwned::to_owned);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let server = Server::start(Fixture, config).await.expect("starts");
                tell.send(server.address).expect("test waits");
                let _ = stopped.await;
                server.stop(Duration::from_secs(1)).await;
            });
        });
        let address = told.recv().expect("server starts");
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Sends `method path` with extra header lines; answers head and body.
    pub(super) fn ask(&self, method: &str, path: &str, extra: &str) -> (String, String) {
        let host = if extra.to_ascii_lowercase().contains("host:") {
            ""
        } else {
            "Host: localhost\r\n"
        };
        let mut stream = TcpStream::connect(self.address).expect("listens");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{extra}\r\n"
        )
        .expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        (head.to_ascii_lowercase(), body.to_owned())
    }

    pub(super) fn get(&self, path: &str) -> (String, String) {
        self.ask("GET", path, "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
