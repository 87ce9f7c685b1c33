//! What `run` says at the end, and what `--fail-on` judges. Pure.

use std::fmt::Write;
use std::path::Path;

use super::failon::FailOn;
use crate::books::report::{Leak, Process, Report};
use crate::web::words::{self, clean};
use crate::web::{headline, names, units, whatif_text};
use crate::whatif::report::Advice;

/// The last image of `pid`: what it was when it ended. Images come newest first.
pub(crate) fn image(overview: &Report, pid: u32) -> Option<&Process> {
    overview.processes.iter().find(|process| process.pid == pid)
}

/// Images that ended, not those replaced by an exec: they did not leak, they stopped being.
fn ended(overview: &Report) -> impl Iterator<Item = &Process> {
    let mut seen = std::collections::HashSet::new();
    overview
        .processes
        .iter()
        .filter(move |process| seen.insert(process.pid))
}

/// The report without images that an exec replaced.
pub(crate) fn ended_only(mut report: Report) -> Report {
    let ids: Vec<String> = ended(&report).map(|process| process.id.clone()).collect();
    report.processes.retain(|process| ids.contains(&process.id));
    report.leaks.retain(|leak| ids.contains(&leak.process));
    report
}

/// What breaks a condition, over the command and everything it started.
pub(crate) fn judged(overview: &Report, pid: u32, conditions: &FailOn) -> Vec<String> {
    if image(overview, pid).is_none() {
        return vec![format!(
            "pid {pid} sent no data, so nothing could be judged"
        )];
    }
    ended(overview)
        .flat_map(|process| conditions.findings(process))
        .collect()
}

/// Most advice that is said at the end; `whatif` says the rest.
const ADVICE: usize = 3;

/// The command, as `run` knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    /// Its file name.
    pub(crate) name: &'a str,
    /// Its process id.
    pub(crate) pid: u32,
    /// Why it recorded nothing, when that was asked for.
    pub(crate) why_silent: Option<&'a str>,
    /// What to do about it, most worth doing first.
    pub(crate) advice: &'a [Advice],
}

/// About twelve lines for standard error.
pub(crate) fn text(
    overview: &Report,
    top: &Report,
    told: Told<'_>,
    capture: Option<&Path>,
) -> String {
    let Told { name, pid, .. } = told;
    let mut out = String::new();
    match (image(overview, pid), told.why_silent) {
        (Some(process), _) => about(&mut out, overview, top, process),
        (None, Some(why)) => {
            let _ = writeln!(
                out,
                "pageshim: {} (pid {pid}) sent no data: {why}",
                clean(name)
            );
        }
        (None, None) => {
            let _ = writeln!(
                out,
                "pageshim: {} (pid {pid}) sent no data; `pageshim doctor {}` says why",
                clean(name),
                words::shell_word(name)
            );
        }
    }
    for advice in told.advice.iter().take(ADVICE) {
        let _ = writeln!(out, "  {:<10} {}", "advice", whatif_text::advice(advice));
    }
    if let Some(path) = capture {
        let shown = path.display().to_string();
        let _ = writeln!(out, "  {:<10} {shown}", "capture");
        let _ = writeln!(
            out,
            "  {:<10} pageshim report {}",
            "next",
            words::shell_word(&shown)
        );
    }
    out
}

fn about(out: &mut String, overview: &Report, top: &Report, process: &Process) {
    let _ = writeln!(
        out,
        "pageshim: {} (pid {}) {} after {}",
        clean(&process.name),
        process.pid,
        words::state(process),
        units::seconds(process.seconds),
    );
    for (label, fact) in crate::web::text::facts(process) {
        let _ = writeln!(out, "  {label:<10} {fact}");
    }
    let sites = top
        .leaks
        .iter()
        .filter(|leak| leak.process == process.id)
        .take(3);
    for (i, leak) in sites.enumerate() {
        let label = if i == 0 { "top sites" } else { "" };
        let _ = writeln!(out, "  {label:<10} {}", site(leak));
    }
    let others: Vec<&Process> = ended(overview)
        .filter(|other| other.pid != process.pid)
        .collect();
    if let Some(largest) = others.iter().max_by_key(|other| other.peak.bytes) {
        let _ = writeln!(
            out,
            "  {:<10} {} more, largest {} (pid {}): peak {}",
            "children",
            units::count(others.len() as u64),
            clean(&largest.name),
            largest.pid,
            units::bytes(largest.peak.bytes),
        );
    }
}

fn site(leak: &Leak) -> String {
    let amount = words::site_amount(leak);
    let Some(headline) = headline::of(&leak.stack) else {
        return format!("{amount}  stack not known");
    };
    let frame = headline.frame;
    let place = words::place(frame).unwrap_or_else(|| frame.module.clone());
    let via = headline.via.map(|via| format!("  via {via}"));
    format!(
        "{amount}  {}  {}{}",
        names::short(&clean(&frame.function)),
        clean(&place),
        via.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: the summary has each thing it promises. Method: the fixture, as the report of pid 4711.
    #[test]
    fn the_summary_names_sites_capture_and_next_step() {
        let report = fixture::report();
        let zoo = Told {
            name: "zoo",
            pid: 4711,
            why_silent: None,
            advice: &vec![fixture::whatif().processes[0].advice[0].clone(); 5],
        };
        let text = text(&report, &report, zoo, Some(Path::new("a b.pgs")));
        for needle in [
            "zoo (pid 4711) running",
            "peak       9.0 MiB",
            "syscalls   mmap 12",
            "2.0 MiB in 1,000 blocks  node_new  zoo.c:12",
            "children   1 more, largest worker",
            "advice     `node_new` made 1,000,000 blocks (high confidence: every block was seen)",
            "pageshim report 'a b.pgs'",
        ] {
            assert!(text.contains(needle), "{needle} not in\n{text}");
        }
        assert_eq!(text.matches("  advice").count(), ADVICE);
        assert!(text.lines().count() <= 16 + ADVICE, "{text}");
    }

    // Goal: silence is told, and is a finding. Method: a pid nobody reported.
    #[test]
    fn a_silent_process_is_told_and_judged() {
        let report = fixture::report();
        let silent = Told {
            name: "x y",
            pid: 1,
            why_silent: None,
            advice: &[],
        };
        let said = text(&report, &report, silent, None);
        assert!(
            said.contains("sent no data; `pageshim doctor 'x y'`"),
            "{said}"
        );
        let asked = Told {
            why_silent: Some("mode off records nothing"),
            ..silent
        };
        let said = text(&report, &report, asked, None);
        assert!(
            said.contains("sent no data: mode off records nothing"),
            "{said}"
        );
        assert!(!said.contains("doctor"), "{said}");
        let conditions: FailOn = "live>1TiB".parse().expect("parses");
        assert_eq!(judged(&report, 1, &conditions).len(), 1);
        assert_eq!(judged(&report, 4711, &conditions).len(), 0);
    }
}
