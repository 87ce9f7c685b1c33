//! Whose chain a check is to look for, and what was found of it, in the section.

use pageshim_core::leaks::Plan;
use pageshim_core::leaks::aim::Aim;
use pageshim_core::leaks::chain::Answer;
use pageshim_core::leaks::roots::{self, Sources, Still};
use pageshim_core::leaks::why::{self, Search};
use pageshim_wire::check::{CHAIN_MAX, Chain, LINK_WORDS, Trigger, Wanted, link, word};

use super::Section;
use super::marking::Excluded;
use crate::tls;
use crate::world::SPACES;

impl Section {
    /// What the daemon asked for before it had this check made.
    pub(super) fn asked(&self, trigger: Trigger) -> Option<Wanted> {
        match trigger {
            Trigger::Exit => None,
            Trigger::Request => Wanted::unpack(self.read(word::ASKED)),
        }
    }

    fn write_chain(&self, wanted: Wanted, aim: Option<&Aim>, answer: &Answer) {
        let links = answer.links.iter().take(answer.count.min(CHAIN_MAX));
        for (number, found) in links.enumerate() {
            let first = word::CHAIN + number * LINK_WORDS;
            for (index, value) in [
                (link::KIND, found.kind as u64),
                (link::ADDRESS, found.address as u64),
                (link::BYTES, found.bytes as u64),
                (link::SITE, found.site.into()),
                (link::OFFSET, found.offset as u64),
                (link::INTO, found.into as u64),
            ] {
                self.write(first + index, value);
            }
        }
        let into = match (wanted, aim) {
            (Wanted::Address(address), Some(aim)) => {
                address.saturating_sub(aim.block.address as u64)
            }
            _ => 0,
        };
        for (index, value) in [
            (word::WHY, wanted.pack()),
            (word::LINKS, answer.count as u64),
            (word::LEFT_OUT, answer.left_out as u64),
            (word::CHAIN_STATE, answer.state as u64),
            (word::CHAIN_CLASS, aim.map_or(0, |aim| aim.class as u64)),
            (word::CHAIN_INTO, into),
        ] {
            self.write(index, value);
        }
    }
}

/// What a search goes by, beside its target.
pub(super) struct Ground<'a, K> {
    pub(super) plan: Plan,
    pub(super) threads: &'a [Still],
    /// The threads' storage.
    pub(super) storage: &'a [(usize, usize)],
    /// Sites whose blocks are roots.
    pub(super) kept: K,
    pub(super) excluded: &'a mut Excluded,
    pub(super) strict: bool,
    pub(super) missed: bool,
}

/// Looks for a chain to what is aimed at, and writes it down.
pub(super) fn tell(
    section: Section,
    wanted: Wanted,
    aim: Option<&Aim>,
    ground: Ground<'_, impl Fn(u32) -> bool>,
) {
    let Some(found) = aim else {
        return section.write_chain(wanted, None, &Answer::none(Chain::Nothing));
    };
    let Ground {
        plan,
        threads,
        storage,
        kept,
        excluded,
        strict,
        missed,
    } = ground;
    let mut own_known = false;
    let look = |search: &mut Search<'_>| {
        if !core::mem::replace(&mut own_known, true) {
            let own = search.own_ranges();
            own.into_iter().for_each(|range| excluded.add(range));
        }
        let mut sources = Sources {
            threads,
            storage,
            first: tls::first(),
            excluded: excluded.ranges(),
            strict,
            missed,
        };
        roots::walk(&mut sources, search).map(|_| ())
    };
    let answer = why::why(&SPACES, plan, threads, found, kept, look);
    section.write_chain(wanted, aim, &answer);
}
