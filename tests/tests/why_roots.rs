//! Why a block is alive that a register or a library's thread-local variable holds: by name.

use pageshim_tests::programs::{program, program_with};
use pageshim_tests::{Daemon, Ended, Job, Way, places};
use serde_json::Value;

/// The chain that `pageshim why` tells.
fn why(daemon: &Daemon, name: &str, address: &str) -> String {
    let job = Job::new(places::pageshim()).args(["why", name, address, "--format", "json"]);
    let said = job.arg("--socket").arg(daemon.socket()).run().ok().stdout;
    let entry: Value = serde_json::from_str(&said).expect("JSON");
    let chain = entry["answers"][0]["chain"].as_str();
    chain.unwrap_or_else(|| panic!("{entry:#}")).to_owned()
}

// Goal: why it is alive is told by the register's name. Method: each of them.
#[test]
fn registers_are_named() {
    let daemon = Daemon::start();
    let path = program("registers.c");
    let watched = Way::Copy.start(&daemon, &path, &["spin"], "planted");
    let said = watched.running.stdout();
    let blocks: Vec<_> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    assert_eq!(blocks.len(), 15, "{said}");
    for (register, address) in blocks {
        let chain = why(&daemon, "registers", address);
        let root = format!("register {register} of thread ");
        assert!(chain.starts_with(&root), "{chain}");
        assert!(
            chain.ends_with("-> block of `of_register` (200 B)"),
            "{chain}"
        );
    }
    assert_eq!(watched.finish().ended, Ended::Code(0));
}

// Goal: a library's thread-local variable is told by its name and thread, one that the loader made room for
// late by the loader's block. Method: libraries of either model, loaded at the start and opened.
#[test]
fn thread_local_variables_of_libraries_are_named() {
    let daemon = Daemon::start();
    let library = |maker: &str, more: &[&str]| {
        let flags = ["-shared", "-fPIC", maker];
        program_with("tlsplug.c", &[&flags[..], more].concat())
    };
    let small = library(
        "-DMAKER=of_small",
        &["-DROOM=64", "-ftls-model=initial-exec"],
    );
    let large = library("-DMAKER=of_large", &["-DROOM=(1<<20)"]);
    let first = library("-DMAKER=of_first", &["-DROOM=64"]);
    let mut preload = daemon.preload("exact");
    preload.library = format!("{}:{}", preload.library.display(), first.display()).into();
    let job = Job::new(program("tls.c")).args(["threads", "wait"]);
    let mut running = preload.apply(job.args([small, large, first])).start();
    running.wait_for("planted", 1);
    daemon.known_pid(running.pid());
    let said = running.stdout();
    let place = |name: &str| {
        let of = |line: &str| line.strip_prefix(name).map(|rest| rest.trim().to_owned());
        said.lines().find_map(of).expect("it says where")
    };
    let ask = |name: &str| why(&daemon, "tls", &place(name));
    for (place, variable) in [("thread0 ", "of_small_held"), ("thread2 ", "of_first_held")] {
        let chain = ask(place);
        let root = format!("thread-local `{variable}` in tlsplug of thread ");
        assert!(
            chain.starts_with(&root) && chain.contains(" (tls) -> "),
            "{chain}"
        );
    }
    let chain = ask("main2 ");
    let root = format!(
        "thread-local `of_first_held` in tlsplug of thread {} (main)",
        running.pid()
    );
    assert!(chain.starts_with(&root), "{chain}");
    for place in ["main1 ", "thread1 "] {
        let chain = ask(place);
        assert!(
            chain.contains("which the loader keeps (storage of threads"),
            "{chain}"
        );
        assert!(chain.ends_with("-> block of `of_large` (120 B)"), "{chain}");
    }
    assert_eq!(running.finish().ended, Ended::Code(0));
}
