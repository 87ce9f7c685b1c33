//! `/`: the processes, running ones first, and how to get the first one.

use std::collections::HashMap;
use std::path::Path;

use askama::Template;

use crate::books::report::{Pages, Process, Report, State};
use crate::web::bar::{self, Part};
use crate::web::base::Base;
use crate::web::{query, units, words};

/// Processes shown as cards; the others are rows of a table.
const CARDS: usize = 12;

/// Data of `overview.html`.
#[derive(Template)]
#[template(path = "overview.html")]
struct Overview<'a> {
    base: Base<'a>,
    running: usize,
    sampled: Option<String>,
    ended: usize,
    live: Figure,
    resident: Figure,
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

/// A process, or all ended processes of one name when there are several.
struct Card<'a> {
    process: &'a Process,
    /// Ended processes of this name; empty for one process.
    members: Vec<Member<'a>>,
    /// How many it stands for.
    count: usize,
    /// Before numbers that come from samples.
    about: &'static str,
    mode: String,
    link: String,
    state: String,
    running: bool,
    command: String,
    age: String,
    live: Figure,
    live_blocks: String,
    peak_blocks: String,
    peak: Figure,
    /// In RAM: now, or of an ended process the highest sample; `–` where there was none.
    resident: String,
    resident_note: String,
    committed: Figure,
    parts: Vec<Part>,
    syscalls: String,
    syscall_time: String,
    total_blocks: String,
    temporary: String,
    threads: String,
    incomplete: Option<String>,
    dropped: Option<String>,
    misuse: Option<String>,
}

/// One of several.
struct Member<'a> {
    process: &'a Process,
    link: String,
    state: String,
    peak: Figure,
}

/// The page. `preload` is the shim's path, `socket` the daemon's.
pub(crate) fn render(
    report: &Report,
    library: &Path,
    socket: &Path,
    refresh: u32,
) -> Result<String, askama::Error> {
    let mut cards: Vec<Card<'_>> = grouped(&report.processes)
        .iter()
        .map(|all| card(all))
        .collect();
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
        base: Base::served(refresh),
        running,
        sampled: words::sampled(&report.processes),
        ended: report.processes.len() - running,
        live: figure(alive().map(|process| process.live.bytes).sum()),
        resident: figure(alive().map(|process| process.pages.resident_bytes).sum()),
        committed: figure(alive().map(|process| process.pages.committed_bytes).sum()),
        legend: bar::stacked(&words::page_parts(&Pages::default())),
        cards,
        rows,
        preload: words::shell_word(&library.to_string_lossy()).into_owned(),
        socket: words::shell_word(&socket.to_string_lossy()).into_owned(),
    }
    .render()
}

/// Running processes one by one, ended ones by name; in the order of their first.
fn grouped(processes: &[Process]) -> Vec<Vec<&Process>> {
    let mut groups: Vec<Vec<&Process>> = Vec::new();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for process in processes {
        if process.state == State::Running {
            groups.push(vec![process]);
            continue;
        }
        match by_name.get(process.name.as_str()) {
            Some(index) => groups[*index].push(process),
            None => {
                by_name.insert(&process.name, groups.len());
                groups.push(vec![process]);
            }
        }
    }
    groups
}

/// `all` are one process, or several of one name that ended, newest first.
fn card<'a>(all: &[&'a Process]) -> Card<'a> {
    let one = single(all[0]);
    if all.len() == 1 {
        return one;
    }
    let highest = all.iter().copied().max_by_key(|process| process.peak.bytes);
    let peak = highest.map_or(all[0].peak, |process| process.peak);
    let live = |of: fn(&Process) -> u64| all.iter().map(|process| of(process)).sum();
    let total = all.iter().map(|process| process.total.blocks).sum();
    let resident = all.iter().map(|process| process.pages.resident_peak_bytes);
    Card {
        members: all.iter().map(|process| member(process)).collect(),
        count: all.len(),
        about: all
            .iter()
            .map(|process| words::about(process))
            .max()
            .unwrap_or(""),
        link: format!("leaks?process={}", query::encode(&all[0].name)),
        state: format!("{} ended", units::count(all.len() as u64)),
        live: figure(live(|process| process.live.bytes)),
        live_blocks: units::counted(live(|process| process.live.blocks), "block"),
        peak: figure(peak.bytes),
        peak_blocks: format!("largest of {}", all.len()),
        resident: seen(resident.max().unwrap_or(0)),
        resident_note: format!("largest of {}", all.len()),
        total_blocks: units::counted(total, "allocation"),
        parts: Vec::new(),
        incomplete: None,
        dropped: None,
        misuse: None,
        ..one
    }
}

