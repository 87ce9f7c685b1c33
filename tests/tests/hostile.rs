//! Bad input: broken peers, broken settings, programs that cannot be profiled.
//! One clear line, the program still runs, the daemon stays up.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pageshim_tests::programs::{program, program_with};
use pageshim_tests::raw::{self, Peer, answers_until_closed, connect, memfd, send, send_with};
use pageshim_tests::{Daemon, Ended, Job, Outcome, Preload, Temp, is_root, places};
use pageshim_wire::frame::{HEAD_BYTES, Head, Kind};

/// Fails the case unless the daemon is up, knows no process, and still takes a real one.
#[track_caller]
fn check_untouched(daemon: &Daemon) {
    daemon.check_healthy();
    assert_eq!(
        daemon.report().processes().len(),
        0,
        "a broken peer is no process"
    );
    let job = Job::new(program("zoo.c"));
    daemon.preload("exact").apply(job).run().ok();
    daemon.settled("zoo").check_equations();
}

// Goal: garbage costs its own connection. Method: bytes that are no frame, several shapes.
#[test]
fn garbage_on_the_socket() {
    let daemon = Daemon::start();
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    for garbage in [vec![0xa5; 4096], vec![0; 4096], vec![0xff; 70_000], http] {
        let stream = connect(daemon.socket());
        send(&stream, &garbage);
        answers_until_closed(&stream);
    }
    let counted = daemon.metrics().sum("pageshim_decode_errors_total", &[]);
    assert!(counted >= 4.0, "decode errors are counted: {counted}");
    check_untouched(&daemon);
}

// Goal: a peer that stops in the middle is forgotten. Method: every prefix length of a hello, and silence.
#[test]
fn half_a_frame() {
    let daemon = Daemon::start();
    let hello = raw::hello(77);
    for length in 0..hello.len() {
        let stream = connect(daemon.socket());
        send(&stream, &hello[..length]);
    }
    let idle: Vec<_> = (0..50).map(|_| connect(daemon.socket())).collect();
    check_untouched(&daemon);
    drop(idle);
}

// Goal: lengths and kinds past their limits are refused before anything is reserved. Method: bad heads.
#[test]
fn bad_heads() {
    let daemon = Daemon::start();
    let good = Head {
        len: 32,
        kind: Kind::Hello,
        time_ns: 1,
    };
    for (at, value) in [(3, 0xff), (4, 99), (5, 99), (6, 9), (7, 9)] {
        let mut bytes: [u8; HEAD_BYTES] = good.encode();
        bytes[at] = value;
        let stream = connect(daemon.socket());
        send(&stream, &bytes);
        send(&stream, &[0; 64]);
        for (kind, reason) in answers_until_closed(&stream) {
            assert_eq!(kind, Kind::Refused, "byte {at}: {reason}");
            assert!(!reason.is_empty(), "a refusal says why");
        }
    }
    check_untouched(&daemon);
}

// Goal: frames before a hello, and a hello without a memfd, are refused. Method: both.
#[test]
fn a_hello_must_come_first_and_whole() {
    let daemon = Daemon::start();
    for bytes in [raw::frame(Kind::Exit, &[0; 8]), raw::hello(5)] {
        let stream = connect(daemon.socket());
        send(&stream, &bytes);
        send(&stream, &raw::frame(Kind::Mark, b"still here"));
        let welcomed = answers_until_closed(&stream);
        assert!(
            welcomed.iter().all(|(kind, _)| *kind != Kind::Welcome),
            "{welcomed:?}"
        );
    }
    check_untouched(&daemon);
}

