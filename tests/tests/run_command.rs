//! `pageshim run` and the other commands, as a shell user meets them.

use std::fs;

use rustix::process::Signal;

use pageshim_tests::daemon::address_in;
use pageshim_tests::programs::{line_of, program};
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Daemon, Ended, Job, Outcome, Temp, View, http, places, wait_until};

/// A pageshim command in `dir`, with nobody on the default socket.
fn pageshim(dir: &Temp, arguments: &[&str]) -> Job {
    Job::new(places::pageshim())
        .args(arguments)
        .env("PAGESHIM_SOCKET", dir.join("nobody"))
        .env("HOME", &**dir)
        .dir(dir)
}

/// `pageshim run -o out.pgs -- zoo`: its outcome; the capture stays in `dir`.
fn run_zoo(dir: &Temp) -> Outcome {
    let job = pageshim(dir, &["run", "-o", "out.pgs", "--"]);
    job.arg(program("zoo.c")).run().ok()
}

fn report_of(dir: &Temp, capture: &str) -> View {
    let job = pageshim(dir, &["report", capture, "--format", "json"]);
    View::parse(&job.run().ok().stdout)
}

#[track_caller]
fn check_zoo(view: &View) {
    let zoo = view.process("zoo");
    let nodes = Held {
        blocks: 100,
        bytes: 6400,
    };
    assert_eq!(view.held_by(zoo, "make_node"), nodes);
    let buffers = Held {
        blocks: 3,
        bytes: 3 << 20,
    };
    assert_eq!(view.held_by(zoo, "make_buffer"), buffers);
    let frame = view.frame(zoo, "make_node");
    assert_eq!(number(frame, "line"), line_of("zoo.c", "make_node"));
    view.check_equations();
}

// Goal: nothing to install or start: one command gives URL, summary and capture. Method: run the zoo.
#[test]
fn run_prints_a_summary_and_writes_a_capture() {
    let temp = Temp::new();
    let plain = Job::new(program("zoo.c")).run();
    let outcome = run_zoo(&temp);
    assert_eq!(outcome.stdout, plain.stdout, "the child owns stdout");
    let first = outcome.stderr.lines().next().unwrap_or_default();
    assert!(
        first.contains("http://127.0.0.1:"),
        "the URL comes first: {outcome:#?}"
    );
    let said = outcome.stderr.to_lowercase();
    for word in ["peak", "live", "make_buffer", "out.pgs", "pageshim report"] {
        assert!(said.contains(word), "the summary says {word}: {outcome:#?}");
    }
    check_zoo(&report_of(&temp, "out.pgs"));
}

// Goal: the capture has a default name. Method: run without -o in an empty directory.
#[test]
fn run_names_its_capture() {
    let temp = Temp::new();
    let job = pageshim(&temp, &["run", "--"]).arg(program("zoo.c"));
    let outcome = job.run().ok();
    let mut words = outcome.stderr.split_whitespace();
    let capture = words
        .find(|word| word.contains(".pgs"))
        .unwrap_or_else(|| panic!("no capture named: {outcome:#?}"));
    let capture = capture.trim_matches(|c: char| !(c.is_alphanumeric() || "/._-~".contains(c)));
    check_zoo(&report_of(&temp, capture));
}

// Goal: exit code and signal are the program's own. Method: each way to end.
#[test]
fn run_passes_status_and_signal_on() {
    for (way, ended) in [
        ("return", Ended::Code(2)),
        ("exit", Ended::Code(3)),
        ("_exit", Ended::Code(4)),
        ("quick_exit", Ended::Code(5)),
        ("abort", Ended::Signal(6)),
        ("segv", Ended::Signal(11)),
        ("kill", Ended::Signal(9)),
        ("term", Ended::Signal(15)),
    ] {
        let temp = Temp::new();
        let job = pageshim(&temp, &["run", "-o", "out.pgs", "--"]);
        let outcome = job.arg(program("exits.c")).arg(way).run();
        assert_eq!(outcome.ended, ended, "{way}: {outcome:#?}");
        assert_eq!(outcome.stdout, format!("ends by {way}\n"));
        let view = report_of(&temp, "out.pgs");
        let exits = view.process("exits");
        let held = Held {
            blocks: 20,
            bytes: 6000,
        };
        assert_eq!(view.held_by(exits, "held_at_exit"), held, "{way}");
        let (code, signal) = (&exits["exit"]["code"], &exits["exit"]["signal"]);
        match ended {
            Ended::Code(expected) => assert_eq!(code, expected, "{way}"),
            Ended::Signal(expected) => assert_eq!(signal, expected, "{way}"),
            Ended::TimedOut => unreachable!("none expected"),
        }
    }
}

