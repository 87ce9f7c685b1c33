//! What the last reachability check found, and how it goes with what is live now.
//!
//! # Invariants
//! I1. The parts of a site sum to its live blocks: what was allocated since the check is
//!     `live`, what was freed since is taken off where it must have been, reachable
//!     first, because nobody can free what is lost.

use std::collections::HashMap;

use pageshim_wire::check::{
    CLASS_NAMES, CLASSES, Class, METHOD_NAMES, Method, REASON_NAMES, ROW_BYTES, SUPPRESSIONS_AT,
    SUPPRESSIONS_MAX, State, Trigger, option, row, word,
};
use pageshim_wire::layout::Layout;
use pageshim_wire::process::ms_from_tick;
use pageshim_wire::word_at;
use serde::{Deserialize, Serialize};

use super::history::Change;
use super::report::Amount;
use super::suppress::{Rules, Used};
use super::view::{View, each_range};

/// Rows read at once.
const PIECE_ROWS: u64 = 512;
/// Words of the header that are read.
const WORDS: usize = 32;

/// A reachability check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `exit` or `request`.
    pub trigger: String,
    /// How the heap was held still: `fork` (a copy was marked while the process went on), `held`
    /// (marked while it stood still), `signal` (by itself, other threads held by a
    /// signal), `alone` (by its only thread).
    #[serde(default)]
    pub method: String,
    /// `done`, or `failed`: there is no result then.
    #[serde(default)]
    pub state: String,
    /// Why it failed, or was made another way than by fork: `none`, `no_records`, `fork`, `filter`,
    /// `memory`, `too_long`, `system`, `damaged`.
    #[serde(default)]
    pub reason: String,
    /// Why there is no result, in words; null when there is one.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Why it was not made by fork, where it was asked for; null else.
    #[serde(default)]
    pub note: Option<String>,
    /// Seconds after the start of the process.
    #[serde(default)]
    pub at_seconds: f64,
    /// How long the program's threads stood still, ns.
    pub pause_ns: u64,
    /// How long it took in all, ns.
    pub duration_ns: u64,
    /// Bytes read in search of pointers.
    pub scanned_bytes: u64,
    /// Bytes of roots among them.
    #[serde(default)]
    pub root_bytes: u64,
    /// Threads whose registers were seen.
    #[serde(default)]
    pub threads: u64,
    /// Threads that did not stop in time; their stacks were read whole, their registers not at all.
    #[serde(default)]
    pub threads_missed: u64,
    /// Live blocks without records, which are in none of the classes.
    #[serde(default)]
    pub unrecorded_blocks: u64,
    /// Only the roots that LeakSanitizer takes.
    #[serde(default)]
    pub strict: bool,
    /// What was found.
    pub classes: Classes,
    /// Which check of this process it is, the first is 1.
    #[serde(default)]
    pub number: u64,
    /// What of it is suppressed; of indirect blocks at least so much.
    #[serde(default)]
    pub suppressed: Classes,
    /// Suppressions it was held against, those of the program among them.
    #[serde(default)]
    pub rules: u64,
    /// The rules that did it.
    #[serde(default)]
    pub suppressions: Vec<Used>,
    /// What the largest changes since the check before with the same roots are; null when there was
    /// none.
    #[serde(default)]
    pub since: Option<Vec<Change>>,
}

/// Blocks of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// Nothing points to them.
    #[serde(default)]
    pub definite: Amount,
    /// Only lost blocks point to them.
    #[serde(default)]
    pub indirect: Amount,
    /// Only pointers into the middle of a block lead to them.
    #[serde(default)]
    pub possible: Amount,
    /// A root leads to them.
    #[serde(default)]
    pub reachable: Amount,
}

impl Classes {
    /// The amount of a class by name.
    pub fn named(&self, class: &str) -> Option<Amount> {
        let all = [self.definite, self.indirect, self.possible, self.reachable];
        let index = CLASS_NAMES.iter().position(|name| *name == class)?;
        all.get(index).copied()
    }
}

/// What was found of one site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    classes: [Amount; CLASSES],
    held: Amount,
    oldest: [u64; CLASSES],
}

/// Blocks of one class of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// `None` for those allocated since the check.
    pub class: Option<Class>,
    /// The blocks.
    pub amount: Amount,
    /// Blocks that only these lead to; of `definite` ones.
    pub held: Amount,
    /// Tick of the oldest one's birth; 0 where it is not known.
    pub oldest: u64,
}

