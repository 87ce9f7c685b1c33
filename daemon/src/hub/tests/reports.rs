//! What is told of processes: samples, misuse, captures, charts.

use std::time::Duration;

use pageshim_wire::frame::Kind;
use pageshim_wire::process::word;

use crate::books::report::{Process, Report, State};
use crate::heatmap::report::Asked;
use crate::hub::charts::Kept;
use crate::hub::fake::{Host, good, set};
use crate::hub::{Filter, registry};

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
