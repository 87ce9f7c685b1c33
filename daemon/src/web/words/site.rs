//! What is said of sites, or of there being none.

use super::check::class;
use crate::books::growth::Growth;
use crate::books::report::{Amount, Leak, Process, Report, State};
use crate::web::units;

/// `1.5 MiB in 12 blocks`, of a sampled process with what each may be off by.
pub(crate) fn amount(amount: Amount, error: Option<Amount>) -> String {
    let (bytes, blocks) = (units::bytes(amount.bytes), units::count(amount.blocks));
    match error {
        None => format!("{bytes} in {}", units::counted(amount.blocks, "block")),
        Some(error) => format!(
            "{bytes} ± {} in {blocks} ± {} blocks",
            units::bytes(error.bytes),
            units::count(error.blocks)
        ),
    }
}

/// The same of a site.
pub(crate) fn site_amount(leak: &Leak) -> String {
    let amount_of = Amount {
        bytes: leak.bytes,
        blocks: leak.blocks,
    };
    let error = leak.error.map(|error| Amount {
        bytes: error.bytes,
        blocks: error.blocks,
    });
    amount(amount_of, error)
}

/// When a stack was first seen: `2.0 s ago`, or for a process that ended `2.0 s before the end`.
pub(crate) fn first_seen(leak: &Leak, process: Option<&Process>) -> String {
    let age = units::seconds(leak.oldest_seconds);
    if process.is_none_or(|process| process.state == State::Running) {
        return format!("{age} ago");
    }
    format!("{age} before the end")
}

/// `grows 1.2 MiB/min, nothing freed`: how a site's bytes go.
pub(crate) fn growth(leak: &Leak, growth: &Growth) -> String {
    let freed = match growth.released_percent {
        percent if percent <= 0.0 => "nothing freed".to_owned(),
        percent if percent < 1.0 => "less than 1 % freed".to_owned(),
        percent => format!("{} % freed", percent.min(100.0) as u64),
    };
    let Some(slope) = growth.bytes_per_minute else {
        return freed;
    };
    // Less than a hundredth of what it holds, over all that was seen, is no trend.
    let change = slope * growth.span_seconds / 60.0;
    let small = change.abs() < (leak.bytes as f64 / 100.0).max(1.0);
    let verb = match slope {
        _ if small => return format!("steady: {freed}"),
        slope if slope > 0.0 => "grows",
        _ => "shrinks",
    };
    format!("{verb} {}/min, {freed}", units::bytes(slope.abs() as u64))
}

/// Why a report has no site, in a sentence's end; for a report without any.
pub(crate) fn no_sites(report: &Report) -> String {
    let blocks: u64 = report
        .processes
        .iter()
        .map(|process| process.live.blocks)
        .sum();
    let count = |process: &Process| process.mode == "count";
    if blocks == 0 {
        return "every block was freed".to_owned();
    }
    if report.processes.iter().all(count) {
        return "count mode records totals only; run it with --mode exact for stacks".to_owned();
    }
    let blocks = units::counted(blocks, "block");
    if report
        .processes
        .iter()
        .any(|process| class(process, "definite").is_some())
    {
        return format!("{blocks} live, none of them of a class or site that was asked for");
    }
    format!(
        "{blocks} live, but the filters let no site through (without a reachability check each is of class live)"
    )
}

/// The process a leak belongs to.
pub(crate) fn process_of<'a>(report: &'a Report, leak: &Leak) -> Option<&'a Process> {
    report
        .processes
        .iter()
        .find(|process| process.id == leak.process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;
    use crate::web::words::temporary;

    // Goal: an empty list says why it is empty. Method: each reason.
    #[test]
    fn an_empty_list_has_a_reason() {
        let mut report = fixture::report();
        assert!(no_sites(&report).contains("1,205 blocks live, none of them of a class"));
        report
            .processes
            .iter_mut()
            .for_each(|process| process.check = None);
        assert!(no_sites(&report).contains("1,205 blocks live, but the filters"));
        for process in &mut report.processes {
            process.mode = "count".to_owned();
        }
        assert!(no_sites(&report).contains("--mode exact"));
        assert!(temporary(&report.processes[0]).ends_with("in count mode"));
        for process in &mut report.processes {
            process.live = crate::books::report::Amount::default();
        }
        assert_eq!(no_sites(&report), "every block was freed");
    }

    // Goal: a leak, a full cache and a site that shrinks are told apart. Method: slopes and rates by hand.
    #[test]
    fn growth_is_told() {
        let leak = Leak {
            bytes: 1 << 20,
            ..Leak::default()
        };
        let told = |released_percent, bytes_per_minute, span_seconds| {
            let growth = Growth {
                released_percent,
                bytes_per_minute,
                span_seconds,
            };
            super::growth(&leak, &growth)
        };
        assert_eq!(
            told(0.0, Some(1048576.0), 60.0),
            "grows 1.0 MiB/min, nothing freed"
        );
        assert_eq!(told(98.2, Some(-100.0), 60.0), "steady: 98 % freed");
        assert_eq!(
            told(0.5, Some(-524288.0), 60.0),
            "shrinks 512 KiB/min, less than 1 % freed"
        );
        assert_eq!(told(40.0, None, 0.0), "40 % freed");
    }
}