impl Part {
    /// Its class's name.
    pub fn class_name(&self) -> &'static str {
        self.class
            .map_or("live", |class| CLASS_NAMES[class as usize])
    }
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
        "system" => "a system call it needs failed",
        "damaged" => "who searched its memory died of it: it is damaged",
        _ => "it does not say why",
    }
}

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

fn name(names: &[&str], number: u64) -> String {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    (*names.get(index).unwrap_or(&"unknown")).to_owned()
}

fn amount(bytes: &[u8], index: usize) -> Amount {
    Amount {
        blocks: word_at(bytes, index),
        bytes: word_at(bytes, index + 1),
    }
}

/// The last whole result, kept while the next one is written.
#[derive(Debug)]
pub struct Last {
    /// What it says of the process.
    pub check: Check,
    rows: HashMap<u32, Row>,
}

impl Last {
    /// The last result, or `before` where that is still it, or another is being written.
    pub fn read(
        view: &dyn View,
        layout: &Layout,
        sites: u64,
        before: Option<Self>,
    ) -> Option<Self> {
        let Some(check) = read(view, layout) else {
            return before;
        };
        match before {
            Some(before) if before.check.number == check.number => Some(Self { check, ..before }),
            before => {
                let rows = rows(view, layout, sites);
                // Written anew meanwhile: half of each.
                let whole = read(view, layout).is_some_and(|now| now.number == check.number);
                if whole {
                    Some(Self { check, rows })
                } else {
                    before
                }
            }
        }
    }

    /// What was found of a site.
    pub fn row(&self, site: u32) -> Row {
        self.rows.get(&site).copied().unwrap_or_default()
    }
}

/// Rows that hold anything.
fn rows(view: &dyn View, layout: &Layout, sites: u64) -> HashMap<u32, Row> {
    let mut found = HashMap::new();
    let sites = sites.min(layout.site_capacity);
    let first = layout.check_row(0);
    let mut piece = vec![0; (PIECE_ROWS * ROW_BYTES) as usize];
    each_range(view, first, layout.check_row(sites), |from, to| {
        let mut site = (from - first) / ROW_BYTES;
        let last = (to - first).div_ceil(ROW_BYTES).min(sites);
        while site < last {
            let count = (last - site).min(PIECE_ROWS);
            let piece = &mut piece[..(count * ROW_BYTES) as usize];
            if !view.read(layout.check_row(site), piece) {
                return;
            }
            let all = piece.chunks_exact(ROW_BYTES as usize).map(row_of);
            let held = (site as u32..).zip(all).filter(|(_, row)| row.holds());
            found.extend(held);
            site += count;
        }
    });
    found
}

impl Row {
    fn holds(&self) -> bool {
        self.classes.iter().any(|amount| amount.blocks > 0)
    }
}

fn row_of(bytes: &[u8]) -> Row {
    let mut found = Row {
        held: amount(bytes, row::HELD),
        ..Row::default()
    };
    for class in 0..CLASSES {
        found.classes[class] = amount(bytes, row::CLASSES + 2 * class);
        found.oldest[class] = word_at(bytes, row::OLDEST + class);
    }
    found
}

