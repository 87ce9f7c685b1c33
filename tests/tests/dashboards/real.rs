//! End to end: every panel answers for a real program under the real daemon and shim.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::catalog::{dashboards, panels, series_names, text};
use crate::programs::{Kept, PATIENCE, Scratch, get, on_path, until};
use crate::prometheus::Prometheus;

/// Panels a healthy run rightly leaves empty, each with the reason.
const MAY_BE_EMPTY: &[(&str, &str)] = &[
    ("Lost bytes", "no reachability check has been asked for"),
    ("Misuse of the heap", "the program makes no heap faults"),
    ("Not recorded, by reason", "nothing need be dropped"),
    (
        "Decode errors by reason",
        "the only client speaks correctly",
    ),
];

/// What the release build puts beside this test's profile: `target/release/NAME`.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test
        .ancestors()
        .nth(3)
        .expect("the test is in target/PROFILE/deps");
    let path = target.join("release").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release` first",
        path.display()
    );
    path
}

/// Starts the daemon; the listening address is in its first line.
fn start_daemon(scratch: &Scratch, socket: &Path) -> (Kept, String) {
    let mut command = Command::new(built("pageshim"));
    command
        .args(["daemon", "--listen", "127.0.0.1:0", "--socket"])
        .arg(socket);
    for variable in ["HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        command.env(variable, &scratch.0);
    }
    let mut daemon = Kept::start("daemon", scratch, command.stdout(Stdio::piped()));
    let stdout = daemon.child.stdout.take().expect("stdout is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let line = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        panic!(
            "the daemon printed no first line; its errors:\n{}",
            daemon.log_end()
        )
    });
    let url = line
        .split_whitespace()
        .find_map(|word| word.split_once("http://"));
    let Some((_, rest)) = url else {
        panic!("no URL in the daemon's first line: {line}")
    };
    let digit = |it: char| it.is_ascii_digit() || it == '.' || it == ':';
    (
        daemon,
        rest.split(|it| !digit(it))
            .next()
            .unwrap_or_default()
            .to_string(),
    )
}

/// Allocates, frees, grows and keeps in three threads until it is killed.
const PROGRAM: &str = "
import threading, time
kept = []
def churn():
    while True:
        blocks = [bytearray(1 << (i % 17)) for i in range(300)]
        if len(kept) < 50000:
            kept.extend(bytes(64) for _ in range(50))
        grown = bytearray()
        for _ in range(500):
            grown += b'x' * 100
        large = bytearray(8 << 20)
        del blocks, grown, large
        time.sleep(0.02)
for _ in range(2):
    threading.Thread(target=churn, daemon=True).start()
churn()
";

fn start_program(scratch: &Scratch, socket: &Path) -> Kept {
    let python = on_path("python3").expect("python3 is not on PATH: apt-get install python3");
    let mut command = Command::new(python);
    command
        .args(["-c", PROGRAM])
        .env("PYTHONMALLOC", "malloc")
        .env("LD_PRELOAD", built("libpageshim.so"))
        .env("PAGESHIM_SOCKET", socket)
        .stdout(Stdio::null());
    Kept::start("program", scratch, &mut command)
}

// Goal: an operator's dashboards show something for a real program. Method: daemon, a program under
// the shim, Debian's Prometheus; all panels must answer, the daemon must export nothing unlisted.
#[test]
fn every_panel_answers_from_a_real_scrape() {
    let binary = on_path("prometheus")
        .expect("prometheus is not on PATH: apt-get install prometheus, or put it on PATH");
    let scratch = Scratch::new("scrape");
    let socket = scratch.file("pageshim.sock");
    let (mut daemon, address) = start_daemon(&scratch, &socket);
    let mut program = start_program(&scratch, &socket);
    until("the daemon knows the program", PATIENCE, || {
        daemon.must_run();
        program.must_run();
        let page = get(&address, "/metrics")?;
        let known = page
            .lines()
            .any(|line| line.starts_with("pageshim_heap_live_bytes{"));
        known
            .then_some(())
            .ok_or(format!("no pageshim_heap_live_bytes in:\n{page}"))
    });
    let mut prometheus = Prometheus::start(&binary, &scratch, &address);
    prometheus.await_scrapes("pageshim_heap_live_bytes");
    prometheus.must_answer_everything(MAY_BE_EMPTY);
    daemon.must_run();
    program.must_run();
    let names = prometheus
        .api("/api/v1/label/__name__/values")
        .expect("Prometheus lists names");
    let known = series_names();
    for name in names
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let ours = name.starts_with("pageshim_") || name.starts_with("process_");
        assert!(
            !ours || known.contains(name),
            "{name} is exported, but not in METRICS of catalog.rs"
        );
    }
}

// Goal: excuses do not outlive their panels. Method: each title in the list is a panel's.
#[test]
fn excused_panels_exist() {
    let all = dashboards();
    let titles: Vec<&str> = all
        .iter()
        .flat_map(|it| panels(&it.2).map(|panel| text(panel, "title")))
        .collect();
    for (title, reason) in MAY_BE_EMPTY {
        assert!(titles.contains(title), "{title:?} ({reason}) is no panel");
    }
}
