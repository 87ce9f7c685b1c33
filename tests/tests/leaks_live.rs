//! Leak checks of running programs, on request: what is found, and that nobody notices.

use std::fs;

use pageshim_tests::programs::program;
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Browser, Daemon, Ended, Job, Outcome, Running, View, places};
use rustix::process::Signal;
use serde_json::Value;

/// A program that waits for its standard input to end.
fn start(daemon: &Daemon, name: &str, argument: &str) -> Running {
    let job = Job::new(program(name)).arg(argument);
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    daemon.known(name.trim_end_matches(".c"));
    running
}

/// `pageshim leaks`, as JSON.
fn leaks(daemon: &Daemon, process: &str) -> Outcome {
    Job::new(places::pageshim())
        .args(["leaks", process, "--format", "json", "--socket"])
        .arg(daemon.socket())
        .run()
}

fn found(daemon: &Daemon, process: &str) -> (View, Value) {
    let view = View::parse(&leaks(daemon, process).ok().stdout);
    let process = view.processes()[0].clone();
    (view, process)
}

/// Blocks of a class that a function of the program asked for.
fn lost_by(view: &View, process: &Value, function: &str, class: &str) -> Held {
    let mut all = Held::default();
    for leak in view.leaks_of(process) {
        if leak["stack"][0]["function"] == function && leak["class"] == class {
            all.blocks += number(leak, "blocks");
            all.bytes += number(leak, "bytes");
        }
    }
    all
}

/// How often to check: as the environment says, or `few` times.
fn times(few: usize) -> usize {
    match std::env::var("PAGESHIM_TESTS_CHECKS") {
        Ok(times) => times.parse().expect("a number"),
        Err(_) => few,
    }
}

#[track_caller]
fn check_unnoticed(running: Running) {
    let outcome = running.finish();
    assert_eq!(
        outcome.ended,
        Ended::Code(0),
        "{}{}",
        outcome.stdout,
        outcome.stderr
    );
    assert!(
        outcome.stdout.contains("noticed 0 lively 1"),
        "{}",
        outcome.stdout
    );
}

// Goal: a program that is checked again and again gives the same result and sees nothing: no call
// fails, no sleep is short, no register is lost, no child appears. Method: threads that would notice;
// PAGESHIM_TESTS_CHECKS says how often.
#[test]
fn a_program_is_checked_and_does_not_notice() {
    let daemon = Daemon::start();
    let running = start(&daemon, "bystander.c", "10");
    let mut pauses = Vec::new();
    for time in 0..times(40) {
        let (view, process) = found(&daemon, "bystander");
        let check = &process["check"];
        assert_eq!(check["method"], "fork", "check {time}: {check:#}");
        assert_eq!(number(check, "threads"), 11, "check {time}");
        assert_eq!(number(check, "threads_missed"), 0, "check {time}");
        let lost = lost_by(&view, &process, "lose", "definite");
        assert_eq!((lost.blocks, lost.bytes), (7, 280), "check {time}");
        assert_eq!(lost_by(&view, &process, "keep", "definite").blocks, 0);
        pauses.push(number(check, "pause_ns"));
    }
    pauses.sort_unstable();
    println!(
        "pause of {} checks: median {} us",
        pauses.len(),
        pauses[pauses.len() / 2] / 1000
    );
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid()));
    let children = children.expect("it runs");
    assert!(
        children.split_whitespace().count() <= 1,
        "one copy waits for the next check: {children}"
    );
    daemon.check_healthy();
    check_unnoticed(running);
}

// Goal: 200 threads are held and let go, with the same result each time. Method: the same program; on
// a machine with much else to do a thread may not come to a stop in time, and is told.
#[test]
fn two_hundred_threads_are_held() {
    let daemon = Daemon::start();
    let running = start(&daemon, "bystander.c", "200");
    let mut all = 0;
    for time in 0..times(5) {
        let (view, process) = found(&daemon, "bystander");
        let stood = number(&process["check"], "threads");
        let missed = number(&process["check"], "threads_missed");
        assert_eq!(stood + missed, 201, "check {time}");
        all += usize::from(missed == 0);
        let lost = lost_by(&view, &process, "lose", "definite").blocks;
        assert_eq!(lost, 7, "check {time}");
    }
    assert!(all > times(5) / 2, "all stood still in {all} checks only");
    check_unnoticed(running);
}

