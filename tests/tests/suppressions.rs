//! Suppressions end to end: the program's own, those of files, and what CI reads.

use std::fs;

use pageshim_tests::programs::{program, program_with};
use pageshim_tests::{Daemon, Ended, Job, PATIENCE, Temp, places, wait_until};
use serde_json::Value;

fn checks(daemon: &Daemon, pid: &str) -> Value {
    let socket = daemon.socket().to_str().expect("text");
    let job =
        Job::new(places::pageshim()).args(["leaks", pid, "--format", "json", "--socket", socket]);
    let outcome = job.run().ok();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    report["processes"][0]["check"].clone()
}

// Goal: a program's own suppressions reach the check of it, and of its forks; a program without
// has none. Method: check three waiting programs, count the rules.
#[test]
fn a_programs_own_suppressions_are_known() {
    let daemon = Daemon::start();
    let own = program_with("suppressed.c", &["-rdynamic"]);
    let hidden = program_with("suppressed.c", &["-fvisibility=hidden"]);
    for (binary, argument, rules) in [(&own, "", 2), (&own, "fork", 2), (&hidden, "", 0)] {
        let mut running = daemon
            .preload("exact")
            .apply(Job::new(binary).arg(argument))
            .start();
        running.wait_for("ready ", 1);
        let pid = running.stdout().trim().replace("ready ", "");
        daemon.known_pid(pid.parse().expect("a number"));
        let check = checks(&daemon, &pid);
        assert_eq!(check["rules"], rules, "{argument}: {check}");
        running.finish().ok();
    }
}

// Goal: CI gets its files, and a file of rules that is none is refused before the program runs.
// Method: run a program with each.
#[test]
fn ci_gets_its_files() {
    let dir = Temp::new();
    let (junit, sarif, rules) = (dir.join("j.xml"), dir.join("s.json"), dir.join("r.txt"));
    fs::write(&rules, "# known\nleak:make_node\n").expect("writable");
    let run = || Job::new(places::pageshim()).dir(&dir).args(["run", "-q"]);
    let job = run()
        .arg("--suppressions")
        .arg(&rules)
        .arg("--junit")
        .arg(&junit);
    let job = job
        .arg("--sarif")
        .arg(&sarif)
        .arg("--")
        .arg(program("zoo.c"));
    job.run().ok();
    let junit = fs::read_to_string(junit).expect("written");
    assert!(
        junit.starts_with("<?xml") && junit.contains("<testsuite name=\"zoo (pid"),
        "{junit}"
    );
    let sarif: Value =
        serde_json::from_str(&fs::read_to_string(sarif).expect("written")).expect("JSON");
    assert_eq!(sarif["version"], "2.1.0");
    fs::write(&rules, "race:make_node\n").expect("writable");
    let refused = run()
        .arg("--suppressions")
        .arg(&rules)
        .args(["--", "true"])
        .run();
    assert_eq!(refused.ended, Ended::Code(125));
    assert!(
        refused.stderr.contains("line 1") && refused.stderr.contains("leak:PATTERN"),
        "{}",
        refused.stderr
    );
}

/// Names of JUnit cases, fingerprints and site ids of one run of a program that loses blocks.
fn called() -> [Vec<String>; 3] {
    let dir = Temp::new();
    let (junit, sarif) = (dir.join("j.xml"), dir.join("s.json"));
    let job = Job::new(places::pageshim()).dir(&dir).args(["run", "-q"]);
    let job = job.arg("--junit").arg(&junit).arg("--sarif").arg(&sarif);
    job.arg("--").arg(program("leaks.c")).run().ok();
    let junit = fs::read_to_string(junit).expect("written");
    let cases = junit.lines().filter(|line| line.contains("<testcase"));
    let case = |line: &str| line.split('"').nth(3).map(ToOwned::to_owned);
    let sarif: Value =
        serde_json::from_str(&fs::read_to_string(sarif).expect("written")).expect("JSON");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    let each = |pointer: &str| {
        let text = |result: &Value| result.pointer(pointer)?.as_str().map(ToOwned::to_owned);
        let mut all: Vec<String> = results.iter().filter_map(text).collect();
        all.sort();
        all
    };
    let mut cases: Vec<String> = cases.filter_map(case).collect();
    cases.sort();
    [
        cases,
        each("/fingerprints/pageshimSite~1v2"),
        each("/properties/site"),
    ]
}

// Goal: CI may compare runs: lost sites are called the same in each, though addresses are not.
// Method: two runs of one program.
#[test]
fn lost_sites_keep_their_names_from_run_to_run() {
    let ([cases, prints, sites], [more_cases, more_prints, more_sites]) = (called(), called());
    assert_ne!(sites, more_sites, "addresses are chosen anew for each run");
    assert!(prints.len() > 5, "{prints:?}");
    assert_eq!((&cases, &prints), (&more_cases, &more_prints));
    for mut names in [cases, prints] {
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}

// Goal: a daemon told to checks its processes unasked, and keeps the results. Method: wait for the
// first check of a program that does nothing.
#[test]
fn a_daemon_checks_unasked() {
    let dir = Temp::new();
    let socket = dir.join("s.sock");
    let job = Daemon::job(places::pageshim(), &socket).args(["--check-every", "1"]);
    let daemon = Daemon::launch(&socket, job);
    let job = Job::new(program("suppressed.c"));
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready ", 1);
    let id = daemon.known_pid(running.pid());
    wait_until("checked unasked", PATIENCE, || {
        let answer = daemon.get(&format!("/api/v1/processes/{id}/checks")).ok();
        let checks: Value = serde_json::from_str(&answer).expect("JSON");
        let first = checks["checks"][0]["check"]["number"].as_u64();
        first.filter(|number| *number > 0)
    });
    running.finish().ok();
}
