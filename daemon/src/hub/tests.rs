//! The hub over a real socket.

use std::os::fd::OwnedFd;
use std::time::Duration;

use pageshim_wire::VERSION;
use pageshim_wire::frame::Kind;
use pageshim_wire::layout::word as layout_word;
use pageshim_wire::process::word;
use rustix::fs::SealFlags;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::charts::Kept;
use super::fake::{Client, Host, frame, good, hello, memfd, set, state};
use super::{Filter, Hub, HubConfig, registry};
use crate::books::report::{Exit, Process, Report, State};
use crate::heatmap::report::Asked;

// Goal: a good client is welcomed, reported, kept on time, and exits with its status.
// Method: hello, frames, a look, exit words, end of stream.
#[tokio::test]
async fn a_good_client_from_hello_to_exit() {
    let host = Host::new("good").await;
    let fd = good(0xa1, 71, "zoo");
    let mut client = host.client().await;
    assert_eq!(
        client.hello(0xa1, 71, &fd).await,
        (Kind::Welcome, String::new())
    );
    let batch = [&[0; 24][..], &[0; 24], &[0xff; 24]].concat();
    client.frame(Kind::Batch, &batch).await;
    client.frame(Kind::Exit, &[0; 8]).await;
    let process = host.process(0xa1, |_| true).await;
    assert_eq!(
        (process.state, process.pid, process.name.as_str()),
        (State::Running, 71, "zoo")
    );
    assert_eq!(
        (process.live.bytes, process.live.blocks, process.exit),
        (60, 2, None)
    );
    assert!(process.seconds >= 5.0 && process.seconds < 60.0);
    let report = host.report().await;
    assert_eq!((report.leaks.len(), report.leaks[0].bytes), (1, 60));
    assert_eq!(report.leaks[0].stack[0].function, "0x7f000010@?");
    let mut tick = [0; 8];
    rustix::io::pread(&fd, &mut tick, word::TICK as u64 * 8).expect("readable");
    assert!(u64::from_le_bytes(tick) >= 1250, "the clock runs");
    set(&fd, word::EXIT_STATUS, 3);
    set(&fd, word::EXIT_STATE, 1);
    drop(client);
    let process = host
        .process(0xa1, |process| process.state == State::Exited)
        .await;
    assert_eq!(
        process.exit,
        Some(Exit {
            code: Some(3),
            signal: None
        })
    );
    let after = host.report().await.leaks.remove(0);
    assert_eq!(
        (&after.stack, after.bytes, &after.site),
        (&report.leaks[0].stack, 60, &report.leaks[0].site)
    );
    for (kind, count) in [
        ("batch", 1.0),
        ("exit", 1.0),
        ("trace_alloc", 1.0),
        ("trace_free", 1.0),
    ] {
        let series = format!("pageshim_events_total{{process=\"zoo\",kind=\"{kind}\"}}");
        assert_eq!(host.metric(&series).await, Some(count), "{kind}");
    }
}

// Goal: bad clients are told why, cost only themselves, and are counted by reason.
// Method: each kind of bad hello, then a good one.
#[tokio::test]
async fn bad_clients_are_refused_in_words() {
    let host = Host::new("bad").await;
    let fd = good(0xb1, 72, "zoo");
    let mut client = host.client().await;
    client.send(&hello(0xb1, 72, VERSION + 1), &[&fd]).await;
    let (kind, text) = client.answer().await;
    assert_eq!(kind, Kind::Refused);
    assert!(
        text.contains("speaks protocol 1") && text.contains("speaks 2"),
        "{text}"
    );
    client.closed().await;

    let refused = async |bytes: &[u8], descriptors: &[&OwnedFd], says: &str| {
        let mut client = host.client().await;
        client.send(bytes, descriptors).await;
        let (kind, text) = client.answer().await;
        assert!(
            kind == Kind::Refused && text.contains(says),
            "{text} should say {says}"
        );
        client.closed().await;
    };
    let sound = hello(0xb1, 72, VERSION);
    refused(&sound, &[], "without a memfd").await;
    let unsealed = memfd(&state(0xb1, 72, "zoo"), SealFlags::GROW);
    refused(&sound, &[&unsealed], "not sealed").await;
    let file: OwnedFd = std::fs::File::open("/dev/null").expect("there").into();
    refused(&sound, &[&file], "not sealed").await;
    let mut small = state(0xb1, 72, "zoo");
    small.bytes.truncate(64 * 1024);
    refused(&sound, &[&memfd(&small, SealFlags::SHRINK)], "TooSmall").await;
    let mut old = state(0xb1, 72, "zoo");
    old.set(layout_word::VERSION, 9);
    refused(&sound, &[&memfd(&old, SealFlags::SHRINK)], "speaks 9").await;
    refused(&hello(0xbad, 72, VERSION), &[&fd], "token").await;
    refused(&frame(Kind::Exec, &[]), &[&fd], "not a hello").await;
    refused(&[b'G'; 64], &[&fd], "speaks protocol").await;

    let mut client = host.client().await;
    assert_eq!(client.hello(0xb1, 72, &fd).await.0, Kind::Welcome);
    for (reason, count) in [
        ("version", 3.0),
        ("no_memfd", 1.0),
        ("unsealed", 2.0),
        ("layout", 1.0),
        ("token", 1.0),
        ("not_hello", 1.0),
    ] {
        let series = format!("pageshim_decode_errors_total{{reason=\"{reason}\"}}");
        assert_eq!(host.metric(&series).await, Some(count), "{reason}");
    }
}

