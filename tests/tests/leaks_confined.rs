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

// Goal: a program that its surroundings let make no copy is not searched in its stead, for a call they
// do not know would end it: that is told, and it goes on and ends as ever. Method: a filter that refuses
// copies and kills for a call of the search; a check, a question why, the check at its end.
#[test]
fn a_contained_program_that_cannot_fork_is_left_alone() {
    let daemon = Daemon::start();
    let job = Job::new(confined()).arg("-1").arg(program("alive.c"));
    let job = daemon.preload("exact").apply(job);
    let mut running = job.env("PAGESHIM_CHECK", "exit").start();
    running.wait_for("ready", 1);
    daemon.known("alive");
    let said = running.stdout();
    let entry = said.lines().find_map(|line| line.strip_prefix("entry "));
    for asked in [
        &["leaks", "alive"][..],
        &["why", "alive", entry.expect("one")],
    ] {
        let job = Job::new(places::pageshim()).args(asked).arg("--socket");
        let outcome = job.arg(daemon.socket()).run();
        assert_eq!(outcome.ended, Ended::Code(1), "{outcome:#?}");
        let why = "refused to fork the process, and under its filter";
        assert!(outcome.stderr.contains(why), "{outcome:#?}");
    }
    assert_eq!(running.finish().ended, Ended::Code(0));
    let view = daemon.settled("alive");
    let check = &view.process("alive")["check"];
    assert_eq!(check["state"], "failed", "{check:#}");
    assert_eq!(check["reason"], "fork", "{check:#}");
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
