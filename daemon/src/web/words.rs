//! Words for parts of a report, shared by the text and the pages.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::books::growth::Growth;
use crate::books::history::Change;
use crate::books::report::{
    Amount, Exit, Frame, Leak, MisuseReport, Pages, Process, Report, State,
};
use crate::web::units;

/// The drop reason of stacks that are known in part.
const INCOMPLETE: &str = "unwind";

/// The parts of the page account in the order they are drawn: key, label, what it is, bytes.
pub(crate) fn page_parts(pages: &Pages) -> [(&'static str, &'static str, &'static str, u64); 6] {
    [
        (
            "requested",
            "Requested",
            "live bytes as the program asked for them",
            pages.requested_bytes,
        ),
        (
            "rounding",
            "Rounding",
            "slot bytes beyond the request, in live blocks",
            pages.rounding_bytes,
        ),
        (
            "free",
            "Free slots",
            "carved, empty: slots without a live block, used before or never",
            pages.free_slot_bytes,
        ),
        (
            "tail",
            "Tails",
            "ends of page runs and parts never carved: in RAM only where touched",
            pages.tail_bytes,
        ),
        (
            "retained",
            "Retained",
            "whole slices kept for reuse; given back to the kernel after a second",
            pages.retained_bytes,
        ),
        (
            "metadata",
            "Metadata",
            "pageshim's own books",
            pages.metadata_bytes,
        ),
    ]
}

/// Parts of the account that cost no memory until they are touched again.
pub(crate) const SPARE: [&str; 2] = ["tail", "retained"];

/// What of the heap was in RAM, as sampled: between two samples it may have been more.
pub(crate) fn resident(process: &Process) -> String {
    let pages = &process.pages;
    let most = format!(
        "{} at the highest sample",
        units::bytes(pages.resident_peak_bytes)
    );
    match (process.state, pages.resident_peak_bytes) {
        (State::Running, 0) => "not known: the kernel does not tell".to_owned(),
        (State::Running, _) => format!("{} now, {most}", units::bytes(pages.resident_bytes)),
        (_, 0) => "not known: it ended before it could be looked at".to_owned(),
        _ => format!(
            "{most}, {} at the last",
            units::bytes(pages.resident_last_bytes)
        ),
    }
}

/// `1.5 MiB in 12 blocks`, of a sampled process with what each may be off by.
pub(crate) fn amount(amount: Amount, error: Option<Amount>) -> String {
    let (bytes, blocks) = (units::bytes(amount.bytes), units::count(amount.blocks));
    match error {
        None => format!("{bytes} in {}", units::counted(amount.blocks, "block")),
        Some(error) => format!(
            "{bytes} ± {} in {blocks} ± {} blocks",
            units::bytes(error.bytes),
            units::count(error.blocks)
        ),
    }
}

/// The same of a site.
pub(crate) fn site_amount(leak: &Leak) -> String {
    let amount_of = Amount {
        bytes: leak.bytes,
        blocks: leak.blocks,
    };
    let error = leak.error.map(|error| Amount {
        bytes: error.bytes,
        blocks: error.blocks,
    });
    amount(amount_of, error)
}

/// `1,204 stacks unwound again: all equal`; `None` when none were.
pub(crate) fn verified(process: &Process) -> Option<String> {
    let all: u64 = process.verified.values().sum();
    let differ: Vec<String> = process
        .verified
        .iter()
        .filter(|(kind, count)| *kind != "equal" && **count > 0)
        .map(|(kind, count)| format!("{kind} {}", units::count(*count)))
        .collect();
    let outcome = match differ.len() {
        0 => "all equal".to_owned(),
        _ => format!("not all equal ({})", differ.join(", ")),
    };
    (all > 0).then(|| {
        format!(
            "{} unwound again in full: {outcome}",
            units::counted(all, "stack")
        )
    })
}

/// What goes before a number of a sampled process where no error is shown.
pub(crate) fn about(process: &Process) -> &'static str {
    if process.sampling.is_some() {
        "≈ "
    } else {
        ""
    }
}

