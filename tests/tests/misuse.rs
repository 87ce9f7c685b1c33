//! What the debug heap finds, as a person reads it: whole stacks of the allocation,
//! the free and the call, in every form of the report.

use pageshim_tests::programs::{line_of, program_with};
use pageshim_tests::{Daemon, Job, View};
use serde_json::Value;

const SOURCE: &str = "faults.cpp";

/// A misuse that `faults WHAT` makes, and the marks of its lines.
struct Case {
    what: &'static str,
    kind: &'static str,
    allocated: &'static str,
    freed: Option<&'static str>,
    call: Option<&'static str>,
}

const fn case(
    what: &'static str,
    kind: &'static str,
    allocated: &'static str,
    freed: Option<&'static str>,
    call: Option<&'static str>,
) -> Case {
    Case {
        what,
        kind,
        allocated,
        freed,
        call,
    }
}

const CASES: [Case; 10] = [
    case(
        "double",
        "double_free",
        "make",
        Some("free_first"),
        Some("free_again"),
    ),
    case(
        "late_double",
        "double_free",
        "make",
        Some("late_double"),
        Some("late_double_again"),
    ),
    case("size", "size_mismatch", "make", None, Some("size")),
    case(
        "sized_delete",
        "size_mismatch",
        "sized_delete",
        None,
        Some("sized_delete"),
    ),
    case(
        "alignment",
        "alignment_mismatch",
        "alignment",
        None,
        Some("alignment"),
    ),
    case("kind", "kind_mismatch", "make", None, Some("kind")),
    case("array", "kind_mismatch", "new", None, Some("array")),
    case("overflow", "overflow", "make", None, Some("overflow")),
    case(
        "late_write",
        "write_after_free",
        "make",
        Some("late_write"),
        None,
    ),
    // Found by whichever call lets the memory go.
    case(
        "retired_write",
        "write_after_free",
        "make",
        Some("retired_write"),
        Some("make"),
    ),
];

/// Function and line of a stack's first frame; the stack must reach the program's start.
#[track_caller]
fn leaf(stack: &Value) -> (String, u64) {
    let frames = stack.as_array().expect("a stack");
    let function = |frame: &Value| frame["function"].as_str().unwrap_or("?").to_owned();
    let last = frames.last().map(function);
    assert_eq!(last.as_deref(), Some("_start"), "a whole stack: {stack:#}");
    let name = function(&frames[0])
        .replace("(char*)", "")
        .replace("(unsigned long)", "");
    (name, frames[0]["line"].as_u64().unwrap_or(0))
}

#[track_caller]
fn begins_at(stack: &Value, mark: Option<&str>, what: &str) {
    let Some(mark) = mark else {
        assert_eq!(stack, &Value::Array(Vec::new()), "{what}: nothing is known");
        return;
    };
    let (function, line) = leaf(stack);
    // A free in a loop beside `make` is main's line, or make's: any will do where the finder is chance.
    let is_chance = what == "retired_write: call";
    assert!(
        is_chance || line == line_of(SOURCE, mark),
        "{what}: {function}:{line}"
    );
    let named = ["make", "free_first", "free_again"].contains(&mark);
    let expected = if named { mark } else { "main" };
    assert!(is_chance || function == expected, "{what}: {function}");
}

/// The forms a person reads: both name each stack's first frame and last.
fn is_readable(daemon: &Daemon, case: &Case, told: &Value) {
    let text = daemon.get("/leaks.txt").ok();
    let html = daemon.get_as("/leaks", "text/html").ok();
    let name = case.kind.replace('_', " ");
    let address = told["address"].as_str().expect("an address");
    assert!(
        text.contains(&format!("misuse: {name} of {address}")),
        "{text}"
    );
    assert!(html.contains(&format!("{name} of {address}")), "{html}");
    let found = ["overflow", "write_after_free"].contains(&case.kind);
    let call = if found { "found by" } else { "called from" };
    let first = case.kind == "double_free";
    let freed = if first { "freed first by" } else { "freed by" };
    let labels = [
        ("call", call),
        ("allocated", "allocated by"),
        ("freed", freed),
    ];
    let block = text.split("misuse: ").nth(1).expect("the misuse");
    let block = block.split("\n\n").next().unwrap_or(block);
    let mut stacks = 0;
    for (key, label) in labels {
        let Some(frames) = told[key].as_array().filter(|frames| !frames.is_empty()) else {
            assert!(!block.contains(label), "{}: {label} in {block}", case.what);
            continue;
        };
        stacks += 1;
        let line = block
            .lines()
            .find(|line| line.trim_start().starts_with(label));
        let function = frames[0]["function"].as_str().expect("a name");
        assert!(
            line.is_some_and(|line| line.contains(function)),
            "{label} {function}: {block}"
        );
        assert!(
            html.contains(&format!("<p class=\"note\">{label}</p>")),
            "{label}: {html}"
        );
    }
    assert_eq!(
        block.matches(" _start  ").count(),
        stacks,
        "whole stacks: {block}"
    );
}

fn told(view: &View) -> &Value {
    let reports = &view.process("faults")["misuse_reports"];
    assert_eq!(reports.as_array().map(Vec::len), Some(1), "{reports:#}");
    &reports[0]
}

// Goal: each misuse is told with where the block was allocated, where it was freed, and the call, from the
// leaf to the program's start. Method: one of each on the debug heap; lines marked in the source.
#[test]
fn debug_tells_three_stacks() {
    for case in &CASES {
        let daemon = Daemon::start();
        let victim = program_with(SOURCE, &["-ldl", "-w"]);
        let job = daemon
            .preload("exact")
            .apply(Job::new(victim).arg(case.what));
        let outcome = job.env("PAGESHIM_HEAP", "debug").run().ok();
        let said = match (case.kind, case.call) {
            (_, None) => " found at exit\n",
            ("overflow", _) => " found by its free, called from 0x",
            ("write_after_free", _) => " found by a call from 0x",
            ("double_free", _) => "; ignored\n",
            _ => "; freed all the same\n",
        };
        assert!(outcome.stderr.contains(said), "{}: {outcome:?}", case.what);
        let view = daemon.settled("faults");
        let told = told(&view);
        assert_eq!(told["kind"], case.kind, "{}", case.what);
        for (key, mark) in [
            ("allocated", Some(case.allocated)),
            ("freed", case.freed),
            ("call", case.call),
        ] {
            begins_at(&told[key], mark, &format!("{}: {key}", case.what));
        }
        is_readable(&daemon, case, told);
    }
}
