//! `PAGESHIM_HEAP`: whole programs on the page, arena, fixed and debug heaps.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use pageshim_tests::programs::{program, program_with};
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Daemon, Ended, Job, Preload, Temp, Trial, View};
use serde_json::Value;

const HEAPS: [&str; 4] = ["page", "arena", "fixed:2GiB", "debug"];

/// Runs `job` plainly and on every heap, in `exact` and `off`; all must say the same.
fn same_on_all(job: &Job) {
    for heap in HEAPS {
        let make = |_: &Path| job.clone().env("PAGESHIM_HEAP", heap);
        // What the library says of a program, as of a malloc of its own, is not the program's.
        let trial = Trial::of(&make).modes(&["exact", "off"]).stdout_only();
        assert_eq!(trial.check().ended, Ended::Code(0), "{heap}");
    }
}

/// The ended report of `name` after `job` ran on `heap`, equal to the plain run.
fn report(job: &Job, name: &str, heap: &str) -> View {
    let make = |_: &Path| job.clone().env("PAGESHIM_HEAP", heap);
    let view = Trial::of(&make).report(name);
    let kind = heap.split(':').next();
    assert_eq!(view.process(name)["heap"].as_str(), kind);
    view
}

/// `job` on `heap`, without a daemon, in `mode`.
fn on(job: Job, heap: &str, mode: &str) -> Job {
    let preload = Preload::new(mode, Path::new("/nonexistent/pageshim.sock"));
    preload.apply(job).env("PAGESHIM_HEAP", heap)
}

// Goal: C, C++ and the corners of malloc do not notice. Method: equal runs on each heap.
#[test]
fn victims_do_not_notice() {
    same_on_all(&Job::new(program("zoo.c")));
    same_on_all(&Job::new(program("threads.cpp")));
    same_on_all(&Job::new(program("edges.c")));
}

// Goal: real programs run on each heap. Method: equal runs of small work.
#[test]
fn real_programs_run() {
    let python = "print(sum(len(str(i)) for i in range(20000)), sorted({'a': 1, 'b': [2] * 9}))";
    same_on_all(&Job::new("/usr/bin/python3").args(["-c", python]));
    let objects = Job::new("/usr/bin/python3").env("PYTHONMALLOC", "malloc");
    same_on_all(&objects.args(["-c", "print(len([str(i) for i in range(2000)]))"]));
    let sql = "create table t(a, b); insert into t select value, hex(value) \
               from generate_series(1, 3000); select count(*), sum(length(b)) from t;";
    same_on_all(&Job::new("/usr/bin/sqlite3").arg(":memory:").input(sql));
    let temp = Temp::new();
    let source = temp.join("small.cpp");
    std::fs::write(
        &source,
        "#include <string>\nstd::string f() { return \"x\"; }\n",
    )
    .expect("a file of our own");
    same_on_all(&Job::new("/usr/bin/g++").arg("-fsyntax-only").arg(&source));
}

// Goal: no block is lost or given twice by threads and children. Method: checked contents.
#[test]
fn threads_and_children_balance() {
    let stress = Job::new(program("stress.c")).arg("2");
    report(&stress, "stress", "arena");
    // Four threads that allocate until fifty forks are done would fill any arena.
    for heap in ["page", "debug"] {
        report(&stress, "stress", heap);
        let tree = Job::new(program("forktree.c"));
        let make = |_: &Path| tree.clone().env("PAGESHIM_HEAP", heap);
        let plain = Trial::of(&make)
            .modes(&["exact"])
            .with_daemon_only()
            .check();
        assert!(plain.stdout.ends_with("under fire: 0 wrong\n"), "{heap}");
    }
}

// Goal: books are as exact as on gpa. Method: the zoo's planted leaks and all equations.
#[test]
fn leaks_are_billed() {
    for heap in HEAPS {
        let view = report(&Job::new(program("zoo.c")), "zoo", heap);
        let zoo = view.process("zoo");
        let held = |blocks, bytes| Held { blocks, bytes };
        assert_eq!(view.held_by(zoo, "make_node"), held(100, 6400), "{heap}");
        assert_eq!(view.held_by(zoo, "make_buffer"), held(3, 3 << 20), "{heap}");
        assert_eq!(view.held_by(zoo, "churn"), Held::default(), "{heap}");
        assert!(
            zoo["misuse"]
                .as_object()
                .is_none_or(serde_json::Map::is_empty)
        );
        let daemon = Daemon::start();
        let job = daemon.preload("count").apply(Job::new(program("zoo.c")));
        job.env("PAGESHIM_HEAP", heap).run().ok();
        let counted = daemon.settled("zoo");
        counted.check_equations();
        assert_eq!(counted.process("zoo")["total"], zoo["total"], "{heap}");
    }
}

