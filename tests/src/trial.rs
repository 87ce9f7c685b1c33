//! A program must not notice: the same run with and without the shim.

use std::path::{Path, PathBuf};

use crate::{Daemon, Job, Outcome, Temp, View, places, underrun};

/// How a program gets the shim.
#[derive(Clone, Debug)]
pub struct Preload {
    /// `PAGESHIM_MODE`.
    pub mode: String,
    /// `PAGESHIM_SOCKET`.
    pub socket: PathBuf,
    /// The library to preload.
    pub library: PathBuf,
}

impl Preload {
    /// The built shim in `mode`, told of `socket`.
    pub fn new(mode: &str, socket: &Path) -> Self {
        Self {
            mode: mode.to_owned(),
            socket: socket.to_owned(),
            library: places::shim(),
        }
    }

    /// `job` with the environment that loads the shim.
    pub fn apply(&self, job: Job) -> Job {
        job.env("LD_PRELOAD", &self.library)
            .env("PAGESHIM_MODE", &self.mode)
            .env("PAGESHIM_SOCKET", &self.socket)
    }
}

/// All modes of this release that a program must survive.
pub const MODES: [&str; 5] = ["exact", "count", "off", "trace", "sampled:4KiB"];

/// A program and how to compare its runs.
pub struct Trial<'a> {
    make: &'a dyn Fn(&Path) -> Job,
    modes: &'a [&'a str],
    absent: bool,
    stderr: bool,
    run_as: Option<&'a str>,
}

impl<'a> Trial<'a> {
    /// `make` builds the run for a fresh directory of its own. All modes with a
    /// daemon, and `exact` without one; output and status compared.
    pub fn of(make: &'a dyn Fn(&Path) -> Job) -> Self {
        Self {
            make,
            modes: &MODES,
            absent: true,
            stderr: true,
            run_as: None,
        }
    }

    /// Only these modes (programs that take seconds).
    pub fn modes(mut self, modes: &'a [&'a str]) -> Self {
        self.modes = modes;
        self
    }

    /// Not without a daemon (programs that take seconds).
    pub fn with_daemon_only(mut self) -> Self {
        self.absent = false;
        self
    }

    /// Standard error differs from run to run; leave it out.
    pub fn stdout_only(mut self) -> Self {
        self.stderr = false;
        self
    }

    /// Also through `pageshim run`, where it shows as `name`: output, summary,
    /// capture, scrape and pages (see [`underrun`]).
    pub fn run_as(mut self, name: &'a str) -> Self {
        self.run_as = Some(name);
        self
    }

    /// The plain run.
    pub fn plain(&self) -> Outcome {
        let temp = Temp::new();
        (self.make)(&temp).run()
    }

    /// Runs all of it and fails the case at the first difference. Answers the
    /// plain outcome and the last daemon's report of `name`, ended.
    ///
    /// # Panics
    /// When a shimmed run differs.
    pub fn check(&self) -> Outcome {
        let plain = self.plain();
        if self.absent {
            let temp = Temp::new();
            let preload = Preload::new("exact", &temp.join("nobody"));
            self.compare(&plain, &preload, "exact, no daemon");
        }
        for mode in self.modes {
            let daemon = standin().is_none().then(Daemon::start);
            let socket = daemon
                .as_ref()
                .map_or(Path::new("/nonexistent"), |d| d.socket());
            self.compare(&plain, &Preload::new(mode, socket), mode);
            if let Some(daemon) = daemon {
                daemon.check_healthy();
            }
        }
        if let (Some(name), None) = (self.run_as, standin()) {
            underrun::check(self.make, name, &plain, self.stderr);
        }
        plain
    }

    /// One run in `exact` with a daemon: must equal the plain one; answers the
    /// report once `name` has ended, equations checked.
    pub fn report(&self, name: &str) -> View {
        let plain = self.plain();
        let daemon = Daemon::start();
        self.compare(&plain, &daemon.preload("exact"), "exact");
        let view = daemon.settled(name);
        view.check_equations();
        daemon.metrics().check_equations(name);
        view
    }

    fn compare(&self, plain: &Outcome, preload: &Preload, label: &str) {
        let temp = Temp::new();
        let mut shimmed = preload.apply((self.make)(&temp)).run();
        let mut plain = plain.clone();
        if !self.stderr {
            shimmed.stderr.clone_from(&plain.stderr);
        }
        if plain != shimmed {
            cut(&mut plain);
            cut(&mut shimmed);
            panic!(
                "under the shim ({label}) it differs.\nplain: {plain:#?}\nshimmed: {shimmed:#?}"
            );
        }
    }
}

fn standin() -> Option<std::ffi::OsString> {
    std::env::var_os("PAGESHIM_TESTS_STANDIN")
}

/// Keeps a failure's message readable.
fn cut(outcome: &mut Outcome) {
    for text in [&mut outcome.stdout, &mut outcome.stderr] {
        if text.len() > 4000 {
            *text = text.chars().take(4000).collect::<String>() + "[cut]";
        }
    }
}
