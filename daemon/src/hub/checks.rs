//! Reachability checks on request: which way, in what order, and what came of it.
//!
//! # Design
//! A helper process (`crate::hold`) stops the threads and has the process forked; where
//! the kernel refuses the fork or a copy would do harm, marked in place; where it does not let us stop
//! threads, even with the process's consent, the process is asked to check
//! itself. The result lies in the shared state; here is only what we saw of it.

use std::process::{Command, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use pageshim_wire::check::{Reason, State, Wanted, option, turn, word as check_word};
use pageshim_wire::process::{Control, Heap, Mode, word};

use super::record::Record;
use crate::hold::order::{Door, Order, Outcome};
use crate::ingest::SharedState;

/// Longest time for a mark: a few seconds for each GiB.
const MARK: Duration = Duration::from_secs(120);
/// Longest time for all of a check: a fork may take 30 s, a mark [`MARK`], the rest is seconds.
pub const LONGEST: Duration = Duration::from_secs(160);
/// How long a process may take to see that something is asked of it.
const ATTENTION: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);
const ENDED: &str = "it ended while it was checked";

/// Where a check begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// As the process's environment says: all writable memory that is not the heap, or the strict ones.
    #[default]
    Own,
    /// Those of LeakSanitizer: modules' data, stacks, threads' storage.
    Strict,
}

/// Why there is no check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCheck {
    /// No process of that name.
    Unknown,
    /// No site of that id.
    NoSite(String),
    /// It could not be made.
    Failed(String),
}

/// Checks a running process; why it could not be.
pub fn check(record: &Arc<Record>, roots: Roots) -> Result<(), String> {
    check_for(record, roots, None, |_| ())
}

/// Checks a running process and has it look for a chain of pointers to what is wanted; `take` reads
/// what was found, before anybody has the process checked again.
pub fn check_for<T>(
    record: &Arc<Record>,
    roots: Roots,
    wanted: Option<Wanted>,
    take: impl FnOnce(&SharedState) -> T,
) -> Result<T, String> {
    let _turn = record
        .checking
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let state = record
        .state()
        .ok_or("it has ended; PAGESHIM_CHECK=exit checks a process when it ends")?;
    can_be_checked(&state)?;
    state.want(match roots {
        Roots::Own => 0,
        Roots::Strict => option::STRICT,
    });
    state.ask_why(wanted.map_or(0, Wanted::pack));
    let before = sequence(&state);
    let outcome = hold(record, &state)?;
    if outcome.refused {
        ask(record, &state, before, &outcome.trouble)?;
        return Ok(take(&state));
    }
    if !outcome.trouble.is_empty() {
        return Err(outcome.trouble);
    }
    finished(record, &state, before)?;
    state.note_pause(outcome.pause_ns);
    if outcome.reason != Reason::None as u64 {
        state.note_reason(outcome.reason);
    }
    Ok(take(&state))
}

/// Checks a process that is about to end and waits for it, at most `limit`; what became of it is told
/// where it looks.
pub fn check_last(record: &Record, limit: Duration) {
    let _turn = record
        .checking
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let Some(state) = record.state() else {
        return;
    };
    state.set_turn(turn::TAKEN);
    // It may have given up meanwhile: see the shim's `helped`.
    let waits = state.check_word(check_word::WITHDRAWN) == 0;
    let became = if waits {
        last(record, &state, limit)
    } else {
        turn::REFUSED
    };
    state.set_turn(became);
}

fn last(record: &Record, state: &SharedState, limit: Duration) -> u64 {
    state.ask_why(0);
    let before = sequence(state);
    if !can_be_held(record, state) {
        return turn::REFUSED;
    }
    let order = Order {
        at_exit: true,
        limit_ms: limit.min(MARK).as_millis() as u64,
        ..order(record, state)
    };
    // It has consented before it asked.
    let Ok(outcome) = help(&order) else {
        return turn::REFUSED;
    };
    let done = sequence(state) != before && sequence(state).is_multiple_of(2);
    match outcome.reason {
        _ if outcome.forked && done => {
            state.note_pause(outcome.pause_ns);
            turn::DONE
        }
        reason if reason == Reason::TooLong as u64 => turn::TOO_LONG,
        reason if reason == Reason::Damaged as u64 => turn::DAMAGED,
        _ => turn::REFUSED,
    }
}