/// `exact mode`, `sampled mode, a sample each 512 KiB`.
pub(crate) fn mode(process: &Process) -> String {
    let mode = clean(&process.mode);
    let sampled = process.sampling.as_ref().map(|sampling| {
        let each = units::bytes(sampling.interval_bytes);
        format!(", a sample each {each}")
    });
    let folded = if process.recursion_folded {
        ", recursion folded"
    } else {
        ""
    };
    format!("{mode} mode{}{folded}", sampled.unwrap_or_default())
}

/// What a reader must know of numbers that come from samples; `None` where none do.
pub(crate) fn sampled(processes: &[Process]) -> Option<String> {
    let sampled = processes.iter().filter(|p| p.sampling.is_some()).count();
    let whose = match sampled {
        0 => return None,
        _ if sampled < processes.len() => format!("of {sampled} of these processes"),
        _ => "here".to_owned(),
    };
    Some(format!(
        "blocks and bytes {whose} are estimates from samples, ± one standard error; committed and resident bytes are exact"
    ))
}

/// Why a report has no site, in a sentence's end; for a report without any.
pub(crate) fn no_sites(report: &Report) -> String {
    let blocks: u64 = report
        .processes
        .iter()
        .map(|process| process.live.blocks)
        .sum();
    let count = |process: &Process| process.mode == "count";
    if blocks == 0 {
        return "every block was freed".to_owned();
    }
    if report.processes.iter().all(count) {
        return "count mode records totals only; run it with --mode exact for stacks".to_owned();
    }
    let blocks = units::counted(blocks, "block");
    if report
        .processes
        .iter()
        .any(|process| class(process, "definite").is_some())
    {
        return format!("{blocks} live, none of them of a class or site that was asked for");
    }
    format!(
        "{blocks} live, but the filters let no site through (without a reachability check each is of class live)"
    )
}

/// `12 % of them temporary`, of the allocations of a process.
pub(crate) fn temporary(process: &Process) -> String {
    if process.mode == "count" {
        return "temporary ones not told apart in count mode".to_owned();
    }
    let share = units::percent(process.temporary, process.total.blocks);
    format!("{share} of them temporary")
}

/// When a stack was first seen: `2.0 s ago`, or for a process that ended `2.0 s before the end`.
pub(crate) fn first_seen(leak: &Leak, process: Option<&Process>) -> String {
    let age = units::seconds(leak.oldest_seconds);
    if process.is_none_or(|process| process.state == State::Running) {
        return format!("{age} ago");
    }
    format!("{age} before the end")
}

/// `double free of 0x1040, 3 times`.
pub(crate) fn misuse(report: &MisuseReport) -> String {
    let times = match report.count {
        0 | 1 => String::new(),
        count => format!(", {} times", units::count(count)),
    };
    let kind = report.kind.replace('_', " ");
    format!("{kind} of {}{times}", report.address)
}

/// What the call of a misuse is to it: what was written where it must not be was
/// written earlier, by somebody who is not known.
pub(crate) fn misuse_call(report: &MisuseReport) -> &'static str {
    match report.kind.as_str() {
        "overflow" | "write_after_free" => "found by",
        _ => "called from",
    }
}

/// The stacks of a misuse that are known, with what each is.
pub(crate) fn misuse_stacks(report: &MisuseReport) -> Vec<(&'static str, &[Frame])> {
    let freed = match report.kind.as_str() {
        "double_free" => "freed first by",
        _ => "freed by",
    };
    let all = [
        (misuse_call(report), &report.call),
        ("allocated by", &report.allocated),
        (freed, &report.freed),
    ];
    all.into_iter()
        .filter(|(_, stack)| !stack.is_empty())
        .map(|(what, stack)| (what, &stack[..]))
        .collect()
}

/// Blocks whose stack is known in part, and what was not recorded at all.
pub(crate) fn incomplete_stacks(process: &Process) -> u64 {
    process.drops.get(INCOMPLETE).copied().unwrap_or(0)
}

/// What was not recorded, by reason; incomplete stacks are recorded.
pub(crate) fn lost(process: &Process) -> (u64, BTreeMap<String, u64>) {
    let mut reasons = process.drops.clone();
    let incomplete = reasons.remove(INCOMPLETE).unwrap_or(0);
    (process.events_dropped.saturating_sub(incomplete), reasons)
}

/// Committed bytes that hold no requested byte.
pub(crate) fn waste_bytes(pages: &Pages) -> u64 {
    pages.committed_bytes.saturating_sub(pages.requested_bytes)
}

