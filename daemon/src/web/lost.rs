//! What the reachability check of a process found, in words.

use crate::books::check::Check;
use crate::books::report::{Process, State};
use crate::books::suppress::Used;
use crate::web::{units, words};

/// The check of one process, for its part of a page.
pub(crate) struct Lost<'a> {
    pub(crate) owner: &'a Process,
    /// Classes with what they hold; none without a result.
    pub(crate) classes: Vec<Found>,
    /// How it was made; why there is none.
    pub(crate) how: String,
    /// What else there is to know, a sentence each.
    pub(crate) notes: Vec<String>,
    /// It can be checked now.
    pub(crate) button: bool,
}

/// One class.
pub(crate) struct Found {
    pub(crate) class: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) bytes: String,
    pub(crate) blocks: String,
    /// What of it is suppressed.
    pub(crate) suppressed: Option<String>,
}

const MEANINGS: [(&str, &str); 4] = [
    ("definite", "nothing points to them"),
    ("indirect", "only lost blocks point to them"),
    (
        "possible",
        "only pointers into the middle of a block lead to them",
    ),
    (
        "reachable",
        "a root leads to them: in use, or kept for ever",
    ),
];

/// The check of `process`, as far as there was one.
pub(crate) fn of(process: &Process) -> Lost<'_> {
    let found = |(class, meaning)| {
        let (bytes, blocks) = words::class(process, class)?;
        Some(Found {
            class,
            meaning,
            bytes: units::bytes(bytes),
            blocks: units::counted(blocks, "block"),
            suppressed: suppressed(process, class),
        })
    };
    Lost {
        owner: process,
        classes: MEANINGS.into_iter().filter_map(found).collect(),
        how: how(process),
        notes: process.check.as_ref().map(notes).unwrap_or_default(),
        button: process.state == State::Running,
    }
}

/// `4.0 KiB in 1 block`, of a class.
pub(crate) fn suppressed(process: &Process, class: &str) -> Option<String> {
    let amount = process.check.as_ref()?.suppressed.named(class)?;
    (amount.blocks > 0).then(|| words::amount(amount, None))
}

/// One line: when, how, how long.
pub(crate) fn how(process: &Process) -> String {
    let Some(check) = &process.check else {
        return match process.state {
            State::Running => "It was not checked yet.".to_owned(),
            State::Killed => format!("It was not checked: {}.", killed(process)),
            State::Exited => "It was not checked: PAGESHIM_CHECK=exit checks a process at its end, and `pageshim run` does.".to_owned(),
        };
    };
    let when = match (check.trigger.as_str(), process.state) {
        ("exit", _) => "at its end".to_owned(),
        (_, State::Running) => {
            let age = (process.seconds - check.at_seconds).max(0.0);
            format!("{} ago", units::seconds(age))
        }
        (_, state) => {
            let before = units::seconds((process.seconds - check.at_seconds).max(0.0));
            match state {
                State::Killed => format!("{before} before its end ({})", killed(process)),
                _ => format!("{before} before its end"),
            }
        }
    };
    if let Some(trouble) = &check.trouble {
        return format!("The check {when} has no result: {}.", words::clean(trouble));
    }
    format!(
        "Checked {when}: {}; {} read in {}.",
        stood_still(check),
        units::bytes(check.scanned_bytes),
        units::seconds(check.duration_ns as f64 / 1e9),
    )
}

/// Why a process that a signal ended was not checked then.
pub(crate) fn killed(process: &Process) -> String {
    const SIGKILL: i32 = 9;
    match process.exit.and_then(|exit| exit.signal) {
        Some(SIGKILL) => "SIGKILL ended it, which leaves no time for a check".to_owned(),
        Some(signal) => format!(
            "{} ended it first. PAGESHIM_CHECK=exit, which `pageshim run` sets, checks before most signals that end a process, but not in damaged memory",
            words::signal_name(signal)
        ),
        None => "a signal ended it without a check (SIGKILL leaves no time for one)".to_owned(),
    }
}

