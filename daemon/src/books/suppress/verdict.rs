//! Rules held against the lost sites of a check.
//!
//! # Invariants
//! I1. Only lost blocks are suppressed, and each at most once: the first rule that matches counts.
//! I2. Of the indirect blocks no more are suppressed than suppressed definite ones are known to
//!     hold: a gate in CI must not pass by a guess.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Rules, is_lost};
use crate::books::check::{Check, Classes};
use crate::books::report::{Amount, Leak, Report};
use crate::books::threads::plus;

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