// Goal: half a hello is waited for, not for ever, and holds nobody up; surplus
// descriptors are closed. Method: a slow client beside a good one that sends byte by byte.
#[tokio::test]
async fn slow_clients_do_not_matter() {
    let host = Host::new("slow").await;
    let mut slow = host.client().await;
    slow.send(&hello(1, 1, VERSION)[..20], &[]).await;
    let fd = good(0xc1, 73, "zoo");
    let mut client = host.client().await;
    let bytes = hello(0xc1, 73, VERSION);
    client.send(&bytes[..1], &[&fd, &fd, &fd]).await;
    for byte in &bytes[1..] {
        client.send(&[*byte], &[]).await;
    }
    assert_eq!(client.answer().await.0, Kind::Welcome);
    assert_eq!(slow.answer().await.0, Kind::Refused);
    assert_eq!(
        host.metric("pageshim_decode_errors_total{reason=\"slow\"}")
            .await,
        Some(1.0)
    );
}

// Goal: what was resident is known after the end, without a report or scrape before it.
// Method: a client whose "heap" is all of this process, left alone, then ended.
#[tokio::test]
async fn resident_bytes_are_sampled_unasked() {
    let host = Host::new("samples").await;
    let fd = good(0xab, 70, "zoo");
    set(&fd, word::HEAP_RESERVED, 1 << 47);
    let mut client = host.client().await;
    client.hello(0xab, 70, &fd).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    set(&fd, word::EXIT_STATE, 1);
    drop(client);
    let process = host
        .process(0xab, |process| process.state == State::Exited)
        .await;
    let pages = process.pages;
    assert_eq!(pages.resident_bytes, 0, "nothing any more");
    assert!(pages.resident_peak_bytes >= pages.resident_last_bytes);
    assert!(pages.resident_last_bytes > 0);
    let at_peak = process.pages_at_peak.expect("sampled");
    assert_eq!(at_peak.requested_bytes, 60);
    assert!(at_peak.resident_bytes > 0);
    assert_eq!(process.threads.live, 0, "they ended with it");
}

// Goal: a misuse is reported with the stack of its call, while it runs, after its end and in
// a capture. Method: frames that name the state's only site.
#[tokio::test]
async fn misuse_is_reported_with_its_call() {
    let host = Host::new("misuse").await;
    let fd = good(0xac, 69, "zoo");
    let mut client = host.client().await;
    client.hello(0xac, 69, &fd).await;
    let words = [0u64, 0x1040, 0, 0, 2];
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    client.frame(Kind::Misuse, &payload).await;
    client.frame(Kind::Misuse, &payload).await;
    let told = |process: &Process| {
        let all = process.misuse_reports.iter();
        let each = all.map(|report| {
            let leaf = report.call.first().map(|frame| frame.function.clone());
            (
                report.kind.clone(),
                report.address.clone(),
                report.count,
                leaf,
            )
        });
        each.collect::<Vec<_>>()
    };
    let leaf = Some("0x7f000010@?".to_owned());
    let expected = vec![("double_free".to_owned(), "0x1040".to_owned(), 2, leaf)];
    host.process(0xac, |process| told(process) == expected)
        .await;
    set(&fd, word::SITE_COUNT, 2);
    set(&fd, word::EXIT_STATE, 1);
    drop(client);
    let ended = host
        .process(0xac, |process| process.state == State::Exited)
        .await;
    assert_eq!(told(&ended), expected);
    let path = host.dir.join("misuse.pgs");
    host.hub.write_capture(&path).await.expect("written");
    let opened = crate::capture::open(&path).expect("whole");
    assert_eq!(told(&opened.report.processes[0]), expected);
}

