//! Leak checks when a process ends: planted blocks, block for block.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use pageshim_tests::planted::{
    IN_C, Planted, check_memcheck, check_planted, classes, in_c_strictly, run,
};
use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, PATIENCE, places, wait_until};
use pageshim_wire::process::{Control, word};
use serde_json::Value;

/// What tests/programs/leaks.cpp keeps, and what becomes of it when its owners go.
const KEPT_IN_CPP: &[Planted] = &[
    ("make_vector", "reachable", 1, 24),
    ("make_number", "reachable", 10, 40),
    ("make_map", "reachable", 1, 48),
    ("make_counted", "possible", 1, 88),
    ("make_second", "possible", 1, 40),
    ("make_first", "reachable", 1, 40),
    ("make_ints", "reachable", 1, 100),
];
// The map's nodes point back into it: a ring, and which of it is definite depends on addresses.
const LOST_IN_CPP: &[Planted] = &[
    ("make_vector", "definite", 1, 24),
    ("make_number", "indirect", 10, 40),
    ("make_counted", "definite", 1, 88),
    ("make_second", "definite", 1, 40),
    ("make_first", "definite", 1, 40),
    ("make_ints", "definite", 1, 100),
];

// Goal: every way out ends with the right class for each planted block. Method: the ways there are.
#[test]
fn each_way_out_finds_the_planted_blocks() {
    for way in ["return", "exit", "_exit", "quick_exit"] {
        let run = run(Job::new(program("leaks.c")).arg(way), &[]);
        assert!(run.outcome.stdout.contains("planted"), "{:#?}", run.outcome);
        check_planted(&run, "leaks", IN_C, way);
        let check = &run.view.process("leaks")["check"];
        assert_eq!(check["method"], "alone");
        assert_eq!(number(check, "threads"), 1);
    }
}

// Goal: other threads' stacks are roots, also of threads no signal reaches, and what the loader
// keeps for threads is no leak. Method: three threads that wait, once with all signals blocked.
#[test]
fn other_threads_hold_what_their_stacks_hold() {
    for way in ["threads", "blocked"] {
        let run = run(Job::new(program("leaks.c")).arg(way), &[]);
        check_planted(&run, "leaks", IN_C, way);
        check_planted(&run, "leaks", &[("of_stack", "reachable", 3, 318)], way);
        let process = run.view.process("leaks");
        let check = &process["check"];
        assert_eq!(check["method"], "fork", "{check:#}");
        assert_eq!(number(check, "threads"), 4, "{check:#}");
        assert_eq!(number(check, "threads_missed"), 0, "{check:#}");
        for class in ["definite", "indirect", "possible"] {
            let mut of = run
                .view
                .leaks_of(process)
                .filter(|leak| leak["class"] == class);
            let planted = |leak: &Value| {
                let name = leak["stack"][0]["function"].as_str().unwrap_or("");
                IN_C.iter().any(|(function, ..)| *function == name)
            };
            let other = of.find(|leak| !planted(leak));
            assert!(other.is_none(), "{way}: {other:#?}");
        }
    }
}

// Goal: a process that is asked checks itself, as often as it is asked, and goes on. Method: the
// control word, written as a daemon would, twice; three threads wait, one allocates.
#[test]
fn a_process_that_is_asked_checks_itself() {
    let daemon = Daemon::start();
    let job = Job::new(program("leaks.c")).arg("busy");
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("planted", 1);
    let state = state_of(running.pid());
    let mut last = Value::Null;
    for turn in 1..=2u64 {
        let word = turn << 32 | Control::Check as u64;
        let at = word::CONTROL as u64 * 8;
        state.write_at(&word.to_le_bytes(), at).expect("a word");
        let (view, process) = wait_until("a check", PATIENCE, || {
            let view = daemon.known("leaks");
            let process = view.process("leaks").clone();
            let check = &process["check"];
            (!check.is_null() && check["duration_ns"] != last).then_some((view, process))
        });
        let check = &process["check"];
        last = check["duration_ns"].clone();
        assert_eq!(
            (&check["state"], &check["trigger"]),
            (&"done".into(), &"request".into())
        );
        assert_eq!(
            (number(check, "threads"), number(check, "threads_missed")),
            (4, 0)
        );
        for (function, class, blocks, _) in IN_C {
            let found = classes(&view, &process, function);
            assert_eq!(found[*class].blocks, *blocks, "{function}: {found:?}");
        }
        assert_eq!(classes(&view, &process, "of_stack")["reachable"].blocks, 3);
    }
    running.say("");
    assert_eq!(running.finish().ended, Ended::Code(0));
}

