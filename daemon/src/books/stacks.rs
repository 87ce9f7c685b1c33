//! Stacks as a tree, decoded once from the log.
//!
//! # Design
//! A node is (parent, program counter), interned, so stacks that share their
//! outer frames share nodes. Kept as plain arrays: 12 bytes a node, 4 to 8 for the
//! intern table, 4 a site. A million sites of 1.3 M nodes take about 40 MB.
//!
//! # Invariants
//! I1. A node's parent is older than the node, so climbing ends.
//! I2. Site ids are decoded in order; one that is not published yet, or whose
//!     prefix is not, waits in `pending` and is tried again.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use pageshim_wire::layout::{Layout, SITE_BYTES};
use pageshim_wire::process::SITE_FIRST;
use pageshim_wire::stack::Record;
use pageshim_wire::{Memory, word_at};

use super::view::View;

/// Index of a node; [`NONE`] is the empty stack.
pub type Node = u32;
/// The empty stack.
pub const NONE: Node = u32::MAX;
/// A site whose record could not be decoded.
const BROKEN: Node = u32::MAX - 1;
/// A site that is not published yet.
const WAITING: Node = u32::MAX - 2;
/// Most nodes of one process; later frames are cut off.
const NODES_MAX: usize = 1 << 24;
/// Sites whose entries are read at once.
const BATCH: u64 = 4096;
/// Bytes of the log read at once.
const WINDOW: usize = 64 * 1024;

/// All stacks of one process.
#[derive(Debug)]
pub struct Stacks {
    parents: Vec<Node>,
    counters: Vec<u64>,
    table: Vec<Node>,
    seed: u64,
    leaves: Vec<Node>,
    pending: Vec<u32>,
}

impl Default for Stacks {
    fn default() -> Self {
        Self {
            parents: Vec::new(),
            counters: Vec::new(),
            table: vec![NONE; 64],
            seed: RandomState::new().hash_one(0x5eed_u32) | 1,
            leaves: Vec::new(),
            pending: Vec::new(),
        }
    }
}

impl Stacks {
    /// Decodes what is new among the first `count` sites.
    pub fn update(&mut self, view: &dyn View, layout: &Layout, count: u64) {
        let count = count.min(layout.site_capacity);
        let waiting = std::mem::take(&mut self.pending);
        for ids in waiting.chunks(BATCH as usize) {
            let window = Window::new(view, layout, u64::from(ids[0]));
            for site in ids {
                self.decode(&window, layout, *site);
            }
        }
        let mut first = self.leaves.len() as u64;
        while first < count {
            let window = Window::new(view, layout, first);
            let last = (first + BATCH).min(count);
            for site in first..last {
                self.leaves.push(WAITING);
                self.decode(&window, layout, site as u32);
            }
            first = last;
        }
    }

    /// The stack of `site`, leaf first; `None` when it is not known (site 0 and
    /// 1 have none) or its record makes no sense.
    pub fn frames(&self, site: u32) -> Option<Vec<u64>> {
        let leaf = *self.leaves.get(site as usize)?;
        (leaf < WAITING || leaf == NONE).then(|| self.climb(leaf))
    }

    /// The program counters from `node` outwards.
    pub fn climb(&self, node: Node) -> Vec<u64> {
        let mut frames = Vec::new();
        let mut at = node;
        while let Some(counter) = self.counters.get(at as usize) {
            frames.push(*counter);
            at = self.parents[at as usize];
        }
        frames
    }

    /// Adds a stack given leaf first; used to keep a few stacks of many.
    pub fn insert(&mut self, frames: &[u64]) -> Node {
        let outwards = frames.iter().rev();
        outwards.fold(NONE, |parent, counter| self.intern(parent, *counter))
    }

    /// Gives back what only decoding needs.
    pub fn seal(&mut self) {
        self.table = Vec::new();
        self.leaves = Vec::new();
        self.pending = Vec::new();
        self.parents.shrink_to_fit();
        self.counters.shrink_to_fit();
    }

