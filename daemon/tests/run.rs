//! `pageshim run` as a shell sees it: exit codes, signals, streams, environment.
//!
//! The real binary runs real commands; nothing here depends on what was profiled.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A directory for the captures of one test; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("pageshim-run-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("temp dir");
        Self(dir)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pageshim"));
        command
            .args(arguments)
            .current_dir(&self.0)
            .stdin(Stdio::null());
        command
            .env_remove("PAGESHIM_SOCKET")
            .env("XDG_RUNTIME_DIR", &self.0);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Starts a shell script that says "up" and waits for that.
    fn up(&self, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut command = self.command(&["run", "-q", "--", "sh", "-c", script]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, "up\n");
        (child, stdout)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");
    kill_process(pid, signal).expect("our child");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// Goal: exit codes are the command's, or those shells use. Method: one of each.
#[test]
fn exit_codes_are_the_commands() {
    let scratch = Scratch::new("codes");
    for (arguments, code) in [
        (&["run", "-q", "--", "true"][..], 0),
        (&["run", "-q", "--", "sh", "-c", "exit 7"], 7),
        (&["run", "-q", "--", "no-such-command-anywhere"], 127),
        (&["run", "-q", "--", "/etc/passwd"], 126),
        (&["run", "-q", "--lib", "/etc/passwd", "--", "true"], 125),
        (&["run"], 2),
        (&["run", "--fail-on", "lost>0", "--", "true"], 2),
        (&["run", "--mode", "fast", "--", "true"], 2),
        (&["run", "--mode", "sampled:many", "--", "true"], 2),
        (&["run", "--heap", "fixed", "--", "true"], 2),
        (&["report", "--class", "nosuch", "x.pgs"], 2),
    ] {
        let output = scratch.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            code == 0 || code == 7 || !output.stderr.is_empty(),
            "{arguments:?} says why"
        );
    }
}

// Goal: whoever waits sees the signal. Method: a fatal one of each kind, and SIGTERM to us.
#[test]
fn a_signal_that_kills_the_command_kills_us() {
    let scratch = Scratch::new("signals");
    for (name, number) in [("KILL", 9), ("SEGV", 11), ("ABRT", 6), ("TERM", 15)] {
        let output = scratch.run(&["run", "-q", "--", "sh", "-c", &format!("kill -{name} $$")]);
        assert_eq!(output.status.signal(), Some(number), "{name}");
    }
    let (mut child, _stdout) = scratch.up("echo up; exec sleep 60");
    send(&child, Signal::TERM);
    assert_eq!(child.wait().expect("ends").signal(), Some(15));
}

// Goal: SIGTERM reaches the command, which may handle it; SIGINT alone does not end us. Method: traps.
#[test]
fn signals_are_passed_on_or_outlived() {
    let scratch = Scratch::new("forward");
    let wait = "while :; do sleep 0.02; done";
    let (mut child, _stdout) = scratch.up(&format!("trap 'exit 5' TERM; echo up; {wait}"));
    send(&child, Signal::INT);
    send(&child, Signal::TERM);
    assert_eq!(child.wait().expect("ends").code(), Some(5));
    let ignored = "trap '' HUP; exec \"$0\" run -q -- grep SigIgn /proc/self/status";
    let output = scratch.command(&[]).get_program().to_owned();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(ignored)
        .arg(output)
        .current_dir(&scratch.0)
        .env("XDG_RUNTIME_DIR", &scratch.0);
    let said = shell.output().expect("sh is there").stdout;
    let mask = String::from_utf8_lossy(&said)
        .trim()
        .rsplit('\t')
        .next()
        .map(|mask| u64::from_str_radix(mask, 16));
    assert_eq!(
        mask.and_then(Result::ok).map(|mask| mask & 1),
        Some(1),
        "nohup stays nohup"
    );
}

