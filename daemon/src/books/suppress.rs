//! Which lost sites are known and wanted: LeakSanitizer's suppressions.
//!
//! # Design
//! A file holds lines `leak:PATTERN`; `#` begins a comment line. What a pattern takes is in
//! `pattern`, what it then does to a report in `verdict`.

mod pattern;
mod verdict;

use super::report::Frame;
use pattern::takes;

pub use verdict::{Used, Verdict};

/// Rules taken from one source; what is past them is not read.
const RULES_MAX: usize = 10_000;

/// Patterns, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<String>);

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

#[cfg(test)]
mod tests;
