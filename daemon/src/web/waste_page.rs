//! `/waste`: who holds the resident pages.

use askama::Template;

use crate::bill::report::{Bill, Entry, Outside, Pinner, Shares, Waste};
use crate::books::report::Process;
use crate::web::bar::{self, Part};
use crate::web::base::Base;
use crate::web::choice::Chosen;
use crate::web::overview_page::{Figure, figure};
use crate::web::view::View;
use crate::web::{headline, names, query, units, words};

#[derive(Template)]
#[template(path = "waste.html")]
struct Page<'a> {
    base: Base<'a>,
    chosen: Chosen<'a>,
    entries: Vec<Section<'a>>,
}

/// One process.
struct Section<'a> {
    entry: &'a Entry,
    link: String,
    told: Option<Told<'a>>,
}

/// Its bill in words and figures.
struct Told<'a> {
    bill: &'a Bill,
    when: String,
    took: String,
    resident: Figure,
    smaps: Figure,
    explained: String,
    difference: String,
    rows: Vec<Row>,
    outside: Vec<(&'static str, Figure)>,
    pinners: Vec<&'a Pinner>,
    sites: Vec<Line<'a>>,
    more: u64,
}

/// A part of the bar and its row.
struct Row {
    part: Part,
    bytes: Figure,
    share: String,
}

/// A site's row.
struct Line<'a> {
    site: &'a str,
    function: String,
    place: String,
    blocks: String,
    requested: Figure,
    rounding: Figure,
    free: Figure,
    pinned: Figure,
    touched: Figure,
    alone: String,
    age: String,
}

/// The page. `all` are the processes to choose from.
pub(crate) fn render(all: &[Process], waste: &Waste, view: &View) -> Result<String, askama::Error> {
    Page {
        base: Base::served(view.refresh),
        chosen: Chosen::of(all, view),
        entries: waste.processes.iter().map(section).collect(),
    }
    .render()
}

fn section(entry: &Entry) -> Section<'_> {
    Section {
        entry,
        link: format!("leaks?process={}", query::encode(&entry.process)),
        told: entry.bill.as_ref().map(|bill| told(entry, bill)),
    }
}

fn told<'a>(entry: &Entry, bill: &'a Bill) -> Told<'a> {
    let age = units::seconds(bill.age_seconds);
    Told {
        bill,
        when: match entry.state.as_str() {
            "running" => format!("{age} ago"),
            _ => format!("{age} before the end"),
        },
        took: units::seconds(bill.took_seconds),
        resident: figure(bill.resident_bytes),
        smaps: figure(bill.smaps_bytes),
        explained: explained(bill),
        difference: difference(bill),
        rows: rows(&bill.parts, bill.resident_bytes),
        outside: outside(&bill.outside),
        pinners: bill.pinners.iter().collect(),
        sites: bill.sites.iter().map(line).collect(),
        more: bill.sites_total.saturating_sub(bill.sites.len() as u64),
    }
}

/// `99.98 %`.
pub(crate) fn explained(bill: &Bill) -> String {
    format!("{:.2} %", bill.explained_percent)
}

/// `4.0 KiB less than smaps`, or `no difference`.
pub(crate) fn difference(bill: &Bill) -> String {
    let apart = units::bytes(bill.difference_bytes.unsigned_abs());
    match bill.difference_bytes {
        0 => "no difference".to_owned(),
        more if more > 0 => format!("{apart} more than smaps"),
        _ => format!("{apart} less than smaps"),
    }
}