/// The shared state of a process, by its descriptor.
fn state_of(pid: u32) -> File {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let is = |path: &PathBuf| {
        let target = std::fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().contains("memfd:pageshim")
    };
    let path = all.flatten().map(|entry| entry.path()).find(is);
    let file = File::options().write(true).open(path.expect("a state"));
    file.expect("ours")
}

// Goal: strict roots leave out what only a mapping holds, at the end and on request, and say so;
// threads' storage stays a root whoever checks. Method: a block in a mapped page, main's storage.
#[test]
fn strict_roots_are_those_of_leak_sanitizer() {
    for way in ["return", "threads"] {
        let strict = [("PAGESHIM_CHECK", "exit,strict")];
        let run = run(Job::new(program("leaks.c")).arg(way), &strict);
        check_planted(&run, "leaks", &in_c_strictly(), way);
        assert_eq!(run.view.process("leaks")["check"]["strict"], true);
    }
    let daemon = Daemon::start();
    let job = Job::new(program("leaks.c")).arg("busy");
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("planted", 1);
    daemon.known("leaks");
    for (options, planted, strict) in [
        (&["--strict"][..], in_c_strictly(), true),
        (&[], IN_C.to_vec(), false),
        (&["--strict"], in_c_strictly(), true),
    ] {
        let job = Job::new(places::pageshim())
            .args(["leaks", "leaks"])
            .args(options);
        let said = job.arg("--socket").arg(daemon.socket()).run().ok().stdout;
        assert_eq!(said.contains(" of_map  "), strict, "{said}");
        let view = daemon.report();
        let process = view.process("leaks");
        assert_eq!(process["check"]["strict"], strict);
        assert_eq!(process["check"]["method"], "fork");
        for (function, class, blocks, _) in planted {
            let found = classes(&view, process, function);
            assert_eq!(found[class].blocks, blocks, "{function}: {found:?}");
        }
    }
    let page = daemon.get_as("/leaks?process=leaks", "text/html").ok();
    assert!(page.contains("Strict roots"), "{page}");
    running.say("");
    assert_eq!(running.finish().ended, Ended::Code(0));
}

// Goal: C++ owners keep what they own, and lose it with all it owns. Method: both.
#[test]
fn cpp_owners_keep_and_lose() {
    let kept = run(Job::new(program("leaks.cpp")), &[]);
    check_planted(&kept, "leaks", KEPT_IN_CPP, "kept");
    let lost = run(Job::new(program("leaks.cpp")).arg("lose"), &[]);
    check_planted(&lost, "leaks", LOST_IN_CPP, "lost");
}

// Goal: without a check, or where none can be made, the report says so and stays as it was.
// Method: off, a bad value, a mode and a heap without records.
#[test]
fn no_check_is_told_apart_from_no_leak() {
    let job = || Job::new(program("leaks.c"));
    let off = run(job(), &[("PAGESHIM_CHECK", "off")]);
    let process = off.view.process("leaks");
    assert!(process["check"].is_null());
    assert!(
        off.view
            .leaks_of(process)
            .all(|leak| leak["class"] == "live")
    );
    let bad = run(job(), &[("PAGESHIM_CHECK", "sometimes")]);
    assert!(bad.view.process("leaks")["check"].is_null());
    let lines = bad
        .outcome
        .stderr
        .matches("PAGESHIM_CHECK=sometimes")
        .count();
    assert_eq!(lines, 1, "{}", bad.outcome.stderr);
    for setting in [("PAGESHIM_MODE", "sampled"), ("PAGESHIM_HEAP", "page")] {
        let run = run(job(), &[setting]);
        let check = &run.view.process("leaks")["check"];
        assert_eq!(check["state"], "failed", "{check:#}");
        assert_eq!(check["reason"], "no_records", "{check:#}");
    }
}

// Goal: Memcheck says the same of each planted block. Method: the same programs under it.
#[test]
fn memcheck_agrees_block_for_block() {
    let jobs = [
        (Job::new(program("leaks.c")), IN_C),
        (Job::new(program("leaks.cpp")), KEPT_IN_CPP),
        (Job::new(program("leaks.cpp")).arg("lose"), LOST_IN_CPP),
    ];
    for (job, planted) in jobs {
        check_memcheck(job, planted);
    }
}