// Goal: who only knocks is no error, who leaves amid a hello is one. Method: both.
#[tokio::test]
async fn knocking_is_no_error() {
    let host = Host::new("knock").await;
    let gone = "pageshim_decode_errors_total{reason=\"gone\"}";
    for _ in 0..3 {
        drop(host.client().await);
    }
    host.hub.settle(4_000_000, Duration::from_secs(5)).await;
    assert_eq!(host.metric(gone).await, Some(0.0));
    let client = host.client().await;
    client.send(&hello(1, 1, VERSION)[..20], &[]).await;
    drop(client);
    host.hub.settle(4_000_000, Duration::from_secs(5)).await;
    assert_eq!(host.metric(gone).await, Some(1.0));
}

// Goal: garbage after hello closes that connection; the process goes on when it
// connects again, nothing is lost or counted twice. Method: garbage, then a reconnect.
#[tokio::test]
async fn a_reconnect_continues_the_record() {
    let host = Host::new("again").await;
    let fd = good(0xd1, 74, "zoo");
    let mut first = host.client().await;
    first.hello(0xd1, 74, &fd).await;
    first.0.write_all(&[0xff; 100]).await.expect("open");
    first.closed().await;
    let mut second = host.client().await;
    assert_eq!(second.hello(0xd1, 74, &fd).await.0, Kind::Welcome);
    second
        .0
        .write_all(&frame(Kind::Mark, b"half a frame")[..20])
        .await
        .expect("open");
    drop(second);
    let mut third = host.client().await;
    assert_eq!(third.hello(0xd1, 74, &fd).await.0, Kind::Welcome);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let report = host.report().await;
    assert_eq!(
        (report.processes.len(), report.processes[0].state),
        (1, State::Running)
    );
    assert_eq!(
        host.metric("pageshim_frees_total{process=\"zoo\"}").await,
        Some(1.0)
    );
    assert_eq!(
        host.metric("pageshim_decode_errors_total{reason=\"half_frame\"}")
            .await,
        Some(1.0)
    );
}

// Goal: exec ends one record and starts another under the same pid.
// Method: a second hello with the same pid and another token.
#[tokio::test]
async fn exec_is_another_image() {
    let host = Host::new("exec").await;
    let mut shell = host.client().await;
    shell.hello(0xe1, 75, &good(0xe1, 75, "sh")).await;
    let mut program = host.client().await;
    program.hello(0xe2, 75, &good(0xe2, 75, "cc")).await;
    let old = host
        .process(0xe1, |process| process.state == State::Exited)
        .await;
    assert_eq!(old.exit, Some(Exit::default()));
    assert_eq!(host.process(0xe2, |_| true).await.state, State::Running);
    let mut other = host.client().await;
    other.hello(0xe3, 76, &good(0xe3, 76, "sh")).await;
    assert_eq!(
        host.process(0xe2, |_| true).await.state,
        State::Running,
        "another pid"
    );
    let states = host
        .report()
        .await
        .processes
        .iter()
        .map(|process| process.state)
        .collect::<Vec<_>>();
    assert_eq!(
        states,
        [State::Running, State::Running, State::Exited],
        "newest first"
    );
}

// Goal: counters never go down when processes end and are forgotten; states are counted.
// Method: five processes of one name, two kept; totals after each.
#[tokio::test]
async fn forgotten_processes_stay_in_the_totals() {
    let host = Host::new("fold").await;
    for round in 1..=5u64 {
        let token = 0xf00 + round;
        let fd = good(token, 80 + round as u32, "zoo");
        let mut client = host.client().await;
        client.hello(token, 80 + round as u32, &fd).await;
        let total = "pageshim_allocated_bytes_total{process=\"zoo\"}";
        assert_eq!(host.metric(total).await, Some(90.0 * round as f64));
        assert_eq!(
            host.metric("pageshim_heap_live_bytes{process=\"zoo\"}")
                .await,
            Some(60.0)
        );
        set(&fd, word::EXIT_STATE, 1);
        drop(client);
        host.process(token, |process| process.state == State::Exited)
            .await;
        assert_eq!(host.metric(total).await, Some(90.0 * round as f64));
        assert_eq!(
            host.metric("pageshim_heap_live_bytes{process=\"zoo\"}")
                .await,
            Some(0.0)
        );
        assert_eq!(
            host.metric("pageshim_leak_bytes{process=\"zoo\",class=\"live\"}")
                .await,
            Some(60.0)
        );
    }
    assert_eq!(host.report().await.processes.len(), 2);
    assert_eq!(
        host.metric("pageshim_processes{state=\"exited\"}").await,
        Some(5.0)
    );
}

