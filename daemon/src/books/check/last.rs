//! What the last whole check found of each site.

use std::collections::HashMap;

use pageshim_wire::check::{CLASSES, ROW_BYTES, row};
use pageshim_wire::layout::Layout;
use pageshim_wire::word_at;

use super::Check;
use super::read::{amount, read};
use crate::books::report::Amount;
use crate::books::view::{View, each_range};

/// Rows read at once.
const PIECE_ROWS: u64 = 512;

/// The last whole result, kept while the next one is written.
#[derive(Debug)]
pub struct Last {
    /// What it says of the process.
    pub check: Check,
    rows: HashMap<u32, Row>,
}

impl Last {
    /// The last result, or `before` where that is still it, or another is being written.
    pub fn read(
        view: &dyn View,
        layout: &Layout,
        sites: u64,
        before: Option<Self>,
    ) -> Option<Self> {
        let Some(check) = read(view, layout) else {
            return before;
        };
        match before {
            Some(before) if before.check.number == check.number => Some(Self { check, ..before }),
            before => {
                let rows = rows(view, layout, sites);
                // Written anew meanwhile: half of each.
                let whole = read(view, layout).is_some_and(|now| now.number == check.number);
                if whole {
                    Some(Self { check, rows })
                } else {
                    before
                }
            }
        }
    }

    /// What was found of a site.
    pub fn row(&self, site: u32) -> Row {
        self.rows.get(&site).copied().unwrap_or_default()
    }
}

/// Rows that hold anything.
fn rows(view: &dyn View, layout: &Layout, sites: u64) -> HashMap<u32, Row> {
    let mut found = HashMap::new();
    let sites = sites.min(layout.site_capacity);
    let first = layout.check_row(0);
    let mut piece = vec![0; (PIECE_ROWS * ROW_BYTES) as usize];
    each_range(view, first, layout.check_row(sites), |from, to| {
        let mut site = (from - first) / ROW_BYTES;
        let last = (to - first).div_ceil(ROW_BYTES).min(sites);
        while site < last {
            let count = (last - site).min(PIECE_ROWS);
            let piece = &mut piece[..(count * ROW_BYTES) as usize];
            if !view.read(layout.check_row(site), piece) {
                return;
            }
            let all = piece.chunks_exact(ROW_BYTES as usize).map(row_of);
            let held = (site as u32..).zip(all).filter(|(_, row)| row.holds());
            found.extend(held);
            site += count;
        }
    });
    found
}

/// What was found of one site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub(super) classes: [Amount; CLASSES],
    pub(super) held: Amount,
    pub(super) oldest: [u64; CLASSES],
}

impl Row {
    fn holds(&self) -> bool {
        self.classes.iter().any(|amount| amount.blocks > 0)
    }
}

fn row_of(bytes: &[u8]) -> Row {
    let mut found = Row {
        held: amount(bytes, row::HELD),
        ..Row::default()
    };
    for class in 0..CLASSES {
        found.classes[class] = amount(bytes, row::CLASSES + 2 * class);
        found.oldest[class] = word_at(bytes, row::OLDEST + class);
    }
    found
}
