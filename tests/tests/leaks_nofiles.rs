//! Leak checks of a program that has closed our descriptors and has none left to open.

use std::thread::sleep;
use std::time::Duration;

use pageshim_tests::planted::start;
use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, View, places};
use serde_json::Value;

#[track_caller]
fn check_found(view: &View) -> Value {
    let check = view.processes()[0]["check"].clone();
    assert_eq!(check["state"], "done", "{check:#}");
    assert_eq!(number(&check["classes"]["definite"], "bytes"), 1000);
    check
}

// Goal: such a program is checked while it runs, and the report knows when, though nobody tells it
// the time any more. Method: a program that then does nothing, checked after a while.
#[test]
fn a_program_without_descriptors_is_checked_on_request() {
    const WHILE: Duration = Duration::from_millis(1500);
    let daemon = Daemon::start();
    let job = Job::new(program("nofiles.c"));
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    daemon.known("nofiles");
    sleep(WHILE);
    let said = Job::new(places::pageshim())
        .args(["leaks", "nofiles", "--format", "json", "--socket"])
        .arg(daemon.socket())
        .run();
    let check = check_found(&View::parse(&said.ok().stdout));
    assert_eq!(check["method"], "fork");
    let at = check["at_seconds"].as_f64().expect("a number");
    assert!(at >= WHILE.as_secs_f64(), "{check:#}");
    assert_eq!(running.finish().ended, Ended::Code(0));
}

// Goal: such a program is checked when it ends, and its limit of files is what it was. Method: one
// whose hard limit leaves room; it looks at its limit itself.
#[test]
fn a_program_without_descriptors_is_checked_when_it_ends() {
    let run = start(Job::new(program("nofiles.c")), &[]).finish();
    assert_eq!(run.outcome.ended, Ended::Code(0), "{:#?}", run.outcome);
    check_found(&run.view);
}
