//! Which sites are worth a line: largest bills, and who keeps much with little.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::cost::Cost;

/// A site and its bill.
pub type Billed = (u32, Cost);

/// Fewest idle bytes that make a pinner: below, nothing is gained by looking.
const IDLE_MIN: u64 = 16 * 1024;

/// The `most` sites by resident bytes billed to them, ties by id.
pub fn largest(costs: &HashMap<u32, Cost>, most: usize) -> Vec<Billed> {
    top(costs, most, Cost::billed, 1)
}

/// The `most` sites by bytes without a block on OS pages that they alone keep.
pub fn pinners(costs: &HashMap<u32, Cost>, most: usize) -> Vec<Billed> {
    top(costs, most, |cost| cost.idle, IDLE_MIN)
}

fn top(costs: &HashMap<u32, Cost>, most: usize, rank: fn(&Cost) -> u64, least: u64) -> Vec<Billed> {
    let wanted = costs.iter().filter(|(_, cost)| rank(cost) >= least);
    let mut all: Vec<Billed> = wanted.map(|(site, cost)| (*site, *cost)).collect();
    let key = |billed: &Billed| (Reverse(rank(&billed.1)), billed.0);
    if all.len() > most {
        all.select_nth_unstable_by_key(most, key);
        all.truncate(most);
    }
    all.sort_unstable_by_key(key);
    all
}