fn member(process: &Process) -> Member<'_> {
    Member {
        process,
        link: format!("leaks?process={}", query::encode(&process.id)),
        state: words::state(process),
        peak: figure(process.peak.bytes),
    }
}

/// Bytes that were seen to be resident; a process nobody looked at had some too.
fn seen(bytes: u64) -> String {
    if bytes == 0 {
        return "–".to_owned();
    }
    units::bytes(bytes)
}

fn single(process: &Process) -> Card<'_> {
    let calls = &process.syscalls;
    let sum =
        calls.mmap + calls.munmap + calls.madvise + calls.mremap + calls.mprotect + calls.other;
    let running = process.state == State::Running;
    let peak = process.pages_at_peak.as_ref().filter(|_| !running);
    let pages = peak.unwrap_or(&process.pages);
    let (lost, by) = words::lost(process);
    let incomplete = words::incomplete_stacks(process);
    Card {
        process,
        members: Vec::new(),
        count: 1,
        about: words::about(process),
        mode: words::mode(process),
        link: format!("leaks?process={}", query::encode(&process.id)),
        state: words::state(process),
        running,
        command: process.command.join(" "),
        age: units::seconds(process.seconds),
        live: figure(process.live.bytes),
        live_blocks: units::counted(process.live.blocks, "block"),
        peak_blocks: units::counted(process.peak.blocks, "block"),
        peak: figure(process.peak.bytes),
        resident: seen(if running {
            pages.resident_bytes
        } else {
            process.pages.resident_peak_bytes
        }),
        resident_note: if running {
            format!("{} highest", seen(process.pages.resident_peak_bytes))
        } else {
            "highest sample".to_owned()
        },
        committed: figure(pages.committed_bytes),
        parts: bar::stacked(&words::page_parts(pages)),
        syscalls: units::count(sum),
        syscall_time: units::seconds(calls.nanoseconds as f64 / 1e9),
        total_blocks: units::counted(process.total.blocks, "allocation"),
        temporary: words::temporary(process),
        threads: threads(process),
        incomplete: (incomplete > 0).then(|| units::count(incomplete)),
        dropped: (lost > 0).then(|| reasons(lost, &by)),
        misuse: (!process.misuse.is_empty())
            .then(|| reasons(process.misuse.values().sum(), &process.misuse)),
    }
}

/// `4 of 6 threads live`, or of an ended process how many it had.
fn threads(process: &Process) -> String {
    let all = units::counted(process.threads.total, "thread");
    if process.state == State::Running {
        return format!("{} of {all} live", process.threads.live);
    }
    all
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
        assert_eq!(page.matches("waste?process=").count(), 1, "of what runs");
        assert!(page.contains("killed by SIGKILL") && page.contains("12 (socket full 12)"));
        assert!(!page.contains("<img src=x>") && page.contains("&#60;img src=x&#62;"));
    }

    // Goal: forty runs of one program are one card with all of them in it; what ended is told
    // as ended. Method: the dead worker forty times beside the running zoo.
    #[test]
    fn ended_processes_of_one_name_share_a_card() {
        let mut report = fixture::report();
        let worker = report.processes[0].clone();
        for pid in 5000..5039 {
            let mut other = worker.clone();
            (other.pid, other.id) = (pid, format!("{pid:016x}"));
            report.processes.push(other);
        }
        let page = render(&report, Path::new("/l.so"), Path::new("/s"), 0).expect("renders");
        assert_eq!(page.matches("<article").count(), 2, "{page}");
        for needle in [
            "<strong>1</strong> running, <strong>40</strong> ended",
            "40 ended",
            "leaks?process=worker",
            "160 KiB",
            "leaks?process=0000000000001388",
            "4 of 6 threads live",
        ] {
            assert!(page.contains(needle), "{needle} not in {page}");
        }
        report.processes.truncate(1);
        let page = render(&report, Path::new("/l.so"), Path::new("/s"), 0).expect("renders");
        assert!(
            page.contains("1 thread ·") && !page.contains("threads live"),
            "{page}"
        );
        assert!(page.contains("Live at exit"));
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
