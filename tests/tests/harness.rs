//! The harness itself: what the other cases stand on, checked without the shim.

use std::time::{Duration, Instant};

use pageshim_tests::programs::{line_of, program, text};
use pageshim_tests::{Ended, Job, Temp, wait_until};

// Goal: output, status and input of a program arrive whole. Method: a shell that uses all of them.
#[test]
fn a_job_reports_output_and_status() {
    let script = "cat; echo out; echo err >&2; exit 5";
    let outcome = Job::new("sh").args(["-c", script]).input("in\n").run();
    assert_eq!(outcome.stdout, "in\nout\n");
    assert_eq!(outcome.stderr, "err\n");
    assert_eq!(outcome.ended, Ended::Code(5));
    let killed = Job::new("sh").args(["-c", "kill -9 $$"]).run();
    assert_eq!(killed.ended, Ended::Signal(9));
}

// Goal: a program past its limit is killed with its children. Method: a shell whose child sleeps.
#[test]
fn a_job_past_its_limit_is_killed_with_its_group() {
    let start = Instant::now();
    let outcome = Job::new("sh")
        .args(["-c", "sleep 100 & echo $!; sleep 100"])
        .limit(Duration::from_millis(300))
        .run();
    assert_eq!(outcome.ended, Ended::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(10));
    let child = outcome.stdout.trim().to_owned();
    wait_until("the grandchild is gone", Duration::from_secs(5), || {
        let status = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        (status.is_empty() || status.contains(") Z ")).then_some(())
    });
}

// Goal: a machine that stands still for longer than a limit fails no case. Method: a program that stops
// the harness itself, and ends well before it may go on.
#[test]
fn a_machine_that_stands_still_fails_no_case() {
    let outcome = Job::new("sh")
        .args([
            "-c",
            "kill -STOP $PPID; sleep 3; kill -CONT $PPID; echo done",
        ])
        .limit(Duration::from_secs(2))
        .run();
    assert_eq!(outcome.ended, Ended::Code(0));
    assert_eq!(outcome.stdout, "done\n");
}

// Goal: a stray child that keeps the pipe open does not hang a case. Method: one that sleeps in the background.
#[test]
fn a_stray_child_does_not_hold_the_case() {
    let start = Instant::now();
    let outcome = Job::new("sh").args(["-c", "sleep 100 & echo done"]).run();
    assert_eq!(
        (outcome.stdout.as_str(), outcome.ended),
        ("done\n", Ended::Code(0))
    );
    assert!(start.elapsed() < Duration::from_secs(10));
}

// Goal: directories differ and go away. Method: two of them, then drop.
#[test]
fn temporary_directories_are_removed() {
    let (one, two) = (Temp::new(), Temp::new());
    let path = one.to_path_buf();
    one.file("x", "y");
    assert_ne!(path, two.to_path_buf());
    drop(one);
    assert!(!path.exists());
}

// Goal: a program can be talked to. Method: zoo's hold mode, without the shim.
#[test]
fn a_running_program_answers_lines() {
    let mut zoo = Job::new(program("zoo.c")).arg("hold").start();
    zoo.wait_for("ready", 1);
    zoo.ask("node 10", "done");
    zoo.ask("churn", "done");
    let outcome = zoo.finish().ok();
    assert!(outcome.stdout.ends_with("zoo: 89845046\n"), "{outcome:?}");
}

// Goal: the marks the attribution cases rely on sit on the allocating line. Method: read them.
#[test]
fn marks_name_the_allocating_line() {
    let line = usize::try_from(line_of("zoo.c", "make_node")).expect("small");
    let source = text("zoo.c");
    let line = source.lines().nth(line - 1).expect("within the file");
    assert!(line.contains("malloc("), "{line}");
}
