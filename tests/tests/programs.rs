//! Every victim says and returns the same with and without the shim.
//!
//! Each case runs its program plainly, then under the shim with a daemon in all
//! modes, then in `exact` with nobody listening; output and status must be equal.

use std::path::Path;
use std::time::Duration;

use pageshim_tests::programs::{program, program_with};
use pageshim_tests::{Daemon, Ended, Job, Outcome, Preload, Temp, Trial};

/// The plain outcome of `name` with `arguments`, all shimmed runs being equal.
fn same(name: &str, arguments: &[&str]) -> Outcome {
    let victim = program(name);
    let make = |_: &Path| Job::new(&victim).args(arguments);
    Trial::of(&make).check()
}

/// The same, also through `pageshim run` with a planted leak.
fn same_under_run(name: &str, arguments: &[&str]) -> Outcome {
    let victim = program(name);
    let make = |_: &Path| Job::new(&victim).args(arguments);
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
    Trial::of(&make).run_as(stem.expect("a name")).check()
}

// Goal: plain C with churn and leaks. Method: equal runs.
#[test]
fn zoo() {
    assert_eq!(same_under_run("zoo.c", &[]).ended, Ended::Code(0));
}

// Goal: threads, exceptions, thread_local destructors, containers, a caught bad_alloc. Method: equal runs.
#[test]
fn threads() {
    let plain = same_under_run("threads.cpp", &[]);
    assert!(
        plain
            .stdout
            .starts_with("bad_alloc caught\nnothrow: null\n"),
        "{plain:?}"
    );
}

// Goal: the corners of the malloc family. Method: a program that checks each and says which are wrong.
#[test]
fn edges() {
    let plain = same("edges.c", &[]);
    assert!(
        plain.stdout.ends_with("edges: 0 wrong\n"),
        "{}",
        plain.stdout
    );
}

// Goal: plugins that come and go. Method: fifty rounds of dlopen and dlclose.
#[test]
fn dlopen() {
    let plugin = program_with("plugin.c", &["-shared", "-fPIC"]);
    let plain = same_under_run("dl.c", &[plugin.to_str().expect("UTF-8")]);
    assert_eq!(plain.ended, Ended::Code(0));
}

// Goal: every kind of child and every end of one, also while threads allocate. Method: equal runs.
#[test]
fn forktree() {
    let plain = same_under_run("forktree.c", &[]);
    assert!(plain.stdout.ends_with("under fire: 0 wrong\n"), "{plain:?}");
}

// Goal: signals on an alternate stack. Method: equal runs of a handler that does not allocate.
#[test]
fn signals() {
    assert_eq!(same("signals.c", &[]).stdout, "signals: 0 wrong\n");
}

// Goal: a handler that allocates in the middle of malloc is safe with us (with glibc it may
// deadlock, so there is no plain run). Method: 1,500 alarms, contents checked.
#[test]
fn signals_that_allocate() {
    for mode in ["exact", "count", "off", "trace"] {
        let daemon = Daemon::start();
        let job = Job::new(program("signals.c")).arg("alloc");
        let outcome = daemon.preload(mode).apply(job).run().ok();
        assert_eq!(outcome.stdout, "signals: 0 wrong\n", "{mode}");
    }
}

// Goal: allocation in exit handlers, destructors and TLS destructors, and after main's pthread_exit.
// Method: equal runs of the three ways.
#[test]
fn late() {
    for what in ["exit", "thread", "main"] {
        assert_eq!(same("late.c", &[what]).ended, Ended::Code(0), "{what}");
    }
}

// Goal: a program that closes and reuses every descriptor keeps its files and its heap.
// Method: equal runs by close and by close_range.
#[test]
fn closefds() {
    assert_eq!(same("closefds.c", &[]).ended, Ended::Code(0));
    assert_eq!(same("closefds.c", &["range"]).ended, Ended::Code(0));
}