fn can_be_checked(state: &SharedState) -> Result<(), String> {
    if Heap::from_word(state.header(word::HEAP)) != Some(Heap::Gpa) {
        return Err("only blocks of PAGESHIM_HEAP=gpa can be checked for reachability".to_owned());
    }
    match Mode::from_word(state.header(word::MODE)) {
        Some(Mode::Exact | Mode::Trace | Mode::Count) => Ok(()),
        _ => Err(
            "blocks have records in the modes exact, trace and count only; a check needs them"
                .to_owned(),
        ),
    }
}

/// Held by a helper: forked, or marked in place where that is refused.
fn hold(record: &Record, state: &SharedState) -> Result<Outcome, String> {
    let mut order = order(record, state);
    if !can_be_held(record, state) {
        return Err("the process is in another process id namespace, or too old a shim".to_owned());
    }
    let mut outcome = help(&order)?;
    if outcome.refused {
        let asked = state.ask(Control::Consent);
        if waits(ATTENTION, || state.header(word::CONTROL_DONE) == asked) {
            outcome = help(&order)?;
        }
    }
    let no_copy = [Reason::Fork as u64, Reason::Namespace as u64];
    if no_copy.contains(&outcome.reason) {
        let why = outcome.reason;
        order.in_place = true;
        outcome = help(&order)?;
        if outcome.trouble.is_empty() {
            outcome.reason = why;
        }
    }
    Ok(outcome)
}

fn can_be_held(record: &Record, state: &SharedState) -> bool {
    record.peer_pid != 0 && state.header(word::HELD_ENTRY) != 0
}

/// A copy is to be searched.
fn order(record: &Record, state: &SharedState) -> Order {
    Order {
        pid: record.peer_pid,
        door: door(state),
        state_inode: state.inode(),
        filters: state.header(word::FILTERS),
        in_place: false,
        limit_ms: MARK.as_millis() as u64,
        at_exit: false,
    }
}

fn door(state: &SharedState) -> Door {
    Door {
        entry: state.header(word::HELD_ENTRY),
        stack: state.header(word::HELD_STACK),
        threads: state.header(word::HELD_THREADS),
        threads_max: state.header(word::HELD_THREADS_MAX),
        saved: state.header(word::HELD_SAVED),
    }
}

fn help(order: &Order) -> Result<Outcome, String> {
    let failed = |why: &dyn std::fmt::Display| format!("the helper that holds it failed: {why}");
    let line = serde_json::to_string(order).map_err(|error| failed(&error))?;
    // By this path and not by name: the binary may have been replaced since.
    let output = Command::new("/proc/self/exe")
        .args(["hold", &line])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .env_remove("LD_PRELOAD")
        .output()
        .map_err(|error| failed(&error))?;
    serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))
}

/// The process checks itself, when it comes by.
fn ask(record: &Record, state: &SharedState, before: u64, refused: &str) -> Result<(), String> {
    let asked = state.ask(Control::Check);
    let heard = || state.header(word::CONTROL_DONE) == asked;
    if !waits(ATTENTION, || heard() || record.end().is_some()) {
        return Err(format!(
            "{refused}; asked to check itself, it did not answer within {} s (it looks when it allocates)",
            ATTENTION.as_secs()
        ));
    }
    finished(record, state, before)
}

/// Whether there is a new result; none comes any more from a process that has ended.
fn finished(record: &Record, state: &SharedState, before: u64) -> Result<(), String> {
    let done = || sequence(state) != before && sequence(state).is_multiple_of(2);
    if !waits(MARK, || done() || record.end().is_some()) {
        return Err("the check did not end".to_owned());
    }
    if !done() {
        return Err(ENDED.to_owned());
    }
    if state.check_word(check_word::STATE) == State::Done as u64 {
        return Ok(());
    }
    let reason = state.check_word(check_word::REASON);
    Err(format!(
        "the check failed: {}",
        crate::books::check::reason(reason)
    ))
}

fn sequence(state: &SharedState) -> u64 {
    state.check_word(check_word::SEQUENCE)
}

fn waits(limit: Duration, done: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}
