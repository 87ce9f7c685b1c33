//! `/sizes`: slots, rounding, free slots and tails of each size class.

use askama::Template;

use crate::books::report::Process;
use crate::books::sizes::{Entry, Size, Sizes};
use crate::web::bar::{self, Part};
use crate::web::base::Base;
use crate::web::choice::Chosen;
use crate::web::overview_page::{Figure, figure};
use crate::web::view::View;
use crate::web::{query, units};

/// Processes on the page; the twin has all.
const SECTIONS: usize = 16;

#[derive(Template)]
#[template(path = "sizes.html")]
struct Page<'a> {
    base: Base<'a>,
    chosen: Chosen<'a>,
    legend: Vec<Part>,
    sections: Vec<Section<'a>>,
    /// Processes left out.
    more: usize,
}

/// One process.
struct Section<'a> {
    entry: &'a Entry,
    link: String,
    note: Option<&'static str>,
    rows: Vec<Row>,
    sum: Row,
}

/// One class, or the sum of all.
struct Row {
    name: String,
    live: String,
    free: String,
    pages: Figure,
    /// Parts as they lie in the bar, which is `scale` of the column's width.
    parts: Vec<Part>,
    scale: String,
    requested: Figure,
    rounding: Figure,
    free_slots: Figure,
    tails: Figure,
    used: String,
}

/// The page. `all` are the processes to choose from.
pub(crate) fn render(all: &[Process], sizes: &Sizes, view: &View) -> Result<String, askama::Error> {
    let mut entries: Vec<&Entry> = sizes.processes.iter().collect();
    entries.sort_by_key(|entry| entry.state != "running");
    Page {
        base: Base::served(view.refresh),
        chosen: Chosen::of(all, view),
        legend: bar::stacked(&parts(&Size::default())),
        more: entries.len().saturating_sub(SECTIONS),
        sections: entries.into_iter().take(SECTIONS).map(section).collect(),
    }
    .render()
}

/// The parts in the order they are drawn: key, label, what it is, bytes.
fn parts(size: &Size) -> [(&'static str, &'static str, &'static str, u64); 4] {
    [
        (
            "requested",
            "Requested",
            "live blocks, as the program asked for them",
            size.requested_bytes,
        ),
        (
            "rounding",
            "Rounding",
            "slot bytes beyond the request, in live blocks",
            size.rounding_bytes,
        ),
        (
            "free",
            "Free slots",
            "carved slots without a block",
            size.free_slot_bytes,
        ),
        (
            "tail",
            "Tails",
            "ends of page runs, and parts never carved",
            size.tail_bytes,
        ),
    ]
}

fn section(entry: &Entry) -> Section<'_> {
    let largest = entry.classes.iter().map(|size| size.page_bytes).max();
    let largest = largest.unwrap_or(0);
    let sum = entry.classes.iter().fold(Size::default(), plus);
    Section {
        entry,
        link: format!("leaks?process={}", query::encode(&entry.process)),
        note: match entry.mode.as_str() {
            "off" => Some("In mode off nobody counts blocks: all carved slots look free here"),
            "sampled" => Some("Live slots, requested and rounding are estimates from samples"),
            _ => None,
        },
        rows: entry
            .classes
            .iter()
            .map(|size| row(size, largest, name(size)))
            .collect(),
        sum: row(&sum, sum.page_bytes, "All".to_owned()),
    }
}

fn name(size: &Size) -> String {
    match size.slot_bytes {
        0 => "own page run".to_owned(),
        bytes => units::counted(bytes, "byte"),
    }
}

fn plus(mut sum: Size, size: &Size) -> Size {
    for (into, more) in [
        (&mut sum.live_slots, size.live_slots),
        (&mut sum.free_slots, size.free_slots),
        (&mut sum.page_bytes, size.page_bytes),
        (&mut sum.requested_bytes, size.requested_bytes),
        (&mut sum.rounding_bytes, size.rounding_bytes),
        (&mut sum.free_slot_bytes, size.free_slot_bytes),
        (&mut sum.tail_bytes, size.tail_bytes),
    ] {
        *into = into.saturating_add(more);
    }
    sum
}

fn row(size: &Size, largest: u64, name: String) -> Row {
    Row {
        name,
        live: units::count(size.live_slots),
        free: units::count(size.free_slots),
        pages: figure(size.page_bytes),
        parts: bar::stacked(&parts(size)),
        scale: scale(size.page_bytes, largest),
        requested: figure(size.requested_bytes),
        rounding: figure(size.rounding_bytes),
        free_slots: figure(size.free_slot_bytes),
        tails: figure(size.tail_bytes),
        used: units::percent(size.requested_bytes, size.page_bytes),
    }
}

/// Part of the column that a class's bar is wide; the smallest can still be seen.
fn scale(bytes: u64, largest: u64) -> String {
    let share = bytes as f64 / largest.max(1) as f64;
    format!("{:.4}", share.clamp(0.008, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: each class has its row and bar, the sum is told, hostile names stay text. Method: the
    // fixture with a name of markup.
    #[test]
    fn every_class_has_a_row() {
        let view = View::parse("process=4711").expect("parses");
        let mut sizes = fixture::sizes();
        sizes.processes[0].name = fixture::HOSTILE.to_owned();
        let all = fixture::report().processes;
        let page = render(&all, &sizes, &view).expect("renders");
        for needle in [
            ">64 bytes<",
            ">1,280 bytes<",
            ">own page run<",
            "57,600 bytes",
            "scale(0.5000 1)",
            "No page run serves a class",
            "sizes.json?process=4711",
        ] {
            assert!(page.contains(needle), "{needle} not in {page}");
        }
        assert_eq!(page.matches("<tr class=\"size\">").count(), 3);
        assert!(!page.contains("<script>alert"), "{page}");
    }

    // Goal: modes that do not count say so. Method: off and sampled.
    #[test]
    fn modes_say_what_numbers_are_worth() {
        let mut sizes = fixture::sizes();
        sizes.processes[0].mode = "off".to_owned();
        sizes.processes[1].mode = "sampled".to_owned();
        let page = render(&[], &sizes, &View::default()).expect("renders");
        assert!(page.contains("nobody counts blocks") && page.contains("estimates from samples"));
    }

    // Goal: a page of many processes stays small and says what it leaves out. Method: forty ended ones.
    #[test]
    fn many_processes_are_cut() {
        let mut sizes = fixture::sizes();
        let dead = sizes.processes[1].clone();
        sizes.processes.splice(0..0, vec![dead; 38]);
        let page = render(&[], &sizes, &View::default()).expect("renders");
        assert_eq!(page.matches("<section class=\"panel\"").count(), SECTIONS);
        assert!(page.contains("and 24 more processes"));
        assert!(page.contains(">1,280 bytes<"), "the running one is shown");
    }

    // Goal: numbers of a hostile process do no harm. Method: the largest.
    #[test]
    fn hostile_numbers_render() {
        let mut sizes = fixture::sizes();
        let max = Size {
            page_bytes: u64::MAX,
            tail_bytes: u64::MAX,
            live_slots: u64::MAX,
            ..Size::default()
        };
        sizes.processes[0].classes = vec![max; 3];
        assert!(render(&[], &sizes, &View::default()).is_ok());
    }
}
