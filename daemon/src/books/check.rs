//! What the last reachability check found, and how it goes with what is live now.
//!
//! # Design
//! ```text
//! here    a check as reports tell it
//! read    its header, as the process wrote it
//! last    its rows by site, kept while the next is written
//! parts   a site's live blocks split by what was found
//! ```

mod last;
mod parts;
mod read;

use pageshim_wire::check::CLASS_NAMES;
use serde::{Deserialize, Serialize};

use super::history::Change;
use super::report::Amount;
use super::suppress::Used;

pub use last::{Last, Row};
pub use parts::{Part, parts};
pub use read::{reason, rules};

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
    /// `memory`, `too_long`, `system`, `damaged`, `namespace`.
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

#[cfg(test)]
mod tests;