// Goal: only a sealed, whole, well-formed state is mapped. Method: no seals, too small, no header,
// another version, a plain file, a pipe.
#[test]
fn a_bad_memfd_is_refused() {
    let daemon = Daemon::start();
    let total = raw::layout().total_bytes();
    let header = raw::header(9);
    let mut other_version = header.clone();
    other_version[8] = 200;
    let mut huge = header.clone();
    huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let temp = Temp::new();
    let file = temp.file("state", "PAGESHM1");
    fs::write(&file, &header).expect("our own directory");
    let pipe = fs::File::from(std::os::fd::OwnedFd::from(
        std::io::pipe().expect("a pipe").0,
    ));
    let bad: [(&str, std::os::fd::OwnedFd); 7] = [
        ("no seals", memfd(&header, total, false)),
        ("too small", memfd(&header, 4096, true)),
        ("zeros", memfd(&[0; 64], total, true)),
        ("another version", memfd(&other_version, total, true)),
        ("absurd capacities", memfd(&huge, total, true)),
        ("a file", fs::File::open(&file).expect("just made").into()),
        ("a pipe", pipe.into()),
    ];
    for (what, fd) in bad {
        let stream = connect(daemon.socket());
        send_with(&stream, &raw::hello(9), &fd);
        let answers = answers_until_closed(&stream);
        assert!(
            answers.iter().all(|(kind, _)| *kind == Kind::Refused),
            "{what}: {answers:?}"
        );
    }
    check_untouched(&daemon);
}

// Goal: a state that is well-formed outside and nonsense inside harms nobody. Method: every word
// after the header set to values that would index anywhere.
#[test]
fn a_lying_state_is_survived() {
    for lie in [u64::MAX, 1 << 40, 255, 0x8000_0000_0000_0000] {
        let daemon = Daemon::start();
        let total = raw::layout().total_bytes();
        let mut state = vec![0; usize::try_from(total).expect("small")];
        for word in state.chunks_exact_mut(8) {
            word.copy_from_slice(&lie.to_le_bytes());
        }
        let header = raw::header(11);
        let truthful = 14 * 8;
        state[..truthful].copy_from_slice(&header[..truthful]);
        let fd = memfd(&state, total, true);
        let stream = connect(daemon.socket());
        send_with(&stream, &raw::hello(11), &fd);
        for kind in [
            Kind::Module,
            Kind::Thread,
            Kind::Misuse,
            Kind::Segment,
            Kind::Batch,
        ] {
            send(&stream, &raw::frame(kind, &[0xff; 48]));
            send(&stream, &raw::frame(kind, &[]));
        }
        for path in [
            "/leaks.json",
            "/leaks",
            "/metrics",
            "/",
            "/leaks.csv",
            "/leaks.txt",
        ] {
            let answer = daemon.get(path);
            assert_eq!(answer.status, 200, "{lie:#x}: {path}");
        }
        drop(stream);
        daemon.check_healthy();
    }
}

// Goal: many connections at once do not take the daemon down. Method: 300 open, then a real program.
#[test]
fn many_connections() {
    let daemon = Daemon::start();
    let open: Vec<_> = (0..300).map(|_| connect(daemon.socket())).collect();
    check_untouched(&daemon);
    drop(open);
    daemon.check_healthy();
}

// Goal: a bad value is one line on stderr and the default. Method: each variable in turn.
#[test]
fn bad_environment_values() {
    let victim = program("zoo.c");
    let plain = Job::new(&victim).run();
    let bad = [
        ("PAGESHIM_MODE", "exakt"),
        ("PAGESHIM_MODE", "sampled:many"),
        ("PAGESHIM_HEAP", "heap"),
        ("PAGESHIM_HEAP", "fixed:-1"),
        ("PAGESHIM_DEPTH", "deep"),
        ("PAGESHIM_DEPTH", "99999999999999999999"),
        ("PAGESHIM_CHECK", "sometimes"),
    ];
    for (key, value) in bad {
        let temp = Temp::new();
        let preload = Preload::new("exact", &temp.join("nobody"));
        let outcome = preload.apply(Job::new(&victim)).env(key, value).run();
        assert_eq!(
            (&outcome.stdout, outcome.ended),
            (&plain.stdout, plain.ended),
            "{key}={value}"
        );
        let lines: Vec<_> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{key}={value}: one line, not {lines:?}");
        assert!(
            lines[0].contains(key) && lines[0].contains(value),
            "{lines:?}"
        );
    }
}

