//! Who caused which system calls, and who touched pages first.

use pageshim_tests::programs::{line_of, program, program_with};
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, Running, places};
use serde_json::Value;

const KINDS: [&str; 5] = ["mmap", "munmap", "madvise", "mremap", "mprotect"];

/// `calls.c` with these arguments, at its end but for a line on standard input.
fn start(daemon: &Daemon, mode: &str, heap: &str, arguments: &[&str]) -> Running {
    let job = Job::new(program("calls.c"))
        .args(arguments)
        .env("PAGESHIM_HEAP", heap)
        .env("PAGESHIM_MMAP", "1");
    let mut running = daemon.preload(mode).apply(job).start();
    running.wait_for("ready", 1);
    daemon.known("calls");
    running
}

fn entry(daemon: &Daemon) -> Value {
    let body = daemon.get("/syscalls.json?process=calls").ok();
    let all: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(all["schema_version"], 1);
    let entry = all["processes"][0].clone();
    check(daemon, &entry);
    entry
}

/// Sums over causes are the sums over all, and those are what the report has.
#[track_caller]
fn check(daemon: &Daemon, entry: &Value) {
    let sites = entry["sites"].as_array().expect("a list");
    let heap = || sites.iter().filter(|site| site["party"] == "heap");
    let view = daemon.known("calls");
    let process = view.process("calls");
    let mut nanoseconds = 0;
    for kind in KINDS {
        let of = |value: &Value, field: &str| match value.get(kind) {
            Some(made) => number(made, field),
            None => 0,
        };
        for field in ["calls", "nanoseconds", "bytes"] {
            let sum: u64 = heap().map(|site| of(&site["calls"], field)).sum();
            assert_eq!(sum, of(&entry["totals"], field), "{kind} {field}");
        }
        let calls = of(&entry["totals"], "calls");
        assert_eq!(calls, number(&process["syscalls"], kind), "{kind}");
        nanoseconds += of(&entry["totals"], "nanoseconds");
    }
    assert_eq!(nanoseconds, number(&process["syscalls"], "nanoseconds"));
}

fn by<'a>(entry: &'a Value, party: &str, function: &str) -> &'a Value {
    let sites = entry["sites"].as_array().expect("a list");
    let found = sites
        .iter()
        .find(|site| site["party"] == party && site["function"] == function);
    found.unwrap_or_else(|| panic!("no {party} {function} in {sites:#?}"))
}

fn report(daemon: &Daemon) -> String {
    let job = Job::new(places::pageshim())
        .args(["report", "calls", "--socket"])
        .arg(daemon.socket());
    job.run().ok().stdout
}

// Goal: on the page heap, a loop of large blocks is named with its maps and each pair that could
// have been spared, in JSON, on the page and in the report, also after its end. Method: 100 x
// 64 MiB, taken and freed.
#[test]
fn a_loop_of_large_blocks_is_named() {
    let daemon = Daemon::start();
    let running = start(&daemon, "exact", "page", &["big", "100"]);
    let named = |daemon: &Daemon| {
        let entry = entry(daemon);
        let site = by(&entry, "heap", "hold_big");
        // One range of the heap's own table was committed on the way.
        let table = &site["calls"]["mprotect"];
        assert_eq!(
            number(site, "ranges"),
            100 + number(table, "calls"),
            "{site:#}"
        );
        let bytes = (100 << 26) + number(table, "bytes");
        assert_eq!(number(site, "range_bytes"), bytes);
        // To get and to give back.
        assert_eq!(number(&site["calls"]["mmap"], "calls"), 200);
        let pairs = number(&site["avoidable"], "pairs");
        // Another program may hold the processor for a millisecond now and then.
        assert!((80..=100).contains(&pairs), "{pairs}");
        assert_eq!(number(&site["avoidable"], "bytes"), pairs << 26);
        let line = number(&site["stack"][0], "line");
        assert_eq!(line, line_of("calls.c", "hold_big"));
        format!("{pairs} ranges of `hold_big` went back")
    };
    let sentence = named(&daemon);
    let page = daemon.get_as("/syscalls?process=calls", "text/html").ok();
    assert!(page.contains(&sentence), "{sentence} in {page}");
    let text = report(&daemon);
    assert!(text.contains(&sentence), "{sentence} in {text}");
    assert!(text.contains("caused by  `hold_big` (mmap 200"), "{text}");
    running.say("");
    running.finish().ok();
    daemon.settled("calls");
    assert_eq!(named(&daemon), sentence, "after its end");
}

