//! Which lost sites are known and wanted: LeakSanitizer's suppressions.
//!
//! # Design
//! A file holds lines `leak:PATTERN`; `#` begins a comment line. A pattern is sought anywhere in
//! the function, file or module of any frame, `*` stands for any text, `^` at its begin and `$` at
//! its end hold it to the begin and the end.
//!
//! # Invariants
//! I1. Only lost blocks are suppressed, and each at most once: the first rule that matches counts.
//! I2. Of the indirect blocks no more are suppressed than suppressed definite ones are known to
//!     hold: a gate in CI must not pass by a guess.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::check::{Check, Classes};
use super::report::{Amount, Frame, Leak, Report};
use super::threads::plus;

/// Rules taken from one source; what is past them is not read.
const RULES_MAX: usize = 10_000;

/// Patterns, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<String>);

/// What a rule kept from being reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The rule's pattern.
    pub pattern: String,
    /// Blocks of the sites it matched.
    pub blocks: u64,
    /// Their requested bytes.
    pub bytes: u64,
}

/// What rules say of one process's check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    sites: HashMap<(String, String), String>,
    suppressed: Classes,
    used: Vec<Used>,
    rules: u64,
}

impl Rules {
    /// Reads a file's text; the number of the first line that is no rule, with what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let pattern = line.strip_prefix("leak:").filter(|rest| !rest.is_empty());
            let pattern = pattern.ok_or_else(|| {
                format!(
                    "line {}: '{line}' is not leak:PATTERN",
                    index.saturating_add(1)
                )
            })?;
            rules.push(pattern.to_owned());
        }
        rules.truncate(RULES_MAX);
        Ok(Self(rules))
    }

    /// The lines of a text that are rules: a program's own text may hold those of other tools.
    pub fn lenient(text: &str) -> Self {
        let pattern = |line: &str| line.trim().strip_prefix("leak:").map(ToOwned::to_owned);
        let patterns = text.lines().filter_map(pattern);
        Self(patterns.filter(|pattern| !pattern.is_empty()).collect())
    }

    /// Adds those of another source behind its own.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first pattern that matches a frame of `stack`.
    pub fn find(&self, stack: &[Frame]) -> Option<&str> {
        let takes = |pattern: &&String| stack.iter().any(|frame| takes(pattern, frame));
        self.0.iter().find(takes).map(String::as_str)
    }

    /// Judges the lost among one process's `leaks`.
    pub fn judge<'a>(&self, check: &Check, leaks: impl Iterator<Item = &'a Leak>) -> Verdict {
        let mut verdict = Verdict {
            rules: self.0.len() as u64,
            ..Verdict::default()
        };
        let (mut left, mut held) = (Vec::new(), Amount::default());
        let mut all_definite = true;
        for leak in leaks.filter(|leak| is_lost(&leak.class)) {
            let Some(pattern) = self.find(&leak.stack) else {
                all_definite &= leak.class != "definite";
                left.extend((leak.class == "indirect").then_some(leak));
                continue;
            };
            held = plus(held, leak.held.unwrap_or_default());
            verdict.take(leak, pattern);
        }
        // All that is indirect hangs on definite blocks: with those it is known as a whole.
        let first = verdict.used.first().map(|used| used.pattern.clone());
        let whole = all_definite && verdict.suppressed.definite.blocks > 0;
        if let Some(pattern) = first.filter(|_| whole) {
            left.into_iter()
                .for_each(|leak| verdict.take(leak, &pattern));
            verdict.suppressed.indirect = check.classes.indirect;
        }
        let indirect = &mut verdict.suppressed.indirect;
        indirect.blocks = indirect
            .blocks
            .max(held.blocks)
            .min(check.classes.indirect.blocks);
        indirect.bytes = indirect
            .bytes
            .max(held.bytes)
            .min(check.classes.indirect.bytes);
        verdict
    }

    /// Judges every process of a whole report, and notes it there.
    pub fn apply(&self, report: &mut Report) {
        let mut own: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, leak) in report.leaks.iter().enumerate() {
            if is_lost(&leak.class) && leak.suppressed.is_none() {
                own.entry(leak.process.clone()).or_default().push(index);
            }
        }
        for process in &mut report.processes {
            if let (Some(check), Some(leaks)) = (&mut process.check, own.get(&process.id)) {
                let verdict = self.judge(check, leaks.iter().map(|index| &report.leaks[*index]));
                verdict.note(check);
                for index in leaks {
                    verdict.mark(&mut report.leaks[*index]);
                }
            }
        }
    }
}

