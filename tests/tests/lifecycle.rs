//! The life of a process and of the daemon: kills, restarts, forks, every end.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use pageshim_tests::programs::program;
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Daemon, Ended, Job, Preload, Running, Temp, wait_until};

/// A zoo that holds, has planted its leaks and waits for lines.
fn holding_zoo(preload: &Preload) -> Running {
    let job = Job::new(program("zoo.c")).arg("hold");
    let mut zoo = preload.apply(job).limit(Duration::from_secs(120)).start();
    zoo.wait_for("ready", 1);
    zoo
}

/// Makes the zoo work until the daemon knows it: a process connects from its slow paths.
fn work_until_known(zoo: &mut Running, daemon: &Daemon) {
    wait_until("the running zoo is known", Duration::from_secs(30), || {
        zoo.ask("churn", "done");
        let view = daemon.report();
        let known = view.named("zoo").iter().any(|p| p["state"] == "running");
        known.then_some(())
    });
}

#[track_caller]
fn check_held(daemon: &Daemon, nodes: u64, buffers: u64) {
    let view = daemon.report();
    let zoo = view.process("zoo");
    let (blocks, bytes) = (nodes, nodes * 64);
    assert_eq!(view.held_by(zoo, "make_node"), Held { blocks, bytes });
    let (blocks, bytes) = (buffers, buffers << 20);
    assert_eq!(view.held_by(zoo, "make_buffer"), Held { blocks, bytes });
    view.check_equations();
    daemon.metrics().check_equations("zoo");
}

// Goal: the report follows a running process. Method: plant and drop while it runs.
#[test]
fn a_running_process_is_followed() {
    let daemon = Daemon::start();
    let mut zoo = holding_zoo(&daemon.preload("exact"));
    work_until_known(&mut zoo, &daemon);
    check_held(&daemon, 100, 3);
    zoo.ask("node 11", "done");
    zoo.ask("buffer 2", "done");
    check_held(&daemon, 111, 5);
    zoo.ask("drop", "done");
    check_held(&daemon, 0, 5);
    zoo.finish().ok();
    let view = daemon.settled("zoo");
    assert_eq!(view.process("zoo")["exit"]["code"], 0);
}

// Goal: SIGKILL in the middle loses nothing. Method: kill a holding zoo, ask the daemon.
#[test]
fn a_killed_process_leaves_its_book() {
    let daemon = Daemon::start();
    let mut zoo = holding_zoo(&daemon.preload("exact"));
    work_until_known(&mut zoo, &daemon);
    zoo.ask("node 7", "done");
    zoo.signal(Signal::KILL);
    assert_eq!(zoo.finish().ended, Ended::Signal(9));
    let view = daemon.settled("zoo");
    assert_eq!(view.process("zoo")["state"], "killed");
    check_held(&daemon, 107, 3);
    let killed = daemon
        .metrics()
        .sum("pageshim_processes", &[("state", "killed")]);
    assert!((killed - 1.0).abs() < 0.5);
}

// Goal: a kill in the middle of malloc leaves books that open. Method: kill a working stress run.
#[test]
fn a_process_killed_at_work_leaves_a_readable_book() {
    let daemon = Daemon::start();
    let job = Job::new(program("stress.c")).arg("60");
    let stress = daemon.preload("exact").apply(job).start();
    wait_until(
        "the stress run has made 100,000 blocks",
        Duration::from_secs(30),
        || {
            let view = daemon.report();
            let blocks = view
                .named("stress")
                .first()
                .map(|p| number(&p["total"], "blocks"));
            (blocks > Some(100_000)).then_some(())
        },
    );
    stress.signal(Signal::KILL);
    stress.finish();
    let view = daemon.settled("stress");
    let stress = view.process("stress");
    assert_eq!(stress["state"], "killed");
    assert!(number(&stress["live"], "blocks") > 0);
    assert!(view.held_below(stress, "run").blocks > 100);
}

// Goal: kill -9 of the daemon and a restart lose nothing. Method: plant before, between and after.
#[test]
fn a_restarted_daemon_has_the_whole_history() {
    let temp = Temp::new();
    let socket = temp.join("s");
    let first = Daemon::start_on(&socket);
    let mut zoo = holding_zoo(&first.preload("exact"));
    work_until_known(&mut zoo, &first);
    let before = number(&first.report().process("zoo")["total"], "blocks");
    first.kill();
    zoo.ask("node 5", "done");
    zoo.ask("churn", "done");
    let second = Daemon::start_on(&socket);
    work_until_known(&mut zoo, &second);
    zoo.ask("node 5", "done");
    check_held(&second, 110, 3);
    let after = number(&second.report().process("zoo")["total"], "blocks");
    assert!(after > before, "totals continue: {before} then {after}");
    zoo.finish().ok();
    second.settled("zoo");
    check_held(&second, 110, 3);
}

// Goal: a daemon that starts late knows everything since the start. Method: no daemon, then one.
#[test]
fn a_late_daemon_has_the_whole_history() {
    let temp = Temp::new();
    let socket = temp.join("s");
    let mut zoo = holding_zoo(&Preload::new("exact", &socket));
    zoo.ask("node 20", "done");
    let daemon = Daemon::start_on(&socket);
    work_until_known(&mut zoo, &daemon);
    check_held(&daemon, 120, 3);
    zoo.finish().ok();
}

