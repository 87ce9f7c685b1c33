//! Leak checks when a process ends: planted blocks, block for block.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use pageshim_tests::programs::program;
use pageshim_tests::view::{Held, number};
use pageshim_tests::{
    Daemon, Ended, Job, Outcome, PATIENCE, Temp, View, places, underrun, wait_until,
};
use pageshim_wire::process::{Control, word};
use serde_json::Value;

/// Function, class, blocks, bytes.
type Planted = (&'static str, &'static str, u64, u64);

/// What tests/programs/leaks.c loses and keeps.
const IN_C: &[Planted] = &[
    ("single", "definite", 5, 165),
    ("chain_head", "definite", 1, 64),
    ("chain_tail", "indirect", 9, 576),
    ("ring_member", "definite", 1, 48),
    ("ring_member", "indirect", 3, 144),
    ("of_both", "definite", 1, 109),
    ("of_both", "reachable", 1, 109),
    ("of_tag", "definite", 1, 105),
    ("of_past", "definite", 1, 96),
    ("of_middle", "possible", 1, 104),
    ("of_global", "reachable", 1, 100),
    ("of_tls", "reachable", 1, 101),
    ("of_map", "reachable", 1, 102),
    ("of_heap", "reachable", 100, 10_300),
    ("of_table", "reachable", 1, 800),
    ("of_specific", "reachable", 1, 107),
    ("of_large", "reachable", 1, 3 << 20),
    ("of_part", "reachable", 1, 33),
    ("of_slack", "reachable", 1, 108),
];

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

struct Run {
    outcome: Outcome,
    view: View,
}

/// Runs a job under `run`, which asks for a check at its end.
fn run(job: Job, environment: &[(&str, &str)]) -> Run {
    let temp = Temp::new();
    let out = temp.join("out.pgs");
    let nobody = temp.join("nobody");
    let binary = places::pageshim();
    let (binary, out_text) = (binary.to_str(), out.to_str());
    let wrapper = [
        binary.expect("UTF-8"),
        "run",
        "-o",
        out_text.expect("UTF-8"),
        "--",
    ];
    let job = job
        .wrapped(&wrapper)
        .env("PAGESHIM_SOCKET", nobody)
        .env("XDG_CACHE_HOME", temp.join("cache"));
    let set = |job: Job, (name, value): &(&str, &str)| job.env(name, value);
    let outcome = environment.iter().fold(job, set).run();
    let view = underrun::capture(&out);
    Run { outcome, view }
}

/// Blocks and bytes of each class that a function asked for.
fn classes(view: &View, process: &Value, function: &str) -> BTreeMap<String, Held> {
    let mut all: BTreeMap<String, Held> = BTreeMap::new();
    let by = |leak: &&Value| {
        let name = leak["stack"][0]["function"].as_str().unwrap_or("");
        name.split('(').next() == Some(function)
    };
    for leak in view.leaks_of(process).filter(by) {
        let class = leak["class"].as_str().expect("a class").to_owned();
        let held = all.entry(class).or_default();
        held.blocks += number(leak, "blocks");
        held.bytes += number(leak, "bytes");
    }
    all
}

