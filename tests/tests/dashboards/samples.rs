//! A sample scrape with a value for every family: promtool accepts it, every panel answers from it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::catalog::families;
use crate::programs::{Scratch, tool};
use crate::prometheus::Prometheus;

/// A scrape in which every family of [`crate::catalog::METRICS`] has a value; counters go up with `seconds`.
fn sample_scrape(seconds: u64) -> String {
    let mut page = String::new();
    for (name, kind, specifications) in families() {
        let _ = writeln!(
            page,
            "# HELP {name} Sample of {name}.\n# TYPE {name} {kind}"
        );
        for labels in combinations(&specifications) {
            let braces = |labels: &[String]| {
                if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{}}}", labels.join(","))
                }
            };
            let count = 100 + 10 * seconds;
            if kind != "histogram" {
                let value = if kind == "counter" { count } else { 100 };
                let _ = writeln!(page, "{name}{} {value}", braces(&labels));
                continue;
            }
            for (bound, part) in [("16", 2), ("64", 1), ("+Inf", 1)] {
                let mut bucket = labels.clone();
                bucket.push(format!("le=\"{bound}\""));
                let _ = writeln!(page, "{name}_bucket{} {}", braces(&bucket), count / part);
            }
            let labels = braces(&labels);
            let _ = writeln!(
                page,
                "{name}_sum{labels} {}\n{name}_count{labels} {count}",
                20 * count
            );
        }
    }
    page
}

/// `["a=1|2", "b=3"]` as `[[a="1", b="3"], [a="2", b="3"]]`.
fn combinations(specifications: &[&str]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for word in specifications {
        let (label, values) = word.split_once('=').expect("label=value|value");
        all = all
            .iter()
            .flat_map(|labels: &Vec<String>| {
                values.split('|').map(move |value| {
                    let mut more = labels.clone();
                    more.push(format!("{label}=\"{value}\""));
                    more
                })
            })
            .collect();
    }
    all
}

/// Serves [`sample_scrape`] on a loopback port until the test's process ends.
fn start_exporter() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address")
        .to_string();
    let start = Instant::now();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut line = String::new();
            let mut lines = BufReader::new(&stream);
            // The request ends with an empty line; its content does not matter here.
            while lines.read_line(&mut line).is_ok_and(|read| read > 2) {}
            let body = sample_scrape(start.elapsed().as_secs());
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

// Goal: the expressions fit the list of metrics, before and without any daemon. Method: a real
// Prometheus over a sample in which everything has a value, so nothing may be empty.
#[test]
fn panels_answer_from_a_sample_scrape() {
    let Some(binary) = tool("prometheus", "panels over a sample scrape") else {
        return;
    };
    let scratch = Scratch::new("sample");
    let mut prometheus = Prometheus::start(&binary, &scratch, &start_exporter());
    prometheus.await_scrapes("pageshim_build_info");
    prometheus.must_answer_everything(&[]);
}

// Goal: the sample is what a daemon may say. Method: promtool's own check of an exposition.
#[test]
fn promtool_accepts_the_sample_scrape() {
    let Some(promtool) = tool("promtool", "the sample scrape") else {
        return;
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool was found");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin
        .write_all(sample_scrape(1).as_bytes())
        .expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("a child can be waited for");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
