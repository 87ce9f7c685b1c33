//! Rules against a report by hand.

use super::*;
use crate::books::check::{Check, Classes};
use crate::books::report::{Amount, Leak, Process, Report};

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
