//! Processes and their sites at one moment, and the step from sites to leaks
//! and to reports of misuse.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::Record;
use crate::books::leaks::{Detail, Lead, leak};
use crate::books::misuse::Misused;
use crate::books::report::{Leak, MisuseReport, State};
use crate::books::summary::Observed;
use crate::books::suppress::Verdict;
use crate::symbols::{Session, Wanted};

/// A process as looked at, with the sites chosen of it.
pub struct Seen {
    /// Where more can be had.
    pub record: Arc<Record>,
    /// Its numbers.
    pub observed: Observed,
    /// Its sites.
    pub leads: Vec<Lead>,
    /// Which of its lost sites are suppressed, once that is known.
    pub verdict: Arc<Verdict>,
}

/// Leaks of one process, in the order of `leads`. Only the `depth` innermost
/// frames are resolved.
pub fn resolve(session: &mut Session<'_>, seen: &Seen, leads: &[Lead], depth: usize) -> Vec<Leak> {
    let (details, modules) = seen.record.details(leads);
    let wanted = wanted(&details, depth);
    let stacks = session.resolve(seen.observed.process.pid, &modules, &wanted);
    let bare = bare(seen, leads, details).into_iter();
    bare.zip(stacks)
        .map(|(leak, stack)| Leak { stack, ..leak })
        .collect()
}

/// As [`resolve`] to any depth, as JSON.
fn written(session: &mut Session<'_>, seen: &Seen, leads: &[Lead]) -> Vec<Vec<u8>> {
    let (details, modules) = seen.record.details(leads);
    let wanted = wanted(&details, usize::MAX);
    let stacks = session.written(seen.observed.process.pid, &modules, &wanted);
    let bare = bare(seen, leads, details).into_iter();
    bare.zip(stacks)
        .map(|(leak, stack)| leak.written_with(&stack))
        .collect()
}

fn wanted(details: &[Detail], depth: usize) -> Vec<Wanted<'_>> {
    fn cut(detail: &Detail, depth: usize) -> Wanted<'_> {
        Wanted {
            frames: &detail.frames[..detail.frames.len().min(depth)],
            tick: detail.tick,
        }
    }
    details.iter().map(|detail| cut(detail, depth)).collect()
}

/// The leaks without their stacks.
fn bare(seen: &Seen, leads: &[Lead], details: Vec<Detail>) -> Vec<Leak> {
    let process = &seen.observed.process;
    let bill = seen.record.bill();
    let running = process.state == State::Running;
    let bare = |(lead, detail): (&Lead, Detail)| {
        let mut leak = leak(process, lead, detail, Vec::new());
        leak.pinned_bytes = bill.as_ref().and_then(|bill| bill.pinned(lead.site));
        seen.verdict.mark(&mut leak);
        leak.growth = running.then(|| lead.growth(seen.record.slope(lead.site)));
        leak
    };
    leads.iter().zip(details).map(bare).collect()
}

/// Leaks of several processes, in the order of `leads`, pairs of (index in `seen`, lead).
pub fn resolve_mixed(
    session: &mut Session<'_>,
    seen: &[Seen],
    leads: &[(usize, Lead)],
) -> Vec<Leak> {
    mixed(leads, |process, own| {
        resolve(session, &seen[process], own, usize::MAX)
    })
}

/// The same, each as JSON.
pub fn written_mixed(
    session: &mut Session<'_>,
    seen: &[Seen],
    leads: &[(usize, Lead)],
) -> Vec<Vec<u8>> {
    mixed(leads, |process, own| written(session, &seen[process], own))
}

/// Asks for the leads of each process together; answers in the order of `leads`.
fn mixed<T: Clone + Default>(
    leads: &[(usize, Lead)],
    mut ask: impl FnMut(usize, &[Lead]) -> Vec<T>,
) -> Vec<T> {
    let mut by_process: BTreeMap<usize, Vec<(usize, Lead)>> = BTreeMap::new();
    for (place, (process, lead)) in leads.iter().enumerate() {
        by_process.entry(*process).or_default().push((place, *lead));
    }
    let mut answers = vec![T::default(); leads.len()];
    for (process, parts) in by_process {
        let own: Vec<Lead> = parts.iter().map(|part| part.1).collect();
        for ((place, _), found) in parts.into_iter().zip(ask(process, &own)) {
            answers[place] = found;
        }
    }
    answers
}

/// The last misuses of a process, with names.
pub fn misuse(session: &mut Session<'_>, seen: &Seen) -> Vec<MisuseReport> {
    let (all, modules) = seen.record.misused();
    let pid = seen.observed.process.pid;
    let report = |misused: Misused| {
        let mut stack = |index: usize| {
            let Some(detail) = &misused.known[index] else {
                return Vec::new();
            };
            let wanted = Wanted {
                frames: &detail.frames,
                tick: detail.tick,
            };
            let mut stacks = session.resolve(pid, &modules, &[wanted]);
            stacks.pop().unwrap_or_default()
        };
        MisuseReport {
            kind: misused.kind.to_owned(),
            address: format!("0x{:x}", misused.address),
            count: misused.count,
            allocated: stack(0),
            freed: stack(1),
            call: stack(2),
        }
    };
    all.into_iter().map(report).collect()
}