    /// Nodes so far.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    fn decode(&mut self, memory: &Window<'_>, layout: &Layout, site: u32) {
        if site < SITE_FIRST {
            self.leaves[site as usize] = NONE;
            return;
        }
        let decoded = match Record::of_site(memory, layout, site) {
            Some(record) => self.build(memory, &record),
            None if memory.published(layout, site) => BROKEN,
            None => WAITING,
        };
        self.leaves[site as usize] = decoded;
        if decoded == WAITING {
            self.pending.push(site);
        }
    }

    /// The leaf of a record: the prefix's outermost frames, then its own.
    fn build(&mut self, memory: &Window<'_>, record: &Record) -> Node {
        let mut parent = NONE;
        if record.shared_frames > 0 {
            let prefix = self.leaves.get(record.prefix as usize).copied();
            parent = match prefix.unwrap_or(BROKEN) {
                WAITING => return WAITING,
                BROKEN | NONE => return BROKEN,
                leaf => match self.outermost(leaf, usize::from(record.shared_frames)) {
                    Some(node) => node,
                    None => return BROKEN,
                },
            };
        }
        let mut bytes = vec![0; usize::from(record.new_frames) * 8];
        if !memory.read(record.frames_at, &mut bytes) {
            return BROKEN;
        }
        for index in (0..usize::from(record.new_frames)).rev() {
            parent = self.intern(parent, word_at(&bytes, index));
        }
        parent
    }

    /// The node that stands for the `depth` outermost frames of the stack at `leaf`.
    fn outermost(&self, leaf: Node, depth: usize) -> Option<Node> {
        let mut trail = Vec::with_capacity(64);
        let mut at = leaf;
        while at != NONE {
            trail.push(at);
            at = self.parents[at as usize];
        }
        trail.len().checked_sub(depth).map(|inner| trail[inner])
    }

    fn intern(&mut self, parent: Node, counter: u64) -> Node {
        if self.counters.len() * 4 >= self.table.len() * 3 {
            self.grow();
        }
        let slot = self.slot(parent, counter);
        if self.table[slot] != NONE {
            return self.table[slot];
        }
        if self.counters.len() >= NODES_MAX {
            return parent;
        }
        let node = self.counters.len() as Node;
        self.parents.push(parent);
        self.counters.push(counter);
        self.table[slot] = node;
        node
    }

    /// Where (parent, counter) is in the table, or the free slot it belongs into.
    fn slot(&self, parent: Node, counter: u64) -> usize {
        let mask = self.table.len() - 1;
        let mixed = (counter ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (u64::from(parent) ^ self.seed >> 32).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let mut slot = (mixed.wrapping_mul(self.seed) >> 24) as usize & mask;
        loop {
            let node = self.table[slot];
            let same = |node: Node| {
                self.counters[node as usize] == counter && self.parents[node as usize] == parent
            };
            if node == NONE || same(node) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        self.table = vec![NONE; self.table.len() * 2];
        for node in 0..self.counters.len() {
            let slot = self.slot(self.parents[node], self.counters[node]);
            self.table[slot] = node as Node;
        }
    }
}

/// The state seen through two buffers: site entries, copied first, and a part
/// of the log, copied later. In that order a published entry's record is whole.
struct Window<'a> {
    view: &'a dyn View,
    entries: (u64, Vec<u8>),
    log_at: u64,
    log: RefCell<(u64, Vec<u8>)>,
}

impl<'a> Window<'a> {
    fn new(view: &'a dyn View, layout: &Layout, first: u64) -> Self {
        let count = BATCH.min(layout.site_capacity.saturating_sub(first));
        let mut entries = vec![0; (count * SITE_BYTES) as usize];
        if !view.read(layout.site(first), &mut entries) {
            entries.clear();
        }
        Self {
            view,
            entries: (layout.site(first), entries),
            log_at: layout.log(),
            log: RefCell::default(),
        }
    }

    /// Whether the entry of `site` says that its record is there.
    fn published(&self, layout: &Layout, site: u32) -> bool {
        self.word(layout.site(u64::from(site))).unwrap_or(1) != 0
    }

    /// Fills the log buffer from `offset`; shorter near the end of the state.
    fn load(&self, offset: u64, log: &mut (u64, Vec<u8>)) {
        let mut room = WINDOW;
        log.0 = offset;
        log.1.resize(room, 0);
        while room > 0 && !self.view.read(offset, &mut log.1[..room]) {
            room /= 2;
        }
        log.1.truncate(room);
    }
}

