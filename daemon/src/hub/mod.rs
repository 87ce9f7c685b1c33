//! Stand-in for the daemon's heart: same signatures, a fixture for data.

#[path = "../web/fixture.rs"]
mod fixture;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::books::report::{Exit, Report};
use crate::capture::CaptureError;

/// How to start.
pub struct HubConfig {
    /// Where to listen.
    pub socket: PathBuf,
    /// How many ended processes to remember.
    pub keep_exited: usize,
}

/// Why the hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Somebody listens.
    #[error("{0} is in use by another daemon; stop it or choose another --socket")]
    InUse(PathBuf),
    /// The rest.
    #[error("cannot listen on {0}: {1}")]
    Bind(PathBuf, std::io::Error),
}

/// Which part of a report is wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Id, pid or name.
    pub process: Option<String>,
    /// Class.
    pub class: Option<String>,
    /// Fewest bytes.
    pub min_bytes: u64,
    /// Substring of function, file or module of any frame.
    pub query: Option<String>,
    /// Most leaks.
    pub limit: Option<usize>,
}

impl Filter {
    /// Keeps what passes.
    pub fn apply(&self, mut report: Report) -> Report {
        if let Some(wanted) = &self.process {
            report
                .processes
                .retain(|p| &p.id == wanted || &p.name == wanted || &p.pid.to_string() == wanted);
        }
        let ids: Vec<String> = report.processes.iter().map(|p| p.id.clone()).collect();
        report.leaks.retain(|leak| {
            ids.contains(&leak.process)
                && self.class.as_ref().is_none_or(|class| *class == leak.class)
                && leak.bytes >= self.min_bytes
                && self.query.as_ref().is_none_or(|q| {
                    leak.stack.iter().any(|f| {
                        f.function.contains(q)
                            || f.module.contains(q)
                            || f.file.as_ref().is_some_and(|file| file.contains(q))
                    })
                })
        });
        if let Some(limit) = self.limit {
            report.leaks.truncate(limit);
        }
        report
    }
}

/// The heart.
#[derive(Clone)]
pub struct Hub {
    socket: PathBuf,
    _listener: Arc<tokio::net::UnixListener>,
}

impl Hub {
    /// Binds and accepts.
    pub async fn start(config: HubConfig) -> Result<Hub, HubError> {
        if tokio::net::UnixStream::connect(&config.socket)
            .await
            .is_ok()
        {
            return Err(HubError::InUse(config.socket));
        }
        let _ = std::fs::remove_file(&config.socket);
        let listener = tokio::net::UnixListener::bind(&config.socket)
            .map_err(|error| HubError::Bind(config.socket.clone(), error))?;
        let _ = config.keep_exited;
        Ok(Hub {
            socket: config.socket,
            _listener: Arc::new(listener),
        })
    }

    /// What is known.
    pub async fn report(&self, filter: &Filter) -> Report {
        if std::env::var_os("PAGESHIM_FAKE_EMPTY").is_some() {
            return Report::default();
        }
        filter.apply(fixture::report())
    }

    /// The metrics text.
    pub async fn metrics(&self) -> String {
        "# HELP pageshim_build_info Build.\n# TYPE pageshim_build_info gauge\npageshim_build_info{version=\"0\"} 1\n".to_owned()
    }

    /// Accepting.
    pub fn ready(&self) -> bool {
        true
    }

    /// What wait() said.
    pub fn note_exit(&self, _pid: u32, _exit: Exit) {}

    /// Waits for the last bytes.
    pub async fn settle(&self, _pid: u32, _limit: Duration) {}

    /// Writes all.
    pub async fn write_capture(&self, path: &Path) -> Result<(), CaptureError> {
        let text = serde_json::to_vec(&fixture::report()).unwrap_or_default();
        std::fs::write(path, text).map_err(|error| CaptureError::Io(path.to_owned(), error))
    }

    /// Stops.
    pub fn shutdown(&self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}
