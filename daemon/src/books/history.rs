//! The last checks of a process, and what changed from one to the next.
//!
//! Bounded: [`CHECKS_MAX`] checks of a running process with [`SITES_MAX`] lost sites each, of one
//! that ended [`CHECKS_ENDED`].

use std::collections::{HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::check::Check;

/// Checks kept of a running process.
pub const CHECKS_MAX: usize = 8;
/// Checks kept of one that ended.
pub const CHECKS_ENDED: usize = 2;
/// Lost sites kept of a check, most bytes first.
pub const SITES_MAX: usize = 256;

/// `/api/v1/processes/{id}/checks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// Version of this document.
    pub schema_version: u32,
    /// Id of the process.
    pub process: String,
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// The last checks, newest first.
    pub checks: Vec<Past>,
    /// The newest against the one before with the same roots, the largest change first; null before
    /// there are two.
    pub since: Option<Vec<Change>>,
}

/// One check and the lost sites it found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// How it was made, and the sums.
    pub check: Check,
    /// The largest lost sites.
    pub sites: Vec<LostSite>,
    /// How many there were.
    pub sites_total: u64,
}

/// Lost blocks of one class of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostSite {
    /// Site id.
    pub site: String,
    /// `definite`, `indirect` or `possible`.
    pub class: String,
    /// Blocks.
    pub blocks: u64,
    /// Requested bytes.
    pub bytes: u64,
    /// The function that asked for them.
    pub function: String,
    /// The pattern that suppresses them; null when none does.
    #[serde(default)]
    pub suppressed: Option<String>,
}

/// What a site lost, or got back, from one check to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Site id.
    pub site: String,
    /// Class.
    pub class: String,
    /// The function.
    pub function: String,
    /// Blocks more; negative when they are fewer.
    pub blocks: i64,
    /// Bytes more.
    pub bytes: i64,
}

/// The last checks of a process, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Past>);

impl History {
    /// The number of the last check noted; 0 for none.
    pub fn number(&self) -> u64 {
        self.0.back().map_or(0, |past| past.check.number)
    }

    /// Adds a check, `sites` being all it lost, and forgets the oldest.
    pub fn note(&mut self, check: Check, mut sites: Vec<LostSite>, sites_total: u64) {
        sites.sort_by_key(|site| std::cmp::Reverse((site.bytes, site.blocks)));
        sites.truncate(SITES_MAX);
        self.0.push_back(Past {
            check,
            sites,
            sites_total,
        });
        self.keep(CHECKS_MAX);
    }

    /// Keeps the newest `most`.
    pub fn keep(&mut self, most: usize) {
        self.0.drain(..self.0.len().saturating_sub(most));
    }

    /// All, newest first.
    pub fn newest_first(&self) -> Vec<Past> {
        self.0.iter().rev().cloned().collect()
    }

    /// The last compared with the one before that had the same roots; `None` before there are two
    /// with a result. What other roots lead to would be told as lost or found.
    pub fn since(&self) -> Option<Vec<Change>> {
        let whole = |past: &&Past| past.check.trouble.is_none();
        let mut newest = self.0.iter().rev().filter(whole);
        let new = newest.next()?;
        let old = newest.find(|past| past.check.strict == new.check.strict)?;
        Some(compare(old, new))
    }
}

fn key(site: &LostSite) -> (&str, &str) {
    (&site.site, &site.class)
}

/// What changed; a site that was beyond what is kept of one of both says nothing.
fn compare(old: &Past, new: &Past) -> Vec<Change> {
    let whole = |past: &Past| past.sites.len() as u64 == past.sites_total;
    let before: HashMap<_, _> = old.sites.iter().map(|site| (key(site), site)).collect();
    let after: HashSet<_> = new.sites.iter().map(key).collect();
    let none = LostSite::default();
    let mut changes = Vec::new();
    for site in &new.sites {
        let was = before.get(&key(site)).copied();
        if was.is_some() || whole(old) {
            changes.push(change(was.unwrap_or(&none), site, site));
        }
    }
    let gone = old.sites.iter().filter(|site| !after.contains(&key(site)));
    let gone = gone.map(|site| change(site, &none, site));
    changes.extend(gone.filter(|_| whole(new)));
    changes.retain(|change| change.blocks != 0 || change.bytes != 0);
    changes.sort_by_key(|change| std::cmp::Reverse((change.bytes.unsigned_abs(), change.blocks)));
    changes
}

fn change(old: &LostSite, new: &LostSite, named: &LostSite) -> Change {
    Change {
        site: named.site.clone(),
        class: named.class.clone(),
        function: named.function.clone(),
        blocks: new.blocks.wrapping_sub(old.blocks).cast_signed(),
        bytes: new.bytes.wrapping_sub(old.bytes).cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, class: &str, blocks: u64) -> LostSite {
        LostSite {
            site: name.to_owned(),
            class: class.to_owned(),
            blocks,
            bytes: blocks * 16,
            function: format!("{name}_new"),
            suppressed: None,
        }
    }

    fn check(number: u64) -> Check {
        Check {
            number,
            ..Check::default()
        }
    }

    // Goal: two checks are compared site by site, and a failed one between them, or one with other
    // roots, is passed over.
    // Method: a site that grows, one that goes, one that comes, one that stays.
    #[test]
    fn the_last_two_are_compared() {
        let mut history = History::default();
        assert_eq!((history.number(), history.since()), (0, None));
        let first = vec![
            site("a", "definite", 2),
            site("b", "possible", 1),
            site("d", "definite", 4),
        ];
        history.note(check(1), first, 3);
        let failed = Check {
            trouble: Some("no".to_owned()),
            ..check(2)
        };
        history.note(failed, Vec::new(), 0);
        assert_eq!(history.since(), None);
        let strict = Check {
            strict: true,
            ..check(2)
        };
        history.note(strict, vec![site("e", "definite", 9)], 1);
        assert_eq!(history.since(), None);
        let second = vec![
            site("a", "definite", 5),
            site("c", "indirect", 2),
            site("d", "definite", 4),
        ];
        history.note(check(3), second, 3);
        let changes = history.since().expect("two");
        let told: Vec<_> = changes
            .iter()
            .map(|c| (c.site.as_str(), c.blocks, c.bytes))
            .collect();
        assert_eq!(told, [("a", 3, 48), ("c", 2, 32), ("b", -1, -16)]);
        assert_eq!(
            (history.number(), history.newest_first()[0].check.number),
            (3, 3)
        );
    }

    // Goal: memory is bounded, and what was cut off is not told as found or freed.
    // Method: many checks of many sites, the smallest of which come and go.
    #[test]
    fn what_is_kept_is_bounded() {
        let mut history = History::default();
        for number in 1..=20 {
            let many = 300 + number;
            let sites = (0..many).map(|n| site(&format!("{n:03}"), "definite", 1000 - n + number));
            history.note(check(number), sites.collect(), many);
        }
        let kept = history.newest_first();
        assert_eq!((kept.len(), kept[0].sites.len()), (CHECKS_MAX, SITES_MAX));
        let changes = history.since().expect("two");
        assert!(
            changes.iter().all(|change| change.blocks == 1),
            "{changes:?}"
        );
        history.keep(CHECKS_ENDED);
        assert_eq!(history.newest_first().len(), CHECKS_ENDED);
    }
}
