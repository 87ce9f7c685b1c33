//! Who holds the pages: the bill, the pinners, and what they say of real programs.

use std::fs;
use std::time::{Duration, Instant};

use pageshim_tests::programs::{line_of, program};
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, PATIENCE, Running, Temp, View, browser, places, wait_until};
use serde_json::Value;

const OS_PAGE: u64 = 4096;
const PARTS: [&str; 8] = [
    "requested_bytes",
    "rounding_bytes",
    "free_slot_bytes",
    "tail_bytes",
    "retained_bytes",
    "huge_excess_bytes",
    "metadata_bytes",
    "moved_bytes",
];

/// The only entry of `/waste.json` for a process.
fn entry(daemon: &Daemon, process: &str) -> Value {
    let body = daemon.get(&format!("/waste.json?process={process}")).ok();
    let waste: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(waste["schema_version"], 1);
    let all = waste["processes"].as_array().expect("a list");
    assert_eq!(all.len(), 1, "{waste:#}");
    all[0].clone()
}

/// A bill taken after this was called: the last is passed on for a while.
fn fresh(daemon: &Daemon, process: &str) -> Value {
    let asked = Instant::now();
    wait_until("a bill of now", PATIENCE, || {
        let since = asked.elapsed().as_secs_f64();
        let entry = entry(daemon, process);
        assert!(entry["why_not"].is_null(), "{:#}", entry["why_not"]);
        let age = entry["bill"]["age_seconds"].as_f64();
        (age.expect("a bill") < since).then(|| entry["bill"].clone())
    })
}

/// The parts of a bill, which must sum to what it says is resident.
#[track_caller]
fn sum(bill: &Value) -> u64 {
    let sum = PARTS.map(|part| number(&bill["parts"], part)).iter().sum();
    assert_eq!(sum, number(bill, "resident_bytes"), "{:#}", bill["parts"]);
    sum
}

fn pinner<'a>(bill: &'a Value, function: &str) -> &'a Value {
    let all = bill["pinners"].as_array().expect("a list");
    let found = all.iter().find(|pinner| pinner["function"] == function);
    found.unwrap_or_else(|| panic!("no pinner {function} in {all:#?}"))
}

/// Resident bytes of a process by the kernel's own sum.
fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("a number");
    kib * 1024
}

/// The planted fragmenter, holding what it keeps: and how many blocks each function kept.
fn fragmenter(daemon: &Daemon, pages: u64) -> (Running, [u64; 3]) {
    let job = Job::new(program("fragment.c")).arg(pages.to_string());
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    let said = running.stdout();
    let mut kept = said
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().expect("a number"));
    let kept = [(); 3].map(|()| kept.next().expect("three"));
    daemon.known("fragment");
    (running, kept)
}

const KEEPERS: [(&str, u64); 3] = [("keep_small", 64), ("keep_odd", 200), ("keep_late", 1024)];

/// Each of the three is named with its blocks, pages and bytes.
#[track_caller]
fn check_pinners(bill: &Value, kept: &[u64; 3]) {
    for ((function, bytes), kept) in KEEPERS.iter().zip(kept) {
        let pinner = pinner(bill, function);
        assert_eq!(number(pinner, "blocks"), *kept, "{pinner:#}");
        assert_eq!(number(pinner, "pages"), *kept, "{pinner:#}");
        assert_eq!(number(pinner, "bytes"), kept * OS_PAGE, "{pinner:#}");
        // Slots of 200 bytes cross page borders, and are rounded up.
        let idle = kept * (OS_PAGE - bytes);
        let near = number(pinner, "idle_bytes").abs_diff(idle);
        assert!(near * 20 < idle, "{pinner:#}");
        let sites = bill["sites"].as_array().expect("a list");
        let site = sites.iter().find(|site| site["site"] == pinner["site"]);
        let site = site.expect("listed");
        assert_eq!(number(site, "blocks"), *kept);
        assert_eq!(number(site, "live_bytes"), kept * bytes);
        assert_eq!(number(site, "pinned_bytes"), number(pinner, "pinned_bytes"));
        let frame = &site["stack"][0];
        assert_eq!(number(frame, "line"), line_of("fragment.c", function));
    }
}

