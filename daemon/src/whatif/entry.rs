//! A process, its sites and the advice, put together: of a look at it or of a capture.

use super::advice::advise;
use super::report::{Entry, Site, WhatIf};
use super::sites::site;
use crate::books::report::{Leak, Process, Report, SCHEMA_VERSION};
use crate::web::{headline, names, words};

/// Sites of a process that are shown.
pub const SITES: usize = 40;

/// Puts first what matters here: blocks ever, then bytes ever.
pub fn choose<T>(all: &mut Vec<T>, total: impl Fn(&T) -> (u64, u64)) {
    all.sort_by_key(|one| std::cmp::Reverse(total(one)));
    let largest = all.iter().skip(SITES).enumerate();
    let largest = largest.max_by_key(|(_, one)| total(one).1);
    // The largest by bytes may be a few blocks only.
    if let Some((index, _)) = largest {
        all.swap(SITES - 1, SITES + index);
    }
    all.truncate(SITES);
}

/// The entry of a process; `leaks` are its sites, chosen.
pub fn entry(process: &Process, leaks: Vec<Leak>) -> Entry {
    let sites: Vec<Site> = leaks.into_iter().map(named).collect();
    Entry {
        process: process.id.clone(),
        pid: process.pid,
        name: process.name.clone(),
        state: process.state.name().to_owned(),
        mode: process.mode.clone(),
        heap: process.heap.clone(),
        live: process.live,
        peak: process.peak,
        total: process.total,
        costs: process.costs.clone(),
        advice: advise(process, &sites),
        why_not: why_not(process),
        sites,
    }
}

fn why_not(process: &Process) -> Option<String> {
    let mode = process.mode.as_str();
    let known = !process.costs.is_empty();
    (!known).then(|| match mode {
        "off" | "sampled" => {
            format!("mode {mode} does not count every block: run it in exact or count")
        }
        _ => "nothing was counted, or an older version wrote this".to_owned(),
    })
}

fn named(leak: Leak) -> Site {
    let (function, place) = match headline::of(&leak.stack) {
        Some(headline) => (
            names::short(&words::clean(&headline.frame.function)),
            words::place(headline.frame).unwrap_or_else(|| headline.frame.module.clone()),
        ),
        None => ("a stack that is not known".to_owned(), String::new()),
    };
    let place = words::clean(&place).into_owned();
    site(leak, function, place)
}

/// What a capture knows: its `sites` are those without live blocks.
pub fn of_capture(report: Report, sites: Vec<Leak>) -> WhatIf {
    let mut all = report.leaks;
    all.extend(sites);
    let of = |process: &Process| {
        let mut own: Vec<Leak> = all
            .iter()
            .filter(|leak| leak.process == process.id)
            .cloned()
            .collect();
        choose(&mut own, |leak| (leak.total_blocks, leak.total_bytes));
        entry(process, own)
    };
    WhatIf {
        schema_version: SCHEMA_VERSION,
        processes: report.processes.iter().map(of).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: sites by blocks are chosen, and the largest by bytes. Method: a hundred, one of them large.
    #[test]
    fn the_busiest_and_the_largest_are_chosen() {
        let mut all: Vec<(u64, u64)> = (0..100).map(|n| (100 + n, n)).collect();
        all.push((1, 1 << 30));
        choose(&mut all, |one| *one);
        assert_eq!(all.len(), SITES);
        assert_eq!((all[0], all[SITES - 1]), ((199, 99), (1, 1 << 30)));
        let mut few = vec![(1, 1), (2, 2)];
        choose(&mut few, |one| *one);
        assert_eq!(few, [(2, 2), (1, 1)]);
    }

    // Goal: a capture's processes get their own sites, and say why costs are missing.
    #[test]
    fn a_captures_sites_go_to_their_process() {
        let report = fixture::report();
        let ids: Vec<String> = report.processes.iter().map(|p| p.id.clone()).collect();
        let whatif = of_capture(report, Vec::new());
        for (entry, id) in whatif.processes.iter().zip(&ids) {
            assert_eq!(&entry.process, id);
        }
        let zoo = whatif.processes.iter().find(|e| e.name == "zoo");
        let zoo = zoo.expect("there");
        assert!(zoo.sites.iter().any(|site| site.function == "node_new"));
        assert!(zoo.why_not.is_some());
    }
}
