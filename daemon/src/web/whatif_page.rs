//! `/whatif`: what the same requests cost elsewhere, and what to do.

use askama::Template;

use crate::books::report::Process;
use crate::web::base::Base;
use crate::web::choice::Chosen;
use crate::web::view::View;
use crate::web::{query, units};
use crate::whatif::report::{Cost, Entry, Site, WhatIf};

/// Processes on the page; the twin has all.
const SECTIONS: usize = 8;
/// Sites shown of each.
const SITES: usize = 20;

#[derive(Template)]
#[template(path = "whatif.html")]
struct Page<'a> {
    base: Base<'a>,
    chosen: Chosen<'a>,
    sections: Vec<Section<'a>>,
    /// Processes left out.
    more: usize,
}

/// One process.
struct Section<'a> {
    entry: &'a Entry,
    link: String,
    rows: Vec<Row<'a>>,
    sites: Vec<SiteRow<'a>>,
}

/// One layer or model.
struct Row<'a> {
    cost: &'a Cost,
    pages: String,
    peak: String,
    waste: String,
    syscalls: String,
}

/// One site.
struct SiteRow<'a> {
    site: &'a Site,
    blocks: String,
    bytes: String,
    temporary: String,
    life: String,
    pages: [String; 4],
}

/// The page. `all` are the processes to choose from.
pub(crate) fn render(
    all: &[Process],
    whatif: &WhatIf,
    view: &View,
) -> Result<String, askama::Error> {
    let entries = &whatif.processes;
    Page {
        base: Base::served(view.refresh),
        chosen: Chosen::of(all, view),
        more: entries.len().saturating_sub(SECTIONS),
        sections: entries.iter().take(SECTIONS).map(section).collect(),
    }
    .render()
}

fn section(entry: &Entry) -> Section<'_> {
    Section {
        entry,
        link: format!("leaks?process={}", query::encode(&entry.process)),
        rows: entry.costs.iter().map(row).collect(),
        sites: entry.sites.iter().take(SITES).map(site).collect(),
    }
}

fn known(value: Option<u64>, text: fn(u64) -> String) -> String {
    value.map_or_else(|| "not known".to_owned(), text)
}

fn row(cost: &Cost) -> Row<'_> {
    Row {
        cost,
        pages: known(cost.pages, units::count),
        peak: known(cost.peak_bytes, units::bytes),
        waste: known(cost.waste_bytes, units::bytes),
        syscalls: known(cost.syscalls, units::count),
    }
}

fn site(site: &Site) -> SiteRow<'_> {
    let pages = |layer: &str| {
        let row = site.costs.iter().find(|cost| cost.layer == layer);
        known(row.and_then(|cost| cost.pages), units::count)
    };
    SiteRow {
        site,
        blocks: units::count(site.total.blocks),
        bytes: units::bytes(site.total.bytes),
        temporary: units::percent(site.temporary_blocks, site.total.blocks),
        life: match site.mean_life_ms {
            Some(ms) => units::seconds(ms / 1000.0),
            None => "none freed".to_owned(),
        },
        pages: ["page", "arena", "glibc", "jemalloc"].map(pages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: rows, sites and advice are on the page, hostile names stay text, missing costs are
    // explained. Method: the fixture.
    #[test]
    fn the_page_has_costs_sites_and_advice() {
        let view = View::parse("process=4711").expect("parses");
        let all = fixture::report().processes;
        let page = render(&all, &fixture::whatif(), &view).expect("renders");
        for needle in [
            ">page</th>",
            ">not known<",
            "model: ",
            "node_new",
            "high confidence",
            "mode sampled does not count",
            "whatif.json?process=4711",
        ] {
            assert!(page.contains(needle), "{needle} not in {page}");
        }
        assert!(!page.contains("<script>alert"), "{page}");
    }

    // Goal: nothing to tell is told. Method: no process.
    #[test]
    fn an_empty_page_says_so() {
        let page = render(&[], &WhatIf::default(), &View::default()).expect("renders");
        assert!(page.contains("No process has reported yet"));
    }
}
