//! Leak checks of programs with a thread that cannot be stopped when it is asked to.

use std::fs;

use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, PATIENCE, Running, View, places, wait_until};

/// tests/programs/vforked.c, its thread in the kernel until it is told to `go`.
fn start(daemon: &Daemon, nodes: &str) -> Running {
    let job = Job::new(program("vforked.c")).arg(nodes);
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    wait_until("it waits for its child", PATIENCE, || {
        let state = |tid: &String| status(running.pid(), tid, "State:");
        let waits = |tid: &String| state(tid).is_some_and(|state| state.starts_with('D'));
        tids(running.pid()).iter().any(waits).then_some(())
    });
    daemon.known("vforked");
    running
}

fn tids(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
    entries.flatten().filter_map(name).collect()
}

fn status(pid: u32, tid: &str, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().to_owned())
}

/// True while a child of it runs, such as a copy that is searched.
fn has_running_child(pid: u32) -> bool {
    let children = |tid: &String| fs::read_to_string(format!("/proc/{pid}/task/{tid}/children"));
    let lists: Vec<String> = tids(pid).iter().flat_map(children).collect();
    let state = |child: &str| status(child.parse().ok()?, child, "State:");
    let mut states = lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(state);
    states.any(|state| !state.starts_with('Z'))
}

fn leaks(daemon: &Daemon, options: &[&str]) -> Job {
    Job::new(places::pageshim())
        .args(["leaks", "vforked", "--socket"])
        .arg(daemon.socket())
        .args(options)
}

fn lost_by(view: &View, function: &str) -> u64 {
    let process = view.process("vforked");
    let lost = |leak: &&serde_json::Value| {
        leak["stack"][0]["function"] == function && leak["class"] == "definite"
    };
    let leaks = view.leaks_of(process);
    let blocks = leaks.into_iter().filter(lost);
    blocks.map(|leak| number(leak, "blocks")).sum()
}

// Goal: a thread that did not stop is told, what its stack holds is not lost, with strict roots
// neither, and the program goes on. Method: one that waits for a child of vfork, as posix_spawn does.
#[test]
fn who_did_not_stop_is_told() {
    let daemon = Daemon::start();
    let mut running = start(&daemon, "10");
    for options in [&["--format", "json"][..], &["--format", "json", "--strict"]] {
        let view = View::parse(&leaks(&daemon, options).run().ok().stdout);
        let check = &view.process("vforked")["check"];
        assert_eq!(check["method"], "fork", "{check:#}");
        assert_eq!(number(check, "threads"), 1, "{check:#}");
        assert_eq!(number(check, "threads_missed"), 1, "{check:#}");
        assert_eq!((lost_by(&view, "lose"), lost_by(&view, "keep")), (7, 0));
    }
    let text = leaks(&daemon, &[]).run().ok().stdout;
    assert!(text.contains("1 thread did not stop in time"), "{text}");
    running.ask("go", "back");
    assert_eq!(running.finish().ended, Ended::Code(0));
}

// Goal: a thread that comes to its stop while a copy is searched goes on at once. Method: a search
// that takes a while, and a child that ends meanwhile.
#[test]
fn who_stops_too_late_goes_on() {
    let daemon = Daemon::start();
    let mut running = start(&daemon, "4000000");
    let asked = leaks(&daemon, &[]).start();
    let held = || {
        let tids = tids(running.pid());
        let traced =
            |tid: &&String| status(running.pid(), tid, "TracerPid:").is_some_and(|by| by != "0");
        tids.iter().filter(traced).count()
    };
    wait_until("both are asked to stop", PATIENCE, || {
        (held() == 2).then_some(())
    });
    wait_until("the one that did goes on", PATIENCE, || {
        (held() == 1).then_some(())
    });
    running.ask("go", "back");
    assert!(
        has_running_child(running.pid()),
        "back before the copy has ended"
    );
    let outcome = asked.finish().ok();
    assert!(
        outcome.stdout.contains("1 thread did not stop"),
        "{}",
        outcome.stdout
    );
    assert_eq!(running.finish().ended, Ended::Code(0));
}
