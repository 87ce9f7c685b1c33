//! Pictures of the heap: `/sizes`, against the report and in a browser.

use std::path::Path;

use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, Running, Temp};
use serde_json::Value;

/// The planted fragmenter, waiting.
fn fragmenter(daemon: &Daemon, pages: u64) -> Running {
    let job = Job::new(program("fragment.c")).arg(pages.to_string());
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    daemon.known("fragment");
    running
}

fn json(daemon: &Daemon, path: &str) -> Value {
    serde_json::from_str(&daemon.get(path).ok()).expect("JSON")
}

/// What chromium makes of a page.
fn document(daemon: &Daemon, path: &str) -> String {
    let temp = Temp::new();
    let profile = format!("--user-data-dir={}", temp.join("profile").display());
    let job = Job::new(Path::new("/usr/bin/chromium"))
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([profile.as_str(), "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("http://{}{path}", daemon.address()))
        .env("HOME", &*temp);
    job.run().ok().stdout
}

// Goal: the classes of a program sum to its page account and hold the planted slots, also after its
// end; a browser draws them. Method: the fragmenter waits, so that nothing moves between two looks.
#[test]
fn classes_sum_to_the_report() {
    let daemon = Daemon::start();
    let running = fragmenter(&daemon, 512);
    let check = || {
        let sizes = json(&daemon, "/sizes.json?process=fragment");
        assert_eq!(sizes["schema_version"], 1);
        let classes = sizes["processes"][0]["classes"].as_array().expect("a list");
        let known = json(&daemon, "/processes.json?process=fragment");
        let pages = &known["processes"][0]["pages"];
        for part in [
            "requested_bytes",
            "rounding_bytes",
            "free_slot_bytes",
            "tail_bytes",
        ] {
            let sum: u64 = classes.iter().map(|class| number(class, part)).sum();
            assert_eq!(sum, number(pages, part), "{part} of {classes:#?}");
        }
        let of = |slot: u64| {
            classes
                .iter()
                .find(|class| number(class, "slot_bytes") == slot)
        };
        let class = of(1024).expect("blocks of 1,024 bytes");
        assert!(number(class, "live_slots") >= 512, "{class:#}");
        assert!(number(class, "free_slots") >= 3 * 512, "{class:#}");
    };
    check();
    let page = document(&daemon, "/sizes?process=fragment");
    assert!(page.contains("1,024 bytes") && page.contains("class=\"seg free\""));
    drop(running.finish());
    daemon.settled("fragment");
    check();
}