// Goal: an empty or disabled setting is silent. Method: empty values, PAGESHIM_DISABLED.
#[test]
fn disabled_and_empty_settings() {
    let victim = program("zoo.c");
    let plain = Job::new(&victim).run();
    let daemon = Daemon::start();
    let shimmed = daemon.preload("exact").apply(Job::new(&victim));
    assert_eq!(shimmed.env("PAGESHIM_DISABLED", "1").run(), plain);
    assert_eq!(
        daemon.report().processes().len(),
        0,
        "disabled: unknown to the daemon"
    );
    let bare = Job::new(&victim).env("LD_PRELOAD", places::shim());
    let bare = bare.env("PAGESHIM_MODE", "").env("PAGESHIM_HEAP", "");
    let temp = Temp::new();
    assert_eq!(
        bare.env("PAGESHIM_SOCKET", temp.join("nobody")).run(),
        plain
    );
}

// Goal: socket paths that cannot work do not disturb the program. Method: no such directory, a
// file as directory, a path too long, a plain file.
#[test]
fn unusable_sockets() {
    let victim = program("zoo.c");
    let plain = Job::new(&victim).run();
    let temp = Temp::new();
    let file = temp.file("file", "not a socket");
    let long = temp.join("x".repeat(200));
    for socket in [
        Path::new("/nonexistent/dir/s"),
        &file.join("s"),
        &long,
        &file,
    ] {
        let outcome = Preload::new("exact", socket).apply(Job::new(&victim)).run();
        assert_eq!(
            (&outcome.stdout, outcome.ended),
            (&plain.stdout, plain.ended),
            "{socket:?}"
        );
        assert!(
            outcome.stderr.lines().count() <= 1,
            "{socket:?}: {outcome:?}"
        );
    }
}

// Goal: a daemon that is stuck, broken or of another version costs the program nothing but its
// profile. Method: four bad peers, exact and trace (which fills the socket), a limit on time.
#[test]
fn a_broken_daemon_does_not_hurt_the_program() {
    let victim = program("zoo.c");
    let plain = Job::new(&victim).run();
    for peer in [Peer::Silent, Peer::Closing, Peer::Garbage, Peer::Refusing] {
        for mode in ["exact", "trace"] {
            let temp = Temp::new();
            let socket = temp.join("s");
            let job = Preload::new(mode, &socket).apply(Job::new(&victim));
            let job = job.limit(Duration::from_secs(20));
            let (connections, outcome) = raw::beside(peer, &socket, || job.run());
            assert_eq!(
                outcome.stdout, plain.stdout,
                "{peer:?}, {mode}: {outcome:?}"
            );
            assert_eq!(outcome.ended, plain.ended, "{peer:?}, {mode}");
            assert!(
                outcome.stderr.lines().count() <= 1,
                "{peer:?}, {mode}: {outcome:?}"
            );
            assert!(
                (1..100).contains(&connections),
                "{peer:?}, {mode}: {connections} tries"
            );
        }
    }
}