/// Splits what a site holds `now` by what the check found (I1), worst class first.
pub fn parts(found: &Row, now: Amount) -> Vec<Part> {
    let mut left = now;
    let mut parts = Vec::new();
    for class in [
        Class::Definite,
        Class::Indirect,
        Class::Possible,
        Class::Reachable,
    ] {
        let checked = found.classes[class as usize];
        let amount = Amount {
            blocks: checked.blocks.min(left.blocks),
            bytes: checked.bytes.min(left.bytes),
        };
        left.blocks -= amount.blocks;
        left.bytes -= amount.bytes;
        let definite = class == Class::Definite;
        if amount.blocks > 0 {
            parts.push(Part {
                class: Some(class),
                amount,
                held: if definite {
                    found.held
                } else {
                    Amount::default()
                },
                oldest: found.oldest[class as usize],
            });
        }
    }
    if left.blocks > 0 {
        parts.push(Part {
            class: None,
            amount: left,
            held: Amount::default(),
            oldest: 0,
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::fake::State as Fake;
    use super::*;

    fn some(blocks: u64, bytes: u64) -> Amount {
        Amount { bytes, blocks }
    }

    // Goal: I1. Method: what was found against as much, more and less that is live now.
    #[test]
    fn parts_sum_to_what_is_live() {
        let found = Row {
            classes: [some(2, 20), some(3, 30), some(0, 0), some(5, 500)],
            held: some(3, 30),
            ..Row::default()
        };
        for now in [
            some(10, 550),
            some(17, 900),
            some(6, 100),
            some(1, 10),
            some(0, 0),
        ] {
            let parts = parts(&found, now);
            let sum = parts.iter().fold(some(0, 0), |sum, part| {
                some(
                    sum.blocks + part.amount.blocks,
                    sum.bytes + part.amount.bytes,
                )
            });
            assert_eq!(sum, now);
            assert!(parts.iter().all(|part| part.amount.blocks > 0));
        }
        let names = |now| {
            parts(&found, now)
                .iter()
                .map(Part::class_name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(some(10, 550)), ["definite", "indirect", "reachable"]);
        assert_eq!(
            names(some(11, 560)),
            ["definite", "indirect", "reachable", "live"]
        );
        assert_eq!(
            names(some(5, 50)),
            ["definite", "indirect"],
            "reachable ones were freed"
        );
        assert_eq!(parts(&found, some(5, 50))[0].held, some(3, 30));
    }

    // Goal: a result is read whole, one that is being written or makes no sense is not. Method: a header by hand.
    #[test]
    fn checks_are_read() {
        let mut state = Fake::new();
        let layout = state.layout;
        assert_eq!(read(&state.view(), &layout), None, "none ran");
        let mut set =
            |index: usize, value: u64| state.put(layout.check() + index as u64 * 8, value);
        for (index, value) in [
            (word::SEQUENCE, 1),
            (word::STATE, State::Done as u64),
            (word::TRIGGER, 1),
            (word::METHOD, 1),
            (word::REASON, 2),
            (word::TICK, 251),
            (word::CLASSES, 7),
            (word::CLASSES + 1, 70),
        ] {
            set(index, value);
        }
        assert_eq!(read(&state.view(), &layout), None, "being written");
        state.put(layout.check(), 2);
        let check = read(&state.view(), &layout).expect("whole");
        assert_eq!(
            (check.trigger.as_str(), check.method.as_str()),
            ("request", "held")
        );
        assert_eq!(check.classes.definite, some(7, 70));
        assert_eq!(check.classes.named("definite"), Some(some(7, 70)));
        assert_eq!(check.classes.named("lost"), None);
        assert!(check.note.expect("why not by fork").contains("refused"));
        state.put(layout.check() + word::METHOD as u64 * 8, u64::MAX);
        state.put(
            layout.check() + word::STATE as u64 * 8,
            State::Failed as u64,
        );
        let failed = read(&state.view(), &layout).expect("whole");
        assert!(failed.trouble.expect("why").contains("refused"));
        let site = layout.check_row(5);
        state.put(site, 2);
        state.put(site + 8, 64);
        let last = Last::read(&state.view(), &layout, 9, None).expect("whole");
        assert_eq!(last.row(5).classes[0], some(2, 64));
        assert_eq!(last.row(u32::MAX), Row::default());
        state.put(site, 3);
        let last = Last::read(&state.view(), &layout, 9, Some(last)).expect("the same");
        assert_eq!(last.row(5).classes[0].blocks, 2, "read once");
        state.put(layout.check(), 3);
        let last = Last::read(&state.view(), &layout, 9, Some(last)).expect("being written");
        assert_eq!(last.row(5).classes[0].blocks, 2, "the one before");
        state.put(layout.check(), 4);
        let last = Last::read(&state.view(), &layout, 9, Some(last)).expect("new");
        assert_eq!(last.row(5).classes[0].blocks, 3);
    }

    // Goal: a program's own rules are read, however long it says they are. Method: a text by hand.
    #[test]
    fn own_rules_are_read() {
        let mut state = Fake::new();
        let layout = state.layout;
        assert!(rules(&state.view(), &layout).is_empty());
        let at = layout.check() + SUPPRESSIONS_AT;
        state.put(at, u64::from_le_bytes(*b"leak:a\nl"));
        state.put(at + 8, u64::from_le_bytes(*b"eak:main"));
        for len in [16, u64::MAX] {
            state.put(layout.check() + word::SUPPRESSIONS_BYTES as u64 * 8, len);
            assert!(!rules(&state.view(), &layout).is_empty());
        }
        assert!(layout.check_row(0) >= at + SUPPRESSIONS_MAX);
    }
}