// Goal: a planted fragmenter is named everywhere with the right sites, pages and bytes, also after
// its end. Method: three functions keep a block a page; JSON, page, report, sites, one process.
#[test]
fn the_fragmenter_is_named() {
    let daemon = Daemon::start();
    let (running, kept) = fragmenter(&daemon, 512);
    let bill = fresh(&daemon, "fragment");
    sum(&bill);
    check_pinners(&bill, &kept);
    let free = number(&bill["parts"], "free_slot_bytes");
    assert!(free > 5 << 20, "{free}");
    let id = running.pid();
    let one: Value =
        serde_json::from_str(&daemon.get(&format!("/api/v1/processes/{id}/bill")).ok())
            .expect("JSON");
    check_pinners(&one["bill"], &kept);
    let page = daemon.get_as("/waste?process=fragment", "text/html").ok();
    let leaks = daemon.get_as("/leaks?process=fragment", "text/html").ok();
    let report = Job::new(places::pageshim())
        .args(["report", "fragment", "--socket"])
        .arg(daemon.socket());
    let text = report.run().ok().stdout;
    for ((function, _), kept) in KEEPERS.iter().zip(&kept) {
        let pages = format!("{kept} OS pages");
        for told in [&page, &text, &leaks] {
            let line = told.lines().find(|line| {
                line.contains(&format!("{kept} blocks of")) && line.contains(function)
            });
            assert!(
                line.is_some_and(|line| line.contains(&pages)),
                "{function} in {told}"
            );
        }
    }
    let view = View::parse(&daemon.get("/leaks.json?process=fragment").ok());
    let process = view.process("fragment");
    for (function, _) in KEEPERS {
        let by = |leak: &&Value| leak["stack"][0]["function"] == function;
        let leak = view.leaks_of(process).find(by).expect("live");
        assert_eq!(
            leak["pinned_bytes"],
            pinner(&bill, function)["pinned_bytes"]
        );
    }
    drop(running.finish());
    daemon.settled("fragment");
    let last = entry(&daemon, "fragment");
    assert_eq!(last["state"], "exited");
    check_pinners(&last["bill"], &kept);
    let text = report.run().ok().stdout;
    assert!(text.contains("before the end: requested"), "{text}");
}

// Goal: `pinned_bytes` is what returns. Method: the program frees the blocks of one function; the
// kernel's own sum falls by that much once the heap has given its free runs back.
#[test]
fn pinned_bytes_return_when_the_blocks_are_freed() {
    let daemon = Daemon::start();
    let (mut running, _) = fragmenter(&daemon, 2048);
    let bill = fresh(&daemon, "fragment");
    let pinned = number(pinner(&bill, "keep_late"), "pinned_bytes");
    assert!(pinned >= 2048 * OS_PAGE, "{pinned}");
    let before = resident(running.pid());
    running.ask("free", "freed");
    let limit = Duration::from_secs(20);
    wait_until("the pages return", limit, || {
        // Free runs go back from slow paths: give it some.
        running.say(&"x".repeat(4000));
        let returned = before.saturating_sub(resident(running.pid()));
        (returned.abs_diff(pinned) * 10 < pinned).then_some(())
    });
}

/// Parts sum to smaps within half a percent, and with what lies outside to all of the process.
#[track_caller]
fn check_against_the_kernel(daemon: &Daemon, name: &str, pid: u32) {
    let bill = fresh(daemon, name);
    let heap = sum(&bill);
    let smaps = number(&bill, "smaps_bytes");
    assert!(
        heap.abs_diff(smaps) * 200 <= smaps,
        "{heap} or {smaps}: {:#}",
        bill["parts"]
    );
    let outside = bill["outside"].as_object().expect("an object");
    let outside: u64 = outside.values().filter_map(Value::as_u64).sum();
    let all = resident(pid);
    println!(
        "{name}: heap {heap} of smaps {smaps} ({:.3} %), with outside {} of {all}; took {} s; {}",
        heap as f64 * 100.0 / smaps as f64,
        heap + outside,
        bill["took_seconds"],
        bill["parts"],
    );
    assert!(
        (heap + outside).abs_diff(all) * 200 <= all,
        "{heap} + {outside} or {all}"
    );
    assert!(bill["explained_percent"].as_f64().expect("a number") > 99.5);
}

