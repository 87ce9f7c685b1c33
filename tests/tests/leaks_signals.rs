//! Leak checks of processes that a signal ends: found all the same, and ended all the same.

use std::time::Duration;

use pageshim_tests::planted::{IN_C, Run, Started, check_planted, start, start_within};
use pageshim_tests::programs::{line_of, program};
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, Temp, places};
use rustix::process::{Pid, Signal, kill_process};

/// tests/programs/leaks.c, with these threads, ending so.
fn leaks(threads: &str, end: &str) -> Job {
    Job::new(program("leaks.c")).args([threads, end])
}

/// Started, and all is planted.
fn planted(wrapper: &[&str], job: Job, environment: &[(&str, &str)]) -> Started {
    let mut started = start_within(wrapper, job, environment);
    started.running.wait_for("planted", 1);
    started
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a number")).expect("not zero");
    kill_process(pid, signal).expect("it runs");
}

#[track_caller]
fn check_ended(run: &Run, signal: Signal, what: &str) {
    let number = signal.as_raw();
    assert_eq!(
        run.outcome.ended,
        Ended::Signal(number),
        "{what}: {:#?}",
        run.outcome
    );
    let process = run.view.process("leaks");
    assert_eq!(process["state"], "killed", "{what}");
    assert_eq!(process["exit"]["signal"], number, "{what}");
    check_planted(run, "leaks", IN_C, what);
}

// Goal: a program that is told to end is checked, ends by that signal, and soon. Method: each signal
// to the program, to `run`, to both as a terminal does; with and without threads.
#[test]
fn who_is_told_to_end_is_checked() {
    for threads in ["alone", "threads"] {
        let begun = |signal| {
            let job = leaks(threads, "wait").limit(Duration::from_secs(8));
            (planted(&[], job, &[]), signal)
        };
        let (to_it, by_run, all) = (begun(Signal::INT), begun(Signal::TERM), begun(Signal::HUP));
        send(to_it.0.pid(), to_it.1);
        by_run.0.running.signal(by_run.1);
        all.0.running.signal_group(all.1);
        for (started, signal) in [to_it, by_run, all] {
            let run = started.finish();
            check_ended(&run, signal, threads);
            let check = &run.view.process("leaks")["check"];
            let (method, stood) = if threads == "alone" {
                ("alone", 1)
            } else {
                ("fork", 4)
            };
            assert_eq!(
                (&check["method"], number(check, "threads")),
                (&method.into(), stood)
            );
            assert_eq!(number(check, "threads_missed"), 0);
        }
    }
}

// Goal: what ends a program by chance or by design is checked too. Method: abort, a wild write, a
// handler that cleans up and raises anew, an alarm.
#[test]
fn crashes_are_checked() {
    for threads in ["alone", "threads"] {
        for (end, signal) in [("abort", Signal::ABORT), ("crash", Signal::SEGV)] {
            check_ended(&start(leaks(threads, end), &[]).finish(), signal, end);
        }
        let started = planted(&[], leaks(threads, "resign"), &[]);
        send(started.pid(), Signal::TERM);
        check_ended(&started.finish(), Signal::TERM, "resign");
    }
}

// Goal: timeout(1), which signals `run` and the program both, so that the program gets two signals,
// gets its report. Method: one second.
#[test]
fn a_timeout_is_no_way_round_the_check() {
    for threads in ["alone", "threads"] {
        let run = start_within(&["timeout", "1"], leaks(threads, "wait"), &[]).finish();
        assert_eq!(run.outcome.ended, Ended::Code(124), "{:#?}", run.outcome);
        check_planted(&run, "leaks", IN_C, "timeout");
    }
}

// Goal: a core is what it would have been: where it was, and why. Method: gdb reads the cores of a
// wild write and of an abort, with and without the shim.
#[test]
fn cores_are_unchanged() {
    for (end, lines) in [("crash", 4), ("abort", 4)] {
        let plain = core_says(leaks("threads", end), end);
        let daemon = Daemon::start();
        let job = daemon.preload("exact").apply(leaks("threads", end));
        let checked = core_says(job.env("PAGESHIM_CHECK", "exit"), end);
        assert_eq!(plain, checked);
        assert!(plain.lines().count() >= lines, "{plain}");
        assert_eq!(
            daemon.settled("leaks").process("leaks")["check"]["state"],
            "done"
        );
    }
}

