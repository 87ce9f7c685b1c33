//! `/`: the processes, running ones first, and how to get the first one.

use std::path::Path;

use askama::Template;

use crate::books::report::{Pages, Process, Report, State};
use crate::web::assets::{ASSETS, Assets};
use crate::web::bar::{self, Part};
use crate::web::{query, units, words};

/// Processes shown as cards; the others are rows of a table.
const CARDS: usize = 12;

/// Data of `overview.html`.
#[derive(Template)]
#[template(path = "overview.html")]
struct Overview<'a> {
    assets: &'a Assets,
    root: &'a str,
    standalone: bool,
    css: &'static str,
    refresh: u32,
    running: usize,
    ended: usize,
    live: Figure,
    committed: Figure,
    legend: Vec<Part>,
    cards: Vec<Card<'a>>,
    rows: Vec<Card<'a>>,
    preload: String,
    socket: String,
}

/// A number for people with the exact one behind it.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// `1.5 KiB`.
    pub(crate) text: String,
    /// `1,536 bytes`.
    pub(crate) exact: String,
}

/// Bytes as a [`Figure`].
pub(crate) fn figure(bytes: u64) -> Figure {
    Figure {
        text: units::bytes(bytes),
        exact: units::counted(bytes, "byte"),
    }
}

struct Card<'a> {
    process: &'a Process,
    link: String,
    state: String,
    running: bool,
    command: String,
    age: String,
    live: Figure,
    live_blocks: String,
    peak_blocks: String,
    peak: Figure,
    committed: Figure,
    waste: Figure,
    waste_share: String,
    parts: Vec<Part>,
    syscalls: String,
    syscall_time: String,
    total_blocks: String,
    temporary: String,
    dropped: Option<String>,
    misuse: Option<String>,
}

/// The page. `preload` is the shim's path, `socket` the daemon's.
pub(crate) fn render(
    report: &Report,
    library: &Path,
    socket: &Path,
    refresh: u32,
) -> Result<String, askama::Error> {
    let mut cards: Vec<Card<'_>> = report.processes.iter().map(card).collect();
    cards.sort_by_key(|card| !card.running);
    let running = cards.iter().filter(|card| card.running).count();
    let alive = || {
        report
            .processes
            .iter()
            .filter(|process| process.state == State::Running)
    };
    let rows = cards.split_off(cards.len().min(CARDS));
    Overview {
        assets: &ASSETS,
        root: "",
        standalone: false,
        css: "",
        refresh,
        running,
        ended: report.processes.len() - running,
        live: figure(alive().map(|process| process.live.bytes).sum()),
        committed: figure(alive().map(|process| process.pages.committed_bytes).sum()),
        legend: bar::stacked(&words::page_parts(&Pages::default())),
        cards,
        rows,
        preload: words::shell_word(&library.to_string_lossy()).into_owned(),
        socket: words::shell_word(&socket.to_string_lossy()).into_owned(),
    }
    .render()
}

fn card(process: &Process) -> Card<'_> {
    let calls = &process.syscalls;
    let sum =
        calls.mmap + calls.munmap + calls.madvise + calls.mremap + calls.mprotect + calls.other;
    let pages = &process.pages;
    let waste = words::waste_bytes(pages);
    Card {
        process,
        link: format!("leaks?process={}", query::encode(&process.id)),
        state: words::state(process),
        running: process.state == State::Running,
        command: process.command.join(" "),
        age: units::seconds(process.seconds),
        live: figure(process.live.bytes),
        live_blocks: units::counted(process.live.blocks, "block"),
        peak_blocks: units::counted(process.peak.blocks, "block"),
        peak: figure(process.peak.bytes),
        committed: figure(pages.committed_bytes),
        waste: figure(waste),
        waste_share: units::percent(waste, pages.committed_bytes),
        parts: bar::stacked(&words::page_parts(pages)),
        syscalls: units::count(sum),
        syscall_time: units::seconds(calls.nanoseconds as f64 / 1e9),
        total_blocks: units::counted(process.total.blocks, "allocation"),
        temporary: units::percent(process.temporary, process.total.blocks),
        dropped: (process.events_dropped > 0)
            .then(|| reasons(process.events_dropped, &process.drops)),
        misuse: (!process.misuse.is_empty())
            .then(|| reasons(process.misuse.values().sum(), &process.misuse)),
    }
}

fn reasons(sum: u64, by: &std::collections::BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = by
        .iter()
        .map(|(name, n)| format!("{} {}", name.replace('_', " "), units::count(*n)))
        .collect();
    format!("{} ({})", units::count(sum), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: cards say what matters, running first; hostile arguments stay text. Method: the fixture.
    #[test]
    fn cards_show_running_processes_first() {
        let mut report = fixture::report();
        report.processes[1].command.push("<img src=x>".to_owned());
        let page = render(&report, Path::new("/l.so"), Path::new("/s"), 0).expect("renders");
        let (zoo, worker) = (page.find("pid 4711"), page.find("pid 4712"));
        assert!(zoo.is_some() && zoo < worker);
        assert!(page.contains("killed by SIGKILL") && page.contains("12 (socket full 12)"));
        assert!(!page.contains("<img src=x>") && page.contains("&#60;img src=x&#62;"));
    }

    // Goal: nobody faces an empty page. Method: no process; the line to paste is there.
    #[test]
    fn the_first_visit_says_what_to_type() {
        let page = render(
            &Report::default(),
            Path::new("/c/libpageshim.so"),
            Path::new("/run/s"),
            0,
        );
        let page = page.expect("renders");
        assert!(
            page.contains("PAGESHIM_SOCKET=/run/s LD_PRELOAD=/c/libpageshim.so ./app"),
            "{page}"
        );
    }
}
