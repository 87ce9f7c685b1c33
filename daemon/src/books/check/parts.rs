//! A site's live blocks split by what the last check found.
//!
//! # Invariants
//! I1. The parts of a site sum to its live blocks: what was allocated since the check is
//!     `live`, what was freed since is taken off where it must have been, reachable
//!     first, because nobody can free what is lost.

use pageshim_wire::check::{CLASS_NAMES, Class};

use super::last::Row;
use crate::books::report::Amount;

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
}