// Goal: a parent that began first is kept beyond the children that ended before it.
// Method: one that ends after three others, two kept.
#[tokio::test]
async fn the_last_to_end_is_kept() {
    let host = Host::new("parent").await;
    let fd = good(0xe00, 70, "make");
    let mut parent = host.client().await;
    parent.hello(0xe00, 70, &fd).await;
    for child in 1..=3 {
        let mut client = host.client().await;
        let fd = good(0xe00 + child, 70 + child as u32, "cc");
        client.hello(0xe00 + child, 70 + child as u32, &fd).await;
        set(&fd, word::EXIT_STATE, 1);
        drop(client);
        host.process(0xe00 + child, |process| process.state == State::Exited)
            .await;
    }
    set(&fd, word::EXIT_STATE, 1);
    drop(parent);
    host.process(0xe00, |process| process.state == State::Exited)
        .await;
    let report = host.report().await;
    let names: Vec<_> = report.processes.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["cc", "make"]);
}

// Goal: a capture holds what the report holds. Method: write, open, compare.
#[tokio::test]
async fn a_capture_equals_the_report() {
    let host = Host::new("capture").await;
    let (mut one, mut two) = (host.client().await, host.client().await);
    one.hello(0x11, 90, &good(0x11, 90, "zoo")).await;
    two.hello(0x12, 91, &good(0x12, 91, "farm")).await;
    let path = host.dir.join("all.pgs");
    host.hub.write_capture(&path).await.expect("written");
    let opened = crate::capture::open(&path).expect("whole");
    assert_eq!(opened.note, None);
    let report = host.report().await;
    assert_eq!(opened.report.processes.len(), 2);
    let sites = |report: &Report| {
        let each = report
            .leaks
            .iter()
            .map(|leak| (leak.process.clone(), leak.site.clone(), leak.bytes));
        each.collect::<Vec<_>>()
    };
    assert_eq!(sites(&opened.report), sites(&report));
    let filter = Filter {
        process: Some("farm".into()),
        limit: Some(5),
        ..Filter::default()
    };
    let farm = host.hub.report(&filter).await;
    assert_eq!((farm.processes.len(), farm.leaks.len()), (1, 1));
    let filter = Filter {
        query: Some("nowhere".into()),
        ..Filter::default()
    };
    assert_eq!(host.hub.report(&filter).await.leaks.len(), 0);
    let missing = host.hub.write_capture(&host.dir.join("no/where.pgs")).await;
    assert!(missing.is_err_and(|error| error.to_string().contains("cannot write")));
}

/// Not a test of its own: the process that others start and kill.
#[tokio::test]
async fn victim() {
    let Some(path) = std::env::var_os("PAGESHIM_TEST_VICTIM") else {
        return;
    };
    let pid = std::process::id();
    let fd = good(u64::from(pid), pid, "victim");
    let mut client = Client(UnixStream::connect(path).await.expect("listening"));
    client.hello(u64::from(pid), pid, &fd).await;
    println!("connected");
    std::future::pending::<()>().await;
}

