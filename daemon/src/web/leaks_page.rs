//! `/leaks`: sites with live blocks, and where the committed pages go.

mod account;
mod site;
mod totals;

use askama::Template;

use crate::books::report::{Process, Report};
use crate::web::base::Base;
use crate::web::choice::Chosen;
use crate::web::lost::{self, Lost};
use crate::web::overview_page::{Figure, figure};
use crate::web::view::{CLASSES, Sort, View};
use crate::web::{query, units, words};
use account::{About, Row, account, sum};
use site::{Line, Site, line, site};
use totals::{Totals, totals};

/// Rows of the page unless the URL says otherwise.
pub(crate) const ROWS: usize = 100;
/// Processes whose checks are shown.
const CHECKS: usize = 4;

#[derive(Template)]
#[template(path = "leaks.html")]
struct Leaks<'a> {
    base: Base<'a>,
    chosen: Chosen<'a>,
    view: &'a View,
    /// The map of the process that is chosen, or of one.
    map: String,
    classes: &'a [&'a str],
    processes: Vec<Title<'a>>,
    totals: Totals,
    parts: Vec<Row>,
    committed: Figure,
    /// What was in RAM, in words; empty where nobody asked.
    resident: String,
    /// Whose account it is, and when.
    whose: String,
    /// Rounding and free slots.
    slots: Figure,
    /// Tails and retained.
    spare: Figure,
    heads: Vec<Head>,
    sites: Vec<Site<'a>>,
    dropped: u64,
    incomplete: u64,
    /// What to know of estimates, when there are any.
    sampled: Option<String>,
    why_none: String,
    misuses: Vec<Misuse<'a>>,
    /// Checks of the first few processes.
    lost: Vec<Lost<'a>>,
    /// Who pins pages: process and sentence.
    pins: Vec<(&'a Process, &'a str)>,
}

/// A call that misused the heap.
struct Misuse<'a> {
    owner: &'a Process,
    what: String,
    stacks: Vec<(&'static str, Vec<Line<'a>>)>,
}

/// One process the page is about.
struct Title<'a> {
    process: &'a Process,
    state: String,
    age: String,
    mode: String,
}

/// A column that can be sorted by.
struct Head {
    label: &'static str,
    link: String,
    sorted: bool,
    numeric: bool,
}

/// The page. `all` are the processes to choose from, `report` what the view let through.
pub(crate) fn render(
    all: &[Process],
    report: &Report,
    view: &View,
) -> Result<String, askama::Error> {
    page(all, report, view, Base::served(view.refresh)).render()
}

/// The same in one file, without form and script, for `pageshim report --format html`.
pub(crate) fn standalone(report: &Report) -> String {
    let view = View::default();
    page(&[], report, &view, Base::standalone())
        .render()
        .unwrap_or_else(|error| format!("{error}\n"))
}

fn page<'a>(all: &'a [Process], report: &'a Report, view: &'a View, base: Base<'a>) -> Leaks<'a> {
    let about = About::of(&report.processes);
    let pages = sum(about.pages.iter().copied());
    let totals = totals(report);
    let live = report
        .processes
        .iter()
        .map(|process| process.live.bytes)
        .sum();
    Leaks {
        base,
        chosen: Chosen::of(all, view),
        view,
        map: match &view.process {
            Some(process) => format!("pages?process={}", query::encode(process)),
            None => "pages".to_owned(),
        },
        classes: &CLASSES,
        processes: report.processes.iter().map(title).collect(),
        totals,
        parts: account(&pages),
        committed: figure(pages.committed_bytes),
        resident: about.resident,
        whose: about.whose,
        slots: figure(pages.rounding_bytes + pages.free_slot_bytes),
        spare: figure(pages.tail_bytes + pages.retained_bytes),
        heads: heads(view),
        sites: report
            .leaks
            .iter()
            .map(|leak| site(report, leak, live))
            .collect(),
        dropped: report
            .processes
            .iter()
            .map(|process| words::lost(process).0)
            .sum(),
        misuses: report.processes.iter().flat_map(misuses).collect(),
        lost: report.processes.iter().take(CHECKS).map(lost::of).collect(),
        pins: report.processes.iter().flat_map(pins).collect(),
        why_none: words::no_sites(report),
        incomplete: report.processes.iter().map(words::incomplete_stacks).sum(),
        sampled: words::sampled(&report.processes),
    }
}

fn pins(process: &Process) -> impl Iterator<Item = (&Process, &str)> {
    let pinners = process.bill.iter().flat_map(|bill| &bill.pinners);
    pinners.map(move |pinner| (process, pinner.sentence.as_str()))
}

fn misuses(process: &Process) -> impl Iterator<Item = Misuse<'_>> {
    process.misuse_reports.iter().map(move |report| Misuse {
        owner: process,
        what: words::misuse(report),
        stacks: words::misuse_stacks(report)
            .into_iter()
            .map(|(what, stack)| (what, stack.iter().map(line).collect()))
            .collect(),
    })
}

fn title(process: &Process) -> Title<'_> {
    Title {
        process,
        state: words::state(process),
        age: units::seconds(process.seconds),
        mode: words::mode(process),
    }
}

fn heads(view: &View) -> Vec<Head> {
    let labels = ["Bytes", "Blocks", "Age", "Ever", "Function"];
    let head = |((_, sort), label): (&(&str, Sort), &'static str)| {
        let query = View {
            sort: *sort,
            ..view.clone()
        }
        .query();
        Head {
            label,
            link: format!("leaks?{query}"),
            sorted: *sort == view.sort,
            numeric: *sort != Sort::Function,
        }
    };
    Sort::ALL.iter().zip(labels).map(head).collect()
}

#[cfg(test)]
mod tests;
