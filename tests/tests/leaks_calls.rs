//! Leak checks of running programs in unusual states: in calls that a stop cuts short.

use std::time::{Duration, Instant};

use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, Outcome, Running, View, places};
use rustix::process::Signal;
use serde_json::Value;

/// A program that says when it is ready, and waits for its standard input to end.
fn start(daemon: &Daemon, job: Job) -> (Running, String) {
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    let id = daemon.known_pid(running.pid());
    (running, id)
}

/// `pageshim leaks`, as JSON.
fn leaks(daemon: &Daemon, process: &str) -> Outcome {
    Job::new(places::pageshim())
        .args(["leaks", process, "--format", "json", "--socket"])
        .arg(daemon.socket())
        .run()
}

/// Checks it; how that was done.
fn checked(daemon: &Daemon, process: &str) -> Value {
    let view = View::parse(&leaks(daemon, process).ok().stdout);
    view.processes()[0]["check"].clone()
}

fn odd(arguments: &[&str]) -> Job {
    Job::new(program("odd.c")).args(arguments)
}

/// Fails the case unless the check found what `odd` loses and keeps.
#[track_caller]
fn check_found(check: &Value) {
    let blocks = |class: &str| number(&check["classes"][class], "blocks");
    assert_eq!(blocks("definite"), 7, "{check:#}");
    assert!(blocks("reachable") >= 5, "{check:#}");
}

// Goal: calls on sockets with a time-out end by it and not with EINTR. Method: each such call in a thread
// of its own, checked while it waits.
#[test]
fn calls_with_a_time_out_are_made_again() {
    let daemon = Daemon::start();
    let (running, id) = start(&daemon, Job::new(program("cutshort.c")));
    for time in 0..15 {
        assert_eq!(checked(&daemon, &id)["method"], "fork", "check {time}");
        // Longer than the time-outs, which begin anew with each check.
        std::thread::sleep(Duration::from_millis(200));
    }
    let outcome = running.finish();
    assert_eq!(outcome.ended, Ended::Code(0), "{}", outcome.stderr);
    let said = outcome.stdout;
    assert!(said.contains("noticed 0 lively 1"), "{said}");
}

// Goal: a process whose first thread has ended is seen and checked like any other. Method: main ends by
// pthread_exit; a check on request, its bytes in RAM, the check at its end.
#[test]
fn a_process_without_its_first_thread_is_checked() {
    let daemon = Daemon::start();
    let job = odd(&["mainless"]).env("PAGESHIM_CHECK", "exit");
    let (running, id) = start(&daemon, job);
    let check = checked(&daemon, &id);
    assert_eq!(check["method"], "fork", "{check:#}");
    check_found(&check);
    let process = daemon.report().process("odd").clone();
    assert!(
        number(&process["pages"], "resident_bytes") > 0,
        "{process:#}"
    );
    assert_eq!(running.finish().ended, Ended::Code(0));
    let process = daemon.settled("odd").process("odd").clone();
    assert_eq!(process["check"]["trigger"], "exit");
    check_found(&process["check"]);
}

/// Checks a process of which there can be no copy, and fails the case unless the result says why.
#[track_caller]
fn check_in_place(daemon: &Daemon, process: &str, reason: &str, note: &str) {
    let check = checked(daemon, process);
    assert_eq!(check["method"], "held", "{check:#}");
    assert_eq!(check["reason"], reason, "{check:#}");
    check_found(&check);
    let text = daemon.get(&format!("/leaks.txt?process={process}")).ok();
    assert!(text.contains(note), "{text}");
}

// Goal: who reads the result of a check in place learns why there was no copy. Method: a limit of no
// processes; JSON and text.
#[test]
fn a_refused_fork_is_told() {
    let daemon = Daemon::start();
    let (running, id) = start(&daemon, odd(&["unforkable"]));
    let said = "No copy was made: the kernel refused to fork the process.";
    check_in_place(&daemon, &id, "fork", said);
    assert_eq!(running.finish().stdout, "ready\n", "it may not fork");
}

// Goal: a check leaves alone a process id namespace that waits for its first process. Method: unshare,
// two checks, then the program's own child, which is process 1 of it.
#[test]
fn a_new_namespace_is_left_to_its_program() {
    let daemon = Daemon::start();
    let (running, id) = start(&daemon, odd(&["namespace"]));
    if running.stdout().contains("cannot") {
        return println!("skipped: no namespace may be made here");
    }
    let said = "No copy was made: its next child would be the first of a new process id namespace";
    for _ in 0..2 {
        check_in_place(&daemon, &id, "namespace", said);
    }
    assert_eq!(running.finish().stdout, "ready\nforked 1 child 1\n");
}

// Goal: who has a process checked that dies meanwhile is told at once. Method: one that is traced by
// another program, so that it checks itself, with much to search; kill.
#[test]
fn a_death_amid_a_check_is_told() {
    const TRACER: &str = "import ctypes, sys
libc = ctypes.CDLL(None)
print('traced', libc.ptrace(0x4206, int(sys.argv[1]), 0, 0), flush=True)
sys.stdin.read()";
    let daemon = Daemon::start();
    let (running, id) = start(&daemon, odd(&["busy", "6000000"]));
    let pid = running.pid().to_string();
    let mut tracer = Job::new("python3").args(["-c", TRACER, &pid]).start();
    tracer.wait_for("traced 0", 1);
    let (told_after, outcome) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| (leaks(&daemon, &id), Instant::now()));
        std::thread::sleep(Duration::from_millis(200));
        let killed = Instant::now();
        running.signal(Signal::KILL);
        tracer.finish();
        let (outcome, answered) = asked.join().expect("no panic");
        (answered - killed, outcome)
    });
    // Before it was asked to check itself, the helper that would stop it says so.
    let said = ["it ended while it was checked", "the process is gone"];
    let told = said.iter().any(|said| outcome.stderr.contains(said));
    assert!(told, "{outcome:#?}");
    assert!(told_after < Duration::from_secs(5), "after {told_after:?}");
    assert_eq!(running.finish().ended, Ended::Signal(9));
}