// Goal: the sum holds on redis after filling and deleting 90 % of its keys. Method: a script in it.
#[test]
fn redis_after_deleting_most_keys() {
    let (temp, daemon) = (Temp::new(), Daemon::start());
    let socket = temp.join("r");
    let job = Job::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(&*temp);
    let running = daemon.preload("exact").apply(job).start();
    let cli = |arguments: &[&str]| {
        let job = Job::new("redis-cli").arg("-s").arg(&socket);
        job.args(arguments).run().stdout
    };
    wait_until("redis answers", PATIENCE, || {
        (cli(&["ping"]) == "PONG\n").then_some(())
    });
    let fill =
        "for i = 1, 150000 do redis.call('set', 'key:'..i, string.rep('x', 100 + i % 50)) end";
    cli(&["eval", fill, "0"]);
    let thin = "for i = 1, 150000 do if i % 10 > 0 then redis.call('del', 'key:'..i) end end";
    cli(&["eval", thin, "0"]);
    assert_eq!(cli(&["dbsize"]), "15000\n");
    check_against_the_kernel(&daemon, "redis-server", running.pid());
    let bill = entry(&daemon, "redis-server")["bill"].clone();
    let free = number(&bill["parts"], "free_slot_bytes");
    assert!(free > 4 << 20, "nine of ten slots are free: {free}");
    cli(&["shutdown", "nosave"]);
}

const PYTHON: &str = r#"
table = {i: "value %d" % i * (i % 9) for i in range(200000)}
for i in range(200000):
    if i % 10: del table[i]
big = [bytearray(5000 + i) for i in range(2000)]
del big[::2]
print("ready", flush=True)
input()
"#;

// Goal: the sum holds on CPython. Method: tables filled and thinned.
#[test]
fn python_after_deleting_most() {
    let daemon = Daemon::start();
    let job = Job::new("/usr/bin/python3")
        .args(["-c", PYTHON])
        .env("PYTHONMALLOC", "malloc");
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    let name = daemon.known_pid(running.pid());
    check_against_the_kernel(&daemon, &name, running.pid());
}

const SQL: &str = "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
    WHERE i < 200000) SELECT i, hex(randomblob(30)) AS v FROM n; CREATE INDEX x ON t(v); \
    DELETE FROM t WHERE i % 10 > 0; SELECT 'ready', count(*) FROM t;";

// Goal: the sum holds on sqlite3. Method: a table in memory, thinned.
#[test]
fn sqlite_after_deleting_most() {
    let daemon = Daemon::start();
    let job = Job::new("sqlite3").arg(":memory:");
    let mut running = daemon.preload("exact").apply(job).start();
    running.say(SQL);
    running.wait_for("ready|20000", 1);
    check_against_the_kernel(&daemon, "sqlite3", running.pid());
}

