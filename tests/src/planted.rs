//! Programs that lose and keep blocks on purpose, held to what they planted, and to Memcheck.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::view::{Held, number};
use crate::{Job, Outcome, PATIENCE, Running, Temp, View, places, underrun, wait_until};

/// Function, class, blocks, bytes.
pub type Planted = (&'static str, &'static str, u64, u64);

/// What tests/programs/leaks.c loses and keeps.
pub const IN_C: &[Planted] = &[
    ("single", "definite", 5, 165),
    ("chain_head", "definite", 1, 64),
    ("chain_tail", "indirect", 9, 576),
    ("ring_member", "definite", 1, 48),
    ("ring_member", "indirect", 3, 144),
    ("of_both", "definite", 1, 109),
    ("of_both", "reachable", 1, 109),
    ("of_tag", "definite", 1, 105),
    ("of_past", "definite", 1, 96),
    ("of_middle", "possible", 1, 104),
    ("of_global", "reachable", 1, 100),
    ("of_tls", "reachable", 1, 101),
    ("of_map", "reachable", 1, 102),
    ("of_heap", "reachable", 100, 10_300),
    ("of_table", "reachable", 1, 800),
    ("of_specific", "reachable", 1, 107),
    ("of_large", "reachable", 1, 3 << 20),
    ("of_part", "reachable", 1, 33),
    ("of_slack", "reachable", 1, 108),
];

/// The same where a mapping of the program's own is no root.
pub fn in_c_strictly() -> Vec<Planted> {
    let class = |planted: &Planted| match *planted {
        (name @ ("of_map" | "of_large" | "of_slack"), _, blocks, bytes) => {
            (name, "definite", blocks, bytes)
        }
        ("of_part", _, blocks, bytes) => ("of_part", "indirect", blocks, bytes),
        other => other,
    };
    IN_C.iter().map(class).collect()
}

/// A program under `pageshim run`, which asks for a check at its end.
#[derive(Debug)]
pub struct Started {
    /// `run` itself.
    pub running: Running,
    capture: PathBuf,
    _temp: Temp,
}

/// How it went, and what the capture says.
#[derive(Debug)]
pub struct Run {
    /// Of `run`.
    pub outcome: Outcome,
    /// The capture.
    pub view: View,
}

/// Starts a job under `run`.
pub fn start(job: Job, environment: &[(&str, &str)]) -> Started {
    start_within(&[], job, environment)
}

/// The same, `run` itself started by `wrapper`.
///
/// # Panics
/// When a path is no text.
pub fn start_within(wrapper: &[&str], job: Job, environment: &[(&str, &str)]) -> Started {
    let temp = Temp::new();
    let capture = temp.join("out.pgs");
    let binary = places::pageshim();
    let (binary, out) = (binary.to_str(), capture.to_str());
    let run = [
        binary.expect("UTF-8"),
        "run",
        "-o",
        out.expect("UTF-8"),
        "--",
    ];
    let whole: Vec<&str> = wrapper.iter().copied().chain(run).collect();
    let job = job
        .wrapped(&whole)
        .env("PAGESHIM_SOCKET", temp.join("nobody"))
        .env("XDG_CACHE_HOME", temp.join("cache"));
    let set = |job: Job, (name, value): &(&str, &str)| job.env(name, value);
    let running = environment.iter().fold(job, set).start();
    Started {
        running,
        capture,
        _temp: temp,
    }
}

impl Started {
    /// Waits for the end, and reads the capture.
    pub fn finish(self) -> Run {
        let outcome = self.running.finish();
        let view = underrun::capture(&self.capture);
        Run { outcome, view }
    }

    /// The program's process id, from the first line of `run`, which may come after what the
    /// program says.
    ///
    /// # Panics
    /// When there is none.
    pub fn pid(&self) -> u32 {
        wait_until("a pid", PATIENCE, || {
            let said = self.running.stderr();
            let rest = said.split("(pid ").nth(1)?;
            rest.split(')').next()?.parse().ok()
        })
    }
}

/// Runs a job under `run` to its end.
pub fn run(job: Job, environment: &[(&str, &str)]) -> Run {
    start(job, environment).finish()
}

/// A function's name without arguments, module path or hash.
pub fn bare(name: &str) -> &str {
    let name = name.split(['(', '<', ' ']).next().unwrap_or(name);
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 => path,
        _ => name,
    };
    name.rsplit("::").next().unwrap_or(name)
}

/// Blocks and bytes of each class that a function asked for, itself or through what it calls.
pub fn classes(view: &View, process: &Value, function: &str) -> BTreeMap<String, Held> {
    let mut all: BTreeMap<String, Held> = BTreeMap::new();
    let by = |leak: &&Value| {
        let frames = leak["stack"].as_array().into_iter().flatten();
        let mut names = frames.filter_map(|frame| frame["function"].as_str());
        names.any(|name| bare(name) == function)
    };
    for leak in view.leaks_of(process).filter(by) {
        let class = leak["class"].as_str().expect("a class").to_owned();
        let held = all.entry(class).or_default();
        held.blocks += number(leak, "blocks");
        held.bytes += number(leak, "bytes");
    }
    all
}