// Goal: Ctrl-C ends the command and keeps the summary. Method: SIGINT to the whole group.
#[test]
fn an_interrupt_of_the_group_keeps_the_summary() {
    use std::os::unix::process::CommandExt;
    let scratch = Scratch::new("group");
    // Who runs the tests may ignore the signal (a job in the background), which is inherited.
    let plain = scratch.command(&["run", "--", "sh", "-c", "echo up; exec sleep 60"]);
    let mut command = Command::new("env");
    let command = command
        .arg("--default-signal=INT")
        .arg(plain.get_program())
        .args(plain.get_args())
        .envs(
            plain
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .env_remove("PAGESHIM_SOCKET")
        .current_dir(&scratch.0)
        .stdin(Stdio::null())
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    let group = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");
    rustix::process::kill_process_group(group, Signal::INT).expect("our group");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.signal(), Some(2));
    assert!(stderr(&output).contains("capture"), "{}", stderr(&output));
}

// Goal: streams and environment are the command's. Method: cat, env, and our words on standard error only.
#[test]
fn streams_and_environment_are_the_commands() {
    let scratch = Scratch::new("streams");
    let mut command = scratch.command(&["run", "--", "cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"a\0b")
        .expect("cat reads");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.stdout, b"a\0b");
    let said = stderr(&output);
    assert!(
        said.starts_with("pageshim: profiling cat (pid ") && said.contains("http://127.0.0.1:"),
        "{said}"
    );
    let output = scratch.run(&["run", "-q", "--mode", "count", "--", "env"]);
    let variables = String::from_utf8_lossy(&output.stdout).into_owned();
    for needle in [
        "LD_PRELOAD=/",
        "/libpageshim.so",
        "PAGESHIM_SOCKET=/",
        "PAGESHIM_MODE=count",
    ] {
        assert!(variables.contains(needle), "{needle} not in {variables}");
    }
    assert_eq!(stderr(&output), "", "-q says nothing");
}

// Goal: captures are named, numbered, and their failure is not the command's. Method: default, -o, no directory.
#[test]
fn captures_are_written_where_they_should_be() {
    let scratch = Scratch::new("captures");
    let output = scratch.run(&["run", "--", "true"]);
    let said = stderr(&output);
    let name = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("capture"))
        .map(str::trim);
    let name = name.unwrap_or_else(|| panic!("no capture in {said}"));
    assert!(
        name.starts_with("pageshim.true.") && scratch.0.join(name).is_file(),
        "{said}"
    );
    scratch.run(&["run", "-q", "-o", "mine.pgs", "--", "true"]);
    assert!(scratch.0.join("mine.pgs").is_file());
    let output = scratch.run(&[
        "run",
        "-q",
        "-o",
        "missing/x.pgs",
        "--",
        "sh",
        "-c",
        "exit 3",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("no capture was written"),
        "{}",
        stderr(&output)
    );
}

// Goal: off is off because it was asked for, and the summary says that. Method: option and variable.
#[test]
fn mode_off_is_explained() {
    let scratch = Scratch::new("off");
    let typed = scratch.run(&["run", "--mode", "off", "--", "true"]);
    let mut inherited = scratch.command(&["run", "--", "true"]);
    let inherited = inherited.env("PAGESHIM_MODE", "off").output();
    for output in [typed, inherited.expect("the binary starts")] {
        let said = stderr(&output);
        assert!(said.contains("mode off records nothing"), "{said}");
        assert!(!said.contains("doctor"), "{said}");
    }
}

// Goal: a file called like a process does not hide it. Method: no daemon; both are named as missing.
#[test]
fn a_file_that_is_no_capture_may_be_a_process() {
    let scratch = Scratch::new("namesake");
    std::fs::write(scratch.0.join("app"), "x").expect("our own directory");
    let said = stderr(&scratch.run(&["report", "app"]));
    assert!(said.contains("app is not a capture, and"), "{said}");
    assert!(said.contains("no daemon listens"), "{said}");
    let said = stderr(&scratch.run(&["report", "./app"]));
    assert!(said.contains("not a pageshim capture"), "{said}");
    assert!(!said.contains("snapshot"), "{said}");
}