/// `running`, `exited 3`, `killed by SIGKILL`.
pub(crate) fn state(process: &Process) -> String {
    match (process.state, process.exit) {
        (State::Running, _) => "running".to_owned(),
        (
            _,
            Some(Exit {
                signal: Some(signal),
                ..
            }),
        ) => format!("killed by {}", signal_name(signal)),
        (
            State::Exited,
            Some(Exit {
                code: Some(code), ..
            }),
        ) => format!("exited {code}"),
        (State::Exited, _) => "exited".to_owned(),
        (State::Killed, _) => "killed".to_owned(),
    }
}

/// The name of a signal, or its number.
pub(crate) fn signal_name(signal: i32) -> Cow<'static, str> {
    Cow::Borrowed(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return Cow::Owned(format!("signal {signal}")),
    })
}

/// `zoo.c:12`, the file's name only.
pub(crate) fn place(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref()?;
    let name = file.rsplit('/').next().unwrap_or(file);
    Some(match frame.line {
        Some(line) => format!("{name}:{line}"),
        None => name.to_owned(),
    })
}

/// `/home/ada/zoo.c:12`, or the module where the file is not known.
pub(crate) fn full_place(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        (None, _) => frame.module.clone(),
    }
}

/// Why a stack ends before its outermost frame, as a sentence's end.
pub(crate) fn incomplete(reason: &str) -> &str {
    match reason {
        "depth_limit" => "at the depth limit",
        "no_table" => "at code without unwind tables",
        "bad_rule" => "at an unwind rule that cannot be followed",
        "out_of_bounds" => "outside the stack's bounds",
        "no_progress" => "where frames stop going outwards",
        other => other,
    }
}

/// The process a leak belongs to.
pub(crate) fn process_of<'a>(report: &'a Report, leak: &Leak) -> Option<&'a Process> {
    report
        .processes
        .iter()
        .find(|process| process.id == leak.process)
}

/// Bytes and blocks of one class of the last check; `None` when no check ran.
pub(crate) fn class(process: &Process, class: &str) -> Option<(u64, u64)> {
    let check = process
        .check
        .as_ref()
        .filter(|check| check.trouble.is_none())?;
    let amount = check.classes.named(class)?;
    Some((amount.bytes, amount.blocks))
}

/// What of a class counts as a finding: all that is not suppressed.
pub(crate) fn found(process: &Process, class: &str) -> Option<Amount> {
    let (bytes, blocks) = self::class(process, class)?;
    let suppressed = process.check.as_ref()?.suppressed.named(class)?;
    Some(Amount {
        bytes: bytes.saturating_sub(suppressed.bytes),
        blocks: blocks.saturating_sub(suppressed.blocks),
    })
}

/// `grows 1.2 MiB/min, nothing freed`: how a site's bytes go.
pub(crate) fn growth(leak: &Leak, growth: &Growth) -> String {
    let freed = match growth.released_percent {
        percent if percent <= 0.0 => "nothing freed".to_owned(),
        percent if percent < 1.0 => "less than 1 % freed".to_owned(),
        percent => format!("{} % freed", percent.min(100.0) as u64),
    };
    let Some(slope) = growth.bytes_per_minute else {
        return freed;
    };
    // Less than a hundredth of what it holds, over all that was seen, is no trend.
    let change = slope * growth.span_seconds / 60.0;
    let small = change.abs() < (leak.bytes as f64 / 100.0).max(1.0);
    let verb = match slope {
        _ if small => return format!("steady: {freed}"),
        slope if slope > 0.0 => "grows",
        _ => "shrinks",
    };
    format!("{verb} {}/min, {freed}", units::bytes(slope.abs() as u64))
}

/// `+3 blocks of node_new (definite, +96 B)`: what changed from one check to the next.
pub(crate) fn change(change: &Change) -> String {
    let sign = |negative: bool| if negative { '-' } else { '+' };
    format!(
        "{}{} of {} ({}, {}{})",
        sign(change.blocks < 0),
        units::counted(change.blocks.unsigned_abs(), "block"),
        clean(&change.function),
        clean(&change.class),
        sign(change.bytes < 0),
        units::bytes(change.bytes.unsigned_abs()),
    )
}

