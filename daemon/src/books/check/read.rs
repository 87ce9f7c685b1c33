//! The header of a check as its process wrote it.

use pageshim_wire::check::{
    Class, METHOD_NAMES, Method, REASON_NAMES, SUPPRESSIONS_AT, SUPPRESSIONS_MAX, State, Trigger,
    option, word,
};
use pageshim_wire::layout::Layout;
use pageshim_wire::process::ms_from_tick;
use pageshim_wire::word_at;

use super::{Check, Classes};
use crate::books::report::Amount;
use crate::books::suppress::Rules;
use crate::books::view::View;

/// Words of the header that are read.
const WORDS: usize = 32;

/// The last check; `None` when there was none, or one is being written.
pub fn read(view: &dyn View, layout: &Layout) -> Option<Check> {
    let mut bytes = [0; WORDS * 8];
    if !view.read(layout.check(), &mut bytes) {
        return None;
    }
    let at = |index: usize| word_at(&bytes, index);
    if at(word::SEQUENCE) == 0 || !at(word::SEQUENCE).is_multiple_of(2) {
        return None;
    }
    let why = at(word::REASON);
    let trouble = match at(word::STATE) {
        state if state == State::Done as u64 => None,
        state if state == State::Failed as u64 => Some(reason(why).to_owned()),
        _ => return None,
    };
    let amount = |class: Class| amount(&bytes, word::CLASSES + 2 * class as usize);
    let on_request = at(word::TRIGGER) == Trigger::Request as u64;
    let by_fork = at(word::METHOD) == Method::Fork as u64;
    Some(Check {
        trigger: if on_request { "request" } else { "exit" }.to_owned(),
        method: name(&METHOD_NAMES, at(word::METHOD)),
        note: (trouble.is_none() && !by_fork && why != 0).then(|| reason(why).to_owned()),
        state: if trouble.is_none() { "done" } else { "failed" }.to_owned(),
        reason: name(&REASON_NAMES, why),
        trouble,
        at_seconds: ms_from_tick(at(word::TICK)) as f64 / 1000.0,
        pause_ns: at(word::PAUSE_NS),
        duration_ns: at(word::DURATION_NS),
        scanned_bytes: at(word::SCANNED_BYTES),
        root_bytes: at(word::ROOT_BYTES),
        threads: at(word::THREADS),
        threads_missed: at(word::THREADS_MISSED),
        unrecorded_blocks: at(word::UNRECORDED),
        strict: at(word::OPTIONS) & option::STRICT != 0,
        classes: Classes {
            definite: amount(Class::Definite),
            indirect: amount(Class::Indirect),
            possible: amount(Class::Possible),
            reachable: amount(Class::Reachable),
        },
        number: at(word::SEQUENCE) / 2,
        suppressed: Classes::default(),
        rules: 0,
        suppressions: Vec::new(),
        since: None,
    })
}

/// The program's own suppressions, as its library found them.
pub fn rules(view: &dyn View, layout: &Layout) -> Rules {
    let mut bytes = [0; 8];
    let at = layout.check() + word::SUPPRESSIONS_BYTES as u64 * 8;
    let read = view.read(at, &mut bytes);
    let len = word_at(&bytes, 0).min(SUPPRESSIONS_MAX);
    let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
    if !read || !view.read(layout.check() + SUPPRESSIONS_AT, &mut text) {
        return Rules::default();
    }
    Rules::lenient(&String::from_utf8_lossy(&text))
}

/// A reason in words.
pub fn reason(word: u64) -> &'static str {
    let name = usize::try_from(word)
        .ok()
        .and_then(|index| REASON_NAMES.get(index));
    match *name.unwrap_or(&"") {
        "no_records" => "its blocks have no records in this mode or heap",
        "fork" => "the kernel refused to fork the process",
        "filter" => {
            "a filter of system calls (seccomp) stands in the way: one the process has set itself, or one that ended its copy"
        }
        "memory" => "there was no memory for the marks",
        "too_long" => "it took too long",
        "system" => {
            "a system call it needs failed: the program sees no /proc (as in a chroot), has no descriptor left, or uses PAGESHIM_SIGNAL itself"
        }
        "namespace" => {
            "its next child would be the first of a new process id namespace, which ends with it"
        }
        "damaged" => "who searched its memory died of it: it is damaged",
        _ => "it does not say why",
    }
}

fn name(names: &[&str], number: u64) -> String {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    (*names.get(index).unwrap_or(&"unknown")).to_owned()
}

/// Blocks and bytes side by side.
pub(super) fn amount(bytes: &[u8], index: usize) -> Amount {
    Amount {
        blocks: word_at(bytes, index),
        bytes: word_at(bytes, index + 1),
    }
}
