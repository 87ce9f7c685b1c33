//! The life of a record: from hello over reconnects and exec to what remains in the totals.

use std::time::Duration;

use pageshim_wire::frame::Kind;
use pageshim_wire::process::word;
use tokio::io::AsyncWriteExt;

use crate::books::report::{Exit, State};
use crate::hub::fake::{Host, frame, good, set};
use crate::hub::{Hub, HubConfig, registry};

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