// Goal: the general purpose heap keeps what was large, so the same loop makes few calls and none
// to spare. Method: the same program.
#[test]
fn the_general_purpose_heap_spares_them() {
    let daemon = Daemon::start();
    let running = start(&daemon, "exact", "gpa", &["big", "100"]);
    let entry = entry(&daemon);
    let site = by(&entry, "heap", "hold_big");
    let calls: u64 = KINDS
        .iter()
        .filter_map(|kind| site["calls"].get(kind))
        .map(|made| number(made, "calls"))
        .sum();
    assert!((1..=6).contains(&calls), "{site:#}");
    assert_eq!(number(&entry["avoidable"], "pairs"), 0);
    running.say("");
    running.finish().ok();
}

// Goal: who carves pages first is counted, page by page. Method: 1,000 blocks of an OS page.
#[test]
fn first_touches_are_counted() {
    let daemon = Daemon::start();
    let running = start(&daemon, "exact", "gpa", &["fill", "1000"]);
    let entry = entry(&daemon);
    let site = by(&entry, "heap", "fill_pages");
    assert_eq!(number(site, "first_touched_pages"), 1000, "{site:#}");
    assert_eq!(number(site, "first_touched_bytes"), 1000 * 4096);
    assert!(number(&entry, "first_touched_pages") >= 1000);
    let get = |path: &str| -> Value {
        let body = daemon.get(&format!("{path}?process=calls")).ok();
        serde_json::from_str(&body).expect("JSON")
    };
    // In RAM, and each page by its origin.
    let waste = get("/waste.json");
    let bill = &waste["processes"][0]["bill"];
    let sites = bill["sites"].as_array().expect("a list");
    let billed = sites.iter().find(|other| other["site"] == site["site"]);
    let touched = &billed.expect("billed")["first_touched"];
    let (pages, bytes) = (number(touched, "count"), number(touched, "bytes"));
    assert_eq!((pages, bytes), (1000, 1000 * 4096));
    let chart = get("/pages.json");
    let cells = chart["heap"]["cells"].as_array().expect("cells");
    let ours = cells
        .iter()
        .map(|cell| &cell["first_touched"])
        .filter(|first| first["function"] == "fill_pages")
        .map(|first| number(first, "pages"));
    assert_eq!(ours.sum::<u64>(), 1000);
    running.say("");
    running.finish().ok();
}

// Goal: what the program maps itself is billed to its stack, with what it still holds; the
// heap's sums do not have it. Method: five ranges of 1 MiB; one unmapped, one in halves, one grown
// and so another site's, one call refused.
#[test]
fn own_mappings_are_billed() {
    let daemon = Daemon::start();
    let running = start(&daemon, "exact", "gpa", &["map"]);
    let all = entry(&daemon);
    let site = by(&all, "program", "map_kept");
    let mmap = &site["calls"]["mmap"];
    assert_eq!((number(mmap, "calls"), number(mmap, "bytes")), (5, 5 << 20));
    assert_eq!(
        (number(site, "ranges"), number(site, "range_bytes")),
        (5, 5 << 20)
    );
    let live = |site: &Value| (number(site, "live_ranges"), number(site, "live_bytes"));
    assert_eq!(live(site), (2, 2 << 20), "{site:#}");
    let line = number(&site["stack"][0], "line");
    assert_eq!(line, line_of("calls.c", "map_kept"));
    let sites = all["sites"].as_array().expect("a list");
    let rest = sites
        .iter()
        .filter(|site| site["party"] == "program" && site["function"] == "map_all");
    let rest: Vec<&Value> = rest.collect();
    let calls = |kind: &str| -> u64 {
        let of = |site: &&Value| site["calls"].get(kind).map(|made| number(made, "calls"));
        rest.iter().filter_map(of).sum()
    };
    assert_eq!((calls("munmap"), calls("mremap"), calls("mmap")), (3, 1, 1));
    let held: Vec<_> = rest
        .iter()
        .map(|site| live(site))
        .filter(|live| live.0 > 0)
        .collect();
    assert_eq!(held, [(1, 2 << 20)]);
    running.say("");
    running.finish().ok();
}