/// The process of `ends WHAT` on `heap`.
fn ends(what: &str, heap: &str) -> Value {
    let view = report(&Job::new(program("ends.c")).arg(what), "ends", heap);
    view.process("ends").clone()
}

// Goal: 2 bytes from the page heap cost one page and a system call each way; a bump heap packs
// them. Method: 1,000 leaked blocks, read off the account.
#[test]
fn two_bytes_cost_a_page() {
    let page = ends("tiny", "page");
    let blocks = number(&page["live"], "blocks");
    assert!(blocks >= 1000);
    let calls = number(&page["total"], "blocks") + number(&page["freed"], "blocks");
    assert!(number(&page["syscalls"], "mmap") >= calls, "{page:#}");
    let pages = &page["pages"];
    let used = number(pages, "requested_bytes") + number(pages, "rounding_bytes");
    assert!(
        used >= blocks * 4096 && used.is_multiple_of(4096),
        "{pages:#}"
    );
    for part in ["free_slot_bytes", "tail_bytes", "retained_bytes"] {
        assert_eq!(number(pages, part), 0, "{part}");
    }
    let arena = ends("tiny", "arena");
    assert!(number(&arena["syscalls"], "mmap") < 100);
    let pages = &arena["pages"];
    let used = number(pages, "requested_bytes") + number(pages, "rounding_bytes");
    assert!(used < 1000 * 32 + (256 << 10), "{pages:#}");
    assert_eq!(number(pages, "retained_bytes"), 0);
}

// Goal: blocks grow and shrink with their contents, by the kernel where it can. Method: doubling to 64 MiB.
#[test]
fn blocks_grow() {
    for heap in HEAPS {
        let process = ends("grow", heap);
        if heap == "page" {
            assert!(number(&process["syscalls"], "mremap") > 0, "{process:#}");
        }
    }
}

// Goal: only the last block's space comes back. Method: a program that compares addresses.
#[test]
fn bump_heaps_reuse_the_last_block_only() {
    for heap in ["arena", "fixed:1MiB"] {
        let outcome = on(Job::new(program("ends.c")).arg("bump"), heap, "exact")
            .run()
            .ok();
        assert_eq!(
            outcome.stdout, "last again: 1, in place: 1, others not: 1\n",
            "{heap}"
        );
    }
}

// Goal: a fixed heap refuses past its end, and stays refused. Method: malloc until NULL.
#[test]
fn fixed_refuses_past_its_end() {
    for (heap, held) in [
        ("fixed:512k", "much"),
        ("fixed:1MiB", "much"),
        ("fixed:65536", "little"),
    ] {
        for mode in ["exact", "off"] {
            let outcome = on(Job::new(program("ends.c")).arg("exhaust"), heap, mode)
                .run()
                .ok();
            let expected = format!("refused: 1, again: 1, held {held}\n");
            assert_eq!(outcome.stdout, expected, "{heap}, {mode}");
            assert_eq!(outcome.stderr, "", "{heap}, {mode}");
        }
    }
}