// Goal: tight resource limits do not break a program that fits them. Method: 512 MiB of address
// space, no file size, ten descriptors; each alone and all together.
#[test]
fn limits() {
    let victim = program("limits.c");
    let all = ["--as=536870912", "--fsize=0", "--nofile=10"];
    for limits in [&all[..1], &all[1..2], &all[2..], &all[..]] {
        let mut wrapper = vec!["env", "-u", "LD_PRELOAD", "prlimit"];
        wrapper.extend(limits);
        // prlimit itself runs plain; the victim gets the shim from a shell under the limits.
        let shell = "LD_PRELOAD=$SHIM exec \"$0\"";
        wrapper.extend(["bash", "-c", shell]);
        let run = |preload: Option<&Preload>| {
            let job = Job::new(&victim).wrapped(&wrapper);
            match preload {
                Some(with) => with.apply(job).env("SHIM", &with.library).run(),
                None => job.env("SHIM", "").run(),
            }
        };
        let plain = run(None);
        assert_eq!(plain.stdout, "limits: 0 wrong\n", "{plain:?}");
        let temp = Temp::new();
        let alone = run(Some(&Preload::new("exact", &temp.join("nobody"))));
        let watched = run(Some(&Daemon::start().preload("exact")));
        for shimmed in [alone, watched] {
            let (says, same) = (&shimmed.stderr, (&shimmed.stdout, shimmed.ended));
            assert_eq!(same, (&plain.stdout, plain.ended), "{limits:?}");
            // Without a file size there can be no shared state: one line says so.
            let lines = usize::from(limits.contains(&"--fsize=0"));
            assert_eq!(says.lines().count(), lines, "{limits:?}: {says}");
            assert_eq!(says.contains("RLIMIT_FSIZE"), lines == 1, "{says}");
        }
    }
}

// Goal: each way to end keeps its status. Method: equal runs of all of them.
#[test]
fn exits() {
    let ways = [
        ("return", Ended::Code(2)),
        ("exit", Ended::Code(3)),
        ("_exit", Ended::Code(4)),
        ("quick_exit", Ended::Code(5)),
        ("abort", Ended::Signal(6)),
        ("segv", Ended::Signal(11)),
        ("kill", Ended::Signal(9)),
        ("term", Ended::Signal(15)),
    ];
    for (way, ended) in ways {
        assert_eq!(same("exits.c", &[way]).ended, ended, "{way}");
    }
}

// Goal: allocation before main and before constructors. Method: equal runs.
#[test]
fn early() {
    assert_eq!(same("early.c", &[]).stdout, "preinit constructor later 1\n");
}

// Goal: stacks deeper than any limit of ours. Method: 50,000 frames, equal runs.
#[test]
fn deep() {
    assert_eq!(same("deep.c", &[]).stdout, "deep: 150003\n");
}

// Goal: frames left by longjmp do not confuse the unwinder. Method: equal runs.
#[test]
fn longjmp() {
    assert_eq!(same("longjmp.c", &[]).stdout, "longjmp: 10000\n");
}

// Goal: stacks in heap blocks. Method: sixteen coroutines, equal runs.
#[test]
fn coroutines() {
    assert_eq!(same("coroutines.c", &[]).stdout, "coroutines: 3216\n");
}

// Goal: an executable with a malloc of its own works; its heap is left alone. Method: equal
// output; a line on stderr saying so is welcome.
#[test]
fn own_malloc() {
    let victim = program("mallocown.c");
    let make = |_: &Path| Job::new(&victim);
    let plain = Trial::of(&make).stdout_only().check();
    assert_eq!(plain.stdout, "own malloc: mallocown\ncalls: ours\n");
}

// Goal: a Rust program with threads, caught panics and growing vectors. Method: equal runs.
#[test]
fn rust() {
    assert_eq!(same_under_run("victim.rs", &[]).ended, Ended::Code(0));
}

// Goal: large blocks where slots were, never written to, are freed without a word. Method: equal runs.
#[test]
fn reused() {
    assert_eq!(same("reused.c", &[]).stdout, "done\n");
}

// Goal: no block is ever given twice, lost or changed. Method: four threads that check contents
// and hand blocks over, in every mode.
#[test]
fn stress() {
    let victim = program("stress.c");
    let make = |_: &Path| Job::new(&victim).arg("2").limit(Duration::from_secs(60));
    assert_eq!(Trial::of(&make).check().stdout, "ok\n");
}

// Goal: misuse is survived (plain glibc aborts). Method: each misuse, then a thousand checked blocks.
#[test]
fn misuse_is_survived() {
    for what in ["double", "interior", "stack", "wild", "none"] {
        for mode in ["exact", "count", "off", "trace"] {
            let temp = Temp::new();
            let preload = Preload::new(mode, &temp.join("nobody"));
            let outcome = preload.apply(Job::new(program("misuse.c")).arg(what)).run();
            assert_eq!(outcome.ended, Ended::Code(0), "{what}, {mode}: {outcome:?}");
            assert_eq!(outcome.stdout, "survived, 0 wrong\n", "{what}, {mode}");
        }
    }
}
