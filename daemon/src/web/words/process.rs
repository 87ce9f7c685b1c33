//! What is said of a whole process.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::safe::clean;
use crate::books::report::{Exit, Process, State};
use crate::web::units;

/// The drop reason of stacks that are known in part.
const INCOMPLETE: &str = "unwind";

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

/// What goes before a number of a sampled process where no error is shown.
pub(crate) fn about(process: &Process) -> &'static str {
    if process.sampling.is_some() {
        "≈ "
    } else {
        ""
    }
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

/// `12 % of them temporary`, of the allocations of a process.
pub(crate) fn temporary(process: &Process) -> String {
    if process.mode == "count" {
        return "temporary ones not told apart in count mode".to_owned();
    }
    let share = units::percent(process.temporary, process.total.blocks);
    format!("{share} of them temporary")
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

/// Blocks whose stack is known in part.
pub(crate) fn incomplete_stacks(process: &Process) -> u64 {
    process.drops.get(INCOMPLETE).copied().unwrap_or(0)
}

/// What was not recorded, by reason; incomplete stacks are recorded.
pub(crate) fn lost(process: &Process) -> (u64, BTreeMap<String, u64>) {
    let mut reasons = process.drops.clone();
    let incomplete = reasons.remove(INCOMPLETE).unwrap_or(0);
    (process.events_dropped.saturating_sub(incomplete), reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

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
}
