//! `PAGESHIM_VERIFY=1`: every capture against a full unwind, over many programs.
//!
//! Each case prints its line of the table in the README:
//! `cargo test -p pageshim-tests --test verify -- --nocapture --test-threads 1`

use std::path::Path;
use std::time::Duration;

use pageshim_tests::programs::{program, program_with};
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, Temp, wait_until};
use serde_json::Value;

const KINDS: [&str; 4] = ["frames", "depth", "end", "site"];

/// Compared stacks and how many of each kind differ, over all processes.
fn table(processes: &[Value]) -> (u64, [u64; 4]) {
    let of = |kind: &str| -> u64 {
        let seen = processes.iter().filter(|p| !p["verified"][kind].is_null());
        seen.map(|process| number(&process["verified"], kind)).sum()
    };
    let differ = KINDS.map(of);
    (of("equal") + differ.iter().sum::<u64>(), differ)
}

/// Waits for the daemon's processes to end; all stacks are equal, and there are at least `least`.
#[track_caller]
fn all_equal(daemon: &Daemon, label: &str, least: u64) {
    let view = wait_until(label, Duration::from_secs(20), || {
        let view = daemon.report();
        let ended = |p: &Value| p["state"] != "running";
        (!view.processes().is_empty() && view.processes().iter().all(ended)).then_some(view)
    });
    let (compared, differ) = table(view.processes());
    println!(
        "| {label} | {compared} | {} | {} | {} | {} |",
        differ[0], differ[1], differ[2], differ[3]
    );
    assert_eq!(differ, [0; 4], "{label}: {KINDS:?} of {compared}");
    assert!(compared >= least, "{label}: {compared} stacks compared");
}

#[track_caller]
fn verified(label: &str, least: u64, job: Job) {
    let daemon = Daemon::start();
    let job = daemon.preload("exact").apply(job);
    job.env("PAGESHIM_VERIFY", "1")
        .limit(Duration::from_secs(300))
        .run();
    all_equal(&daemon, label, least);
}

// Goal: threads, leaps, stacks of other kinds, code that comes and goes. Method: our own programs.
#[test]
fn programs_of_ours() {
    verified("threads.cpp", 10_000, Job::new(program("threads.cpp")));
    verified(
        "exceptions.cpp",
        30_000,
        Job::new(program("exceptions.cpp")),
    );
    verified("longjmp.c", 100, Job::new(program("longjmp.c")));
    verified("coroutines.c", 1000, Job::new(program("coroutines.c")));
    verified("deep.c", 10, Job::new(program("deep.c")));
    verified(
        "signals.c",
        100,
        Job::new(program("signals.c")).arg("alloc"),
    );
    verified("forktree.c", 10, Job::new(program("forktree.c")));
    verified("stress.c", 10_000, Job::new(program("stress.c")).arg("2"));
    let plugin = program_with("plugin.c", &["-shared", "-fPIC"]);
    verified("dl.c", 50, Job::new(program("dl.c")).arg(plugin));
}

// Goal: interpreters. Method: python with each object on malloc, perl, sqlite.
#[test]
fn interpreters() {
    let script = r#"
import json, re, threading
table = {str(i): ["value %d" % j for j in range(i % 50)] for i in range(2000)}
for _ in range(2): text = json.dumps(json.loads(json.dumps(table)))
print(len(text), len(re.findall(r"value \d*7", text)))
def down(n): return [n] + (down(n - 1) if n else [])
threads = [threading.Thread(target=lambda: [len(down(n)) for n in range(100)]) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
"#;
    let python = Job::new("/usr/bin/python3").args(["-c", script]);
    verified("python3", 100_000, python.env("PYTHONMALLOC", "malloc"));
    let script = r#"my %h; push @{$h{$_ % 997}}, "value $_" x ($_ % 5) for 1..60000;
        my $n = 0; $n += length join ',', @{$h{$_}} for sort keys %h; print "$n\n";
        sub f { my $n = shift; $n ? [f($n - 1)] : [] } f($_) for 1..60;"#;
    verified(
        "perl",
        50_000,
        Job::new("/usr/bin/perl").args(["-e", script]),
    );
    let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
            INSERT INTO t SELECT i, (i * 7919) % 10007, printf('value %d', i) FROM n;
        CREATE INDEX k ON t(k, v); SELECT count(*), sum(k), max(v) FROM t;
        UPDATE t SET v = v || ' more' WHERE k % 3 = 0; DELETE FROM t WHERE id % 4 = 0; VACUUM;";
    verified(
        "sqlite3",
        50_000,
        Job::new("/usr/bin/sqlite3").arg(":memory:").input(sql),
    );
}

// Goal: a compiler: deep recursion, a million of stacks. Method: templates of the standard library.
#[test]
fn compiler() {
    let temp = Temp::new();
    let source = "#include <map>\n#include <regex>\n#include <string>\nint main() {\n\
        std::map<std::string, std::regex> m; m.emplace(\"a\", std::regex(\"[0-9]+\")); return (int)m.size(); }\n";
    std::fs::write(temp.join("a.cpp"), source).expect("our own directory");
    let job = Job::new("/usr/bin/g++").args(["-O1", "-c", "a.cpp"]);
    verified("g++", 500_000, job.dir(&temp));
}

// Goal: a server with threads of its own. Method: redis under its benchmark.
#[test]
fn server() {
    let (temp, daemon) = (Temp::new(), Daemon::start());
    let socket = temp.join("r");
    let job = Job::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(Path::new(&*temp));
    let job = daemon
        .preload("exact")
        .apply(job)
        .env("PAGESHIM_VERIFY", "1");
    let running = job.start();
    let cli = |arguments: &[&str]| {
        Job::new("redis-cli")
            .arg("-s")
            .arg(&socket)
            .args(arguments)
            .run()
    };
    wait_until("redis answers", Duration::from_secs(20), || {
        (cli(&["ping"]).stdout == "PONG\n").then_some(())
    });
    let benchmark = Job::new("redis-benchmark").arg("-s").arg(&socket);
    let load = [
        "-q",
        "-n",
        "10000",
        "-c",
        "20",
        "-t",
        "set,get,lpush,hset,zadd",
    ];
    benchmark.args(load).run().ok();
    cli(&["shutdown", "nosave"]);
    running.finish().ok();
    all_equal(&daemon, "redis-server", 50_000);
}

// Goal: the outcome is shown, and only where it was asked for. Method: text, metric, and a run without.
#[test]
fn the_outcome_is_shown() {
    let daemon = Daemon::start();
    let job = daemon.preload("exact").apply(Job::new(program("zoo.c")));
    job.env("PAGESHIM_VERIFY", "1").run().ok();
    daemon.settled("zoo");
    let text = daemon.get("/leaks.txt").ok();
    assert!(
        text.contains("unwound again in full: all equal"),
        "{text:.2000}"
    );
    let labels = [("process", "zoo"), ("result", "equal")];
    let equal = daemon
        .metrics()
        .sum("pageshim_stacks_verified_total", &labels);
    assert!(equal > 60_000.0, "{equal}");
    let other = Daemon::start();
    other
        .preload("exact")
        .apply(Job::new(program("zoo.c")))
        .run()
        .ok();
    let view = other.settled("zoo");
    assert_eq!(view.process("zoo")["verified"], serde_json::json!({}));
    assert!(
        !other
            .get("/metrics")
            .ok()
            .contains("pageshim_stacks_verified_total")
    );
}