// Goal: a stopped daemon drains and exits 0, its socket is gone. Method: SIGTERM.
#[test]
fn the_daemon_stops_cleanly() {
    let temp = Temp::new();
    let socket = temp.join("s");
    let daemon = Daemon::start_on(&socket);
    let outcome = daemon.stop();
    assert_eq!(outcome.ended, Ended::Code(0), "{outcome:?}");
    assert!(!socket.exists(), "the socket is unlinked");
}

// Goal: a second daemon on a live socket is refused, a stale socket is taken over.
// Method: two at once; then a kill and a new one.
#[test]
fn sockets_are_taken_over_only_when_stale() {
    let temp = Temp::new();
    let socket = temp.join("s");
    let first = Daemon::start_on(&socket);
    let second = Daemon::job(pageshim_tests::places::pageshim(), &socket).run();
    assert!(matches!(second.ended, Ended::Code(1..)), "{second:?}");
    assert!(
        second.stderr.contains(socket.to_str().expect("UTF-8")),
        "{second:?}"
    );
    first.check_healthy();
    first.kill();
    assert!(socket.exists(), "a kill leaves the file");
    Daemon::start_on(&socket).check_healthy();
}

// Goal: children have their own books, and the parent's stays exact. Method: the fork tree.
#[test]
fn forks_are_followed() {
    let daemon = Daemon::start();
    let job = Job::new(program("forktree.c"));
    daemon.preload("exact").apply(job).run().ok();
    let view = daemon.settled("forktree");
    view.check_equations();
    let all = view.named("forktree");
    let parents: Vec<_> = all.iter().filter(|p| p["parent"].is_null()).collect();
    assert_eq!(parents.len(), 1, "one process was not forked by another");
    let held = view.held_by(parents[0], "ends");
    assert_eq!(
        held,
        Held {
            blocks: 1,
            bytes: 2000
        },
        "the parent's own block"
    );
    let by_child = |p: &&&serde_json::Value| {
        view.held_by(p, "kept_by_child")
            == Held {
                blocks: 10,
                bytes: 2000,
            }
    };
    let children: Vec<_> = all.iter().filter(by_child).collect();
    assert_eq!(children.len(), 1, "the child that lived 150 ms has a book");
    assert_eq!(children[0]["parent"], parents[0]["id"]);
    assert_eq!(
        view.held_by(children[0], "kept_by_parent"),
        Held {
            blocks: 1,
            bytes: 1000
        },
        "what it inherited is in it"
    );
}

// Goal: every way to end leaves a whole book with how it ended. Method: exits in all ways.
#[test]
fn every_end_leaves_a_book() {
    for (way, state) in [
        ("return", "exited"),
        ("exit", "exited"),
        ("_exit", "exited"),
        ("quick_exit", "exited"),
        ("abort", "killed"),
        ("segv", "killed"),
        ("kill", "killed"),
        ("term", "killed"),
    ] {
        let daemon = Daemon::start();
        let job = Job::new(program("exits.c")).arg(way);
        daemon.preload("exact").apply(job).run();
        let view = daemon.settled("exits");
        let exits = view.process("exits");
        assert_eq!(exits["state"], state, "{way}");
        let expected = Held {
            blocks: 20,
            bytes: 6000,
        };
        assert_eq!(view.held_by(exits, "held_at_exit"), expected, "{way}");
        view.check_equations();
    }
}

// Goal: an exec ends one record and starts another. Method: a shell that allocates and execs the zoo.
#[test]
fn exec_starts_a_new_record() {
    let daemon = Daemon::start();
    let script = "x=$(printf '%0200000d' 0); exec \"$0\"";
    let job = Job::new("bash").args(["-c", script]).arg(program("zoo.c"));
    daemon.preload("exact").apply(job).run().ok();
    let view = daemon.settled("zoo");
    let zoo = view.process("zoo");
    let expected = Held {
        blocks: 100,
        bytes: 6400,
    };
    assert_eq!(view.held_by(zoo, "make_node"), expected);
    let same_pid = |p: &&serde_json::Value| p["pid"] == zoo["pid"];
    assert!(view.processes().iter().filter(same_pid).count() <= 2);
    view.check_equations();
}

// Goal: short processes in numbers are no trouble. Method: a shell starts 200 of them.
#[test]
fn two_hundred_short_processes() {
    let script = "for i in $(seq 200); do /bin/true || exit 1; done; echo finished";
    let make = |_: &Path| Job::new("bash").args(["-c", script]);
    let plain = make(Path::new("/")).run();
    assert_eq!(plain.stdout, "finished\n");
    let temp = Temp::new();
    let alone = Preload::new("exact", &temp.join("nobody"));
    assert_eq!(alone.apply(make(&temp)).run(), plain, "no daemon");
    let daemon = Daemon::start();
    assert_eq!(
        daemon.preload("exact").apply(make(&temp)).run(),
        plain,
        "daemon"
    );
    daemon.check_healthy();
    daemon.report().check_equations();
}
