//! Planted blocks are billed to the function, file and line that asked, exactly.

use std::path::Path;

use pageshim_tests::programs::{line_of, program, program_with};
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Daemon, Job, Trial, View};

/// Checks one planted site: exact amount, function, file and line.
#[track_caller]
fn planted(view: &View, process: &str, source: &str, site: &str, blocks: u64, bytes: u64) {
    let process = view.process(process);
    assert_eq!(
        view.held_by(process, site),
        Held { blocks, bytes },
        "{site}"
    );
    let frame = view.frame(process, site);
    let file = frame["file"].as_str().unwrap_or("none");
    assert!(file.ends_with(source), "{site}: file {file}");
    assert_eq!(number(frame, "line"), line_of(source, site), "{site}: line");
}

/// The report of a shimmed run of `name`, equal to the plain one, equations checked.
fn report(name: &str, arguments: &[&str]) -> View {
    let victim = program(name);
    let stem = Path::new(name).file_stem().expect("a name");
    let make = |_: &Path| Job::new(&victim).args(arguments);
    Trial::of(&make).report(stem.to_str().expect("UTF-8"))
}

// Goal: the zoo's leaks, exactly, and the process around them. Method: report after its end.
#[test]
fn zoo() {
    let view = report("zoo.c", &[]);
    planted(&view, "zoo", "zoo.c", "make_node", 100, 6400);
    planted(&view, "zoo", "zoo.c", "make_buffer", 3, 3 << 20);
    let zoo = view.process("zoo");
    assert_eq!(
        view.held_by(zoo, "churn"),
        Held::default(),
        "churn is all freed"
    );
    assert_eq!(view.frame(zoo, "make_node")["module"], "zoo");
    assert_eq!(zoo["mode"], "exact");
    assert_eq!(zoo["heap"], "gpa");
    assert_eq!(zoo["state"], "exited");
    // Streamed events before the connection are the daemon's absence; anything else is a loss.
    for reason in ["threads", "sites", "modules", "records", "unwind"] {
        assert!(zoo["drops"][reason].is_null(), "{:#}", zoo["drops"]);
    }
    assert!(number(&zoo["total"], "blocks") > 60_000);
    assert!(number(&zoo["peak"], "bytes") >= (3 << 20) + 6400);
    let stacks: Vec<_> = view.leaks_of(zoo).map(|leak| &leak["stack"]).collect();
    let text = serde_json::to_string(&stacks).expect("JSON");
    assert!(
        text.contains("\"plant\"") && text.contains("\"main\""),
        "callers are named"
    );
    assert!(!text.contains("libpageshim"), "no frame of ours");
}

// Goal: blocks of threads and of operator new. Method: one leak per thread.
#[test]
fn threads() {
    let view = report("threads.cpp", &[]);
    planted(&view, "threads", "threads.cpp", "leak_in_thread", 8, 1024);
    let threads = view.process("threads");
    assert_eq!(number(&threads["threads"], "total"), 9);
    let apis = &threads["apis"];
    assert!(number(apis, "new") > 10_000, "{apis:#}");
}

// Goal: code that is no longer loaded is still named. Method: a plugin that leaks and is closed.
#[test]
fn plugins() {
    let plugin = program_with("plugin.c", &["-shared", "-fPIC"]);
    let view = report("dl.c", &[plugin.to_str().expect("UTF-8")]);
    planted(&view, "dl", "plugin.c", "plugin_leak", 50, 2400);
    assert_eq!(
        view.frame(view.process("dl"), "plugin_leak")["module"],
        "plugin"
    );
}

// Goal: frames skipped by longjmp, stacks in the heap, deep stacks. Method: planted leaks and equations.
#[test]
fn odd_stacks() {
    let view = report("longjmp.c", &[]);
    planted(&view, "longjmp", "longjmp.c", "before_jump", 100, 3200);
    let view = report("coroutines.c", &[]);
    planted(
        &view,
        "coroutines",
        "coroutines.c",
        "coroutine_leak",
        16,
        1280,
    );
    let view = report("deep.c", &[]);
    assert_eq!(
        view.held_by(view.process("deep"), "descend"),
        Held::default()
    );
}

// Goal: a Rust program's blocks carry its functions. Method: a leaked box, found below std's frames.
#[test]
fn rust() {
    let view = report("victim.rs", &[]);
    let victim = view.process("victim");
    let held = view.held_below(victim, "leak_box");
    assert_eq!(
        held,
        Held {
            blocks: 10,
            bytes: 40_960
        }
    );
    assert!(number(&victim["threads"], "total") >= 5);
}