/// Holds the check at the end of `name` to what was planted.
///
/// # Panics
/// When it says anything else.
#[track_caller]
pub fn check_planted(run: &Run, name: &str, planted: &[Planted], what: &str) {
    let process = run.view.process(name);
    let check = &process["check"];
    assert_eq!(check["state"], "done", "{what}: {check:#}");
    assert_eq!(check["trigger"], "exit", "{what}");
    for (function, _, _, _) in planted {
        let expected: BTreeMap<String, Held> = planted
            .iter()
            .filter(|(its, ..)| its == function)
            .map(|(_, class, blocks, bytes)| {
                let held = Held {
                    blocks: *blocks,
                    bytes: *bytes,
                };
                ((*class).to_owned(), held)
            })
            .collect();
        let found = classes(&run.view, process, function);
        assert_eq!(found, expected, "{what}: {function}");
    }
    run.view.check_equations();
    // The classes of all sites sum to those of the process, and to what lives.
    let mut live = Held::default();
    for class in ["definite", "indirect", "possible", "reachable"] {
        let of = run
            .view
            .leaks_of(process)
            .filter(|leak| leak["class"] == class);
        let sum: u64 = of.map(|leak| number(leak, "blocks")).sum();
        assert_eq!(
            sum,
            number(&check["classes"][class], "blocks"),
            "{what}: {class}"
        );
        live.blocks += sum;
        live.bytes += number(&check["classes"][class], "bytes");
    }
    assert_eq!(live.blocks, number(&process["live"], "blocks"), "{what}");
    assert_eq!(live.bytes, number(&process["live"], "bytes"), "{what}");
}

/// Holds a report to what was planted: that and nothing else is lost.
///
/// # Panics
/// When it says anything else.
#[track_caller]
pub fn check_found(view: &View, process: &Value, planted: &[Planted], what: &str) {
    for (function, class, blocks, bytes) in planted {
        let held = Held {
            blocks: *blocks,
            bytes: *bytes,
        };
        let expected = BTreeMap::from([((*class).to_owned(), held)]);
        assert_eq!(
            classes(view, process, function),
            expected,
            "{what}: {function}"
        );
    }
    let other = view.leaks_of(process).find(|leak| {
        let name = leak["stack"][0]["function"].as_str().unwrap_or("");
        leak["class"] != "reachable" && !planted.iter().any(|(its, ..)| *its == bare(name))
    });
    assert!(other.is_none(), "{what}: {other:#?}");
}

/// A loss record of Memcheck's: class, amount, functions from the allocation's caller on.
type Record = (String, Held, Vec<String>);

/// Runs a job under Memcheck.
fn memcheck(job: Job) -> Vec<Record> {
    let options = [
        "valgrind",
        "--leak-check=full",
        "--show-leak-kinds=all",
        "--leak-resolution=high",
        "--leak-check-heuristics=none",
        "--num-callers=40",
        "--run-libc-freeres=no",
        "--run-cxx-freeres=no",
    ];
    let said = job.wrapped(&options).run().stderr;
    let mut all: Vec<Record> = Vec::new();
    for line in said.lines() {
        let Some(text) = line.split_once("== ").map(|(_, text)| text.trim()) else {
            continue;
        };
        if let Some((amount, class)) = text.split_once(" blocks are ") {
            let class = match class.split(' ').next().expect("a class") {
                "definitely" => "definite",
                "indirectly" => "indirect",
                "possibly" => "possible",
                _ => "reachable",
            };
            all.push((class.to_owned(), held(amount), Vec::new()));
        } else if let Some((_, frame)) = text.split_once(": ")
            && text.starts_with("by 0x")
            && let Some((.., frames)) = all.last_mut()
        {
            frames.push(bare(frame).to_owned());
        }
    }
    all
}

/// Runs a job under Memcheck and holds what it says to what was planted.
///
/// # Panics
/// When it says anything else.
#[track_caller]
pub fn check_memcheck(job: Job, planted: &[Planted]) {
    check_memcheck_once([job], planted);
}

/// [`check_memcheck`] of variants of a job, of which one has to agree: in a large program a stale
/// word may by chance point into a block that is lost, and lies elsewhere in another variant.
///
/// # Panics
/// When none agrees.
#[track_caller]
pub fn check_memcheck_once(variants: impl IntoIterator<Item = Job>, planted: &[Planted]) {
    let mut all = Vec::new();
    for job in variants {
        match disagreement(&memcheck(job), planted) {
            None => return,
            Some(text) => all.push(text),
        }
    }
    panic!("{}", all.join("\n"));
}

/// What Memcheck's records say otherwise than was planted.
fn disagreement(records: &[Record], planted: &[Planted]) -> Option<String> {
    for (function, class, blocks, bytes) in planted {
        let mut sum = Held::default();
        let by =
            |record: &&Record| record.0 == *class && record.2.iter().any(|name| name == function);
        for (_, held, _) in records.iter().filter(by) {
            sum.blocks += held.blocks;
            sum.bytes += held.bytes;
        }
        let (expected, found) = ((*blocks, *bytes), (sum.blocks, sum.bytes));
        if found != expected {
            let text = format!("{found:?} for {expected:?}: {function}, {class}, of {records:#?}");
            return Some(text);
        }
    }
    None
}

/// `640 (64 direct, 576 indirect) bytes in 1` or `33 bytes in 5`.
fn held(text: &str) -> Held {
    let digits = |text: &str| -> u64 {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    let (bytes, blocks) = text.split_once(" bytes in ").expect("an amount");
    let direct = bytes.split_once('(').map_or(bytes, |(_, direct)| {
        direct
            .split_once(" direct")
            .map_or(direct, |(direct, _)| direct)
    });
    Held {
        blocks: digits(blocks),
        bytes: digits(direct),
    }
}