fn start_victim(host: &Host) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "hub::tests::victim", "--nocapture"])
        .env("PAGESHIM_TEST_VICTIM", host.dir.join("s.sock"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("ourselves")
}

// Goal: a killed process is reported as it was, `settle` waits for that, the
// parent's word makes the end exact. Method: kill a real child.
#[tokio::test]
async fn a_killed_process_is_still_reported() {
    let host = Host::new("kill").await;
    let mut child = start_victim(&host);
    let token = u64::from(child.id());
    host.process(token, |process| process.state == State::Running)
        .await;
    child.kill().expect("ours");
    host.hub.settle(child.id(), Duration::from_secs(5)).await;
    let process = host.process(token, |_| true).await;
    assert_eq!(
        (process.state, process.exit),
        (State::Killed, Some(Exit::default()))
    );
    assert_eq!(process.live.bytes, 60);
    child.wait().expect("ours");
    let exit = Exit {
        code: None,
        signal: Some(9),
    };
    host.hub.note_exit(child.id(), exit);
    assert_eq!(host.process(token, |_| true).await.exit, Some(exit));
    assert_eq!(host.report().await.leaks[0].bytes, 60);
}

// Goal: a note that comes before the end was seen is used then. Method: note first, then kill.
#[tokio::test]
async fn an_early_note_is_kept() {
    let host = Host::new("note").await;
    let mut child = start_victim(&host);
    let token = u64::from(child.id());
    host.process(token, |_| true).await;
    let exit = Exit {
        code: None,
        signal: Some(9),
    };
    host.hub.note_exit(child.id(), exit);
    child.kill().expect("ours");
    child.wait().expect("ours");
    host.hub.settle(child.id(), Duration::from_secs(5)).await;
    let process = host.process(token, |_| true).await;
    assert_eq!((process.state, process.exit), (State::Killed, Some(exit)));
}

// Goal: settle and shutdown return; the socket is gone afterwards. Method: nobody is there.
#[tokio::test]
async fn settle_and_shutdown_return() {
    let host = Host::new("stop").await;
    assert!(host.hub.ready());
    let started = std::time::Instant::now();
    host.hub.settle(4_000_000, Duration::from_secs(5)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(registry::lock(&host.hub.inner).records.is_empty());
    host.hub.shutdown();
    assert!(!host.hub.ready() && !host.dir.join("s.sock").exists());
}

// Goal: a daemon that died loses nothing. Method: a second hub takes the dead one's
// socket over, the client hands over the same memfd.
#[tokio::test]
async fn a_new_daemon_has_the_whole_history() {
    let host = Host::new("restart").await;
    let fd = good(0x21, 95, "zoo");
    let mut client = host.client().await;
    client.hello(0x21, 95, &fd).await;
    // Not a shutdown: the socket's file stays, as after a kill.
    host.hub.inner.stop.notify_one();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let config = HubConfig {
        socket: host.dir.join("s.sock"),
        keep_exited: 2,
        suppressions: crate::books::suppress::Rules::default(),
        check_every: None,
    };
    let hub = Hub::start(config).await.expect("the socket is stale");
    let second = Host {
        hub,
        dir: host.dir.clone(),
    };
    let mut client = second.client().await;
    assert_eq!(client.hello(0x21, 95, &fd).await.0, Kind::Welcome);
    let process = second.process(0x21, |_| true).await;
    assert_eq!((process.total.bytes, process.freed.bytes), (90, 30));
    assert!(process.seconds >= 5.0);
}

// Goal: random bytes on many connections hurt nobody. Method: a hundred at once,
// some behind a sound hello, beside a good client.
#[tokio::test]
async fn random_streams_are_survived() {
    let host = Host::new("random").await;
    let fd = good(0x31, 96, "zoo");
    let mut kept = host.client().await;
    kept.hello(0x31, 96, &fd).await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..100u64 {
        let mut bytes = Vec::new();
        for _ in 0..64 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend(seed.to_le_bytes());
        }
        let mut client = host.client().await;
        if round % 4 == 0 {
            let token = 0x4000 + round;
            let fd = good(token, 200 + round as u32, "noise");
            client.hello(token, 200 + round as u32, &fd).await;
        }
        let _ = client.0.write_all(&bytes).await;
    }
    let process = host.process(0x31, |_| true).await;
    assert_eq!((process.state, process.live.bytes), (State::Running, 60));
    let refused = host
        .metric("pageshim_decode_errors_total{reason=\"version\"}")
        .await;
    assert!(refused.is_some_and(|count| count >= 75.0), "{refused:?}");
}

// Goal: the chart of a process that ended is let go, and its absence has a reason; a fake process
// that cannot be read has one too. Method: a kept chart before the end.
#[tokio::test]
async fn charts_are_of_running_processes() {
    let host = Host::new("charts").await;
    let fd = good(0xc9, 79, "zoo");
    let mut client = host.client().await;
    assert_eq!(client.hello(0xc9, 79, &fd).await.0, Kind::Welcome);
    host.process(0xc9, |_| true).await;
    let asked = Asked {
        process: Some("79".to_owned()),
        ..Asked::default()
    };
    let chart = host.hub.chart(&asked).await;
    assert!(chart.heap.is_none() && chart.why_not.is_some(), "{chart:?}");
    let record = registry::lock(&host.hub.inner).records.first().cloned();
    let record = record.expect("known");
    *record.chart.lock().expect("whole") = Some(Kept::empty().into());
    set(&fd, word::EXIT_STATE, 1);
    drop(client);
    host.process(0xc9, |process| process.state != State::Running)
        .await;
    assert!(record.chart.lock().expect("whole").is_none());
    let why = host.hub.chart(&asked).await.why_not;
    assert!(why.is_some_and(|why| why.contains("this one ended")));
    let none = host.hub.chart(&Asked::default()).await;
    assert!(none.process.is_none(), "none runs");
}

/// Writes what a check found into a state: so many definite and indirect blocks of its site.
fn found(fd: &OwnedFd, number: u64, blocks: [u64; 2]) {
    use pageshim_wire::check::{Class, SUPPRESSIONS_AT, row, word as check};
    let layout = super::fake::state(1, 1, "x").layout;
    let put = |at: u64, value: u64| {
        rustix::io::pwrite(fd, &value.to_le_bytes(), at).expect("writable");
    };
    let head = |index: usize, value| put(layout.check() + index as u64 * 8, value);
    let own = b"leak:0x7f000010";
    rustix::io::pwrite(fd, own, layout.check() + SUPPRESSIONS_AT).expect("writable");
    for (class, blocks) in [Class::Definite, Class::Indirect].into_iter().zip(blocks) {
        for (pair, value) in [blocks, blocks * 10].into_iter().enumerate() {
            let at = 2 * class as usize + pair;
            head(check::CLASSES + at, value);
            put(layout.check_row(2) + (row::CLASSES + at) as u64 * 8, value);
        }
    }
    head(check::STATE, 2);
    head(
        check::SUPPRESSIONS_BYTES,
        if number == 3 { own.len() as u64 } else { 0 },
    );
    head(check::SEQUENCE, number * 2);
}

// Goal: checks are kept and compared; a program's own suppressions take its blocks out of the
// findings, in reports, captures, and after its end. Method: three checks by hand, the third with rules.
#[tokio::test]
async fn checks_are_judged_and_compared() {
    let host = Host::new("judged").await;
    let fd = good(0xa7, 77, "zoo");
    let mut client = host.client().await;
    client.hello(0xa7, 77, &fd).await;
    assert!(host.hub.checks("none").await.is_none());
    let since = async || host.hub.checks("77").await.expect("known").since;
    for (number, blocks) in [(1, [1, 0]), (2, [1, 1])] {
        found(&fd, number, blocks);
        host.process(0xa7, |process| {
            process
                .check
                .as_ref()
                .is_some_and(|check| check.number == number)
        })
        .await;
    }
    let changes = since().await.expect("two");
    let told: Vec<_> = changes
        .iter()
        .map(|change| (change.class.as_str(), change.blocks))
        .collect();
    assert_eq!(told, [("indirect", 1)]);
    let report = host.report().await;
    assert!(
        report
            .leaks
            .iter()
            .all(|leak| leak.suppressed.is_none() && leak.growth.is_some())
    );
    found(&fd, 3, [1, 1]);
    set(&fd, word::EXIT_STATE, 1);
    drop(client);
    let process = host
        .process(0xa7, |process| process.state == State::Exited)
        .await;
    let check = process.check.expect("checked");
    assert_eq!(
        (
            check.number,
            check.suppressed.definite.blocks,
            check.suppressed.indirect.blocks
        ),
        (3, 1, 1)
    );
    assert_eq!(check.suppressions[0].pattern, "0x7f000010");
    assert_eq!(check.since, Some(Vec::new()));
    let marked = |report: &Report| {
        let known = |leak: &&crate::books::report::Leak| leak.suppressed.is_some();
        report.leaks.iter().filter(known).count()
    };
    assert_eq!(marked(&host.report().await), 2);
    let path = host.dir.join("judged.pgs");
    host.hub.write_capture(&path).await.expect("written");
    let captured = crate::capture::open(&path).expect("ours").report;
    assert_eq!((marked(&captured), captured.leaks.len()), (2, 2));
    assert_eq!(
        host.hub.checks("77").await.expect("known").checks.len(),
        2,
        "of an ended process"
    );
}
