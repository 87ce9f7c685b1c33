//! Blocks that only a register or a late thread-local place holds, whoever checks.

use std::path::PathBuf;

use pageshim_tests::planted::{Planted, check_found, check_memcheck, check_planted, run, start};
use pageshim_tests::programs::{program, program_with};
use pageshim_tests::{Ended, Job, PATIENCE, Way, wait_until};

/// tests/programs/registers.c: the registers that calls keep, and all there are.
const IN_REGISTERS: &[Planted] = &[
    ("of_register", "reachable", 6, 1200),
    ("of_before", "definite", 6, 1206),
];
const IN_ALL_REGISTERS: &[Planted] = &[
    ("of_register", "reachable", 15, 3000),
    ("of_before", "definite", 15, 3015),
];

/// tests/programs/tls.c with two libraries: of the first thread, and of two.
const IN_ONE_THREAD: &[Planted] = &[
    ("of_small", "reachable", 1, 120),
    ("of_small_lost", "definite", 1, 121),
    ("of_large", "reachable", 1, 120),
    ("of_large_lost", "definite", 1, 121),
    ("of_first_key", "reachable", 1, 130),
    ("of_late_key", "reachable", 1, 131),
    ("of_lost_key", "definite", 1, 132),
];
const IN_TWO_THREADS: &[Planted] = &[
    ("of_small", "reachable", 2, 240),
    ("of_small_lost", "definite", 2, 242),
    ("of_large", "reachable", 2, 240),
    ("of_large_lost", "definite", 2, 242),
    ("of_first_key", "reachable", 2, 260),
    ("of_late_key", "reachable", 2, 262),
    ("of_lost_key", "definite", 2, 264),
];

/// One with storage beside the threads' own, one whose storage the loader asks for when it is used.
fn libraries() -> [PathBuf; 2] {
    let shared = ["-shared", "-fPIC"];
    let small = ["-ftls-model=initial-exec", "-DROOM=64", "-DMAKER=of_small"];
    let large = ["-DROOM=(1<<20)", "-DMAKER=of_large"];
    [
        program_with("tlsplug.c", &[&shared[..], &small].concat()),
        program_with("tlsplug.c", &[&shared[..], &large].concat()),
    ]
}

fn tls(threads: &str, way: &str) -> Vec<String> {
    let paths = libraries().map(|path| path.to_string_lossy().into_owned());
    let own = [threads, way].map(str::to_owned);
    own.into_iter().chain(paths).collect()
}

// Goal: what only a register holds is reachable, what it held before is lost. Method: a thread asleep in
// a system call, one that computes and has a block in each register; each way to check.
#[test]
fn registers_of_a_running_program_are_roots() {
    let path = program("registers.c");
    for way in [Way::Copy, Way::InPlace] {
        way.check(&path, &["sleep"], IN_REGISTERS);
    }
    for way in Way::ALL {
        way.check(&path, &["spin"], IN_ALL_REGISTERS);
    }
}

// Goal: the same when it ends. Method: two ways out, a wild write, a signal; Memcheck for the first.
#[test]
fn registers_are_roots_at_the_end() {
    let job = |how: &str| Job::new(program("registers.c")).arg(how);
    for how in ["exit", "_exit"] {
        let run = run(job(how), &[]);
        assert_eq!(run.outcome.ended, Ended::Code(0));
        check_planted(&run, "registers", IN_REGISTERS, how);
    }
    let crashed = run(job("crash"), &[]);
    assert_eq!(crashed.outcome.ended, Ended::Signal(11));
    check_planted(&crashed, "registers", IN_ALL_REGISTERS, "crash");
    for (how, planted) in [("sleep", IN_REGISTERS), ("spin", IN_ALL_REGISTERS)] {
        let mut started = start(job(how), &[]);
        started.running.wait_for("planted", 1);
        started.running.signal(rustix::process::Signal::TERM);
        // The end of its input would end it another way.
        wait_until("its end", PATIENCE, || {
            (!started.running.is_alive()).then_some(())
        });
        let run = started.finish();
        assert_eq!(run.outcome.ended, Ended::Signal(15), "{how}");
        check_planted(&run, "registers", planted, how);
    }
    check_memcheck(job("exit"), IN_REGISTERS);
}

// Goal: variables of libraries that are opened late and thread-specific values beyond the first are
// roots, and what the loader keeps for them is no leak. Method: two threads, one of which runs; each
// way to check.
#[test]
fn late_thread_local_places_of_a_running_program_are_roots() {
    let arguments = tls("threads", "wait");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for way in Way::ALL {
        way.check(&program("tls.c"), &arguments, IN_TWO_THREADS);
    }
}

// Goal: the same at the end, and with strict roots. Method: two ways out, with and without the second thread;
// Memcheck for one: of other threads it has no start pointer to the loader's lists.
#[test]
fn late_thread_local_places_are_roots_at_the_end() {
    for (threads, planted) in [("alone", IN_ONE_THREAD), ("threads", IN_TWO_THREADS)] {
        for way in ["return", "_exit"] {
            for roots in ["exit", "exit,strict"] {
                let job = Job::new(program("tls.c")).args(tls(threads, way));
                let run = run(job, &[("PAGESHIM_CHECK", roots)]);
                let what = format!("{threads} {way} {roots}");
                check_planted(&run, "tls", planted, &what);
                check_found(&run.view, run.view.process("tls"), planted, &what);
            }
        }
    }
    let job = Job::new(program("tls.c")).args(tls("alone", "_exit"));
    check_memcheck(job, IN_ONE_THREAD);
}
