//! Libraries that look to libc before us share the program's heap.

use std::fs;
use std::path::{Path, PathBuf};

use pageshim_tests::programs::program_with;
use pageshim_tests::{Daemon, Job, Temp, Trial};

const SAID: &str = "early 2 1 1 1\n";

/// The program beside its library, which it finds by its run path alone.
fn laid_out(dir: &Path) -> PathBuf {
    let plugin = program_with("deepbind.c", &["-shared", "-fPIC", "-DPLUGIN"]);
    let main = program_with("deepbind.c", &["-rdynamic", "-Wl,-rpath,$ORIGIN", "-ldl"]);
    fs::copy(plugin, dir.join("libdeep.so")).expect("our own directory");
    let there = dir.join("deepbind");
    fs::copy(main, &there).expect("our own directory");
    there
}

// Goal: blocks go both ways between the program and a library loaded with RTLD_DEEPBIND, and the flag
// still does what it is for. Method: all modes and heaps; equal runs.
#[test]
fn blocks_go_both_ways() {
    let make = |dir: &Path| Job::new(laid_out(dir)).arg("libdeep.so").dir(dir);
    let plain = Trial::of(&make)
        .modes(&["off", "count", "sampled", "exact", "trace"])
        .run_as("deepbind")
        .check()
        .ok();
    assert_eq!(plain.stdout, SAID.repeat(3));
    for heap in ["page", "arena", "debug"] {
        let temp = Temp::new();
        let job = make(&temp.join("")).env("PAGESHIM_HEAP", heap);
        let daemon = Daemon::start();
        let said = daemon.preload("exact").apply(job).run().ok();
        assert_eq!(
            (said.stdout, said.stderr),
            (plain.stdout.clone(), String::new()),
            "{heap}"
        );
    }
}

// Goal: what such a library allocates is billed to it. Method: what it loses, by function.
#[test]
fn what_the_library_loses_is_billed_to_it() {
    let temp = Temp::new();
    let daemon = Daemon::start();
    let job = Job::new(laid_out(&temp.join("")))
        .arg("libdeep.so")
        .dir(&temp.join(""));
    daemon.preload("exact").apply(job).run().ok();
    let view = daemon.settled("deepbind");
    let held = view.held_by(view.process("deepbind"), "give");
    assert_eq!((held.blocks, held.bytes), (3, 3 * 123));
}

// Goal: in a program with a malloc of its own, such a library keeps to libc's, as without us.
// Method: what lies before its block.
#[test]
fn beside_a_malloc_of_the_programs_own_it_keeps_to_libcs() {
    let temp = Temp::new();
    laid_out(&temp.join(""));
    let own = program_with("deepown.c", &["-rdynamic", "-ldl"]);
    let run = || Job::new(&own).arg(temp.join("libdeep.so"));
    assert_eq!(run().run().ok().stdout, "libc's\n");
    let daemon = Daemon::start();
    let ours = daemon.preload("exact").apply(run()).run().ok();
    assert_eq!(ours.stdout, "libc's\n");
    assert!(
        ours.stderr.contains("brings its own malloc"),
        "{}",
        ours.stderr
    );
}
