//! Clients as they come: sound ones, refused ones, slow ones, noise.

use std::os::fd::OwnedFd;
use std::time::Duration;

use pageshim_wire::VERSION;
use pageshim_wire::frame::Kind;
use pageshim_wire::layout::word as layout_word;
use rustix::fs::SealFlags;
use tokio::io::AsyncWriteExt;

use crate::books::report::State;
use crate::hub::fake::{Host, frame, good, hello, memfd, state};

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