impl Memory for Window<'_> {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        if copy_from(&self.entries, offset, into) {
            return true;
        }
        let mut log = self.log.borrow_mut();
        if offset < self.log_at {
            // An entry read now may publish records the buffer is too old for.
            log.1.clear();
            return self.view.read(offset, into);
        }
        if copy_from(&log, offset, into) {
            return true;
        }
        self.load(offset, &mut log);
        copy_from(&log, offset, into) || self.view.read(offset, into)
    }
}

/// Copies from a buffer that holds the bytes at `buffer.0`; false when not all are there.
fn copy_from(buffer: &(u64, Vec<u8>), offset: u64, into: &mut [u8]) -> bool {
    let Some(start) = offset.checked_sub(buffer.0) else {
        return false;
    };
    buffer.1.as_slice().read(start, into)
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;

    fn decoded(state: &State, count: u64) -> Stacks {
        let mut stacks = Stacks::default();
        stacks.update(&state.view(), &state.layout, count);
        stacks
    }

    // Goal: shared frames are taken from the prefix and nodes are shared. Method: three records by hand.
    #[test]
    fn prefixes_are_followed() {
        let mut state = State::new();
        state.stack(2, &[1, 2, 3], (0, 0));
        state.stack(3, &[9], (2, 2));
        state.stack(4, &[], (3, 1));
        let stacks = decoded(&state, 5);
        assert_eq!(stacks.frames(2), Some(vec![1, 2, 3]));
        assert_eq!(stacks.frames(3), Some(vec![9, 2, 3]));
        assert_eq!(stacks.frames(4), Some(vec![3]));
        assert_eq!(stacks.frames(0), Some(vec![]));
        assert_eq!((stacks.frames(5), stacks.len()), (None, 4));
    }

    // Goal: decoding goes on where it stopped, and a site published late is found later.
    // Method: site 3 appears after site 4, which needs it.
    #[test]
    fn late_publication_is_caught_up() {
        let mut state = State::new();
        state.stack(2, &[1], (0, 0));
        state.stack(4, &[7], (3, 1));
        let mut stacks = decoded(&state, 5);
        assert_eq!((stacks.frames(3), stacks.frames(4)), (None, None));
        state.stack(3, &[5], (2, 1));
        stacks.update(&state.view(), &state.layout, 6);
        assert_eq!(stacks.frames(3), Some(vec![5, 1]));
        assert_eq!(stacks.frames(4), Some(vec![7, 1]));
        assert_eq!(stacks.pending, [5]);
    }

    // Goal: hostile records give no stack, never a panic or a loop.
    // Method: a missing prefix, more shared frames than the prefix has, a cycle, an offset past the log.
    #[test]
    fn hostile_records_are_dropped() {
        let mut state = State::new();
        state.stack(2, &[1], (0, 0));
        state.stack(3, &[8], (2, 2));
        state.stack(5, &[8], (5, 1));
        state.stack(6, &[8], (7, 1));
        state.stack(7, &[8], (6, 1));
        state.stack(8, &[8], (0, 1));
        state.site_entry(9, 77, !7);
        state.site_entry(10, 77, state.layout.log_bytes - 8);
        let stacks = decoded(&state, u64::MAX);
        for site in [3, 5, 6, 7, 8, 9, 10, 4_000_000] {
            assert_eq!(stacks.frames(site), None, "site {site}");
        }
        assert_eq!(stacks.frames(2), Some(vec![1]));
    }

    // Goal: kept stacks survive the seal. Method: insert, seal, climb.
    #[test]
    fn inserted_stacks_climb_after_the_seal() {
        let mut stacks = Stacks::default();
        let frames: Vec<u64> = (0..500).collect();
        let leaf = stacks.insert(&frames);
        assert_eq!(stacks.insert(&frames), leaf);
        stacks.seal();
        assert_eq!(stacks.climb(leaf), frames);
        assert_eq!(stacks.climb(NONE), Vec::<u64>::new());
    }
}
