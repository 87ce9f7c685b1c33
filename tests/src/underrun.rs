//! A program through `pageshim run`, with a leak planted in it: output, summary,
//! capture, scrape and pages.
//!
//! # Design
//! A second preload library (tests/programs/planted.c) leaks blocks of known
//! size before the program's own code runs, so every report of every program
//! has an answer to be held to. `run` is tried both ways it works: hosting the
//! pages itself (summary and capture) and handing over to a daemon that listens
//! (scrape and pages).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::programs::{line_of, program_with};
use crate::view::{Held, number};
use crate::{Daemon, Job, Outcome, Temp, View, places};

/// What tests/programs/planted.c leaks in each process that loads it.
const PLANTED: Held = Held {
    blocks: 7,
    bytes: 7 * 1111,
};

/// What the program is run with: the binary and the library that plants the leak.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The `pageshim` binary.
    pub binary: PathBuf,
    /// tests/programs/planted.c, compiled.
    pub planted: PathBuf,
}

impl Tools {
    /// The built ones.
    pub fn built() -> Self {
        Self {
            binary: places::pageshim(),
            planted: program_with("planted.c", &["-shared", "-fPIC"]),
        }
    }

    /// Copies in `dir`, for a user who may not read the built ones.
    ///
    /// # Panics
    /// When they cannot be copied.
    pub fn copied(dir: &Path) -> Self {
        let (built, copies) = (
            Self::built(),
            Self {
                binary: dir.join("pageshim"),
                planted: dir.join("planted"),
            },
        );
        fs::copy(built.binary, &copies.binary).expect("binary");
        fs::copy(built.planted, &copies.planted).expect("library");
        copies
    }

    /// `pageshim run OPTIONS -- JOB` with the planted leak, `socket` for its daemon.
    pub fn run(&self, job: Job, options: &[&str], socket: &Path) -> Job {
        let mut wrapper = vec![self.binary.to_str().expect("UTF-8"), "run"];
        wrapper.extend(options);
        wrapper.push("--");
        // The extracted shim must not land in a HOME that is the case's own work directory.
        let cache = socket.with_extension("cache");
        job.wrapped(&wrapper)
            .env("XDG_CACHE_HOME", cache)
            .env("LD_PRELOAD", &self.planted)
            .env("PAGESHIM_SOCKET", socket)
    }
}

/// Runs what `make` builds both ways and holds it to the plain outcome. `name`
/// is how the program shows in reports; `stderr` says whether its standard
/// error is the same in each run.
///
/// # Panics
/// When output, status, summary, capture, scrape or pages are not right.
pub fn check(make: &dyn Fn(&Path) -> Job, name: &str, plain: &Outcome, stderr: bool) {
    let tools = Tools::built();
    // Its own files must not lie where the program works.
    let (temp, ours) = (Temp::new(), Temp::new());
    let out = ours.join("out.pgs");
    let options = ["-o", out.to_str().expect("UTF-8")];
    let hosted = tools.run(make(&temp), &options, &ours.join("nobody")).run();
    same_output(&hosted, plain, stderr);
    check_summary(&hosted.stderr, &capture(&out), name);

    let (temp, daemon) = (Temp::new(), Daemon::start());
    let joined = tools.run(make(&temp), &[], daemon.socket()).run();
    same_output(&joined, plain, stderr);
    check_daemon(&daemon, name);
}

#[track_caller]
fn same_output(ours: &Outcome, plain: &Outcome, stderr: bool) {
    assert_eq!(
        (&ours.stdout, ours.ended),
        (&plain.stdout, plain.ended),
        "under run it differs: {}",
        ours.stderr
    );
    for line in plain.stderr.lines().filter(|_| stderr) {
        assert!(
            ours.stderr.contains(line),
            "lost: {line:?} of {}",
            ours.stderr
        );
    }
}

/// A capture as a report.
pub fn capture(file: &Path) -> View {
    let job = Job::new(places::pageshim()).arg("report").arg(file);
    let job = job.args(["--format", "json"]);
    View::parse(&job.run().ok().stdout)
}

/// Holds the summary's numbers to the capture's, and the capture to the planted leak.
///
/// # Panics
/// When they differ.
pub fn check_summary(said: &str, view: &View, name: &str) {
    let first = said.lines().find_map(|line| {
        let rest = line.strip_prefix("pageshim: profiling ")?;
        Some(rest.split("(pid ").nth(1)?.split(')').next()?.to_owned())
    });
    let pid: u64 = first
        .and_then(|pid| pid.parse().ok())
        .unwrap_or_else(|| panic!("no first line with a pid: {said}"));
    // Programs that exec in turn share a pid; the summary is about the last.
    let is = |process: &&Value| process["pid"] == pid && process["name"] == name;
    let process = view.processes().iter().find(is);
    let process = process.unwrap_or_else(|| panic!("no {name} with pid {pid}: {said}"));
    let head = format!("pageshim: {name} (pid {pid}) ");
    assert!(said.contains(&head), "no {head:?}: {said}");
    for (label, part) in [("peak", "peak"), ("at exit", "live"), ("total", "total")] {
        let blocks = grouped(number(&process[part], "blocks"));
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with(label));
        let line = line.unwrap_or_else(|| panic!("no {label}: {said}"));
        assert!(line.contains(&format!(" in {blocks} block")), "{line}");
    }
    check_planted(view, process);
    view.check_equations();
}

/// Holds a daemon's scrape and pages to the planted leak in `name`.
///
/// # Panics
/// When they are not right.
pub fn check_daemon(daemon: &Daemon, name: &str) {
    let view = daemon.settled(name);
    view.check_equations();
    let named = view.named(name);
    let process = named.last().expect("settled means known");
    check_planted(&view, process);
    clean(&daemon.get("/metrics").ok());
    daemon.metrics().check_equations(name);
    let id = process["id"].as_str().expect("an id");
    let path = format!("/leaks?process={id}&q=planted_leak");
    let page = daemon.get_as(&path, "text/html").ok();
    for word in ["planted_leak", "planted.c", name] {
        assert!(page.contains(word), "/leaks does not say {word}: {page}");
    }
}

#[track_caller]
fn check_planted(view: &View, process: &Value) {
    assert_eq!(view.held_by(process, "planted_leak"), PLANTED);
    let frame = view.frame(process, "planted_leak");
    let line = line_of("planted.c", "planted_leak");
    assert_eq!(number(frame, "line"), line, "{frame}");
    let file = frame["file"].as_str().unwrap_or_default();
    assert!(file.ends_with("planted.c"), "{frame}");
}

/// Holds an exposition to promtool.
///
/// # Panics
/// When it complains.
#[track_caller]
pub fn clean(exposition: &str) {
    let check = Job::new("promtool").args(["check", "metrics"]);
    let said = check.input(exposition).run().ok();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
}

/// `12345` as `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: numbers are grouped as the summary does. Method: literals.
    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