#[track_caller]
fn check_planted(run: &Run, name: &str, planted: &[Planted], what: &str) {
    let process = run.view.process(name);
    let check = &process["check"];
    assert_eq!(check["state"], "done", "{what}: {check:#}");
    assert_eq!(check["trigger"], "exit", "{what}");
    for (function, _, _, _) in planted {
        let expected: BTreeMap<String, Held> = planted
            .iter()
            .filter(|(its, ..)| its == function)
            .map(|(_, class, blocks, bytes)| {
                let held = Held {
                    blocks: *blocks,
                    bytes: *bytes,
                };
                ((*class).to_owned(), held)
            })
            .collect();
        let found = classes(&run.view, process, function);
        assert_eq!(found, expected, "{what}: {function}");
    }
    run.view.check_equations();
    // The classes of all sites sum to those of the process, and to what lives.
    let mut live = Held::default();
    for class in ["definite", "indirect", "possible", "reachable"] {
        let of = run
            .view
            .leaks_of(process)
            .filter(|leak| leak["class"] == class);
        let sum: u64 = of.map(|leak| number(leak, "blocks")).sum();
        assert_eq!(
            sum,
            number(&check["classes"][class], "blocks"),
            "{what}: {class}"
        );
        live.blocks += sum;
        live.bytes += number(&check["classes"][class], "bytes");
    }
    assert_eq!(live.blocks, number(&process["live"], "blocks"), "{what}");
    assert_eq!(live.bytes, number(&process["live"], "bytes"), "{what}");
}

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
    for (way, stand, missed) in [("threads", 4, 0), ("blocked", 1, 3)] {
        let run = run(Job::new(program("leaks.c")).arg(way), &[]);
        check_planted(&run, "leaks", IN_C, way);
        check_planted(&run, "leaks", &[("of_stack", "reachable", 3, 318)], way);
        let process = run.view.process("leaks");
        let check = &process["check"];
        assert_eq!(check["method"], "signal", "{check:#}");
        assert_eq!(number(check, "threads"), stand, "{check:#}");
        assert_eq!(number(check, "threads_missed"), missed, "{check:#}");
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

/// Classes of the blocks of each function, by Memcheck.
fn memcheck(job: Job) -> BTreeMap<(String, String), Held> {
    let options = [
        "valgrind",
        "--leak-check=full",
        "--show-leak-kinds=all",
        "--leak-resolution=high",
        "--leak-check-heuristics=none",
        "--run-libc-freeres=no",
        "--run-cxx-freeres=no",
    ];
    let said = job.wrapped(&options).run().ok().stderr;
    let mut all: BTreeMap<(String, String), Held> = BTreeMap::new();
    let mut record: Option<(String, Held)> = None;
    for line in said.lines() {
        let Some(text) = line.split_once("== ").map(|(_, text)| text.trim()) else {
            continue;
        };
        if let Some((amount, class)) = text.split_once(" blocks are ") {
            record = Some((
                class.split(' ').next().expect("a class").to_owned(),
                held(amount),
            ));
        } else if let Some((_, frame)) = text.split_once(": ")
            && text.starts_with("by 0x")
            && let Some((class, held)) = record.take()
        {
            let function = frame.split(['(', ' ']).next().expect("a name").to_owned();
            let sum = all.entry((function, class)).or_default();
            sum.blocks += held.blocks;
            sum.bytes += held.bytes;
        }
    }
    all
}

/// `640 (64 direct, 576 indirect) bytes in 1` or `33 bytes in 5`.
fn held(text: &str) -> Held {
    let digits = |text: &str| -> u64 {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    let (bytes, blocks) = text.split_once(" bytes in ").expect("an amount");
    let direct = bytes.split_once('(').map_or(bytes, |(_, direct)| {
        direct
            .split_once(" direct")
            .map_or(direct, |(direct, _)| direct)
    });
    Held {
        blocks: digits(blocks),
        bytes: digits(direct),
    }
}

// Goal: Memcheck says the same of each planted block. Method: the same programs under it.
#[test]
fn memcheck_agrees_block_for_block() {
    let name = |class: &str| match class {
        "definite" => "definitely",
        "indirect" => "indirectly",
        "possible" => "possibly",
        _ => "still",
    };
    let jobs = [
        (Job::new(program("leaks.c")), IN_C),
        (Job::new(program("leaks.cpp")), KEPT_IN_CPP),
        (Job::new(program("leaks.cpp")).arg("lose"), LOST_IN_CPP),
    ];
    for (job, planted) in jobs {
        let found = memcheck(job);
        for (function, class, blocks, bytes) in planted {
            let key = ((*function).to_owned(), name(class).to_owned());
            let held = found.get(&key).copied().unwrap_or_default();
            assert_eq!(
                (held.blocks, held.bytes),
                (*blocks, *bytes),
                "{key:?} of {found:#?}"
            );
        }
    }
}
