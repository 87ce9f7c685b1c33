//! The chain of pointers that a check looked for, as it lies in the state.

use pageshim_wire::check::{CHAIN_MAX, CLASS_NAMES, Chain, LINK_WORDS, Root, Wanted, link, word};
use pageshim_wire::layout::Layout;
use pageshim_wire::process::{SITE_FIRST, ms_from_tick};
use pageshim_wire::word_at;

use super::view::View;

/// Site entries read at once.
const PIECE_SITES: u64 = 4096;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How it went.
    pub state: Chain,
    /// Class of the block at the chain's end, by name; `None` without one.
    pub class: Option<&'static str>,
    /// Bytes from that block's start to what was asked for.
    pub into: u64,
    /// Links in the middle that found no place.
    pub left_out: u64,
    /// Root first.
    pub links: Vec<Step>,
    /// Number of the check.
    pub number: u64,
    /// When, ms after the start of the process.
    pub at_ms: u64,
}

/// A link as the process wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub kind: Root,
    /// Of the block, or of the root's word; a register's number.
    pub address: u64,
    /// Requested, or the thread.
    pub bytes: u64,
    /// Of the block.
    pub site: u32,
    /// Of the word that points on.
    pub offset: u64,
    /// Where the pointer to it points.
    pub into: u64,
}

const KINDS: [Root; 8] = [
    Root::Block,
    Root::Global,
    Root::Stack,
    Root::Register,
    Root::Tls,
    Root::Mapping,
    Root::Runtime,
    Root::Unrecorded,
];
const STATES: [Chain; 7] = [
    Chain::None,
    Chain::Reached,
    Chain::Lost,
    Chain::Nothing,
    Chain::Memory,
    Chain::TooLong,
    Chain::Moved,
];

fn at<T: Copy>(all: &[T], index: u64) -> Option<T> {
    all.get(usize::try_from(index).ok()?).copied()
}

/// The chain to what was wanted; `None` when the last check looked for none, or another.
pub fn read(view: &dyn View, layout: &Layout, wanted: Wanted) -> Option<Found> {
    let mut bytes = vec![0; (word::CHAIN + CHAIN_MAX * LINK_WORDS) * 8];
    if !view.read(layout.check(), &mut bytes) {
        return None;
    }
    let number = |index: usize| word_at(&bytes, index);
    let sequence = number(word::SEQUENCE);
    if !sequence.is_multiple_of(2) || number(word::WHY) != wanted.pack() {
        return None;
    }
    let state = at(&STATES, number(word::CHAIN_STATE)).filter(|state| *state != Chain::None)?;
    let count = usize::try_from(number(word::LINKS)).ok()?.min(CHAIN_MAX);
    let step = |index: usize| {
        let value = |part: usize| number(word::CHAIN + index * LINK_WORDS + part);
        Some(Step {
            kind: at(&KINDS, value(link::KIND))?,
            address: value(link::ADDRESS),
            bytes: value(link::BYTES),
            site: u32::try_from(value(link::SITE)).ok()?,
            offset: value(link::OFFSET),
            into: value(link::INTO),
        })
    };
    let links: Option<Vec<Step>> = (0..count).map(step).collect();
    let class = at(&CLASS_NAMES, number(word::CHAIN_CLASS));
    Some(Found {
        state,
        class: class.filter(|_| count > 0),
        into: number(word::CHAIN_INTO),
        left_out: number(word::LEFT_OUT),
        links: links?,
        number: sequence / 2,
        at_ms: ms_from_tick(number(word::TICK)),
    })
}

/// The number of the site with this id for people.
pub fn site_of(view: &dyn View, layout: &Layout, sites: u64, id: &str) -> Option<u32> {
    let hash = u64::from_str_radix(id.trim_start_matches("0x"), 16).ok()?;
    if hash < u64::from(SITE_FIRST) {
        return u32::try_from(hash).ok();
    }
    let sites = sites.min(layout.site_capacity);
    let stride = layout.site(1) - layout.site(0);
    let mut first = 0;
    while first < sites {
        let count = PIECE_SITES.min(sites - first);
        let mut piece = vec![0; usize::try_from(count * stride).ok()?];
        if !view.read(layout.site(first), &mut piece) {
            return None;
        }
        let mut hashes = piece
            .chunks_exact(usize::try_from(stride).ok()?)
            .map(|entry| word_at(entry, 0));
        if let Some(place) = hashes.position(|found| found == hash) {
            return u32::try_from(first + place as u64).ok();
        }
        first += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::fake::State as Fake;
    use super::*;

    fn filled(wanted: Wanted) -> Fake {
        let mut state = Fake::new();
        let base = state.layout.check();
        for (index, value) in [
            (word::SEQUENCE, 6),
            (word::WHY, wanted.pack()),
            (word::CHAIN_STATE, Chain::Reached as u64),
            (word::CHAIN_CLASS, 3),
            (word::LINKS, 2),
            (word::LEFT_OUT, 9),
            (word::CHAIN + link::KIND, Root::Global as u64),
            (word::CHAIN + link::ADDRESS, 0x4000),
            (word::CHAIN + LINK_WORDS + link::ADDRESS, 0x5000),
            (word::CHAIN + LINK_WORDS + link::SITE, 7),
            (word::CHAIN + LINK_WORDS + link::INTO, 8),
        ] {
            state.put(base + index as u64 * 8, value);
        }
        state
    }

    // Goal: a chain is read, the chain of another is not, nonsense is nothing. Method: words by hand.
    #[test]
    fn chains_are_read() {
        let wanted = Wanted::Address(0x5008);
        let mut state = filled(wanted);
        let layout = state.layout;
        let found = read(&state.view(), &layout, wanted).expect("whole");
        assert_eq!(
            (found.state, found.class),
            (Chain::Reached, Some("reachable"))
        );
        assert_eq!((found.number, found.left_out, found.links.len()), (3, 9, 2));
        assert_eq!(found.links[0].kind, Root::Global);
        assert_eq!((found.links[1].site, found.links[1].into), (7, 8));
        assert_eq!(read(&state.view(), &layout, Wanted::Site(7, None)), None);
        let base = layout.check();
        for (index, value) in [
            (word::CHAIN + link::KIND, 99),
            (word::CHAIN_STATE, 99),
            (word::SEQUENCE, 7),
        ] {
            state.put(base + index as u64 * 8, value);
            assert_eq!(read(&state.view(), &layout, wanted), None);
        }
        let mut state = filled(wanted);
        state.put(base + word::LINKS as u64 * 8, u64::MAX);
        let found = read(&state.view(), &layout, wanted).expect("cut");
        assert_eq!(found.links.len(), CHAIN_MAX);
    }

    // Goal: sites are found by the id that people see. Method: one in the table, ones that are not.
    #[test]
    fn sites_are_found_by_id() {
        let mut state = Fake::new();
        let layout = state.layout;
        state.put(layout.site(5), 0xabcd_ef01);
        let find = |id: &str| site_of(&state.view(), &layout, 9, id);
        assert_eq!(find("00000000abcdef01"), Some(5));
        assert_eq!(find("0xabcdef01"), Some(5));
        assert_eq!(find("0000000000000001"), Some(1), "the table was full");
        assert_eq!(
            (find("abcdef02"), find("cache"), find("")),
            (None, None, None)
        );
    }
}
