//! The chain that a search found: from its last link back to its root, and what the links are.

use pageshim_wire::check::{CHAIN_MAX, Chain, Root};

use super::index::Live;
use super::roots::Still;
use super::storage;
use super::why::{KINDS, ORDER, REGISTERS, Search, WORD};

/// A step of a chain; its words are those of `pageshim_wire::check::link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What kind of root, or a block.
    pub kind: Root,
    /// Of the block, or of the word in the root.
    pub address: usize,
    /// Requested, or the thread.
    pub bytes: usize,
    /// Of the block.
    pub site: u32,
    /// Of the word that points on.
    pub offset: usize,
    /// Where the pointer to the block points.
    pub into: usize,
}

/// No link.
pub const NO_LINK: Link = Link {
    kind: Root::Block,
    address: 0,
    bytes: 0,
    site: 0,
    offset: 0,
    into: 0,
};

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// How it went.
    pub state: Chain,
    /// The chain, root first.
    pub links: [Link; CHAIN_MAX],
    /// How many of them there are.
    pub count: usize,
    /// Links in the middle that found no place.
    pub left_out: usize,
}

impl Answer {
    /// No chain, and why.
    pub const fn none(state: Chain) -> Self {
        Self {
            state,
            links: [NO_LINK; CHAIN_MAX],
            count: 0,
            left_out: 0,
        }
    }
}

impl Search<'_> {
    /// The chain that ends at an entry.
    pub(super) fn answer(&self, entry: usize, state: Chain) -> Answer {
        let mut length = 1;
        let mut at = entry;
        while let Some(before) = self.before(at) {
            length += 1;
            at = before;
        }
        let via = self.entry(at).map_or(0, |(_, via)| via);
        let root = via & KINDS;
        let own_link = state == Chain::Reached && root != Root::Runtime as usize;
        let mut chain = Filling::new(state, length + usize::from(own_link));
        let (mut at, mut offset) = (entry, 0);
        loop {
            let (block, via) = self.entry(at).unwrap_or((0, 0));
            let before = self.before(at);
            let mut link = self.block_link(block, offset);
            if let Some(before) = before {
                offset = (via & u32::MAX as usize) * WORD;
                let word = self.entry(before).map_or(0, |(parent, _)| parent + offset);
                link.into = self.place_of(&link, storage::word(word));
            } else if own_link {
                let (word, own) = self.root_link(via);
                link.into = self.place_of(&link, word);
                chain.put(link);
                chain.put(own);
                break;
            } else if state == Chain::Reached {
                link.kind = Root::Runtime;
            }
            chain.put(link);
            let Some(before) = before else { break };
            at = before;
        }
        chain.answer
    }

    /// The entry whose block points to that of an entry; `None` for what roots point to.
    fn before(&self, entry: usize) -> Option<usize> {
        let seeds = if self.seeds == 0 {
            self.written
        } else {
            self.seeds
        };
        if entry < seeds && !self.of_kept.contains(&entry) {
            return None;
        }
        self.entry(entry)
            .map(|(_, via)| via >> 32)
            .filter(|before| *before < entry)
    }

    fn block_link(&self, block: usize, offset: usize) -> Link {
        let hit = self.index.find(block);
        let live = hit.map(|hit| self.index.live(&hit)).unwrap_or(Live {
            address: block,
            requested: 0,
            site: 0,
            birth: 0,
        });
        Link {
            kind: Root::Block,
            address: block,
            bytes: live.requested,
            site: live.site,
            offset,
            into: 0,
        }
    }

    fn place_of(&self, link: &Link, word: Option<usize>) -> usize {
        let into = word.unwrap_or(0).wrapping_sub(link.address);
        if into < link.bytes { into } else { 0 }
    }

    /// What a root's word holds, and its link.
    fn root_link(&self, via: usize) -> (Option<usize>, Link) {
        let kind = ORDER.into_iter().find(|kind| *kind as usize == via & KINDS);
        let kind = kind.unwrap_or(Root::Mapping);
        let at = via & !KINDS;
        let thread = match kind {
            Root::Register => self.threads.get(at >> 3 >> REGISTERS.trailing_zeros()),
            Root::Stack => on_stack(self.threads, at),
            Root::Tls => self.in_storage(at),
            _ => None,
        };
        let register = at >> 3 & (REGISTERS - 1);
        let (word, address) = match kind {
            Root::Register => (
                thread.and_then(|thread| thread.registers.get(register).copied()),
                register,
            ),
            _ => (storage::word(at), at),
        };
        let link = Link {
            kind,
            address,
            bytes: thread.map_or(0, |thread| thread.tid as usize),
            offset: match kind {
                Root::Tls => thread.map_or(0, |thread| thread.control.saturating_sub(at)),
                _ => 0,
            },
            ..NO_LINK
        };
        (word, link)
    }

    fn in_storage(&self, at: usize) -> Option<&Still> {
        let place = |thread: &usize| {
            let (from, to) = self.storage_of(*thread);
            (from..to).contains(&at)
        };
        let thread = (0..self.threads.len()).find(place)?;
        self.threads.get(thread)
    }
}

/// The thread whose stack a word is on: the nearest stack pointer below it, or else above.
fn on_stack(threads: &[Still], at: usize) -> Option<&Still> {
    let below = threads.iter().filter(|thread| thread.low <= at);
    let above = threads.iter().filter(|thread| thread.low > at);
    below
        .max_by_key(|thread| thread.low)
        .or_else(|| above.min_by_key(|thread| thread.low))
}

/// An answer that is filled from its last link to its first.
struct Filling {
    answer: Answer,
    total: usize,
    left: usize,
}

impl Filling {
    fn new(state: Chain, total: usize) -> Self {
        let mut answer = Answer::none(state);
        answer.count = total.min(CHAIN_MAX);
        answer.left_out = total - answer.count;
        Self {
            answer,
            total,
            left: total,
        }
    }

    fn put(&mut self, link: Link) {
        const HALF: usize = CHAIN_MAX / 2;
        self.left -= 1;
        let place = match self.left {
            place if self.total <= CHAIN_MAX || place < HALF => place,
            place if place >= self.total - HALF => CHAIN_MAX - (self.total - place),
            _ => return,
        };
        if let Some(room) = self.answer.links.get_mut(place) {
            *room = link;
        }
    }
}
