//! `--fail-on live>1MiB,peak>200MiB,waste>40%`: findings that fail a run.
//!
//! # Invariants
//! I1. A condition that cannot be judged (no check ran) counts as a finding: a
//!     gate in CI must not pass because it saw nothing.

use std::str::FromStr;

use crate::books::report::Process;
use crate::web::{findings, units, words};

const SUBJECTS: &str =
    "live, peak, definite, indirect, possible, reachable, waste, dropped, misuse";

/// All conditions of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailOn(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    subject: Subject,
    limit: Limit,
    /// As typed, for the message.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Live,
    Peak,
    Class(&'static str),
    Waste,
    Dropped,
    Misuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Number(u64),
    Percent(u64),
}

impl FromStr for FailOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(|part| condition(part.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let (subject, value) = text
        .split_once('>')
        .ok_or_else(|| format!("'{text}' is not SUBJECT>LIMIT, as in live>1MiB or waste>40%"))?;
    let subject = subject_of(subject.trim())?;
    let limit = limit_of(value.trim(), subject)?;
    Ok(Condition {
        subject,
        limit,
        text: text.to_owned(),
    })
}

fn subject_of(name: &str) -> Result<Subject, String> {
    Ok(match name {
        "live" => Subject::Live,
        "peak" => Subject::Peak,
        "definite" => Subject::Class("definite"),
        "indirect" => Subject::Class("indirect"),
        "possible" => Subject::Class("possible"),
        "reachable" => Subject::Class("reachable"),
        "waste" => Subject::Waste,
        "dropped" => Subject::Dropped,
        "misuse" => Subject::Misuse,
        other => return Err(format!("'{other}' is not known; choose from {SUBJECTS}")),
    })
}

fn limit_of(text: &str, subject: Subject) -> Result<Limit, String> {
    if let Some(percent) = text.strip_suffix('%') {
        if subject != Subject::Waste {
            return Err(format!(
                "'{text}': only waste has a percentage (of committed bytes)"
            ));
        }
        let percent = percent
            .trim()
            .parse()
            .ok()
            .filter(|percent| *percent <= 100);
        return percent
            .map(Limit::Percent)
            .ok_or_else(|| format!("'{text}' is no percentage from 0% to 100%"));
    }
    units::parse_bytes(text)
        .map(Limit::Number)
        .ok_or_else(|| format!("'{text}' is no size, as in 0, 512k or 1MiB"))
}

impl FailOn {
    /// What of `process` breaks a condition, a line each.
    pub(crate) fn findings(&self, process: &Process) -> Vec<String> {
        self.0
            .iter()
            .filter_map(|condition| condition.finding(process))
            .collect()
    }
}

impl Condition {
    fn finding(&self, process: &Process) -> Option<String> {
        let who = format!("{} (pid {})", words::clean(&process.name), process.pid);
        let Some(value) = self.value(process) else {
            return Some(format!(
                "{}: {who} cannot be judged, {}",
                self.text,
                findings::unjudged(process).unwrap_or_default()
            ));
        };
        let broken = match self.limit {
            Limit::Number(limit) => value > limit,
            Limit::Percent(percent) => {
                u128::from(value) * 100
                    > u128::from(percent) * u128::from(process.pages.committed_bytes)
            }
        };
        let shown = match self.subject {
            Subject::Dropped | Subject::Misuse => units::count(value),
            Subject::Waste => format!(
                "{} ({})",
                units::bytes(value),
                units::percent(value, process.pages.committed_bytes)
            ),
            _ => exact_bytes(value),
        };
        broken.then(|| format!("{}: {who} has {shown}", self.text))
    }

    fn value(&self, process: &Process) -> Option<u64> {
        Some(match self.subject {
            Subject::Live => process.live.bytes,
            Subject::Peak => process.peak.bytes,
            Subject::Class(class) => words::found(process, class)?.bytes,
            Subject::Waste => words::waste_bytes(&process.pages),
            Subject::Dropped => process.events_dropped,
            Subject::Misuse => process.misuse.values().sum(),
        })
    }
}

/// `1.5 KiB (1,536 B)`; few bytes are told once.
fn exact_bytes(bytes: u64) -> String {
    let (short, whole) = (units::bytes(bytes), units::count(bytes));
    match bytes < 1024 {
        true => short,
        false => format!("{short} ({whole} B)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    fn findings(text: &str, process: usize) -> usize {
        let conditions: FailOn = text.parse().expect("parses");
        conditions
            .findings(&fixture::report().processes[process])
            .len()
    }

    // Goal: limits are exclusive, bytes and shares both work. Method: around the fixture's values.
    #[test]
    fn conditions_judge_the_fixture() {
        assert_eq!(findings("live>0", 1), 1);
        assert_eq!(findings("live>3276800", 1), 0);
        assert_eq!(findings("live>3MiB, waste>40%,misuse>0", 1), 3);
        assert_eq!(findings("waste>45%", 1), 0);
        assert_eq!(findings("definite>4095", 0), 1);
        assert_eq!(findings("definite>4k", 0), 0);
    }

    // Goal: what is suppressed is no finding, what is left of the class still is. Method: the checked
    // process with all of its lost bytes suppressed, then with some.
    #[test]
    fn suppressed_blocks_are_no_finding() {
        let mut process = fixture::report().processes.remove(0);
        let conditions: FailOn = "definite>0".parse().expect("parses");
        let mut left = |bytes| {
            let check = process.check.as_mut().expect("checked");
            check.suppressed.definite.bytes = bytes;
            conditions.findings(&process)
        };
        assert_eq!(left(0).len(), 1);
        assert!(left(4000).join("").ends_with("has 96 B"));
        assert!(left(0).join("").ends_with("has 4.0 KiB (4,096 B)"));
        assert!(left(4096).is_empty());
    }

    // Goal: I1. Method: the running process, which was never checked.
    #[test]
    fn what_cannot_be_judged_is_a_finding() {
        assert_eq!(findings("definite>0", 1), 1);
        let conditions: FailOn = "definite>0".parse().expect("parses");
        let said = conditions
            .findings(&fixture::report().processes[1])
            .join("");
        assert!(said.contains("it was not checked at its end"), "{said}");
    }

    // Goal: typing errors are told. Method: one of each.
    #[test]
    fn errors_name_what_is_wrong() {
        for (text, needle) in [
            ("lost>0", "choose from"),
            ("live", "SUBJECT>LIMIT"),
            ("live>x", "no size"),
            ("live>4%", "only waste"),
            ("waste>101%", "no percentage"),
            ("", "SUBJECT>LIMIT"),
        ] {
            let error = text.parse::<FailOn>().expect_err("must fail");
            assert!(error.contains(needle), "{error}");
        }
    }
}
