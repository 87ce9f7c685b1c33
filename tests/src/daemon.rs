//! A daemon of the case's own, and what an operator can ask it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::http::{self, Answer};
use crate::metrics::Metrics;
use crate::{Job, Outcome, PATIENCE, Preload, Running, Temp, View, places, wait_until};

/// A running `pageshim daemon`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    address: String,
    socket: PathBuf,
    _temp: Option<Temp>,
}

impl Daemon {
    /// Starts one in a directory of its own.
    pub fn start() -> Self {
        let temp = Temp::new();
        let mut daemon = Self::start_on(&temp.join("s"));
        daemon._temp = Some(temp);
        daemon
    }

    /// Starts one on this socket; what it keeps goes beside it.
    pub fn start_on(socket: &Path) -> Self {
        Self::launch(socket, Self::job(places::pageshim(), socket))
    }

    /// The command line of a daemon on `socket`, for callers that wrap it.
    pub fn job(binary: impl AsRef<Path>, socket: &Path) -> Job {
        Job::new(binary.as_ref())
            .arg("daemon")
            .arg("--socket")
            .arg(socket)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(socket.with_extension("data"))
            .limit(Duration::from_secs(600))
    }

    /// Starts `job` and reads the URL from its first line.
    pub fn launch(socket: &Path, job: Job) -> Self {
        let mut running = job.start();
        let address = wait_until("the daemon's first line with its URL", PATIENCE, || {
            let said = running.stdout() + &running.stderr();
            assert!(running.is_alive(), "the daemon did not start:\n{said}");
            address_in(&said)
        });
        Self {
            running,
            address,
            socket: socket.to_owned(),
            _temp: None,
        }
    }

    /// How to run programs under its eyes.
    pub fn preload(&self, mode: &str) -> Preload {
        Preload::new(mode, &self.socket)
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `host:port` of its HTTP side.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it wrote to standard error.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// GET with any Accept.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.get_as(path, "*/*")
    }

    /// GET with this Accept.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn get_as(&self, path: &str, accept: &str) -> Answer {
        http::get(&self.address, path, accept)
            .unwrap_or_else(|e| panic!("GET {path}: {e}; daemon said:\n{}", self.stderr()))
    }

    /// A scrape.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").ok())
    }

    /// The report.
    #[track_caller]
    pub fn report(&self) -> View {
        View::parse(&self.get("/leaks.json").ok())
    }

    /// The report once processes named `name` are known and none of them runs.
    pub fn settled(&self, name: &str) -> View {
        // Asked of the short list: reports of hundreds of processes are megabytes.
        wait_until(&format!("{name} known and ended"), PATIENCE, || {
            let list = View::parse(&self.get("/api/v1/processes").ok());
            let named = list.named(name);
            let ended = !named.is_empty() && named.iter().all(|p| p["state"] != "running");
            ended.then_some(())
        });
        self.report()
    }

    /// The report once a process named `name` is known.
    pub fn known(&self, name: &str) -> View {
        wait_until(&format!("{name} known"), PATIENCE, || {
            let view = self.report();
            (!view.named(name).is_empty()).then_some(view)
        })
    }

    /// The id of the process with this pid, once it is known.
    pub fn known_pid(&self, pid: u32) -> String {
        wait_until(&format!("pid {pid} known"), PATIENCE, || {
            let list = View::parse(&self.get("/api/v1/processes").ok());
            let found = list.processes().iter().find(|p| p["pid"] == pid)?;
            Some(found["id"].as_str()?.to_owned())
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Fails the case unless it is up and answers.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn check_healthy(&self) {
        self.get("/healthz").ok();
        self.get("/readyz").ok();
        self.get("/leaks.json").ok();
        self.get("/metrics").ok();
    }

    /// SIGTERM and wait: it should drain and exit 0.
    pub fn stop(self) -> Outcome {
        self.running.signal(Signal::TERM);
        self.running.finish()
    }

    /// SIGKILL, as the kernel would; the socket file stays behind.
    pub fn kill(self) {
        self.running.signal(Signal::KILL);
        self.running.finish();
    }
}

/// `127.0.0.1:9764` out of a line with `http://127.0.0.1:9764/`.
pub fn address_in(text: &str) -> Option<String> {
    let line = text
        .split_inclusive('\n')
        .find(|line| line.contains("http://"))?;
    if !line.ends_with('\n') {
        return None;
    }
    let rest = line.split("http://").nth(1)?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]-".contains(c)));
    Some(
        rest[..end.unwrap_or(rest.len())]
            .trim_end_matches('.')
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the address is found only in a whole line. Method: literal lines.
    #[test]
    fn the_address_is_read_from_a_whole_line() {
        assert_eq!(address_in("pageshim: http://127.0.0.1:97"), None);
        let line = "pageshim: at http://127.0.0.1:9764/ (socket /x)\n";
        assert_eq!(address_in(line).as_deref(), Some("127.0.0.1:9764"));
        assert_eq!(
            address_in("at http://[::1]:5.\n").as_deref(),
            Some("[::1]:5")
        );
    }
}
