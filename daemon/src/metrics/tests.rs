//! The text of a scrape.

use std::time::Instant;

use super::{Scrape, Site, Subject, render};
use crate::books::check::{Check, Classes};
use crate::books::pages::ClassSlots;
use crate::books::report::{Amount, Frame, Process, State};
use crate::books::summary::observe;

fn subject(name: &str, state: State, bytes: u64) -> Subject {
    let mut fake = crate::books::fake::State::new();
    fake.class_table(&[[32, 4096, 100], [0, 0, 0]]);
    fake.thread(0, 1, "main").class(0, 0, [10, bytes, 0, 0]);
    let observed = observe(&fake.header(), &fake.threads());
    let site = |index: u64| Site {
        id: format!("{index:016x}"),
        bytes: bytes / 100,
        frame: Frame {
            function: format!("f\"{index}\\\n"),
            ..Frame::default()
        },
    };
    Subject {
        process: Process {
            name: name.into(),
            state,
            ..observed.process
        },
        tally: observed.tally,
        slots: vec![
            ClassSlots {
                slot_bytes: 32,
                live: 10,
                free: 90,
            },
            ClassSlots {
                slot_bytes: 0,
                live: 1,
                free: 0,
            },
        ],
        sites: if state == State::Running {
            (0..30).map(site).collect()
        } else {
            Vec::new()
        },
    }
}

fn scrape(subjects: Vec<Subject>) -> (String, u64) {
    render(Scrape {
        subjects,
        folded: [("gone".to_owned(), subject("gone", State::Exited, 7).tally)].into(),
        states: [1, 2, 3],
        errors: vec![("slow", 4)],
        series_dropped: 0,
        started: Instant::now(),
    })
}

fn value(text: &str, series: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    lines.next().map(str::to_owned)
}

// Goal: processes of one name are summed, sites bounded, the rest in `other`.
// Method: two running, one ended, thirty sites each.
#[test]
fn names_are_summed_and_sites_bounded() {
    let running = |bytes| subject("zoo", State::Running, bytes);
    let (text, dropped) = scrape(vec![
        running(1000),
        running(500),
        subject("zoo", State::Exited, 9),
    ]);
    assert_eq!(dropped, 0);
    let get = |series: &str| value(&text, series).unwrap_or_else(|| panic!("{series} in {text}"));
    assert_eq!(get("pageshim_heap_live_bytes{process=\"zoo\"}"), "1500");
    assert_eq!(
        get("pageshim_allocated_bytes_total{process=\"zoo\"}"),
        "1509"
    );
    assert_eq!(get("pageshim_allocated_bytes_total{process=\"gone\"}"), "7");
    assert_eq!(get("pageshim_heap_live_bytes{process=\"gone\"}"), "0");
    assert_eq!(
        get("pageshim_site_live_bytes{process=\"zoo\",site=\"other\"}"),
        "1200"
    );
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("pageshim_site_info{"))
            .count(),
        20
    );
    assert_eq!(
        get("pageshim_allocation_size_bytes_bucket{process=\"zoo\",le=\"16\"}"),
        "0"
    );
    assert_eq!(
        get("pageshim_allocation_size_bytes_bucket{process=\"zoo\",le=\"64\"}"),
        "30"
    );
    assert_eq!(
        get("pageshim_allocation_size_bytes_sum{process=\"zoo\"}"),
        "1509"
    );
    assert_eq!(
        get("pageshim_size_class_slots{process=\"zoo\",class=\"32\",state=\"free\"}"),
        "180"
    );
    assert_eq!(get("pageshim_processes{state=\"killed\"}"), "3");
    assert!(
        text.contains("function=\"f\\\"0\\\\"),
        "quotes and backslashes are escaped"
    );
    assert!(
        text.contains("\nprocess_resident_memory_bytes "),
        "the daemon's own"
    );
}

// Goal: the series of one scrape are bounded and what is left out is counted. Method: 200 names.
#[test]
fn series_are_bounded() {
    let names = (0..200).map(|index| subject(&format!("p{index}"), State::Running, 10));
    let (text, dropped) = scrape(names.collect());
    let series = text
        .lines()
        .filter(|line| line.starts_with("pageshim_"))
        .count();
    assert!(
        series <= 5002 && dropped > 5000,
        "{series} shown, {dropped} dropped"
    );
    let counted = value(&text, "pageshim_exporter_series_dropped_total").expect("there");
    assert_eq!(counted, dropped.to_string());
    assert!(text.contains("process=\"p0\"") && !text.contains("process=\"p99\""));
}

// Goal: what an ended process leaked stays visible until another of its name runs.
// Method: ended alone, ended beside a running one, with a check's classes.
#[test]
fn leaks_of_the_last_ended_process_show() {
    let series = |class: &str| format!("pageshim_leak_bytes{{process=\"zoo\",class=\"{class}\"}}");
    let ended = subject("zoo", State::Exited, 9);
    let (text, _) = scrape(vec![ended.clone(), subject("zoo", State::Killed, 8)]);
    assert_eq!(value(&text, &series("live")).as_deref(), Some("9"));
    let (text, _) = scrape(vec![ended.clone(), subject("zoo", State::Running, 70)]);
    assert_eq!(value(&text, &series("live")).as_deref(), Some("70"));
    let mut checked = ended;
    checked.process.live = Amount {
        bytes: 5,
        blocks: 1,
    };
    checked.process.check = Some(Check {
        classes: Classes {
            definite: Amount {
                bytes: 5,
                blocks: 1,
            },
            ..Classes::default()
        },
        ..Check::default()
    });
    let (text, _) = scrape(vec![checked]);
    assert_eq!(value(&text, &series("definite")).as_deref(), Some("5"));
    assert_eq!(value(&text, &series("live")), None);
}

// Goal: `promtool check metrics` has nothing to say. Method: run it where it is installed.
#[test]
fn promtool_is_content() {
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let spawned = std::process::Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        return;
    };
    let (text, _) = scrape(vec![subject("zoo", State::Running, 1000)]);
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("taken");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
