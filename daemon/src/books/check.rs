//! What the last reachability check of a process found.
//!
//! Read whole or not at all: the section's sequence number is even and the same before
//! and after. All values are a client's, so they are only ever shown or summed with saturation.

use std::collections::HashMap;

use pageshim_wire::check::{
    CHECK_HEADER_BYTES, CLASS_NAMES, CLASSES, METHOD_NAMES, REASON_NAMES, ROW_BYTES, State,
    Trigger, row, word,
};
use pageshim_wire::layout::Layout;
use pageshim_wire::word_at;
use serde_json::{Map, Value, json};

use super::report::Amount;
use super::view::{View, each_range};

/// Rows read at once.
const PIECE_ROWS: u64 = 512;

/// One check's result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Check {
    sequence: u64,
    /// As in the report.
    pub json: Value,
    done: bool,
    rows: HashMap<u32, [Amount; CLASSES]>,
}

impl Check {
    /// Reads the last result; `None` when there was none, or one is just being written.
    /// Answers `before` where that is still the last.
    pub fn read(
        view: &dyn View,
        layout: &Layout,
        sites: u64,
        before: Option<&Self>,
    ) -> Option<Self> {
        let head = header(view, layout)?;
        let sequence = word_at(&head, word::SEQUENCE);
        if sequence == 0 || sequence % 2 == 1 {
            return before.cloned();
        }
        if before.is_some_and(|before| before.sequence == sequence) {
            return before.cloned();
        }
        let done = word_at(&head, word::STATE) == State::Done as u64;
        let check = Self {
            sequence,
            json: json_of(&head, done),
            done,
            rows: if done {
                rows(view, layout, sites)
            } else {
                HashMap::new()
            },
        };
        let after = header(view, layout)?;
        (word_at(&after, word::SEQUENCE) == sequence).then_some(check)
    }

    /// Classes of a site's blocks, worst first; `None` when the check did not see any.
    pub fn classes(&self, site: u32) -> Option<Vec<(&'static str, Amount)>> {
        let row = self.rows.get(&site).filter(|_| self.done)?;
        let named = CLASS_NAMES.into_iter().zip(row.iter().copied());
        let some: Vec<_> = named.filter(|(_, amount)| amount.blocks > 0).collect();
        (!some.is_empty()).then_some(some)
    }
}

fn header(view: &dyn View, layout: &Layout) -> Option<Vec<u8>> {
    let mut head = vec![0; word::CHAIN * 8];
    view.read(layout.check(), &mut head).then_some(head)
}

fn pair(words: &[u8], first: usize, class: usize) -> Amount {
    Amount {
        blocks: word_at(words, first + class * 2),
        bytes: word_at(words, first + class * 2 + 1),
    }
}

fn name(names: &[&'static str], number: u64) -> Value {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    names.get(index).map_or(Value::Null, |name| json!(name))
}

fn json_of(head: &[u8], done: bool) -> Value {
    let at = |index| word_at(head, index);
    let trigger = if at(word::TRIGGER) == Trigger::Exit as u64 {
        "exit"
    } else {
        "request"
    };
    let class = |(class, name): (usize, &&'static str)| {
        let amount = pair(head, word::CLASSES, class);
        let value = json!({ "bytes": amount.bytes, "blocks": amount.blocks });
        ((*name).to_owned(), value)
    };
    let classes: Map<String, Value> = CLASS_NAMES.iter().enumerate().map(class).collect();
    json!({
        "trigger": trigger,
        "state": if done { "done" } else { "failed" },
        "reason": name(&REASON_NAMES, at(word::REASON)),
        "method": name(&METHOD_NAMES, at(word::METHOD)),
        "pause_ns": at(word::PAUSE_NS),
        "duration_ns": at(word::DURATION_NS),
        "scanned_bytes": at(word::SCANNED_BYTES),
        "root_bytes": at(word::ROOT_BYTES),
        "threads": at(word::THREADS),
        "threads_missed": at(word::THREADS_MISSED),
        "unrecorded_blocks": at(word::UNRECORDED),
        "classes": if done { Value::Object(classes) } else { json!({}) },
    })
}

fn rows(view: &dyn View, layout: &Layout, sites: u64) -> HashMap<u32, [Amount; CLASSES]> {
    let mut found = HashMap::new();
    let first = layout.check() + CHECK_HEADER_BYTES;
    let end = layout.check_row(sites.min(layout.site_capacity));
    let mut piece = vec![0; (PIECE_ROWS * ROW_BYTES) as usize];
    each_range(view, first, end, |from, to| {
        let mut site = (from - first) / ROW_BYTES;
        let last = (to - first).div_ceil(ROW_BYTES).min(sites);
        while site < last {
            let count = (last - site).min(PIECE_ROWS);
            let piece = &mut piece[..(count * ROW_BYTES) as usize];
            if !view.read(layout.check_row(site), piece) {
                return;
            }
            for (index, words) in piece.chunks_exact(ROW_BYTES as usize).enumerate() {
                let classes = std::array::from_fn(|class| pair(words, row::CLASSES, class));
                if classes.iter().any(|amount: &Amount| amount.blocks > 0) {
                    found.insert((site + index as u64) as u32, classes);
                }
            }
            site += count;
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    fn state() -> fake::State {
        let mut state = fake::State::new();
        let check = state.layout.check();
        for (index, value) in [
            (word::SEQUENCE, 2),
            (word::STATE, State::Done as u64),
            (word::METHOD, 3),
            (word::PAUSE_NS, 77),
            (word::CLASSES, 2),
            (word::CLASSES + 1, 64),
        ] {
            state.put(check + index as u64 * 8, value);
        }
        let row = state.layout.check_row(5);
        for (index, value) in [(0, 2), (1, 64), (6, 1), (7, 100)] {
            state.put(row + index * 8, value);
        }
        state
    }

    // Goal: a result is read with its classes, a site with several has several. Method: by hand.
    #[test]
    fn a_result_is_read() {
        let state = state();
        let check = Check::read(&state.view(), &state.layout, 9, None).expect("whole");
        assert_eq!(check.json["classes"]["definite"]["bytes"], 64);
        assert_eq!(check.json["method"], "alone");
        assert_eq!(check.json["pause_ns"], 77);
        let amount = |blocks, bytes| Amount { bytes, blocks };
        let expected = vec![("definite", amount(2, 64)), ("reachable", amount(1, 100))];
        assert_eq!(check.classes(5), Some(expected));
        assert_eq!(check.classes(6), None);
        let few = Check::read(&state.view(), &state.layout, 5, None).expect("whole");
        assert_eq!(few.classes(5), None, "no such site");
    }

    // Goal: half a result is none, a failed one has no classes, hostile words are harmless.
    // Method: change words of a sound one.
    #[test]
    fn half_a_result_is_none() {
        let mut state = state();
        let check = state.layout.check();
        state.put(check, 3);
        assert!(Check::read(&state.view(), &state.layout, 9, None).is_none());
        state.put(check, 4);
        for index in 1..64 {
            state.put(check + index * 8, u64::MAX);
        }
        let read = Check::read(&state.view(), &state.layout, 9, None).expect("whole");
        assert_eq!(read.json["state"], "failed");
        assert_eq!(read.json["reason"], Value::Null);
        assert_eq!(read.classes(5), None);
    }
}
