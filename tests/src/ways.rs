//! The ways in which a running program can be checked, each forced.
//!
//! # Design
//! ```text
//! Copy     what the daemon does where it may: stops all threads, and has a copy searched
//! InPlace  the kernel refuses the copy: the program's user may have no more processes (so it is not root)
//! Itself   another process traces it already: it is asked to search its own memory
//! ```

use std::fs;
use std::path::Path;

use crate::planted::{Planted, check_found};
use crate::{Daemon, Ended, Job, Running, Temp, is_root, places};

/// Holds on to a process, and does nothing with it.
const TRACER: &str = "import ctypes, sys
libc = ctypes.CDLL(None)
print('traced', libc.ptrace(0x4206, int(sys.argv[1]), 0, 0), flush=True)
sys.stdin.read()";

/// A user whose processes the kernel counts.
const NOBODY: [&str; 3] = ["setpriv", "--reuid=65534", "--clear-groups"];

/// How a check of it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a copy.
    Copy,
    /// In the program, while a tracer holds it.
    InPlace,
    /// By the program, which holds its own threads; one of them has to allocate.
    Itself,
}

/// A program that waits for its standard input to end, and can be checked in one way.
#[derive(Debug)]
pub struct Watched {
    /// Goes first: the end of a process is its tracer's to hear of.
    tracer: Option<Running>,
    /// The program.
    pub running: Running,
    _temp: Option<Temp>,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Copy, Self::InPlace, Self::Itself];

    /// Whether a report says of a check's method that it went so.
    pub fn is(self, method: &str) -> bool {
        match self {
            Self::Copy => method == "fork",
            Self::InPlace => method == "held",
            Self::Itself => method == "signal" || method == "alone",
        }
    }

    /// Starts a program, and lets it come to where it says `ready`.
    ///
    /// # Panics
    /// When it cannot be had so.
    pub fn start(self, daemon: &Daemon, program: &Path, args: &[&str], ready: &str) -> Watched {
        let (mut running, temp) = match self {
            Self::InPlace if is_root() => as_nobody(daemon, program, args),
            _ => {
                let job = Job::new(program).args(args);
                (daemon.preload("exact").apply(job).start(), None)
            }
        };
        running.wait_for(ready, 1);
        daemon.known_pid(running.pid());
        let pid = running.pid().to_string();
        let mut tracer = None;
        match self {
            Self::Copy => {}
            Self::InPlace => {
                let limits = Job::new("prlimit").args(["--nproc=1", "--pid", &pid]);
                let limits = match is_root() {
                    true => limits.wrapped(&NOBODY),
                    false => limits,
                };
                limits.run().ok();
            }
            Self::Itself => {
                tracer = Some(trace(running.pid()));
            }
        }
        Watched {
            running,
            tracer,
            _temp: temp,
        }
    }

    /// Has a program that says `planted` and waits checked twice, and holds the report to what was planted.
    ///
    /// # Panics
    /// When it says anything else, or the program does not end well.
    #[track_caller]
    pub fn check(self, path: &Path, args: &[&str], planted: &[Planted]) {
        let daemon = Daemon::start();
        let watched = self.start(&daemon, path, args, "planted");
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name");
        let what = format!("{name} {args:?}, {self:?}");
        for _ in 0..2 {
            let job = Job::new(places::pageshim()).args(["leaks", name, "--socket"]);
            job.arg(daemon.socket()).run().ok();
            let view = daemon.report();
            let process = view.process(name);
            let method = process["check"]["method"].as_str().unwrap_or("");
            assert!(self.is(method), "{what}: {method}");
            check_found(&view, process, planted, &what);
        }
        let outcome = watched.finish();
        assert_eq!(outcome.ended, Ended::Code(0), "{what}: {outcome:#?}");
    }
}

/// Has another process trace one, until it is told to end.
///
/// # Panics
/// When it may not.
pub fn trace(pid: u32) -> Running {
    let mut tracer = Job::new("python3")
        .args(["-c", TRACER, &pid.to_string()])
        .start();
    tracer.wait_for("traced 0", 1);
    tracer
}

impl Watched {
    /// Closes its standard input and waits for its end.
    pub fn finish(self) -> crate::Outcome {
        if let Some(tracer) = self.tracer {
            tracer.finish();
        }
        self.running.finish()
    }
}

/// As [`NOBODY`], from files that user can read.
fn as_nobody(daemon: &Daemon, program: &Path, args: &[&str]) -> (Running, Option<Temp>) {
    let temp = Temp::new();
    let handed = |path: &Path, number: usize| {
        let dir = temp.join(number.to_string());
        fs::create_dir_all(&dir).expect("a directory of ours");
        let copy = dir.join(path.file_name().expect("a file"));
        fs::copy(path, &copy).expect("a file to copy");
        copy
    };
    let mut preload = daemon.preload("exact");
    preload.library = handed(&preload.library, 0);
    let argument = |(number, text): (usize, &&str)| match Path::new(text) {
        path if path.is_file() => handed(path, number + 1).into_os_string(),
        _ => text.into(),
    };
    let arguments = args.iter().enumerate().map(argument);
    let job = Job::new(handed(program, 0)).args(arguments);
    let running = preload.apply(job.wrapped(&NOBODY)).start();
    (running, Some(temp))
}
