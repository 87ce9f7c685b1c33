//! The lines under a process's name: a label and what is said of it.

use std::collections::BTreeMap;

use crate::books::report::{Process, State};
use crate::web::words::{self, clean};
use crate::web::{lost, syscalls_page, units};

/// The lines under a process's name; the summary of `run` shows the same.
pub(crate) fn facts(process: &Process) -> Vec<(&'static str, String)> {
    let sampling = process.sampling.as_ref();
    let peak = words::about(process).to_owned() + &words::amount(process.peak, None);
    let live = words::amount(process.live, sampling.map(|s| s.live_error));
    let total = words::amount(process.total, sampling.map(|s| s.total_error));
    let mut facts = Vec::new();
    if let Some(sampling) = sampling {
        let each = units::bytes(sampling.interval_bytes);
        let said = words::sampled(std::slice::from_ref(process)).unwrap_or_default();
        facts.push(("sampled", format!("each {each} on average: {said}")));
    }
    facts.push(("peak", peak));
    match process.exit {
        Some(_) => facts.push(("at exit", live + " live")),
        None => facts.push(("live", live)),
    }
    if let Some(check) = &process.check {
        facts.push(("leaks", classes(process)));
        facts.push(("check", lost::how(process)));
        let notes = lost::notes(check).into_iter();
        facts.extend(notes.map(|note| ("note", note)));
    } else if process.state == State::Killed {
        facts.push(("check", lost::how(process)));
    }
    facts.push((
        "total",
        match sampling {
            Some(_) => total,
            None => format!("{total}, {}", words::temporary(process)),
        },
    ));
    facts.push(("resident", words::resident(process)));
    facts.push(("pages", pages(process)));
    facts.push(("syscalls", syscalls(process)));
    facts.extend(callers(process));
    let (lost, reasons) = words::lost(process);
    if lost > 0 {
        facts.push(("dropped", tally(lost, &reasons)));
    }
    let incomplete = words::incomplete_stacks(process);
    if incomplete > 0 {
        let stacks = units::count(incomplete);
        facts.push((
            "incomplete",
            format!("{stacks} stacks are known in part; their blocks are counted"),
        ));
    }
    if let Some(verified) = words::verified(process) {
        facts.push(("verified", verified));
    }
    if !process.misuse.is_empty() {
        let counts = tally(process.misuse.values().sum(), &process.misuse);
        facts.push(("misuse", counts + &last_misuse(process)));
    }
    facts
}

/// `; last called from drop_node  zoo.c:77`, when that is known.
fn last_misuse(process: &Process) -> String {
    let last = process.misuse_reports.last();
    let Some((report, frame)) = last.and_then(|report| Some((report, report.call.first()?))) else {
        return String::new();
    };
    let place = words::place(frame).unwrap_or_else(|| frame.module.clone());
    format!(
        "; last {} {}  {}",
        words::misuse_call(report),
        clean(&frame.function),
        clean(&place)
    )
}

fn classes(process: &Process) -> String {
    if words::class(process, "definite").is_none() {
        return "not known".to_owned();
    }
    let class = |name| {
        let (bytes, blocks) = words::class(process, name).unwrap_or_default();
        let suppressed = lost::suppressed(process, name);
        let suppressed = suppressed.map(|amount| format!(" (suppressed: {amount})"));
        format!(
            "{name} {} in {}{}",
            units::bytes(bytes),
            units::counted(blocks, "block"),
            suppressed.unwrap_or_default()
        )
    };
    ["definite", "indirect", "possible", "reachable"]
        .map(class)
        .join(", ")
}

/// The page account: what takes RAM first, then address space that need not.
/// Of an ended process, when most was seen live: at its end little is left to see.
fn pages(process: &Process) -> String {
    let (when, pages) = match (&process.pages_at_peak, process.exit) {
        (Some(peak), Some(_)) => ("at the fullest sample: ", peak),
        (None, Some(_)) => ("at exit: ", &process.pages),
        (_, None) => ("", &process.pages),
    };
    let parts = words::page_parts(pages);
    let spare = |key: &str| words::SPARE.contains(&key);
    let listed = |wanted: bool| {
        let of = parts.iter().filter(|part| spare(part.0) == wanted);
        of.filter(|part| part.3 > 0)
            .map(|part| format!("{} {}", part.1.to_lowercase(), units::bytes(part.3)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let reserve: u64 = parts.iter().filter(|part| spare(part.0)).map(|p| p.3).sum();
    if reserve == 0 {
        return format!("{when}{}", listed(false));
    }
    format!(
        "{when}{}; spare address space {} ({})",
        listed(false),
        units::bytes(reserve),
        listed(true),
    )
}

fn syscalls(process: &Process) -> String {
    let calls = &process.syscalls;
    format!(
        "mmap {}, munmap {}, madvise {}, mremap {}, mprotect {}, other {}; {}",
        units::count(calls.mmap),
        units::count(calls.munmap),
        units::count(calls.madvise),
        units::count(calls.mremap),
        units::count(calls.mprotect),
        units::count(calls.other),
        units::seconds(calls.nanoseconds as f64 / 1e9),
    )
}

/// Who caused most system calls, and what of them could be spared.
fn callers(process: &Process) -> Vec<(&'static str, String)> {
    let Some(bill) = &process.syscall_bill else {
        return Vec::new();
    };
    let causes: Vec<String> = bill.sites.iter().map(syscalls_page::cause).collect();
    let mut facts = Vec::new();
    if !causes.is_empty() {
        facts.push(("caused by", causes.join(", ")));
    }
    let spared = bill.sites.iter().find_map(syscalls_page::spared);
    facts.extend(spared.map(|sentence| ("to spare", sentence)));
    facts
}

fn tally(sum: u64, reasons: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = reasons
        .iter()
        .map(|(reason, number)| {
            format!(
                "{} {}",
                clean(reason).replace('_', " "),
                units::count(*number)
            )
        })
        .collect();
    format!("{} ({})", units::count(sum), parts.join(", "))
}
