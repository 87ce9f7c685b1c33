//! HTTP out: pages, downloads, metrics, health.
//!
//! # Design
//! ```text
//! listener (256 connections, each cut when it makes no progress)
//!   -> headers -> host check -> token -> size check -> route -> source
//! ```
//! A [`Source`] answers; in the daemon that is the hub, in tests a fixture.
//! Errors are problems (RFC 9457); a browser gets the same as a page.

mod auth;
mod guard;
mod holder;
mod listener;
mod negotiate;
mod openapi;
mod problem;
mod routes;
mod source;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::books::report::Process;
pub(crate) use source::Source;

/// How to listen, and what to tell a first visitor.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `127.0.0.1:9764`, `localhost:0`, `:9764`, `[::1]:9764`.
    pub(crate) listen: String,
    /// The shim, for the line to paste.
    pub(crate) library: PathBuf,
    /// The Unix socket, for the same line.
    pub(crate) socket: PathBuf,
    /// Host names beside the usual ones.
    pub(crate) allow_hosts: Vec<String>,
    /// What a client must know.
    pub(crate) token: Option<String>,
}

impl Config {
    /// Loopback manners: no more names, no token.
    pub(crate) fn new(listen: &str, library: PathBuf, socket: PathBuf) -> Self {
        Self {
            listen: listen.to_owned(),
            library,
            socket,
            allow_hosts: Vec::new(),
            token: None,
        }
    }
}

/// `/processes.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Processes {
    /// As in the report.
    pub(crate) schema_version: u32,
    /// One entry per process image.
    pub(crate) processes: Vec<Process>,
}

/// What every handler sees.
pub(crate) struct App {
    source: Box<dyn Source>,
    library: PathBuf,
    socket: PathBuf,
    hosts: guard::Hosts,
    token: Option<String>,
}

/// A server that accepts.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it really listens.
    pub(crate) address: SocketAddr,
    /// `http://127.0.0.1:9764/`.
    pub(crate) url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Binds and serves in the background.
    pub(crate) async fn start(source: impl Source, config: Config) -> Result<Self, String> {
        let wanted = resolve(&config.listen).await?;
        let listener = tokio::net::TcpListener::bind(wanted)
            .await
            .map_err(|error| refused(wanted, &error))?;
        let address = listener
            .local_addr()
            .map_err(|error| format!("{wanted}: {error}"))?;
        let app = App {
            source: Box::new(source),
            library: config.library,
            socket: config.socket,
            hosts: guard::Hosts::new(address, config.allow_hosts),
            token: config.token,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = listener::Guarded::new(listener);
        let serve = axum::serve(listener, routes::router(Arc::new(app)))
            .with_graceful_shutdown(async { drop(stopped.await) });
        let task = tokio::spawn(async { drop(serve.await) });
        Ok(Self {
            address,
            url: format!("http://{address}/"),
            stop,
            task,
        })
    }

    /// Takes no more connections, and gives running answers `limit` to end.
    pub(crate) async fn stop(self, limit: Duration) {
        let _ = self.stop.send(());
        let task = self.task;
        let abort = task.abort_handle();
        if tokio::time::timeout(limit, task).await.is_err() {
            abort.abort();
        }
    }
}

async fn resolve(listen: &str) -> Result<SocketAddr, String> {
    let text = match listen.strip_prefix(':').unwrap_or(listen) {
        port if port.parse::<u16>().is_ok() => format!("127.0.0.1:{port}"),
        _ => listen.to_owned(),
    };
    let bad =
        |why: String| format!("--listen {listen}: {why}; write ADDRESS:PORT, as in 127.0.0.1:9764");
    let mut found = tokio::net::lookup_host(&text)
        .await
        .map_err(|error| bad(error.to_string()))?;
    found
        .next()
        .ok_or_else(|| bad("no such address".to_owned()))
}

fn refused(wanted: SocketAddr, error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        let who = holder::of_port(wanted.port()).unwrap_or_else(|| "another program".to_owned());
        return format!(
            "{wanted} is in use by {who}; stop it, or choose another with --listen (port 0 picks a free one)"
        );
    }
    format!("cannot listen on {wanted}: {error}; choose another with --listen")
}

/// Reads a token file: one line, not empty.
pub(crate) fn token(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the token file {shown}: {error}"))?;
    let token = text.trim();
    let plain = token
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b';' && byte != b'"');
    if token.len() < 16 || !plain {
        return Err(format!(
            "the token file {shown} must hold 16 or more plain characters in one line, as `openssl rand -hex 16` prints"
        ));
    }
    Ok(token.to_owned())
}
