//! Leak checks of a tree of forked processes on request, all of them, many times.

use std::collections::BTreeMap;

use pageshim_tests::planted::classes;
use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, PATIENCE, View, places, wait_until};

/// How often each is checked; PAGESHIM_TESTS_CHECKS asks for more.
fn times() -> usize {
    match std::env::var("PAGESHIM_TESTS_CHECKS") {
        Ok(times) => times.parse().expect("a number"),
        Err(_) => 5,
    }
}

/// Process ids, and how many blocks each says it lost.
fn members(said: &str) -> BTreeMap<u32, u64> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("ready "));
    let numbers = lines.filter_map(|line| line.split_once(' '));
    numbers
        .map(|(pid, lost)| (pid.parse().expect("a pid"), lost.parse().expect("a number")))
        .collect()
}

// Goal: parents, children and theirs, with threads and without, are checked side by side again and
// again: the result stays, nothing hangs, nobody notices. Method: each process counts what it noticed.
#[test]
fn a_family_is_checked_and_does_not_notice() {
    const CHILDREN: usize = 3;
    let daemon = Daemon::start();
    let job = Job::new(program("family.c")).arg(CHILDREN.to_string());
    let job = job.limit(std::time::Duration::from_secs(3600));
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 2 * CHILDREN);
    let family = members(&running.stdout());
    assert_eq!(family.len(), 2 * CHILDREN);
    for pid in family.keys() {
        daemon.known_pid(*pid);
    }
    std::thread::scope(|scope| {
        for (pid, lost) in &family {
            let daemon = &daemon;
            scope.spawn(move || {
                for time in 0..times() {
                    check(daemon, *pid, *lost, time);
                }
            });
        }
    });
    let outcome = running.finish();
    assert_eq!(outcome.ended, Ended::Code(0), "{outcome:#?}");
    assert!(outcome.stdout.contains("wrong 0"), "{outcome:#?}");
    let ended = || {
        let list = View::parse(&daemon.get("/api/v1/processes").ok());
        let of = |pid: &u32| list.processes().iter().find(|p| p["pid"] == *pid);
        let gone = |pid| of(pid).is_some_and(|process| process["exit"]["code"] == 0);
        family.keys().all(gone).then_some(())
    };
    wait_until("all are known to have ended", PATIENCE, ended);
    daemon.check_healthy();
}

#[track_caller]
fn check(daemon: &Daemon, pid: u32, lost: u64, time: usize) {
    let job = Job::new(places::pageshim()).args(["leaks", &pid.to_string()]);
    let job = job
        .args(["--format", "json", "--socket"])
        .arg(daemon.socket());
    let view = View::parse(&job.run().ok().stdout);
    let process = &view.processes()[0];
    let check = &process["check"];
    assert_eq!(
        (&check["state"], &check["method"]),
        (&"done".into(), &"fork".into()),
        "{time}"
    );
    let threads = if lost.is_multiple_of(2) { 4 } else { 1 };
    assert_eq!(
        number(check, "threads"),
        threads,
        "check {time} of {pid}: {check:#}"
    );
    let found = classes(&view, process, "lose_own");
    assert_eq!(
        found["definite"].blocks, lost,
        "check {time} of {pid}: {found:?}"
    );
    assert_eq!(found["definite"].bytes, 48 * lost);
}