/// Text of a hostile program made safe for a terminal: no control, no bidi characters.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let harmful =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(harmful, "\u{fffd}"))
}

/// A word that any shell of Bourne's family takes as it is.
pub(crate) fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+,@%=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: states and places read as said above. Method: the fixture's processes and frames.
    #[test]
    fn states_places_and_classes_read_well() {
        let report = fixture::report();
        assert_eq!(state(&report.processes[0]), "killed by SIGKILL");
        assert_eq!(state(&report.processes[1]), "running");
        assert_eq!(
            place(&report.leaks[0].stack[0]).as_deref(),
            Some("zoo.c:12")
        );
        assert_eq!(full_place(&report.leaks[0].stack[3]), "libc.so.6");
        assert_eq!(class(&report.processes[0], "definite"), Some((4096, 1)));
        assert_eq!(class(&report.processes[1], "definite"), None);
    }

    // Goal: what was seen before an end is not called "ago"; RAM of an ended process is not 0.
    // Method: the fixture's dead and running process.
    #[test]
    fn ended_processes_are_spoken_of_as_ended() {
        let mut report = fixture::report();
        let (dead, zoo) = (&report.processes[0], &report.processes[1]);
        assert_eq!(
            first_seen(&report.leaks[3], Some(dead)),
            "1 min 23 s before the end"
        );
        assert_eq!(first_seen(&report.leaks[0], Some(zoo)), "1 min 23 s ago");
        assert_eq!(resident(zoo), "5.0 MiB now, 5.5 MiB at the highest sample");
        assert_eq!(
            resident(dead),
            "not known: it ended before it could be looked at"
        );
        report.processes[0].pages.resident_peak_bytes = 65_536;
        assert_eq!(
            resident(&report.processes[0]),
            "64.0 KiB at the highest sample, 0 B at the last"
        );
    }

    // Goal: an empty list says why it is empty. Method: each reason.
    #[test]
    fn an_empty_list_has_a_reason() {
        let mut report = fixture::report();
        assert!(no_sites(&report).contains("1,205 blocks live, none of them of a class"));
        report
            .processes
            .iter_mut()
            .for_each(|process| process.check = None);
        assert!(no_sites(&report).contains("1,205 blocks live, but the filters"));
        for process in &mut report.processes {
            process.mode = "count".to_owned();
        }
        assert!(no_sites(&report).contains("--mode exact"));
        assert!(temporary(&report.processes[0]).ends_with("in count mode"));
        for process in &mut report.processes {
            process.live = crate::books::report::Amount::default();
        }
        assert_eq!(no_sites(&report), "every block was freed");
    }

    // Goal: a stack known in part is no lost event. Method: two reasons.
    #[test]
    fn incomplete_stacks_are_not_lost() {
        let mut zoo = fixture::report().processes.remove(1);
        zoo.drops.insert("unwind".into(), 1_468);
        zoo.events_dropped += 1_468;
        assert_eq!(incomplete_stacks(&zoo), 1_468);
        let (sum, reasons) = lost(&zoo);
        assert_eq!((sum, reasons.len(), reasons["socket_full"]), (12, 1, 12));
    }

    // Goal: no escape sequence reaches a terminal. Method: the hostile name.
    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        assert!(!clean(fixture::HOSTILE).contains('\u{1b}'));
        assert!(matches!(clean("plain"), Cow::Borrowed(_)));
    }

    // Goal: a leak, a full cache and a site that shrinks are told apart. Method: slopes and rates by hand.
    #[test]
    fn growth_is_told() {
        let leak = Leak {
            bytes: 1 << 20,
            ..Leak::default()
        };
        let told = |released_percent, bytes_per_minute, span_seconds| {
            let growth = Growth {
                released_percent,
                bytes_per_minute,
                span_seconds,
            };
            super::growth(&leak, &growth)
        };
        assert_eq!(
            told(0.0, Some(1048576.0), 60.0),
            "grows 1.0 MiB/min, nothing freed"
        );
        assert_eq!(told(98.2, Some(-100.0), 60.0), "steady: 98 % freed");
        assert_eq!(
            told(0.5, Some(-524288.0), 60.0),
            "shrinks 512 KiB/min, less than 1 % freed"
        );
        assert_eq!(told(40.0, None, 0.0), "40 % freed");
    }
}