impl Verdict {
    fn take(&mut self, leak: &Leak, pattern: &str) {
        let amount = Amount {
            bytes: leak.bytes,
            blocks: leak.blocks,
        };
        let class = match leak.class.as_str() {
            "definite" => &mut self.suppressed.definite,
            "indirect" => &mut self.suppressed.indirect,
            _ => &mut self.suppressed.possible,
        };
        *class = plus(*class, amount);
        let known = self.used.iter().position(|used| used.pattern == pattern);
        let index = known.unwrap_or_else(|| {
            self.used.push(Used {
                pattern: pattern.to_owned(),
                ..Used::default()
            });
            self.used.len() - 1
        });
        self.used[index].blocks += amount.blocks;
        self.used[index].bytes += amount.bytes;
        let key = (leak.site.clone(), leak.class.clone());
        self.sites.insert(key, pattern.to_owned());
    }

    /// Notes in a check what of it was suppressed, beside what was before.
    pub fn note(&self, check: &mut Check) {
        let (was, more) = (check.suppressed, self.suppressed);
        check.suppressed = Classes {
            definite: plus(was.definite, more.definite),
            indirect: plus(was.indirect, more.indirect),
            possible: plus(was.possible, more.possible),
            reachable: Amount::default(),
        };
        let indirect = &mut check.suppressed.indirect;
        indirect.blocks = indirect.blocks.min(check.classes.indirect.blocks);
        indirect.bytes = indirect.bytes.min(check.classes.indirect.bytes);
        check.rules += self.rules;
        check.suppressions.extend(self.used.iter().cloned());
    }

    /// Names the rule in a leak that one matched.
    pub fn mark(&self, leak: &mut Leak) {
        if self.sites.is_empty() || leak.suppressed.is_some() {
            return;
        }
        let key = (leak.site.clone(), leak.class.clone());
        leak.suppressed = self.sites.get(&key).cloned();
    }
}

/// Whether blocks of this class are lost.
pub fn is_lost(class: &str) -> bool {
    matches!(class, "definite" | "indirect" | "possible")
}

/// The line that would suppress a stack: by its innermost function that has a name.
pub fn line(stack: &[Frame]) -> Option<String> {
    let named = |frame: &&Frame| {
        let function = frame.function.as_str();
        !function.is_empty() && !function.starts_with("fun_") && !function.starts_with("0x")
    };
    let frame = stack.iter().find(named).or_else(|| stack.first())?;
    let text = if named(&frame) {
        &frame.function
    } else {
        &frame.module
    };
    // A name has no line breaks, whatever a hostile program's symbols say.
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then(|| format!("leak:{text}"))
}

fn takes(pattern: &str, frame: &Frame) -> bool {
    matches(pattern, &frame.function)
        || matches(pattern, &frame.module)
        || frame
            .file
            .as_deref()
            .is_some_and(|file| matches(pattern, file))
}

/// Whether `pattern` is found in `text`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, at_begin) = match pattern.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let (pattern, at_end) = match pattern.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let Some((last, middle)) = rest.split_last() else {
        return match (at_begin, at_end) {
            (true, true) => text == first,
            (true, false) => text.starts_with(first),
            (false, true) => text.ends_with(first),
            (false, false) => text.contains(first),
        };
    };
    let begun = if at_begin {
        text.strip_prefix(first)
    } else {
        after(text, first)
    };
    let left = middle
        .iter()
        .try_fold(begun.unwrap_or_default(), |text, part| after(text, part));
    begun.is_some()
        && left.is_some_and(|left| {
            if at_end {
                left.ends_with(last)
            } else {
                left.contains(last)
            }
        })
}