/// The parts in the order they are drawn: key, label, what it is, bytes.
pub(crate) fn parts(shares: &Shares) -> [(&'static str, &'static str, &'static str, u64); 8] {
    [
        (
            "requested",
            "Requested",
            "live blocks, as the program asked for them",
            shares.requested_bytes,
        ),
        (
            "rounding",
            "Rounding",
            "slot bytes beyond the request, in live blocks",
            shares.rounding_bytes,
        ),
        (
            "free",
            "Free slots",
            "slots without a block, in page runs that live blocks keep",
            shares.free_slot_bytes,
        ),
        (
            "tail",
            "Tails",
            "never handed out: ends of page runs, parts not yet carved",
            shares.tail_bytes,
        ),
        (
            "retained",
            "Retained",
            "page runs without any live block, kept for reuse",
            shares.retained_bytes,
        ),
        (
            "huge",
            "Huge pages",
            "never touched, in RAM because a huge page covers them",
            shares.huge_excess_bytes,
        ),
        (
            "metadata",
            "Metadata",
            "pageshim's books: page structs, records, shared state",
            shares.metadata_bytes,
        ),
        (
            "moved",
            "Moved",
            "page runs that changed while they were read",
            shares.moved_bytes,
        ),
    ]
}

fn rows(shares: &Shares, whole: u64) -> Vec<Row> {
    let row = |part: Part| Row {
        bytes: figure(part.bytes),
        share: units::percent(part.bytes, whole),
        part,
    };
    bar::stacked(&parts(shares)).into_iter().map(row).collect()
}

/// What is resident beside the heap.
pub(crate) fn outside(outside: &Outside) -> Vec<(&'static str, Figure)> {
    let all = [
        ("stacks", outside.stack_bytes),
        ("files", outside.file_bytes),
        ("other anonymous memory", outside.anonymous_bytes),
        ("shared memory and the rest", outside.other_bytes),
    ];
    all.map(|(name, bytes)| (name, figure(bytes))).to_vec()
}

fn line(site: &crate::bill::report::Site) -> Line<'_> {
    let first = headline::of(&site.stack).map(|headline| headline.frame);
    Line {
        site: &site.site,
        function: first.map_or_else(
            || "stack not known".to_owned(),
            |frame| names::short(&words::clean(&frame.function)),
        ),
        place: first
            .map(|frame| words::place(frame).unwrap_or_else(|| frame.module.clone()))
            .unwrap_or_default(),
        blocks: units::count(site.blocks),
        requested: figure(site.requested_bytes),
        rounding: figure(site.rounding_bytes),
        free: figure(site.free_slot_bytes),
        pinned: figure(site.pinned_bytes),
        touched: figure(site.first_touched.bytes),
        alone: format!(
            "{} OS pages ({}), {} slices of 64 KiB ({}), {} ranges of 2 MiB ({})",
            units::count(site.alone_pages.count),
            units::bytes(site.alone_pages.bytes),
            units::count(site.alone_slices.count),
            units::bytes(site.alone_slices.bytes),
            units::count(site.alone_ranges.count),
            units::bytes(site.alone_ranges.bytes),
        ),
        age: units::seconds(site.oldest_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: bill, pinners and why there is none are on the page; hostile names stay text.
    // Method: the fixture's two processes.
    #[test]
    fn the_page_says_who_pins() {
        let view = View::parse("process=4711").expect("parses");
        let all = fixture::report().processes;
        let page = render(&all, &fixture::waste(), &view).expect("renders");
        for needle in [
            "99.97 %",
            "4.0 KiB less than smaps",
            "12 blocks of `session_new` (oldest 3 h 0 min) pin 41.0 MiB",
            "not looked at while it ran",
            "waste.json?process=4711",
            "leaks?process=1f00baa1c0ffee01",
            "and 3 more",
            "Huge pages",
            "28.0 KiB",
            "high confidence",
        ] {
            assert!(page.contains(needle), "{needle} not in {page}");
        }
        assert!(!page.contains("<script>alert"), "{page}");
    }

    // Goal: a wish that no process fulfils stays in the form. Method: a name.
    #[test]
    fn an_unknown_process_is_said() {
        let view = View::parse("process=nobody").expect("parses");
        let page = render(&[], &Waste::default(), &view).expect("renders");
        assert!(page.contains("No such process") && page.contains("value=\"nobody\""));
    }
}