// Goal: whatever the kernel answers the program gets, with and without the variable, from signal
// handlers, over live ranges and in children; and what is held is right. Method: `calls odd`, whose
// exit code tells what was wrong.
#[test]
fn odd_mappings_are_passed_on() {
    for set in ["0", "1"] {
        let daemon = Daemon::start();
        let job = Job::new(program("calls.c"))
            .arg("odd")
            .env("PAGESHIM_MMAP", set);
        let mut running = daemon.preload("exact").apply(job).start();
        running.wait_for("ready", 1);
        daemon.known("calls");
        let body = daemon
            .get(&format!("/syscalls.json?process={}", running.pid()))
            .ok();
        let all: Value = serde_json::from_str(&body).expect("JSON");
        let sites = all["processes"][0]["sites"].as_array().expect("a list");
        let own: Vec<&Value> = sites
            .iter()
            .filter(|site| site["party"] == "program")
            .collect();
        if set == "0" {
            assert!(own.is_empty(), "{own:#?}");
        } else {
            let live = |field| own.iter().map(|site| number(site, field)).sum::<u64>();
            // 64 KiB, 192 KiB, 256 KiB, 512 KiB side by side.
            assert_eq!((live("live_ranges"), live("live_bytes")), (4, 1 << 20));
        }
        running.say("");
        running.finish().ok();
    }
}

// Goal: a library preloaded behind ours that counts mappings gets to see them all. Method: its counts
// with and without ours before it, the program's calls billed or not.
#[test]
fn another_library_sees_the_calls_too() {
    let counter = program_with("counter.c", &["-shared", "-fPIC"]);
    let count = |before: &str, set: &str| {
        let daemon = Daemon::start();
        let mut job = Job::new(program("calls.c")).arg("odd");
        if !before.is_empty() {
            job = daemon.preload("exact").apply(job);
        }
        let mut running = job
            .env("LD_PRELOAD", format!("{before}{}", counter.display()))
            .env("PAGESHIM_MMAP", set)
            .start();
        running.wait_for("ready", 1);
        running.say("");
        let said = running.finish().ok().stderr;
        let counts: Vec<i64> = said
            .split_whitespace()
            .skip(1)
            .map(|count| count.parse().expect("a number"))
            .collect();
        // Threads map and unmap for a while, so only what is left is the same each time.
        assert!(counts[0] > 100, "{said}");
        (counts[0] - counts[1], counts[2])
    };
    let plain = count("", "0");
    assert_eq!(plain, (4, 1));
    let ours = format!("{}:", places::shim().display());
    assert_eq!((count(&ours, "0"), count(&ours, "1")), (plain, plain));
}

// Goal: modes without stacks say that calls have no site, and the sums hold. Method: count and
// sampled; in off there is nothing at all.
#[test]
fn modes_without_stacks_say_so() {
    for mode in ["count", "sampled"] {
        let daemon = Daemon::start();
        let running = start(&daemon, mode, "gpa", &["big", "3"]);
        let entry = entry(&daemon);
        let why = entry["why_not"].as_str().expect("said");
        assert!(why.starts_with(&format!("not kept by site: mode {mode}")));
        let sites = entry["sites"].as_array().expect("a list");
        assert!(
            sites.iter().all(|site| site["cause"] != "site"),
            "{sites:#?}"
        );
        let page = daemon.get_as("/syscalls?process=calls", "text/html").ok();
        assert!(page.contains("not kept by site"));
        assert!(!report(&daemon).contains("caused by"));
        running.say("");
        running.finish().ok();
    }
}

// Goal: a forked child begins with an empty bill of its own, whose sums hold. Method: forktree.
#[test]
fn children_have_bills_of_their_own() {
    let daemon = Daemon::start();
    let job = Job::new(program("forktree.c"));
    daemon.preload("exact").apply(job).run().ok();
    daemon.settled("forktree");
    let body = daemon.get("/syscalls.json").ok();
    let all: Value = serde_json::from_str(&body).expect("JSON");
    let report = daemon.report();
    let entries = all["processes"].as_array().expect("a list");
    assert!(entries.len() > 3, "a tree");
    for entry in entries {
        let process = report
            .processes()
            .iter()
            .find(|process| process["id"] == entry["process"])
            .expect("known");
        for kind in KINDS {
            let total = entry["totals"]
                .get(kind)
                .map_or(0, |made| number(made, "calls"));
            assert_eq!(
                total,
                number(&process["syscalls"], kind),
                "{kind} of {entry:#}"
            );
        }
    }
}
