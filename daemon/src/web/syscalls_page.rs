//! `/syscalls`: who caused which system calls, which could be spared, who touched pages first.

use askama::Template;

use crate::books::report::Process;
use crate::books::syscalls::{Entry, Made, Pairs, Site, Syscalls};
use crate::web::base::Base;
use crate::web::choice::Chosen;
use crate::web::overview_page::{Figure, figure};
use crate::web::view::View;
use crate::web::{headline, query, units, words};

/// Processes on the page; the twin has as many.
const SECTIONS: usize = 16;

#[derive(Template)]
#[template(path = "syscalls.html")]
struct Page<'a> {
    base: Base<'a>,
    chosen: Chosen<'a>,
    sections: Vec<Section<'a>>,
}

/// One process.
struct Section<'a> {
    entry: &'a Entry,
    link: String,
    sum: String,
    touched: Figure,
    avoidable: Vec<String>,
    rows: Vec<Row<'a>>,
}

/// One cause.
struct Row<'a> {
    site: &'a Site,
    function: String,
    place: String,
    time: String,
    calls: String,
    ranges: String,
    bytes: Figure,
    pairs: String,
    touched: Figure,
    held: Option<Figure>,
}

/// The page. `all` are the processes to choose from.
pub(crate) fn render(
    all: &[Process],
    syscalls: &Syscalls,
    view: &View,
) -> Result<String, askama::Error> {
    let entries = syscalls.processes.iter().take(SECTIONS);
    Page {
        base: Base::served(view.refresh),
        chosen: Chosen::of(all, view),
        sections: entries.map(section).collect(),
    }
    .render()
}

fn section(entry: &Entry) -> Section<'_> {
    let all = entry.totals.values();
    let nanoseconds = all.fold(0, |sum: u64, made| sum.saturating_add(made.nanoseconds));
    let kinds = listed(&entry.totals);
    let time = seconds(nanoseconds);
    Section {
        entry,
        link: format!("leaks?process={}", query::encode(&entry.process)),
        sum: if kinds.is_empty() {
            "none".to_owned()
        } else {
            format!("{kinds}; {time}")
        },
        touched: figure(entry.first_touched_bytes),
        avoidable: entry.sites.iter().filter_map(spared).collect(),
        rows: entry.sites.iter().map(row).collect(),
    }
}

fn row(site: &Site) -> Row<'_> {
    let headline = headline::of(&site.stack);
    Row {
        site,
        function: words::clean(&site.function).into_owned(),
        place: headline
            .and_then(|headline| words::place(headline.frame))
            .unwrap_or_default(),
        time: seconds(site.nanoseconds),
        calls: listed(&site.calls),
        ranges: units::count(site.ranges),
        bytes: figure(site.range_bytes),
        pairs: units::count(site.avoidable.pairs),
        touched: figure(site.first_touched_bytes),
        held: (site.party == "program").then(|| figure(site.live_bytes)),
    }
}

fn seconds(nanoseconds: u64) -> String {
    units::seconds(nanoseconds as f64 / 1e9)
}

/// "mmap 100, madvise 3".
pub(crate) fn listed(calls: &std::collections::BTreeMap<String, Made>) -> String {
    let each = calls
        .iter()
        .map(|(name, made)| format!("{} {}", words::clean(name), units::count(made.calls)));
    each.collect::<Vec<_>>().join(", ")
}

/// "`hold` (mmap 200; 1.2 ms)", with whose calls they are where it is not the heap's.
pub(crate) fn cause(site: &Site) -> String {
    let own = if site.party == "program" {
        "its own "
    } else {
        ""
    };
    let name = match site.cause.as_str() {
        "site" => format!("`{}`", words::clean(&site.function)),
        _ => words::clean(&site.function).into_owned(),
    };
    let time = seconds(site.nanoseconds);
    format!("{name} ({own}{}; {time})", listed(&site.calls))
}

/// What a site could have spared; `None` where nothing shows.
pub(crate) fn spared(site: &Site) -> Option<String> {
    let Pairs {
        pairs,
        bytes,
        nanoseconds,
    } = site.avoidable;
    if pairs == 0 {
        return None;
    }
    Some(format!(
        "{} of `{}` went back to the kernel within 1 ms of coming from it: {} and {} for {} that one range kept could have served",
        units::counted(pairs, "range"),
        words::clean(&site.function),
        units::counted(pairs.saturating_mul(2), "system call"),
        seconds(nanoseconds),
        units::bytes(bytes),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: each cause has its row, pairs are told, hostile names stay text. Method: the fixture.
    #[test]
    fn every_cause_has_a_row() {
        let all = fixture::report().processes;
        let view = View::parse("process=4711").expect("parses");
        let page = render(&all, &fixture::syscalls(), &view).expect("renders");
        for needle in [
            "mmap 200",
            "100 ranges of `hold_big` went back",
            "pageshim upkeep",
            "6.2 GiB",
            "zoo.c:90",
            "mode count takes no stack",
            "syscalls.json?process=4711",
            "its own mappings",
        ] {
            assert!(page.contains(needle), "{needle} not in {page}");
        }
        assert_eq!(page.matches("<tr class=\"cause\"").count(), 4);
        assert!(!page.contains("<script>alert"), "{page}");
    }

    // Goal: numbers of a hostile process do no harm. Method: the largest.
    #[test]
    fn hostile_numbers_render() {
        let mut syscalls = fixture::syscalls();
        for site in &mut syscalls.processes[0].sites {
            site.nanoseconds = u64::MAX;
            site.range_bytes = u64::MAX;
            site.avoidable = Pairs {
                pairs: u64::MAX,
                bytes: u64::MAX,
                nanoseconds: u64::MAX,
            };
        }
        assert!(render(&[], &syscalls, &View::default()).is_ok());
    }
}