fn stood_still(check: &Check) -> String {
    let pause = units::seconds(check.pause_ns as f64 / 1e9);
    let threads = units::counted(check.threads, "thread");
    match check.method.as_str() {
        "fork" if check.trigger == "exit" => {
            format!("{threads} stood still for {pause} while a copy was searched")
        }
        "fork" => {
            format!("{threads} stood still for {pause}, and a copy was searched while they went on")
        }
        "held" => format!("{threads} stood still for {pause}, while it was searched"),
        "signal" => format!("{threads} waited while it was searched"),
        _ => "its only thread searched".to_owned(),
    }
}

/// What else is to be known of a check, a sentence each.
pub(crate) fn notes(check: &Check) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(note) = &check.note {
        notes.push(format!("No copy was made: {}.", words::clean(note)));
    }
    if check.threads_missed > 0 {
        notes.push(format!(
            "{} did not stop in time: what their registers held is not known, and their stacks were read whole, so lost blocks may count as reachable.",
            units::counted(check.threads_missed, "thread")
        ));
    }
    if check.unrecorded_blocks > 0 {
        notes.push(format!(
            "{} were made before recording began and are in no class.",
            units::counted(check.unrecorded_blocks, "block")
        ));
    }
    if !check.suppressions.is_empty() {
        let rule = |used: &Used| {
            let (pattern, blocks) = (
                words::clean(&used.pattern),
                units::counted(used.blocks, "block"),
            );
            format!("leak:{pattern} ({blocks})")
        };
        let rules: Vec<String> = check.suppressions.iter().map(rule).collect();
        notes.push(format!("Suppressed by {}.", rules.join(", ")));
    }
    match check.since.as_deref() {
        None => {}
        Some([]) => notes.push("Nothing changed since the check before.".to_owned()),
        Some(changes) => {
            let changes: Vec<String> = changes.iter().map(words::change).collect();
            notes.push(format!("Since the check before: {}.", changes.join(", ")));
        }
    }
    if check.strict {
        notes.push(
            "Strict roots: only modules' data, stacks and thread-local storage were roots."
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::report::Amount;
    use crate::web::fixture;

    // Goal: each state of a check is told. Method: the fixture's processes, and each method.
    #[test]
    fn checks_are_told() {
        let report = fixture::report();
        let running = of(&report.processes[1]);
        assert!(running.button && running.classes.is_empty());
        assert!(running.how.contains("not checked"));
        let ended = of(&report.processes[0]);
        assert_eq!(ended.classes.len(), 4);
        assert!(!ended.button && ended.how.starts_with("Checked at its end: its only thread"));
        let mut process = report.processes[0].clone();
        let check = process.check.as_mut().expect("checked");
        check.method = "fork".to_owned();
        check.trigger = "request".to_owned();
        check.threads_missed = 2;
        check.note = Some("why".to_owned());
        let told = of(&process);
        assert!(told.how.contains("a copy was searched"), "{}", told.how);
        assert!(
            told.how.contains("before its end (SIGKILL ended it"),
            "{}",
            told.how
        );
        assert_eq!(told.notes.len(), 2);
        let check = process.check.as_mut().expect("checked");
        check.suppressed.definite = Amount {
            bytes: 64,
            blocks: 2,
        };
        check.suppressions = vec![Used {
            pattern: "node".to_owned(),
            blocks: 2,
            bytes: 64,
        }];
        check.since = fixture::checks().since;
        let told = of(&process);
        assert_eq!(
            told.classes[0].suppressed.as_deref(),
            Some("64 B in 2 blocks")
        );
        assert!(
            told.notes[2].contains("leak:node (2 blocks)"),
            "{:?}",
            told.notes
        );
        assert!(
            told.notes[3].contains("+3 blocks of evil"),
            "{:?}",
            told.notes
        );
        let mut unchecked = process.clone();
        unchecked.check = None;
        assert!(how(&unchecked).contains("not checked: SIGKILL ended it"));
        unchecked.exit = None;
        assert!(how(&unchecked).contains("a signal ended it"));
        process.check.as_mut().expect("checked").trouble = Some("no".to_owned());
        assert!(of(&process).classes.is_empty() && how(&process).contains("has no result: no"));
    }
}