// Goal: a daemon that cannot have its socket or port says so and fails. Method: a file in the way
// of the directory, a port in use, a bad address.
#[test]
fn a_daemon_that_cannot_start_says_why() {
    let temp = Temp::new();
    let blocked = temp.file("file", "").join("dir/s");
    let outcome = Daemon::job(places::pageshim(), &blocked).run();
    check_refusal(&outcome, blocked.to_str().expect("UTF-8"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for listen in [address.as_str(), "nowhere:port"] {
        let job = Job::new(places::pageshim()).args(["daemon", "--listen", listen, "--socket"]);
        let outcome = job
            .arg(temp.join("s"))
            .arg("--data")
            .arg(temp.join("d"))
            .run();
        check_refusal(&outcome, listen);
    }
}

/// A failure with a message that names the thing, and no panic.
#[track_caller]
fn check_refusal(outcome: &Outcome, names: &str) {
    assert!(matches!(outcome.ended, Ended::Code(1..=125)), "{outcome:?}");
    assert!(
        outcome.stderr.contains(names),
        "it names {names}: {outcome:?}"
    );
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
}

/// `pageshim run -- program` in a directory of its own, nobody listening.
fn run(dir: &Temp, program: &Path) -> Outcome {
    let job = Job::new(places::pageshim())
        .args(["run", "--"])
        .arg(program);
    let job = job
        .env("PAGESHIM_SOCKET", dir.join("nobody"))
        .env("HOME", &**dir);
    job.dir(dir).run()
}

/// 125, and the reason names the program and one of `words`.
#[track_caller]
fn check_not_profiled(outcome: &Outcome, program: &Path, words: &[&str]) {
    assert_eq!(outcome.ended, Ended::Code(125), "{outcome:?}");
    let said = outcome.stderr.to_lowercase();
    let name = program.file_name().and_then(|n| n.to_str()).expect("UTF-8");
    assert!(said.contains(name), "it names {name}: {outcome:?}");
    assert!(
        words.iter().any(|word| said.contains(word)),
        "one of {words:?}: {outcome:?}"
    );
}

// Goal: a static program is refused with the reason; under a plain preload it just runs. Method: both.
#[test]
fn a_static_program() {
    let temp = Temp::new();
    let victim = program_with("exits.c", &["-static"]);
    check_not_profiled(&run(&temp, &victim), &victim, &["static"]);
    let preload = Preload::new("exact", &temp.join("nobody"));
    let outcome = preload.apply(Job::new(&victim)).run();
    assert_eq!(outcome, Job::new(&victim).run());
}

// Goal: a set-uid program is refused with the reason. Method: a copy owned by another user.
#[test]
fn a_set_uid_program() {
    let temp = Temp::new();
    let victim = temp.join("privileged");
    fs::copy(program("exits.c"), &victim).expect("a copy");
    if is_root() {
        chown(&victim, Some(65534), Some(65534)).expect("root may");
    }
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o4755)).expect("our own file");
    check_not_profiled(&run(&temp, &victim), &victim, &["set-uid", "setuid"]);
}

// Goal: a program of another libc is refused with the reason. Method: another loader in its header.
#[test]
fn a_program_of_another_libc() {
    let temp = Temp::new();
    let loader = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1";
    let victim = program_with("exits.c", &[loader]);
    check_not_profiled(&run(&temp, &victim), &victim, &["musl", "libc", "loader"]);
}

// Goal: a sanitizer-linked program meets one clear answer: refused with the reason, or run with a line
// about it. Method: AddressSanitizer.
#[test]
fn a_sanitizer_linked_program() {
    let temp = Temp::new();
    let victim = program_with("limits.c", &["-fsanitize=address"]);
    let outcome = run(&temp, &victim);
    let said = outcome.stderr.to_lowercase();
    assert!(
        said.contains("sanitizer") || said.contains("asan"),
        "{outcome:?}"
    );
    let refused = outcome.ended == Ended::Code(125);
    assert!(
        refused || outcome.stdout.starts_with("limits:"),
        "{outcome:?}"
    );
}

// Goal: a program that defines malloc itself runs and is told apart. Method: its output, and a line.
#[test]
fn a_program_with_its_own_malloc() {
    let temp = Temp::new();
    let outcome = run(&temp, &program("mallocown.c"));
    assert_eq!(
        outcome.stdout, "own malloc: mallocown\ncalls: ours\n",
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("malloc"), "it is said: {outcome:?}");
}

// Goal: a shim that is not there or not a library is the loader's business; ours, named by run, is
// always there. Method: lib-path answers a file that loads.
#[test]
fn lib_path_names_a_library_that_loads() {
    let temp = Temp::new();
    let job = Job::new(places::pageshim())
        .arg("lib-path")
        .env("HOME", &*temp);
    let path = PathBuf::from(job.run().ok().stdout.trim());
    assert!(path.is_file(), "{}", path.display());
    let victim = Job::new(program("zoo.c"));
    let plain = victim.run();
    let socket = temp.join("nobody");
    let shimmed = victim
        .env("LD_PRELOAD", &path)
        .env("PAGESHIM_SOCKET", socket);
    assert_eq!(shimmed.run(), plain);
}