// Goal: the page heap gives up before the kernel does, with one line. Method: 120,000 live blocks.
#[test]
fn page_falls_back_before_the_kernel_refuses() {
    for mode in ["exact", "off"] {
        let job = Job::new(program("ends.c")).arg("many");
        let outcome = on(job, "page", mode).run().ok();
        assert_eq!(outcome.stdout, "many: 0 wrong\n");
        assert_eq!(
            outcome.stderr.matches("max_map_count").count(),
            1,
            "{outcome:?}"
        );
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

// Goal: a bad value is one line and gpa. Method: values that look nearly right.
#[test]
fn bad_values_are_one_line() {
    for value in [
        "pages",
        "fixed",
        "fixed:",
        "fixed:0",
        "fixed:1x",
        "fixed:-1",
        "fixed:99999999999G",
    ] {
        let outcome = on(Job::new(program("zoo.c")), value, "exact").run().ok();
        let expected = format!("pageshim: PAGESHIM_HEAP={value} is not understood");
        assert!(outcome.stderr.starts_with(&expected), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
    let outcome = on(Job::new(program("zoo.c")), "fixed:900000G", "exact")
        .run()
        .ok();
    assert!(
        outcome.stderr.contains("refuses the addresses"),
        "{outcome:?}"
    );
}

// Goal: heaps work within small address spaces. Method: the zoo under ulimit -v.
#[test]
fn limits_are_respected() {
    for heap in ["page", "arena", "fixed:256MiB", "debug"] {
        let job = on(Job::new(program("zoo.c")), heap, "exact");
        let limited = job
            .wrapped(&["/usr/bin/prlimit", "--as=2147483648"])
            .run()
            .ok();
        assert_eq!(limited.stderr, "", "{heap}");
    }
}

/// `faults WHAT`, which links what it looks up by name.
fn faults(what: &str) -> Job {
    Job::new(program_with("faults.cpp", &["-ldl", "-w"])).arg(what)
}

// Goal: the debug heap names each misuse once, and nothing else. Method: one of each.
#[test]
fn debug_names_each_misuse() {
    let kinds = [
        ("double", "double_free"),
        ("late_double", "double_free"),
        ("interior", "invalid_free"),
        ("size", "size_mismatch"),
        ("sized_delete", "size_mismatch"),
        ("alignment", "alignment_mismatch"),
        ("kind", "kind_mismatch"),
        ("array", "kind_mismatch"),
        ("overflow", "overflow"),
        ("underflow", "overflow"),
        ("late_write", "write_after_free"),
        ("retired_write", "write_after_free"),
    ];
    for (what, kind) in kinds {
        let daemon = Daemon::start();
        let job = daemon.preload("exact").apply(faults(what));
        let outcome = job.env("PAGESHIM_HEAP", "debug").run().ok();
        assert_eq!(outcome.stdout, "survived, 0 wrong\n", "{what}");
        let line = format!("pageshim: {} of 0x", kind.replace('_', " "));
        assert!(outcome.stderr.starts_with(&line), "{what}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{what}: {outcome:?}");
        assert_eq!(
            outcome.stderr.contains("at exit"),
            what == "late_write",
            "{what}"
        );
        let view = daemon.settled("faults");
        let misuse = &view.process("faults")["misuse"];
        assert_eq!(misuse, &serde_json::json!({ kind: 1 }), "{what}");
        view.check_equations();
    }
    for what in ["none", "right_size", "right_alignment", "right_deletes"] {
        let outcome = on(faults(what), "debug", "exact").run().ok();
        assert_eq!(outcome.stderr, "", "{what}");
    }
}

// Goal: a double free carries three stacks: of the allocation, the first free and this one.
// Method: a listener in the daemon's place reads the frame's words.
#[test]
fn double_frees_carry_three_stacks() {
    let temp = Temp::new();
    let socket = temp.join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket of our own");
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the program connects");
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    });
    let preload = Preload::new("exact", &socket);
    preload
        .apply(faults("double"))
        .env("PAGESHIM_HEAP", "debug")
        .run()
        .ok();
    let words = misuse_words(&reader.join().expect("it reads"));
    let [kind, address, born, first, here] = words[..] else {
        panic!("five words, not {words:?}");
    };
    assert!(kind == 0 && address != 0, "{words:?}");
    assert!(born > 1 && first > 1 && here > 1, "{words:?}");
    assert!(born != first && first != here && born != here, "{words:?}");
}

/// The payload of the first misuse frame (kind 10) in a stream of frames.
fn misuse_words(bytes: &[u8]) -> Vec<u64> {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(head[..4].try_into().expect("four")) as usize;
        let payload = &after[..len.min(after.len())];
        if head[4..6] == [10, 0] {
            let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight"));
            return payload.chunks_exact(8).map(word).collect();
        }
        rest = &after[payload.len()..];
    }
    panic!("no misuse frame in {} bytes", bytes.len());
}

// Goal: the debug heap gives memory back although it reuses no address. Method: 2 GiB through
// 64 KiB blocks under a limit of resident memory read by the program itself.
#[test]
fn debug_memory_stays_bounded() {
    let script = "import resource\n\
                  for i in range(20000): b = bytearray(100000)\n\
                  print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 300 << 10)";
    let job = Job::new("/usr/bin/python3").args(["-c", script]);
    let outcome = on(job, "debug", "exact").run().ok();
    assert_eq!(outcome.stdout, "True\n");
}
