//! Lost sites as JUnit test cases, one each; a process that lost nothing is a passing one.
//!
//! A process that was not checked is an error: CI must not pass because nothing was seen.

use std::fmt::Write;

use crate::books::report::{Leak, Process, Report};
use crate::web::fingerprint::Fingerprints;
use crate::web::{findings, words};

/// The document.
pub(crate) fn render(report: &Report) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"pageshim\">\n",
    );
    if report.processes.is_empty() {
        let error = case(
            "pageshim",
            "lost blocks",
            &tag("error", "no process sent data", ""),
        );
        suite(&mut out, "pageshim", &[error], [0, 1, 0]);
    }
    let mut fingerprints = Fingerprints::default();
    for process in &report.processes {
        process_suite(&mut out, report, process, &mut fingerprints);
    }
    out.push_str("</testsuites>\n");
    out
}

fn process_suite(
    out: &mut String,
    report: &Report,
    process: &Process,
    fingerprints: &mut Fingerprints,
) {
    let name = format!("{} (pid {})", process.name, process.pid);
    if let Some(why) = findings::unjudged(process) {
        let error = case(&process.name, "lost blocks", &tag("error", &why, ""));
        return suite(out, &name, &[error], [0, 1, 0]);
    }
    let mut counts = [0; 3];
    let mut cases: Vec<String> = Vec::new();
    for leak in findings::lost(report, process) {
        counts[if leak.suppressed.is_some() { 2 } else { 0 }] += 1;
        let title = format!(
            "{} {} [{}]",
            leak.class,
            findings::function(leak),
            fingerprints.next(leak)
        );
        cases.push(case(&process.name, &title, &outcome(process, leak)));
    }
    if counts[0] == 0 {
        cases.push(case(&process.name, "no lost blocks", ""));
    }
    suite(out, &name, &cases, counts);
}

fn outcome(process: &Process, leak: &Leak) -> String {
    if let Some(pattern) = &leak.suppressed {
        return tag("skipped", &format!("suppressed by leak:{pattern}"), "");
    }
    let mut stack = format!("site {}\n", leak.site);
    for frame in &leak.stack {
        let _ = writeln!(stack, "{}  {}", frame.function, words::full_place(frame));
    }
    tag("failure", &findings::sentence(process, leak), &stack)
}

/// `counts` are failures, errors and skipped ones.
fn suite(out: &mut String, name: &str, cases: &[String], counts: [usize; 3]) {
    let [failures, errors, skipped] = counts;
    let _ = writeln!(
        out,
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">",
        text(name),
        cases.len(),
    );
    cases.iter().for_each(|case| out.push_str(case));
    out.push_str("</testsuite>\n");
}

fn case(class: &str, name: &str, inside: &str) -> String {
    let (class, name) = (text(class), text(name));
    format!("<testcase classname=\"{class}\" name=\"{name}\">{inside}</testcase>\n")
}

fn tag(name: &str, message: &str, inside: &str) -> String {
    let (message, inside) = (text(message), text(inside));
    format!("<{name} message=\"{message}\">{inside}</{name}>")
}

/// Escaped, without what XML 1.0 cannot hold.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    /// What `python3` says of the document.
    fn parsed(document: &str) -> String {
        const SCRIPT: &str = "import sys, xml.etree.ElementTree as e
r = e.fromstring(sys.stdin.buffer.read())
for s in r: print(s.get('name'), s.get('tests'), *[c.get('name') + ':' + (c[0].tag if len(c) else 'passed') for c in s], sep='|')";
        fixture::python(SCRIPT, document)
    }

    // Goal: a valid document with a case for each lost site, and an error for what was not checked.
    // Method: the fixture's two processes, read by a parser of XML.
    #[test]
    fn lost_sites_are_cases() {
        let mut report = fixture::report();
        report.processes[0].name = fixture::HOSTILE.to_owned();
        let said = parsed(&render(&report));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(
            lines[0].contains("|1|definite node_new [") && lines[0].ends_with("]:failure"),
            "{said}"
        );
        assert_eq!(lines[1], "zoo (pid 4711)|1|lost blocks:error");
        report.leaks[3].suppressed = Some("node_new".to_owned());
        let said = parsed(&render(&report));
        assert!(said.contains("]:skipped|no lost blocks:passed"), "{said}");
        let none = Report::default();
        assert!(parsed(&render(&none)).contains("lost blocks:error"));
    }
}
