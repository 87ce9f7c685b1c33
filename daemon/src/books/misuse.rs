//! Misuse of the heap as it is told: a frame of five words, its sites and their stacks.
//!
//! The counters say how often; here are the last few with the calls that did
//! it. The same call again is one entry with a count: a loop that frees twice
//! must not push everything else out.

use std::collections::VecDeque;

use pageshim_wire::process::{MISUSE_NAMES, SITE_UNKNOWN};
use pageshim_wire::word_at;

use super::leaks::Detail;

/// Entries kept of one process.
pub const KEPT: usize = 10;
/// Frames kept of each stack.
const FRAMES: usize = 64;

/// One call, or the same one several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misused {
    /// Its kind's name.
    pub kind: &'static str,
    /// The pointer, of the last time.
    pub address: u64,
    /// How often.
    pub count: u64,
    /// Stacks where known: of the allocation, of the first free, of this call.
    pub known: [Option<Detail>; 3],
    sites: [u32; 3],
}

impl Misused {
    /// What a checked frame says; `None` when it is too short.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        if payload.len() < 40 {
            return None;
        }
        let kind = usize::try_from(word_at(payload, 0)).ok();
        let kind = kind.and_then(|kind| MISUSE_NAMES.get(kind));
        let site = |index| u32::try_from(word_at(payload, index)).unwrap_or(SITE_UNKNOWN);
        Some(Self {
            kind: kind.copied().unwrap_or("unknown"),
            address: word_at(payload, 1),
            count: 1,
            known: [None, None, None],
            sites: [site(2), site(3), site(4)],
        })
    }

    /// Looks up the stacks that are not known yet.
    pub fn learn(&mut self, mut detail: impl FnMut(u32) -> Detail) {
        for (site, known) in self.sites.iter().zip(&mut self.known) {
            if *site == SITE_UNKNOWN || known.is_some() {
                continue;
            }
            let mut found = detail(*site);
            found.frames.truncate(FRAMES);
            *known = Some(found).filter(|found| !found.frames.is_empty());
        }
    }
}

/// Adds an entry, the latest last; what is too old goes.
pub fn note(all: &mut VecDeque<Misused>, mut new: Misused) {
    let same = |old: &Misused| (old.kind, old.sites) == (new.kind, new.sites);
    if let Some(old) = all.iter().position(same).and_then(|at| all.remove(at)) {
        new.count = old.count.saturating_add(1);
        new.known = old.known;
    }
    all.push_back(new);
    if all.len() > KEPT {
        all.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(words: [u64; 5]) -> Misused {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Misused::decode(&bytes).expect("five words")
    }

    // Goal: the same call is counted, others are kept apart, the oldest go. Method: a loop, then many sites.
    #[test]
    fn the_last_distinct_calls_are_kept() {
        let mut all = VecDeque::new();
        for address in 0..1000 {
            note(&mut all, frame([0, address, 0, 0, 7]));
        }
        assert_eq!((all.len(), all[0].count, all[0].address), (1, 1000, 999));
        assert_eq!(all[0].kind, "double_free");
        for site in 0..20 {
            note(&mut all, frame([1, 5, 0, 0, 100 + site]));
        }
        assert_eq!((all.len(), all[KEPT - 1].sites[2]), (KEPT, 119));
    }

    // Goal: hostile words do no harm, stacks are learned once. Method: extremes; count the questions.
    #[test]
    fn stacks_are_learned_once() {
        assert_eq!(Misused::decode(&[0; 39]), None);
        let mut odd = frame([u64::MAX, u64::MAX, u64::MAX, 0, 9]);
        assert_eq!(odd.kind, "unknown");
        let mut asked = Vec::new();
        for _ in 0..2 {
            odd.learn(|site| {
                asked.push(site);
                Detail {
                    frames: vec![1; 1000],
                    ..Detail::unknown(site)
                }
            });
        }
        assert_eq!(asked, [9]);
        let known = odd.known[2].as_ref().expect("learned");
        assert_eq!(known.frames.len(), FRAMES);
        let mut lost = frame([0, 1, 0, 0, 9]);
        lost.learn(Detail::unknown);
        assert_eq!(lost.known, [None, None, None]);
    }
}