// Goal: blocks made after a program closed our descriptors are still billed. Method: closefds.
#[test]
fn after_the_descriptors_were_closed() {
    let view = report("closefds.c", &[]);
    planted(&view, "closefds", "closefds.c", "after_close", 10, 1000);
}

// Goal: what main's exit handlers do still counts. Method: equations after late frees.
#[test]
fn late() {
    for what in ["exit", "thread", "main"] {
        report("late.c", &[what]);
    }
}

// Goal: a heavy four-thread run balances to the byte. Method: equations on the stress program.
#[test]
fn stress_balances() {
    let view = report("stress.c", &["2"]);
    let stress = view.process("stress");
    assert_eq!(view.held_below(stress, "make"), Held::default());
    assert_eq!(view.held_below(stress, "regrow"), Held::default());
}

// Goal: misuse is reported by kind. Method: one of each, counted in report and metrics.
#[test]
fn misuse() {
    let kinds = [
        ("double", "double_free", "free_twice"),
        ("interior", "invalid_free", "free_inside"),
        ("stack", "foreign_free", "free_stack"),
        ("wild", "foreign_free", "free_wild"),
    ];
    for (what, kind, function) in kinds {
        let daemon = Daemon::start();
        let job = Job::new(program("misuse.c")).arg(what);
        daemon.preload("exact").apply(job).run().ok();
        let view = daemon.settled("misuse");
        let misuse = &view.process("misuse")["misuse"];
        assert_eq!(misuse[kind], 1, "{what}: {misuse:#}");
        let told = &view.process("misuse")["misuse_reports"][0];
        let caller = &told["call"][0]["function"];
        assert_eq!((&told["kind"], caller), (&kind.into(), &function.into()));
        // A second free is told with the stack that made the block.
        if what == "double" {
            let made = line_of("misuse.c", "made");
            assert_eq!(told["allocated"][0]["line"], made, "{told:#}");
        }
        let labels = [("process", "misuse"), ("kind", kind)];
        let counted = daemon.metrics().sum("pageshim_misuse_total", &labels);
        assert!((counted - 1.0).abs() < 0.5, "{what}: {counted}");
        view.check_equations();
    }
}

// Goal: count has totals without sites, trace the same as exact plus events, off nothing.
// Method: the zoo in each mode; exact's totals are the truth.
#[test]
fn modes_agree_on_totals() {
    let totals = |mode: &str| {
        let daemon = Daemon::start();
        let job = Job::new(program("zoo.c"));
        daemon.preload(mode).apply(job).run().ok();
        let view = daemon.settled("zoo");
        view.check_equations();
        let zoo = view.process("zoo").clone();
        assert_eq!(zoo["mode"], mode);
        (zoo["total"].clone(), zoo["live"].clone(), daemon, view)
    };
    let (total, live, _, _) = totals("exact");
    let counted = totals("count");
    assert_eq!((&counted.0, &counted.1), (&total, &live), "count");
    let temporary = counted.2.metrics().sum(
        "pageshim_temporary_allocations_total",
        &[("process", "zoo")],
    );
    assert!(temporary == 0.0, "count mode keeps no lives: {temporary}");
    assert_eq!(counted.3.process("zoo")["temporary"], 0);
    let (traced, traced_live, daemon, view) = totals("trace");
    assert_eq!((&traced, &traced_live), (&total, &live), "trace");
    planted(&view, "zoo", "zoo.c", "make_node", 100, 6400);
    let labels = [("process", "zoo"), ("kind", "batch")];
    let batches = daemon.metrics().sum("pageshim_events_total", &labels);
    assert!(batches >= 1.0, "trace streams batches, saw {batches}");
}

// Goal: a library loaded by a relative path is named by file and line, also from a daemon that works
// elsewhere. Method: preload `./planted` from its own directory.
#[test]
fn a_library_loaded_by_a_relative_path_has_lines() {
    let library = program_with("planted.c", &["-shared", "-fPIC"]);
    let daemon = Daemon::start();
    let preload = daemon.preload("exact");
    let both = format!("{}:./planted", preload.library.display());
    let job = preload.apply(Job::new("/bin/true")).env("LD_PRELOAD", both);
    job.dir(library.parent().expect("a directory")).run().ok();
    planted(
        &daemon.settled("true"),
        "true",
        "planted.c",
        "planted_leak",
        7,
        7777,
    );
}
