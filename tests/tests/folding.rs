//! Programs with very many stacks: bounded tables, and recursion folded on request.

use std::time::Duration;

use pageshim_tests::programs::program;
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Daemon, Job, View, wait_until};
use serde_json::Value;

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Daemon, View) {
    let daemon = Daemon::start();
    let job = Job::new(program("recursion.c")).args(arguments);
    let mut job = daemon
        .preload("exact")
        .apply(job)
        .limit(Duration::from_secs(120));
    for (key, value) in environment {
        job = job.env(key, value);
    }
    job.run().ok();
    // A million stacks take the daemon a while to decode, longer beside other cases.
    let view = wait_until("recursion ended", Duration::from_secs(90), || {
        let view = daemon.report();
        let ended = |process: &&Value| process["state"] != "running";
        view.named("recursion")
            .first()
            .is_some_and(ended)
            .then_some(view)
    });
    view.check_equations();
    (daemon, view)
}

fn sites(process: &Value) -> u64 {
    number(process, "sites")
}

// Goal: a recursion has a site for each depth, and folded a handful; the amounts are the same and
// the report says what was done. Method: 300 depths both ways, verified on the way.
#[test]
fn recursion_folds_on_request() {
    let (_, whole) = run(&["deep", "300"], &[]);
    let (daemon, folded) = run(
        &["deep", "300"],
        &[("PAGESHIM_FOLD", "1"), ("PAGESHIM_VERIFY", "1")],
    );
    let (plain, fold) = (whole.process("recursion"), folded.process("recursion"));
    assert!(sites(plain) >= 600, "{}", sites(plain));
    assert!(sites(fold) <= 20, "{}", sites(fold));
    assert_eq!(plain["live"], fold["live"]);
    assert_eq!(
        (&plain["recursion_folded"], &fold["recursion_folded"]),
        (&false.into(), &true.into())
    );
    let held = Held {
        blocks: 600,
        bytes: 300 * 30,
    };
    assert_eq!(whole.held_by(plain, "keep"), held);
    assert_eq!(folded.held_by(fold, "keep"), held);
    assert!(folded.held_below(fold, "main").blocks >= 600, "to the root");
    assert!(
        daemon
            .get("/leaks.txt")
            .ok()
            .contains("exact mode, recursion folded")
    );
    for kind in ["frames", "depth", "end", "site"] {
        assert_eq!(number(&fold["verified"], kind), 0, "{kind}");
    }
}

// Goal: more stacks than the log has room for (256 MiB of frames) are counted on one site, nothing is lost from the
// totals, and memory stays bounded. Method: 1.3 million stacks.
#[test]
fn millions_of_stacks_are_bounded() {
    let (_, view) = run(&["distinct", "1300000"], &[]);
    let process = view.process("recursion");
    let overflowed = number(&process["drops"], "sites");
    let live = number(&process["live"], "blocks");
    assert!((1300..1310).contains(&live), "{live}");
    assert!(sites(process) < 1 << 20, "{}", sites(process));
    assert!(overflowed > 100_000, "{overflowed}");
    let full = view.leaks_of(process).find(|leak| {
        leak["incomplete"]
            .as_str()
            .is_some_and(|why| why.contains("table was full"))
    });
    let blocks = number(full.expect("the overflow site"), "blocks");
    assert!(blocks > 100, "{blocks}");
    let metadata = number(&process["pages"], "metadata_bytes");
    println!(
        "sites {}, overflowed {overflowed}, on the overflow site {blocks}, metadata {metadata}",
        sites(process)
    );
}