/// What follows the first `part` in `text`.
fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.split_once(part).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::super::report::Process;
    use super::*;

    fn some(blocks: u64, bytes: u64) -> Amount {
        Amount { bytes, blocks }
    }

    fn leak(site: &str, class: &str, amount: Amount, function: &str) -> Leak {
        Leak {
            process: "a".to_owned(),
            site: site.to_owned(),
            class: class.to_owned(),
            blocks: amount.blocks,
            bytes: amount.bytes,
            held: (class == "definite").then(|| some(2, 20)),
            stack: vec![
                Frame {
                    function: function.to_owned(),
                    file: Some("/src/zoo.c".to_owned()),
                    module: "libzoo.so".to_owned(),
                    ..Frame::default()
                },
                Frame {
                    function: "main".to_owned(),
                    ..Frame::default()
                },
            ],
            ..Leak::default()
        }
    }

    fn report() -> Report {
        let check = Check {
            classes: Classes {
                definite: some(3, 30),
                indirect: some(5, 50),
                possible: some(1, 7),
                reachable: some(9, 90),
            },
            ..Check::default()
        };
        Report {
            schema_version: 1,
            processes: vec![Process {
                id: "a".to_owned(),
                check: Some(check),
                ..Process::default()
            }],
            leaks: vec![
                leak("4", "reachable", some(9, 90), "cache"),
                leak("3", "indirect", some(5, 50), "name_new"),
                leak("1", "definite", some(2, 20), "node_new"),
                leak("2", "definite", some(1, 10), "list_new"),
                leak("2", "possible", some(1, 7), "list_new"),
            ],
        }
    }

    fn judged(text: &str) -> (Check, Vec<String>) {
        let mut report = report();
        Rules::parse(text).expect("rules").apply(&mut report);
        let check = report.processes.remove(0).check.expect("checked");
        let marked = report
            .leaks
            .into_iter()
            .filter(|leak| leak.suppressed.is_some());
        (
            check,
            marked
                .map(|leak| format!("{} {}", leak.site, leak.class))
                .collect(),
        )
    }

    // Goal: patterns mean what they mean in LeakSanitizer's files. Method: each sign alone and together.
    #[test]
    fn patterns_match_as_in_leak_sanitizer() {
        for (pattern, text, expected) in [
            ("node", "make_node_new", true),
            ("^node", "make_node", false),
            ("^make", "make_node", true),
            ("node$", "make_node", true),
            ("node$", "make_node_new", false),
            ("^make_node$", "make_node", true),
            ("^make$", "make_node", false),
            ("m*n*e", "make_node", true),
            ("m*x*e", "make_node", false),
            ("^a*e$", "make_node", false),
            ("^m*e$", "make_node", true),
            ("lib*.so$", "libzoo.so", true),
            ("lib*.so$", "libzoo.so.1", false),
            ("*", "", true),
            ("^*$", "anything", true),
            ("a*a", "a", false),
            ("^ab*b$", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} in {text}");
        }
    }

    // Goal: files are read as people write them, and errors name the line. Method: both.
    #[test]
    fn files_are_read() {
        let rules = Rules::parse("# zoo\r\n\n  leak:node \nleak:^a:b$\n").expect("sound");
        assert_eq!(rules.0, ["node", "^a:b$"]);
        for (text, line) in [
            ("leak:a\nrace:b", "line 2"),
            ("leak:", "line 1"),
            ("x", "line 1"),
        ] {
            let why = Rules::parse(text).expect_err("no rule");
            assert!(why.contains(line), "{why}");
        }
        assert_eq!(Rules::lenient("race:b\nleak:a\nleak:\n").0, ["a"]);
        assert!(Rules::parse("# none").expect("sound").is_empty());
    }

    // Goal: I1, I2. Method: a rule for one of two definite sites, which holds 2 blocks of 5.
    #[test]
    fn a_rule_takes_its_sites_and_what_they_hold() {
        let (check, marked) = judged("leak:node_new");
        assert_eq!(marked, ["1 definite"]);
        assert_eq!(check.suppressed.definite, some(2, 20));
        assert_eq!(check.suppressed.indirect, some(2, 20));
        let used = &check.suppressions[0];
        assert_eq!(
            (used.pattern.as_str(), used.blocks, used.bytes),
            ("node_new", 2, 20)
        );
        let (check, marked) = judged("leak:cache\nleak:nobody");
        assert!(
            marked.is_empty() && check.suppressions.is_empty(),
            "reachable is not lost"
        );
    }

    // Goal: with all definite sites goes what hangs on them, and nothing is counted twice.
    // Method: rules by file, by both names, and twice.
    #[test]
    fn all_definite_sites_take_the_indirect_with_them() {
        for text in [
            "leak:zoo.c",
            "leak:libzoo.so",
            "leak:node_new\nleak:list_new",
        ] {
            let (check, marked) = judged(text);
            assert_eq!(marked.len(), 4, "{text}: {marked:?}");
            assert_eq!(check.suppressed.definite, some(3, 30));
            assert_eq!(check.suppressed.indirect, some(5, 50));
            assert_eq!(check.suppressed.possible, some(1, 7));
        }
        let mut report = report();
        let rules = Rules::parse("leak:main").expect("sound");
        rules.apply(&mut report);
        let marks = |report: &Report| report.leaks.clone();
        let once = (
            marks(&report),
            report.processes[0]
                .check
                .clone()
                .expect("checked")
                .suppressed,
        );
        rules.apply(&mut report);
        let twice = report.processes[0]
            .check
            .clone()
            .expect("checked")
            .suppressed;
        assert_eq!(
            (marks(&report), twice),
            once,
            "a second time changes nothing"
        );
        let bytes: Vec<u64> = report.leaks.iter().map(|leak| leak.bytes).collect();
        assert_eq!(bytes, [90, 50, 20, 10, 7], "the order is kept");
    }

    // Goal: the line to copy matches its own stack. Method: named, nameless and empty stacks.
    #[test]
    fn the_line_to_copy_matches() {
        let mut stack = leak("1", "definite", some(1, 1), "node_new").stack;
        assert_eq!(line(&stack).as_deref(), Some("leak:node_new"));
        stack[0].function = "fun_12@libzoo.so".to_owned();
        assert_eq!(line(&stack).as_deref(), Some("leak:main"));
        stack.truncate(1);
        assert_eq!(line(&stack).as_deref(), Some("leak:libzoo.so"));
        let rules = Rules::parse(&line(&stack).expect("a line")).expect("sound");
        assert_eq!(rules.find(&stack), Some("libzoo.so"));
        assert_eq!(line(&[]), None);
    }
}
