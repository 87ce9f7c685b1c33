//! Mode sampled: estimates with true error bars, and a program that does not notice.

use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, PATIENCE, Preload, Temp, View, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// Small, so that each site has a hundred samples.
const MODE: &str = "sampled:16KiB";

/// Blocks and bytes that `tests/programs/sampled.c` holds at the end.
const PLANTED: [(&str, u64, u64); 6] = [
    ("tiny", 60_000, 40),
    ("middle", 3000, 1500),
    ("large", 24, 400 << 10),
    ("aligned", 600, 5000),
    ("grown", 2000, 2000),
    ("in_thread", 20_000, 100),
];

fn job(daemon: &Daemon, how: &str, seed: &str) -> Job {
    let job = Job::new(program("sampled.c")).arg(how);
    daemon.preload(MODE).apply(job).env("PAGESHIM_SEED", seed)
}

/// Checks that an estimate is within four of its standard errors, and that those
/// say something. `seen` adds what is below `function` on all its stacks.
#[track_caller]
fn within(view: &View, process: &Value, (function, blocks, size): (&str, u64, u64)) {
    let held = view.held_below(process, function);
    let squares = |field: &str| {
        let leaks = view.leaks_of(process);
        let below = leaks.filter(|leak| {
            leak["stack"]
                .to_string()
                .contains(&format!("\"{function}\""))
        });
        below
            .map(|leak| (number(&leak["error"], field) as f64).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    for (what, truth, found) in [
        ("bytes", blocks * size, held.bytes),
        ("blocks", blocks, held.blocks),
    ] {
        let error = squares(what);
        let off = (found as f64 - truth as f64).abs();
        assert!(
            off <= 4.0 * error + 1.0,
            "{function}: {found} {what} ± {error}, truth {truth}"
        );
        assert!(
            error < 0.25 * truth as f64,
            "{function}: {what} ± {error} of {truth} says nothing"
        );
        // A block of 400 KiB is hit nearly always: only smaller ones leave doubt.
        assert!(
            error > 0.0 || size > 100_000,
            "{function}: {what} without doubt"
        );
    }
}

#[track_caller]
fn check_estimates(view: &View, process: &Value) {
    assert_eq!(process["mode"], "sampled");
    assert_eq!(number(&process["sampling"], "interval_bytes"), 16 << 10);
    for planted in PLANTED {
        within(view, process, planted);
    }
    assert_eq!(
        view.held_below(process, "churn"),
        Default::default(),
        "all freed"
    );
}

// Goal: what is live at each site, and in all, is estimated within its error bars: small and large
// blocks, aligned, grown by realloc, made by threads, freed by another. Method: three seeds; the
// exact mode of the same program is the truth of the totals.
#[test]
fn estimates_hold_the_truth() {
    let exact = {
        let daemon = Daemon::start();
        let job = Job::new(program("sampled.c"));
        daemon.preload("exact").apply(job).run().ok();
        daemon.settled("sampled").process("sampled").clone()
    };
    assert!(exact["sampling"].is_null());
    for seed in ["1", "2", "3"] {
        let daemon = Daemon::start();
        job(&daemon, "", seed).run().ok();
        let view = daemon.settled("sampled");
        view.check_equations();
        let process = view.process("sampled");
        check_estimates(&view, process);
        for (part, errors) in [("live", "live_error"), ("total", "total_error")] {
            for field in ["bytes", "blocks"] {
                let (truth, found) = (number(&exact[part], field), number(&process[part], field));
                let error = number(&process["sampling"][errors], field);
                let off = found.abs_diff(truth);
                assert!(
                    off <= 4 * error,
                    "{part} {field}: {found} ± {error}, truth {truth}"
                );
                assert!(error < truth / 10, "{part} {field}: {found} ± {error}");
            }
        }
        for api in ["calloc", "aligned", "realloc"] {
            let (truth, found) = (number(&exact["apis"], api), number(&process["apis"], api));
            let far = found.abs_diff(truth) as f64 > 0.6 * truth as f64;
            assert!(!far, "{api}: {found}, truth {truth}");
        }
        let moved = number(&process["total"], "blocks");
        assert!(moved > number(&exact["total"], "blocks") / 2);
        // What the heap knows without its blocks is exact.
        let pages = &process["pages"];
        let committed = number(pages, "committed_bytes") as f64;
        assert!(committed > 20e6 && committed < 200e6, "{pages:#}");
    }
}

// Goal: what was sampled survives a SIGKILL. Method: kill it while it holds.
#[test]
fn estimates_survive_a_kill() {
    let daemon = Daemon::start();
    let mut running = job(&daemon, "hold", "4").start();
    running.wait_for("ready", 1);
    let live = wait_until("estimates of the running program", PATIENCE, || {
        let view = daemon.report();
        (!view.named("sampled").is_empty()).then_some(view)
    });
    check_estimates(&live, live.process("sampled"));
    let metrics = daemon.metrics();
    let labels = [("process", "sampled")];
    let interval = metrics.sum("pageshim_sample_interval_bytes", &labels);
    assert!((interval - 16384.0).abs() < 0.5, "{interval}");
    assert!(metrics.sum("pageshim_heap_live_error_bytes", &labels) > 0.0);
    running.signal(Signal::KILL);
    running.finish();
    let view = daemon.settled("sampled");
    assert_eq!(view.process("sampled")["state"], "killed");
    check_estimates(&view, view.process("sampled"));
}

// Goal: a child estimates what it inherited and what it did. Method: it frees half of one site,
// plants another, and lives long enough to have books of its own.
#[test]
fn children_estimate_their_own() {
    let daemon = Daemon::start();
    job(&daemon, "fork", "5").run().ok();
    let view = daemon.settled("sampled");
    let all = view.named("sampled");
    assert_eq!(all.len(), 2, "{:#}", view.json["processes"]);
    let child = all.iter().find(|process| !process["parent"].is_null());
    let parent = all.iter().find(|process| process["parent"].is_null());
    check_estimates(&view, parent.expect("a parent"));
    let child = child.expect("a child");
    within(&view, child, ("tiny", 30_000, 40));
    within(&view, child, ("in_child", 3000, 1000));
    within(&view, child, ("grown", 2000, 2000));
}

// Goal: every place that shows a sampled number says so. Method: text, page, table, metrics, CSV.
#[test]
fn every_view_says_that_it_is_sampled() {
    let daemon = Daemon::start();
    let mut running = job(&daemon, "hold", "6").start();
    running.wait_for("ready", 1);
    daemon.known("sampled");
    for (path, needles) in [
        (
            "/leaks.txt",
            &["a sample each 16.0 KiB", "estimates from samples", " ± "][..],
        ),
        ("/leaks", &["Sampled:", "a sample each 16.0 KiB", "± "][..]),
        ("/", &["Sampled:", "≈ "][..]),
        (
            "/leaks.json",
            &["\"interval_bytes\": 16384", "\"error\""][..],
        ),
        ("/leaks.csv", &["bytes_error"][..]),
        (
            "/metrics",
            &[
                "pageshim_sampled_processes{process=\"sampled\"} 1",
                "An estimate where",
            ][..],
        ),
    ] {
        let text = daemon.get(path).ok();
        for needle in needles {
            let bare = needle.replace(' ', "");
            assert!(
                text.contains(needle) || text.contains(&bare),
                "{path}: {needle} not in {text:.3000}"
            );
        }
    }
    running.finish();
}

// Goal: with a heap of another kind sampling is refused in one line, and exact. Method: both asked for.
#[test]
fn other_heaps_are_exact() {
    let daemon = Daemon::start();
    let job = daemon.preload("sampled").apply(Job::new(program("zoo.c")));
    let outcome = job.env("PAGESHIM_HEAP", "page").run().ok();
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert_eq!(daemon.settled("zoo").process("zoo")["mode"], "exact");
}

// Goal: intervals have bounds. Method: one below, one above, both told and not taken.
#[test]
fn intervals_have_bounds() {
    for mode in ["sampled:1000", "sampled:5GiB", "sampled:0", "sampled:"] {
        let temp = Temp::new();
        let preload = Preload::new(mode, &temp.join("nobody"));
        let outcome = preload.apply(Job::new(program("zoo.c"))).run().ok();
        assert!(
            outcome.stderr.contains("sampled:BYTES"),
            "{mode}: {}",
            outcome.stderr
        );
    }
}