fn core_says(job: Job, end: &str) -> String {
    let dir = Temp::new();
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("Linux");
    assert_eq!(pattern.trim(), "core", "this case needs plain core files");
    job.dir(&dir)
        .wrapped(&["prlimit", "--core=unlimited"])
        .run();
    let file = std::fs::read_dir(&*dir).expect("ours").flatten().next();
    let file = file.expect("a core").path();
    let gdb = Job::new("gdb").args(["-batch", "-nx", "-ex"]);
    let facts = "printf \"signal %d code %d\\n\", $_siginfo.si_signo, $_siginfo.si_code";
    let frames = "backtrace";
    let asks = [
        facts,
        "-ex",
        "p/x $_siginfo._sifields._sigfault",
        "-ex",
        frames,
    ];
    let said = gdb
        .args(asks)
        .arg(program("leaks.c"))
        .arg(file)
        .run()
        .ok()
        .stdout;
    let line = format!("leaks.c:{}", line_of("leaks.c", "crash"));
    assert!(end != "crash" || said.contains(&line), "{said}");
    let tells = |line: &&str| {
        line.starts_with("signal")
            || line.starts_with("Program terminated")
            || line.starts_with('#')
    };
    // Addresses of arguments and libraries differ from run to run.
    let stable = |line: &str| {
        let words = line
            .split_whitespace()
            .filter(|word| !word.starts_with("0x") && !word.contains("=0x"));
        words.collect::<Vec<_>>().join(" ")
    };
    said.lines()
        .filter(tells)
        .map(stable)
        .collect::<Vec<_>>()
        .join("\n")
}

// Goal: a program sees its signals as it left them. Method: one that asks in every way, with and
// without; shells and Python likewise.
#[test]
fn handlers_are_not_seen() {
    let daemon = Daemon::start();
    let python = "import signal as s; print([s.getsignal(n) for n in s.valid_signals()])";
    let trap =
        "trap -p; trap 'echo bye' TERM; kill $$; trap - TERM; (kill $BASHPID; echo not); echo $?";
    for job in [
        Job::new(program("dispositions.c")),
        Job::new("nohup").arg(program("dispositions.c")),
        Job::new("python3").args(["-c", python]),
        Job::new("bash").args(["-c", trap]),
        Job::new("sh").args([
            "-c",
            "sh -c 'kill $$'; echo $?; (ulimit -c 0; kill -SEGV $$)",
        ]),
    ] {
        let plain = job.run();
        let watched = daemon
            .preload("exact")
            .apply(job.env("PAGESHIM_CHECK", "exit"))
            .run();
        assert_eq!((plain.stdout, plain.ended), (watched.stdout, watched.ended));
    }
}

// Goal: who wants no handler gets none, and is told that there was no check; who is killed is told
// so as well, and when it was checked last. Method: nosignal; SIGKILL, before and after a check.
#[test]
fn no_check_is_said_plainly() {
    let asked = [("PAGESHIM_CHECK", "exit,nosignal")];
    let started = planted(&[], leaks("alone", "wait"), &asked);
    assert_eq!(caught(started.pid()), 0);
    send(started.pid(), Signal::TERM);
    let run = started.finish();
    assert!(run.view.process("leaks")["check"].is_null());
    let said = run.outcome.stderr;
    assert!(
        said.contains("It was not checked: SIGTERM ended it"),
        "{said}"
    );

    let started = planted(&[], leaks("alone", "wait"), &[]);
    assert_ne!(caught(started.pid()), 0);
    send(started.pid(), Signal::KILL);
    let said = started.finish().outcome.stderr;
    assert!(
        said.contains("not checked: SIGKILL ended it, which leaves no time"),
        "{said}"
    );

    let daemon = Daemon::start();
    let mut running = daemon
        .preload("exact")
        .apply(leaks("alone", "wait"))
        .start();
    running.wait_for("planted", 1);
    daemon.known("leaks");
    ask(&daemon).ok();
    running.signal(Signal::KILL);
    drop(running.finish());
    daemon.settled("leaks");
    let said = daemon.get("/leaks.txt").ok();
    assert!(
        said.contains("before its end (a signal ended it without a check"),
        "{said}"
    );
}

fn ask(daemon: &Daemon) -> pageshim_tests::Outcome {
    let job = Job::new(places::pageshim()).args(["leaks", "leaks", "--socket"]);
    job.arg(daemon.socket()).run()
}

/// The kernel's mask of handled signals.
fn caught(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    u64::from_str_radix(line.expect("a mask").trim(), 16).expect("a number")
}

// Goal: a program that filters its system calls ends as it would have, and is not checked. Method: a
// filter that kills at clone and at a forged signal.
#[test]
fn a_filter_is_respected() {
    let mut started = start(Job::new(program("filtered.c")), &[]);
    started.running.wait_for("ready", 1);
    send(started.pid(), Signal::TERM);
    let run = started.finish();
    assert_eq!(run.outcome.ended, Ended::Signal(15), "{:#?}", run.outcome);
    assert_eq!(run.view.process("filtered")["check"]["reason"], "filter");
}

// Goal: a check dies of a damaged heap, the program does not end otherwise than it would have.
// Method: a program that fills the heap's books with nonsense, then aborts.
#[test]
fn a_damaged_heap_does_no_more_harm() {
    for turn in 0..4 {
        let job = Job::new(program("damage.c")).arg(turn.to_string());
        let job = job.limit(Duration::from_secs(10));
        let run = start(job, &[]).finish();
        assert_eq!(
            run.outcome.ended,
            Ended::Signal(6),
            "{turn}: {:#?}",
            run.outcome
        );
        let check = &run.view.process("damage")["check"];
        let known = check.is_null() || check["state"] == "done" || check["state"] == "failed";
        assert!(known, "{turn}: {check:#}");
    }
}
