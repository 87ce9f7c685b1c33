//! One program run: what it said, how it ended, and never longer than its limit.
//!
//! # Design
//! The program leads its own process group and starts with a known environment.
//! Its output is read from pipes by two threads (files would trip programs
//! under a file-size limit). When the leader has ended but a pipe stays open,
//! a stray child holds it: after a grace the whole group is killed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{PATIENCE, Patience, wait_until};

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ran into its limit and was killed.
    TimedOut,
}

/// What a finished program left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// How it ended.
    pub ended: Ended,
}

impl Outcome {
    /// Fails the case unless the program exited with 0; answers itself.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.ended, Ended::Code(0), "{self:#?}");
        self
    }
}

/// A program about to be run.
#[derive(Clone, Debug)]
pub struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    input: Vec<u8>,
    limit: Duration,
}

impl Job {
    /// A program with a small, fixed environment and 60 seconds.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut job = Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            directory: std::env::temp_dir(),
            input: Vec::new(),
            limit: Duration::from_secs(60),
        };
        for (key, value) in [
            ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("HOME", "/nonexistent"),
        ] {
            job = job.env(key, value);
        }
        job
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets one environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .insert(key.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Runs in `directory`.
    pub fn dir(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Gives it this on standard input (nothing otherwise).
    pub fn input(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.input = bytes.as_ref().to_owned();
        self
    }

    /// Kills it after `limit`.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same job, started by `wrapper` (`prlimit ...`, `runuser ...`).
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        let mut arguments: Vec<OsString> = wrapper[1..].iter().map(OsString::from).collect();
        arguments.push(self.program);
        arguments.append(&mut self.arguments);
        self.program = wrapper[0].into();
        self.arguments = arguments;
        self
    }

    /// Starts it; standard input stays open for [`Running::say`].
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(&self) -> Running {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", self.program.display()));
        Running {
            stdout: Stream::of(child.stdout.take().expect("piped")),
            stderr: Stream::of(child.stderr.take().expect("piped")),
            child,
            limit: self.limit,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn run(&self) -> Outcome {
        let running = self.start();
        let mut stdin = running.child.stdin.as_ref().expect("piped");
        // A program may end without reading all of it; that is its business.
        let _ = stdin.write_all(&self.input);
        running.finish()
    }
}

/// A pipe's bytes so far, filled by a thread.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Stream {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&chunk[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A program that runs. Dropping it kills its process group.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    limit: Duration,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// True while it has not ended.
    ///
    /// # Panics
    /// When the kernel does not know it.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// When it no longer reads.
    pub fn say(&self, line: &str) {
        let mut stdin = self.child.stdin.as_ref().expect("piped");
        writeln!(stdin, "{line}").unwrap_or_else(|e| panic!("cannot tell it {line:?}: {e}"));
    }

    /// Waits until standard output holds `needle` for the `count`th time.
    ///
    /// # Panics
    /// When it ends first or [`PATIENCE`] does.
    pub fn wait_for(&mut self, needle: &str, count: usize) {
        wait_until(&format!("{needle:?} x {count} on stdout"), PATIENCE, || {
            let ended = self.child.try_wait().expect("our child");
            let seen = self.stdout().matches(needle).count() >= count;
            assert!(
                seen || ended.is_none(),
                "ended ({ended:?}) before {needle:?}:\n{}\n{}",
                self.stdout(),
                self.stderr()
            );
            seen.then_some(())
        });
    }

    /// Says `line` and waits for one more `answer`.
    pub fn ask(&mut self, line: &str, answer: &str) {
        let before = self.stdout().matches(answer).count();
        self.say(line);
        self.wait_for(answer, before + 1);
    }

    /// Sends a signal to the leader alone.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.id(), signal);
    }

    /// Sends a signal to its whole group, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        let _ = kill_process_group(self.id(), signal);
    }

    /// Closes its standard input and waits for its end, at most its limit.
    pub fn finish(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let ended = match self.wait_limited() {
            Some(status) => ended(status),
            None => {
                self.kill_group();
                Ended::TimedOut
            }
        };
        let mut grace = Patience::new(Duration::from_secs(3));
        while !self.is_silent() {
            if grace.is_over() {
                self.kill_group();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Outcome {
            stdout: self.stdout(),
            stderr: self.stderr(),
            ended,
        }
    }

    fn wait_limited(&mut self) -> Option<ExitStatus> {
        let mut patience = Patience::new(self.limit);
        loop {
            let status = self.child.try_wait().expect("our child");
            if status.is_some() || patience.is_over() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// True when both pipes have been closed by everyone.
    fn is_silent(&self) -> bool {
        self.stdout.reader.is_finished() && self.stderr.reader.is_finished()
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn kill_group(&mut self) {
        let _ = kill_process_group(self.id(), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A reaped leader whose pipes are closed left nobody behind, and its
        // number may already be another's.
        if self.is_alive() || !self.is_silent() {
            self.kill_group();
        }
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}