/// A figure of /proc/PID/status in bytes.
fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|line| line.starts_with(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

// Goal: a large heap is billed quickly and in little memory. Method: 8 M live blocks in 1 GiB with
// PAGESHIM_TESTS_LARGE=1, an eighth of that otherwise; the daemon's high-water mark is reset before.
#[test]
fn a_large_heap_is_billed_in_little_time_and_memory() {
    let large = std::env::var_os("PAGESHIM_TESTS_LARGE").is_some();
    let blocks: u64 = if large { 8 << 20 } else { 1 << 20 };
    let daemon = Daemon::start();
    let job = Job::new(program("crowd.c")).args([blocks.to_string().as_str(), "128"]);
    let job = daemon
        .preload("exact")
        .apply(job)
        .limit(Duration::from_secs(120));
    let mut running = job.start();
    running.wait_for("waiting", 1);
    daemon.known("crowd");
    // Names first: what debug information takes is no matter of the heap's size.
    fresh(&daemon, "crowd");
    daemon.get("/leaks.txt?process=crowd").ok();
    running.ask("go", "ready");
    let pid = daemon.pid();
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("our child");
    let before = status(pid, "VmRSS");
    let bill = fresh(&daemon, "crowd");
    let more = status(pid, "VmHWM").saturating_sub(before);
    let (heap, took) = (sum(&bill), bill["took_seconds"].as_f64().expect("a number"));
    println!("{blocks} blocks, {heap} bytes: {took} s, {more} bytes more in the daemon");
    assert!(took < 2.0, "{took} s");
    assert!(more * 20 < heap, "{more} of {heap}");
    let sites = bill["sites"].as_array().expect("a list");
    let live: u64 = sites.iter().map(|site| number(site, "blocks")).sum();
    assert!(live.abs_diff(blocks) < 100, "{live}");
    check_against_the_kernel(&daemon, "crowd", running.pid());
}

// Goal: a bill of a program in full motion is whole, and says what moved. Method: four threads that
// do everything to blocks, billed three times; smaps is read a moment before.
#[test]
fn a_busy_program_is_billed() {
    let daemon = Daemon::start();
    let job = Job::new(program("stress.c")).arg("8");
    let running = daemon.preload("exact").apply(job).start();
    let id = daemon.known_pid(running.pid());
    // In its first moments it grows by half between two readings of the kernel's.
    std::thread::sleep(Duration::from_secs(2));
    let mut calm = 0;
    for _ in 0..3 {
        let bill = fresh(&daemon, &id);
        let (heap, smaps) = (sum(&bill), number(&bill, "smaps_bytes"));
        println!(
            "stress: {heap} of smaps {smaps}, {} runs moved, {}",
            bill["moved_runs"], bill["parts"]
        );
        assert!(heap.abs_diff(smaps) * 10 < smaps, "{heap} or {smaps}");
        // One block of a third of the heap may move under a reader; not under each.
        calm += usize::from(number(&bill["parts"], "moved_bytes") * 20 < heap);
    }
    assert!(calm > 0, "each bill missed much");
    let said = running.finish().ok();
    assert!(said.stdout.contains("ok"), "{said:?}");
}

// Goal: a heap in several reserves says what is not billed. Method: a limit on address space that
// makes the first reserve small.
#[test]
fn further_reserves_are_told() {
    let daemon = Daemon::start();
    let job = Job::new(program("fragment.c")).arg("2048");
    let job = daemon.preload("exact").apply(job);
    let mut running = job.wrapped(&["prlimit", "--as=200000000", "--"]).start();
    running.wait_for("ready", 1);
    let id = daemon.known_pid(running.pid());
    let bill = fresh(&daemon, &id);
    sum(&bill);
    let (unseen, outside) = (number(&bill, "unseen_bytes"), &bill["outside"]);
    println!("{} billed, {unseen} not; {outside}", bill["resident_bytes"]);
    assert!(unseen > 4 << 20, "{unseen}");
    assert!(number(outside, "anonymous_bytes") * 2 > unseen, "{outside}");
}

// Goal: no bill is taken by a scrape, and none of what cannot be billed. Method: metrics alone; a
// program on another heap.
#[test]
fn bills_are_taken_on_demand() {
    let daemon = Daemon::start();
    let (running, _) = fragmenter_unasked(&daemon);
    daemon.metrics();
    let view = View::parse(&daemon.get("/processes.json").ok());
    assert!(view.process("fragment")["bill"].is_null());
    drop(running.finish());
    daemon.settled("fragment");
    let ended = entry(&daemon, "fragment");
    assert!(ended["bill"].is_null());
    let why = ended["why_not"].as_str().expect("a reason");
    assert!(why.contains("not looked at while it ran"), "{why}");
    let job = Job::new(program("fragment.c")).arg("8");
    let job = daemon
        .preload("exact")
        .apply(job)
        .env("PAGESHIM_HEAP", "page");
    let mut paged = job.start();
    paged.wait_for("ready", 1);
    let entry = entry(&daemon, &paged.pid().to_string());
    let why = entry["why_not"].as_str().expect("a reason");
    assert!(why.contains("PAGESHIM_HEAP=gpa"), "{why}");
}

/// The fragmenter, known to a daemon that was asked for the short list only.
fn fragmenter_unasked(daemon: &Daemon) -> (Running, String) {
    let job = Job::new(program("fragment.c")).arg("8");
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    let name = daemon.known_pid(running.pid());
    (running, name)
}

// Goal: the page works in a real browser. Method: chromium renders /waste and prints its document.
#[test]
fn a_browser_renders_waste() {
    let daemon = Daemon::start();
    let (_running, _) = fragmenter(&daemon, 64);
    let document = browser::document(&format!("http://{}/waste", daemon.address()));
    assert!(
        document.contains("keep_small") && document.contains("Pinners"),
        "{document:.800}"
    );
}