// Goal: a stopped program is checked and stays stopped. Method: SIGSTOP, check, SIGCONT; no thread in
// epoll_wait, which the kernel lets fail after SIGCONT, checked or not.
#[test]
fn a_stopped_program_stays_stopped() {
    let daemon = Daemon::start();
    let running = start(&daemon, "bystander.c", "1");
    running.signal(Signal::STOP);
    let state = || {
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("runs");
        let line = status.lines().find_map(|line| line.strip_prefix("State:"));
        line.expect("a state").trim().to_owned()
    };
    pageshim_tests::wait_until("it stops", pageshim_tests::PATIENCE, || {
        state().starts_with('T').then_some(())
    });
    for time in 0..times(3) {
        let (view, process) = found(&daemon, "bystander");
        let lost = lost_by(&view, &process, "lose", "definite").blocks;
        assert_eq!(lost, 7, "check {time}");
        pageshim_tests::wait_until("it stops again", pageshim_tests::PATIENCE, || {
            state().starts_with('T').then_some(())
        });
    }
    running.signal(Signal::CONT);
    let outcome = running.finish();
    assert_eq!(outcome.ended, Ended::Code(0), "{}", outcome.stderr);
}

// Goal: a filter of system calls is respected. Method: one that kills at clone.
#[test]
fn a_filtered_program_is_left_alone() {
    let daemon = Daemon::start();
    let running = start(&daemon, "filtered.c", "");
    let outcome = leaks(&daemon, "filtered");
    assert_eq!(outcome.ended, Ended::Code(1));
    assert!(
        outcome
            .stderr
            .contains("set itself a filter of system calls"),
        "{}",
        outcome.stderr
    );
    assert_eq!(running.finish().ended, Ended::Code(0));
}

// Goal: a process that only has the id is not written to. Method: an order for another one.
#[test]
fn another_process_with_the_id_is_left_alone() {
    let mut running = Job::new(program("bystander.c")).arg("2").start();
    running.wait_for("ready", 1);
    let order = format!(
        r#"{{"pid":{},"door":{{"entry":4096,"stack":8192,"threads":4096,"threads_max":9,"saved":4096}},"state_inode":77,"filters":1,"in_place":false,"limit_ms":1000,"at_exit":false}}"#,
        running.pid()
    );
    let said = Job::new(places::pageshim())
        .args(["hold", &order])
        .run()
        .ok()
        .stdout;
    assert!(said.contains("another process's"), "{said}");
    let outcome = running.finish();
    assert!(outcome.stdout.contains("noticed 0"), "{}", outcome.stdout);
}

// Goal: two who ask at once both get an answer, one after the other. Method: four at a time.
#[test]
fn requests_wait_for_each_other() {
    let daemon = Daemon::start();
    let running = start(&daemon, "bystander.c", "5");
    std::thread::scope(|scope| {
        let ask = || {
            for _ in 0..5 {
                let (view, process) = found(&daemon, "bystander");
                assert_eq!(lost_by(&view, &process, "lose", "definite").blocks, 7);
            }
        };
        for _ in 0..4 {
            scope.spawn(ask);
        }
    });
    check_unnoticed(running);
}

// Goal: a process that is not there, or ended, is told. Method: both.
#[test]
fn who_cannot_be_checked_is_told() {
    let daemon = Daemon::start();
    let nobody = leaks(&daemon, "nobody");
    assert!(
        nobody.stderr.contains("there is no process nobody"),
        "{}",
        nobody.stderr
    );
    daemon
        .preload("exact")
        .apply(Job::new(program("zoo.c")))
        .run()
        .ok();
    daemon.settled("zoo");
    let ended = leaks(&daemon, "zoo");
    assert_eq!(ended.ended, Ended::Code(1));
    assert!(ended.stderr.contains("it has ended"), "{}", ended.stderr);
}

// Goal: the button on /leaks checks, and the page shows what was found. Method: Enter on it.
#[test]
fn the_button_checks() {
    let daemon = Daemon::start();
    let running = start(&daemon, "bystander.c", "5");
    let address = daemon.address();
    let mut browser = Browser::start();
    browser.open(&format!("http://{address}/leaks?process=bystander"));
    let said = "document.querySelector('section[aria-labelledby=lost]').innerText";
    let before = browser.value(said);
    assert!(
        before.as_str().expect("text").contains("not checked yet"),
        "{before}"
    );
    browser.value("document.querySelector('section[aria-labelledby=lost] button').focus()");
    browser.press("Enter");
    let after = pageshim_tests::wait_until("the result", pageshim_tests::PATIENCE, || {
        let text = browser.value(&format!("document.readyState === 'complete' ? {said} : ''"));
        let text = text.as_str().unwrap_or("").to_owned();
        text.contains("stood still for").then_some(text)
    });
    assert!(
        after.contains("definite") && after.contains("7 blocks"),
        "{after}"
    );
    let rows = "[...document.querySelectorAll('table.sites tbody tr')].filter(r => r.innerText.includes('definite') && r.innerText.includes('lose')).length";
    assert_eq!(browser.value(rows), 1);
    check_unnoticed(running);
}
