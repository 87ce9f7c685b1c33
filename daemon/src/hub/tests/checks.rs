//! Checks as they come in from a process.

use std::os::fd::OwnedFd;
use std::time::Duration;

use pageshim_wire::check::{turn, word as check};
use pageshim_wire::frame::Kind;
use pageshim_wire::process::word;

use crate::books::report::{Report, State};
use crate::hub::fake::{Host, good, set, state};

/// Writes what a check found into a state: so many definite and indirect blocks of its site.
fn found(fd: &OwnedFd, number: u64, blocks: [u64; 2]) {
    use pageshim_wire::check::{Class, SUPPRESSIONS_AT, row};
    let layout = state(1, 1, "x").layout;
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

// Goal: a process that waits for its last check is answered, once. Method: one that has no place for
// a tracer asks, and asks again.
#[tokio::test]
async fn a_last_check_is_answered_once() {
    let host = Host::new("last").await;
    let fd = good(0xa8, 78, "zoo");
    let at = state(1, 1, "x").layout.check() + check::TURN as u64 * 8;
    let turn = || {
        let mut bytes = [0; 8];
        rustix::io::pread(&fd, &mut bytes, at).expect("readable");
        u64::from_le_bytes(bytes)
    };
    let mut client = host.client().await;
    client.hello(0xa8, 78, &fd).await;
    client.frame(Kind::Check, &1000u64.to_le_bytes()).await;
    for _ in 0..500 {
        if turn() == turn::REFUSED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(turn(), turn::REFUSED);
    rustix::io::pwrite(&fd, &[0; 8], at).expect("writable");
    client.frame(Kind::Check, &u64::MAX.to_le_bytes()).await;
    set(&fd, word::EXIT_STATE, 1);
    drop(client);
    host.process(0xa8, |process| process.state == State::Exited)
        .await;
    assert_eq!(turn(), turn::NOBODYS);
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
