//! Words for parts of a report, shared by the text and the pages.

use std::borrow::Cow;

use crate::books::report::{Exit, Frame, Leak, Pages, Process, Report, State};

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
            "slots in use before, empty now, on pages that stay",
            pages.free_slot_bytes,
        ),
        (
            "tail",
            "Tails",
            "ends of page runs and parts never handed out",
            pages.tail_bytes,
        ),
        (
            "retained",
            "Retained",
            "whole slices kept for reuse",
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
    let amount = process.check.as_ref()?.get("classes")?.get(class)?;
    let number = |key| {
        amount
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0)
    };
    Some((number("bytes"), number("blocks")))
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

    // Goal: no escape sequence reaches a terminal. Method: the hostile name.
    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        assert!(!clean(fixture::HOSTILE).contains('\u{1b}'));
        assert!(matches!(clean("plain"), Cow::Borrowed(_)));
    }
}
