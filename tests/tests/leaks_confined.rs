//! Leak checks under a filter of system calls that a program began under, as in a container.

use pageshim_tests::planted::{IN_C, check_planted, start_within};
use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, View, places};
use rustix::process::{Pid, Signal, kill_process};

fn confined() -> String {
    let path = program("confined.c");
    path.to_str().expect("a path").to_owned()
}

// Goal: in a container a program is checked when it ends, and ends as ever. Method: `run` and all below
// it under a filter, with and without threads, by exit and by a signal.
#[test]
fn a_contained_program_is_checked_when_it_ends() {
    for threads in ["alone", "threads"] {
        for end in ["exit", "_exit", "wait"] {
            let what = format!("{threads}, {end}");
            let job = Job::new(program("leaks.c")).args([threads, end]);
            let mut started = start_within(&[&confined()], job, &[]);
            let signal = (end == "wait").then_some(Signal::TERM);
            if let Some(signal) = signal {
                started.running.wait_for("planted", 1);
                let pid = i32::try_from(started.pid()).expect("a number");
                let pid = Pid::from_raw(pid).expect("not zero");
                kill_process(pid, signal).expect("it runs");
            }
            let run = started.finish();
            let ended = signal.map_or(Ended::Code(0), |signal| Ended::Signal(signal.as_raw()));
            assert_eq!(run.outcome.ended, ended, "{what}: {:#?}", run.outcome);
            check_planted(&run, "leaks", IN_C, &what);
        }
    }
}

// Goal: in a container a running program is checked on request, without a word to it. Method: ten
// threads that would notice, five checks, and why a block is alive.
#[test]
fn a_contained_program_is_checked_on_request() {
    let daemon = Daemon::start();
    let job = Job::new(confined()).arg(program("bystander.c")).arg("10");
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    daemon.known("bystander");
    for _ in 0..5 {
        let said = Job::new(places::pageshim())
            .args(["leaks", "bystander", "--format", "json", "--socket"])
            .arg(daemon.socket())
            .run();
        let view = View::parse(&said.ok().stdout);
        let check = &view.processes()[0]["check"];
        assert_eq!(check["method"], "fork", "{check:#}");
        assert_eq!(number(check, "threads"), 11);
        assert!(
            number(&check["classes"]["definite"], "blocks") >= 7,
            "{check:#}"
        );
    }
    let outcome = running.finish();
    assert_eq!(outcome.ended, Ended::Code(0));
    assert!(
        outcome.stdout.contains("noticed 0 lively 1"),
        "{}",
        outcome.stdout
    );
}