// Goal: 127 and 126 as every shell says them, 125 for our own trouble. Method: no such command, a
// directory, a file without the x bit, a bad option.
#[test]
fn run_has_the_shells_exit_codes() {
    let temp = Temp::new();
    temp.file("plain", "#!/bin/sh\n");
    for (command, code) in [("no-such-command", 127), ("./plain", 126), ("./", 126)] {
        let outcome = pageshim(&temp, &["run", "--", command]).run();
        assert_eq!(outcome.ended, Ended::Code(code), "{command}: {outcome:?}");
        assert!(outcome.stderr.contains(command), "{command}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    }
    let outcome = pageshim(&temp, &["run", "-o", "/nonexistent/x.pgs", "--", "true"]).run();
    assert!(outcome.stderr.contains("/nonexistent/x.pgs"), "{outcome:?}");
    let outcome = pageshim(&temp, &["no-such-verb"]).run();
    assert!(matches!(outcome.ended, Ended::Code(1..)), "{outcome:?}");
    assert!(
        pageshim(&temp, &["--version"])
            .run()
            .ok()
            .stdout
            .contains("pageshim")
    );
}

// Goal: the child owns stdin, arguments and environment. Method: a shell that shows them.
#[test]
fn run_leaves_the_child_its_streams() {
    let temp = Temp::new();
    let script = "cat; echo \"$0 $1\"; echo err >&2; echo \"$MARK\"";
    let job = pageshim(&temp, &["run", "--", "bash", "-c", script, "a b", "-o"]);
    let outcome = job.env("MARK", "kept").input("typed\n").run().ok();
    assert_eq!(outcome.stdout, "typed\na b -o\nkept\n");
    assert!(outcome.stderr.contains("err\n"));
}

// Goal: a preload library the user already has stays loaded. Method: jemalloc is none of ours; use a
// library that only marks its presence.
#[test]
fn run_keeps_an_existing_preload() {
    let temp = Temp::new();
    temp.file("mark.c", "int puts(const char *); __attribute__((constructor)) static void m(void) { puts(\"other library\"); }");
    let compile = Job::new("gcc").args(["-shared", "-fPIC", "-o", "mark.so", "mark.c"]);
    compile.dir(&temp).run().ok();
    let job = pageshim(&temp, &["run", "-o", "out.pgs", "--"]);
    let job = job
        .arg(program("zoo.c"))
        .env("LD_PRELOAD", temp.join("mark.so"));
    let outcome = job.run().ok();
    assert!(outcome.stdout.contains("other library"), "{outcome:?}");
    check_zoo(&report_of(&temp, "out.pgs"));
}

// Goal: while run hosts a daemon, its URL serves the live process. Method: a holding zoo.
#[test]
fn run_serves_its_url_while_the_program_runs() {
    let temp = Temp::new();
    let job = pageshim(&temp, &["run", "--"])
        .arg(program("zoo.c"))
        .arg("hold");
    let mut running = job.start();
    running.wait_for("ready", 1);
    let address = address_in(&running.stderr()).expect("the URL on stderr");
    wait_until("the zoo is known", pageshim_tests::PATIENCE, || {
        running.ask("churn", "done");
        let answer = http::get(&address, "/leaks.json", "*/*").ok()?.ok();
        let view = View::parse(&answer);
        let zoo = view.named("zoo");
        (view.held_by(zoo.first()?, "make_node").blocks == 100).then_some(())
    });
    running.finish().ok();
}

// Goal: with a daemon listening, run uses it and gets out of the way. Method: the daemon's report.
#[test]
fn run_uses_a_daemon_that_listens() {
    let (temp, daemon) = (Temp::new(), Daemon::start());
    let job = pageshim(&temp, &["run", "--"]).arg(program("zoo.c"));
    let job = job.env("PAGESHIM_SOCKET", daemon.socket());
    let plain = Job::new(program("zoo.c")).run();
    assert_eq!(job.run().ok().stdout, plain.stdout);
    check_zoo(&daemon.settled("zoo"));
}

// Goal: Ctrl-C reaches the program, and run reports it as the shell would see it. Method: SIGINT to both.
#[test]
fn an_interrupt_ends_both() {
    let temp = Temp::new();
    let job = pageshim(&temp, &["run", "-o", "out.pgs", "--"]).arg(program("zoo.c"));
    // Who runs the tests may ignore the signal (a job in the background), which is inherited.
    let job = job.arg("hold").wrapped(&["env", "--default-signal=INT"]);
    let mut running = job.start();
    running.wait_for("ready", 1);
    running.signal_group(Signal::INT);
    let outcome = running.finish();
    assert_eq!(outcome.ended, Ended::Signal(2), "{outcome:?}");
    check_zoo(&report_of(&temp, "out.pgs"));
}

// Goal: ps and report find processes of a running daemon. Method: a finished zoo.
#[test]
fn ps_and_report_ask_the_daemon() {
    let (temp, daemon) = (Temp::new(), Daemon::start());
    daemon
        .preload("exact")
        .apply(Job::new(program("zoo.c")))
        .run()
        .ok();
    daemon.settled("zoo");
    let ask = |arguments: &[&str]| {
        let job = pageshim(&temp, arguments)
            .arg("--socket")
            .arg(daemon.socket());
        job.run()
    };
    assert!(ask(&["ps"]).ok().stdout.contains("zoo"));
    check_zoo(&View::parse(
        &ask(&["report", "zoo", "--format", "json"]).ok().stdout,
    ));
    let text = ask(&["report", "zoo"]).ok().stdout;
    assert!(
        text.contains("make_node") && text.contains("make_buffer"),
        "{text}"
    );
    let unknown = ask(&["report", "no-such-process"]);
    assert!(matches!(unknown.ended, Ended::Code(1..)), "{unknown:?}");
    assert!(unknown.stderr.contains("no-such-process"), "{unknown:?}");
    let nobody = pageshim(&temp, &["ps"]).run();
    assert!(matches!(nobody.ended, Ended::Code(1..)), "{nobody:?}");
    assert!(
        nobody.stderr.contains("nobody"),
        "it names the socket: {nobody:?}"
    );
}

// Goal: doctor says what works and why a program cannot be profiled. Method: bare, and on a static program.
#[test]
fn doctor_explains() {
    let temp = Temp::new();
    let bare = pageshim(&temp, &["doctor"]).run();
    assert!(
        !bare.stdout.is_empty() && !bare.stderr.contains("panicked"),
        "{bare:?}"
    );
    let good = pageshim(&temp, &["doctor"]).arg(program("zoo.c")).run();
    assert!(matches!(good.ended, Ended::Code(0)), "{good:?}");
    let missing = pageshim(&temp, &["doctor", "no-such-command"]).run();
    assert!(matches!(missing.ended, Ended::Code(1..)), "{missing:?}");
}

/// Cuts a copy of the capture to `bytes`.
fn cut(dir: &Temp, bytes: usize) -> &'static str {
    let whole = fs::read(dir.join("out.pgs")).expect("the capture");
    fs::write(dir.join("cut.pgs"), &whole[..bytes.min(whole.len())]).expect("our own directory");
    "cut.pgs"
}

// Goal: a cut capture opens with what it has and says so; one without a head is refused clearly.
// Method: cut at many places.
#[test]
fn a_truncated_capture_still_opens() {
    let temp = Temp::new();
    run_zoo(&temp);
    let length = fs::metadata(temp.join("out.pgs")).expect("capture").len();
    let length = usize::try_from(length).expect("small");
    let mut opened = 0;
    for percent in [1, 5, 10, 25, 50, 60, 75, 90, 99] {
        let name = cut(&temp, length * percent / 100);
        let outcome = pageshim(&temp, &["report", name, "--format", "json"]).run();
        assert!(
            !outcome.stderr.contains("panicked"),
            "{percent} %: {outcome:?}"
        );
        match outcome.ended {
            Ended::Code(0) => {
                opened += 1;
                View::parse(&outcome.stdout);
                let said = outcome.stderr.to_lowercase();
                assert!(
                    said.contains("truncated"),
                    "{percent} %: {}",
                    outcome.stderr
                );
            }
            Ended::Code(_) => assert!(outcome.stderr.contains(name), "{percent} %: {outcome:?}"),
            other => panic!("{percent} %: {other:?}"),
        }
    }
    assert!(opened >= 5, "only {opened} of 9 cuts open");
}

// Goal: files that are no captures are named as what they are. Method: empty, text, ELF, missing, a directory.
#[test]
fn files_that_are_no_captures() {
    let temp = Temp::new();
    temp.file("empty", "");
    temp.file("text", "hello\n");
    fs::copy("/bin/true", temp.join("elf")).expect("a copy");
    for name in ["empty", "text", "elf", "./missing.pgs", "./"] {
        let outcome = pageshim(&temp, &["report", &format!("./{name}")]).run();
        assert!(
            matches!(outcome.ended, Ended::Code(1..=125)),
            "{name}: {outcome:?}"
        );
        assert!(outcome.stderr.contains(name), "{name}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{name}: {outcome:?}");
    }
}

// Goal: every format of report holds the planted functions. Method: text, csv and html of a capture.
#[test]
fn report_formats() {
    let temp = Temp::new();
    run_zoo(&temp);
    for format in ["text", "csv", "html"] {
        let job = pageshim(&temp, &["report", "out.pgs", "--format", format]);
        let said = job.run().ok().stdout;
        assert!(
            said.contains("make_node") && said.contains("zoo.c"),
            "{format}: {said:.600}"
        );
    }
    let outcome = pageshim(&temp, &["report", "out.pgs", "--format", "papyrus"]).run();
    assert!(matches!(outcome.ended, Ended::Code(1..)), "{outcome:?}");
}

// Goal: run follows forks. Method: the fork tree's capture holds parent and child.
#[test]
fn run_follows_children() {
    let temp = Temp::new();
    let plain = Job::new(program("forktree.c")).run();
    let job = pageshim(&temp, &["run", "-o", "out.pgs", "--"]);
    let outcome = job.arg(program("forktree.c")).run().ok();
    assert_eq!(outcome.stdout, plain.stdout);
    let view = report_of(&temp, "out.pgs");
    assert!(view.named("forktree").len() >= 2);
    view.check_equations();
}
