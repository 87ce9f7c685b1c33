//! Processes and their sites at one moment, and the step from sites to leaks
//! and to reports of misuse.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::Record;
use crate::books::check::Check;
use crate::books::leaks::{Lead, leak};
use crate::books::misuse::Misused;
use crate::books::report::{Amount, Leak, MisuseReport};
use crate::books::summary::Observed;
use crate::symbols::{Session, Wanted};

/// A process as looked at, with the sites chosen of it.
pub struct Seen {
    /// Where more can be had.
    pub record: Arc<Record>,
    /// Its numbers.
    pub observed: Observed,
    /// Its last reachability check.
    pub check: Option<Arc<Check>>,
    /// Its sites.
    pub leads: Vec<Lead>,
}

/// Leaks of one process, in the order of `leads`. Only the `depth` innermost
/// frames are resolved.
pub fn resolve(session: &mut Session<'_>, seen: &Seen, leads: &[Lead], depth: usize) -> Vec<Leak> {
    let process = &seen.observed.process;
    let (details, modules) = seen.record.details(leads);
    let wanted: Vec<Wanted<'_>> = details
        .iter()
        .map(|detail| Wanted {
            frames: &detail.frames[..detail.frames.len().min(depth)],
            tick: detail.tick,
        })
        .collect();
    let stacks = session.resolve(process.pid, &modules, &wanted);
    let bill = seen.record.bill();
    let parts = leads.iter().zip(details).zip(stacks);
    parts
        .map(|((lead, detail), stack)| Leak {
            pinned_bytes: bill.as_ref().and_then(|bill| bill.pinned(lead.site)),
            ..leak(process, lead, detail, stack)
        })
        .collect()
}

/// Leaks of several processes, in the order of `leads`, pairs of (index in `seen`, lead).
pub fn resolve_mixed(
    session: &mut Session<'_>,
    seen: &[Seen],
    leads: &[(usize, Lead)],
) -> Vec<Leak> {
    let mut by_process: BTreeMap<usize, Vec<(usize, Lead)>> = BTreeMap::new();
    for (place, (process, lead)) in leads.iter().enumerate() {
        by_process.entry(*process).or_default().push((place, *lead));
    }
    let mut leaks = vec![Leak::default(); leads.len()];
    for (process, parts) in by_process {
        let own: Vec<Lead> = parts.iter().map(|part| part.1).collect();
        let resolved = resolve(session, &seen[process], &own, usize::MAX);
        for ((place, _), found) in parts.into_iter().zip(resolved) {
            leaks[place] = found;
        }
    }
    leaks
}

/// Leaks in the classes of their process's check: a site whose blocks are in several is as
/// many leaks. `leads` are those the leaks were made of.
pub fn classed(seen: &[Seen], leads: &[(usize, Lead)], leaks: Vec<Leak>) -> Vec<Leak> {
    let mut all = Vec::with_capacity(leaks.len());
    for ((index, lead), leak) in leads.iter().zip(leaks) {
        match classes(&seen[*index], lead) {
            None => all.push(leak),
            Some(classes) => all.extend(classes.into_iter().map(|(class, amount)| Leak {
                class: class.to_owned(),
                blocks: amount.blocks,
                bytes: amount.bytes,
                ..leak.clone()
            })),
        }
    }
    all
}

/// How many leaks [`classed`] makes of a lead.
pub fn class_count(seen: &Seen, lead: &Lead) -> usize {
    classes(seen, lead).map_or(1, |classes| classes.len())
}

fn classes(seen: &Seen, lead: &Lead) -> Option<Vec<(&'static str, Amount)>> {
    // Sites of which nothing lives now are listed for their totals.
    let check = seen
        .check
        .as_ref()
        .filter(|_| lead.sums.live().blocks > 0)?;
    let mut classes = check.classes(lead.site)?;
    // Blocks the check did not see are still of no class: made since, or counted by a copy of the
    // process that did not know it was one yet.
    let live = lead.sums.live();
    let seen = |of: fn(&Amount) -> u64| {
        let all = classes.iter().map(|(_, amount)| of(amount));
        all.fold(0, u64::saturating_add)
    };
    let rest = Amount {
        bytes: live.bytes.saturating_sub(seen(|amount| amount.bytes)),
        blocks: live.blocks.saturating_sub(seen(|amount| amount.blocks)),
    };
    if rest.blocks > 0 {
        classes.push(("live", rest));
    }
    Some(classes)
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
