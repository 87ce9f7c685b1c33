//! Programs that one thread ends while others wait: their check at the end is not noticed.

use pageshim_tests::planted::{Planted, check_found, run};
use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::ways::trace;
use pageshim_tests::{Daemon, Ended, Job, Outcome, PATIENCE, View, wait_until};
use serde_json::Value;

const WAYS: [&str; 7] = [
    "pause", "sleep", "poll", "select", "epoll", "sigwait", "altstack",
];
const PLANTED: [Planted; 2] = [("lose", "definite", 7, 280), ("keep", "reachable", 1, 77)];

#[track_caller]
fn check_left<'v>(outcome: &Outcome, view: &'v View, what: &str) -> &'v Value {
    assert_eq!(outcome.ended, Ended::Code(5), "{what}: {outcome:#?}");
    assert!(outcome.stdout.ends_with("ready\n"), "{what}: {outcome:#?}");
    let process = view.process("leaving");
    check_found(view, process, &PLANTED, what);
    let check = &process["check"];
    let about = (&check["trigger"], &check["method"]);
    assert_eq!(about, (&"exit".into(), &"fork".into()), "{what}: {check:#}");
    check
}

// Goal: the status is the program's, no call of another thread comes back, none dies of a signal it
// has no stack for, and all are known. Method: calls that a signal cuts short, a stack that is gone.
#[test]
fn nobody_goes_on_before_the_end() {
    for way in WAYS {
        for end in ["exit", "_exit"] {
            let what = format!("{way} {end}");
            let run = run(Job::new(program("leaving.c")).args([way, end]), &[]);
            let check = check_left(&run.outcome, &run.view, &what);
            assert_eq!(number(check, "threads"), 2, "{what}");
            assert_eq!(number(check, "threads_missed"), 0, "{what}");
        }
    }
}

// Goal: where nobody may hold the program it is not noticed either, and who is not known is told.
// Method: another process traces it.
#[test]
fn who_cannot_be_held_is_told() {
    for way in ["pause", "altstack"] {
        let daemon = Daemon::start();
        let job = Job::new(program("leaving.c")).args([way, "exit"]);
        let job = daemon.preload("exact").apply(job);
        let mut running = job.env("PAGESHIM_CHECK", "exit").start();
        running.wait_for("ready", 1);
        let tracer = trace(running.pid());
        running.say("");
        wait_until("it was checked", PATIENCE, || {
            let view = daemon.report();
            (view.process("leaving")["check"]["state"] == "done").then_some(())
        });
        // The end of a process is its tracer's to hear of first.
        tracer.finish();
        let outcome = running.finish();
        let view = daemon.report();
        let check = check_left(&outcome, &view, way);
        assert_eq!(number(check, "threads"), 1, "{way}");
        assert_eq!(number(check, "threads_missed"), 1, "{way}");
    }
}
