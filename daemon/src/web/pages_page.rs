//! `/pages`: the heap as a map of cells, and the same as a table.

use askama::Template;

use crate::books::report::{Process, State};
use crate::heatmap::report::{Asked, Chart, Heap, Holder, Place, Toucher, is_merged};
use crate::web::base::Base;
use crate::web::overview_page::{Figure, figure};
use crate::web::{choice, query, units, words};

/// What the URL may say.
const NAMES: [&str; 5] = ["process", "site", "slot", "format", "refresh"];

/// The URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// What to ask the hub for.
    pub(crate) asked: Asked,
    /// `html` or `json`.
    pub(crate) format: Option<String>,
    /// Seconds between refreshes; 0 is never.
    pub(crate) refresh: u32,
}

impl Wish {
    /// Reads a query string; says which parameter is wrong and how.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for (name, value) in query::pairs(text) {
            let number = || {
                value
                    .parse()
                    .map_err(|_| format!("{name}={value}: no number"))
            };
            match name.as_str() {
                "slot" => wish.asked.slot = Some(number()?),
                "refresh" => wish.refresh = number()?,
                "process" => wish.asked.process = Some(value),
                "site" => wish.asked.site = Some(value),
                "format" => wish.format = Some(value),
                _ => {
                    let known = NAMES.join(", ");
                    return Err(format!("{name} is no parameter here; known are {known}"));
                }
            }
        }
        Ok(wish)
    }

    fn query(&self) -> String {
        let asked = &self.asked;
        let slot = asked.slot.map(|slot| slot.to_string());
        let parts = [
            ("process", asked.process.as_deref()),
            ("site", asked.site.as_deref()),
            ("slot", slot.as_deref()),
        ];
        let parts = parts.into_iter().filter_map(|(name, value)| {
            let value = query::encode(value?);
            Some(format!("{name}={value}"))
        });
        parts.collect::<Vec<_>>().join("&")
    }
}

#[derive(Template)]
#[template(path = "pages.html")]
struct Page<'a> {
    base: Base<'a>,
    query: String,
    chart: &'a Chart,
    choices: Vec<Choice>,
    other: Option<&'a str>,
    /// A site asked for that is not among those listed.
    other_site: Option<&'a str>,
    link: String,
    drawn: Option<Drawn<'a>>,
}

/// An option of a form.
struct Choice {
    value: String,
    label: String,
    selected: bool,
}

/// A heap that was read.
struct Drawn<'a> {
    heap: &'a Heap,
    merged: bool,
    filtered: bool,
    count: String,
    cell: String,
    took: String,
    resident: Figure,
    matching: String,
    classes: Vec<Choice>,
    sites: Vec<Choice>,
    cells: Vec<Line<'a>>,
}

/// A cell and its row.
struct Line<'a> {
    place: &'a Place,
    style: String,
    said: String,
    state: &'static str,
    class: String,
    slots: String,
    occupancy: String,
    resident: Figure,
    holders: String,
}

/// The page. `all` are the processes to choose from.
pub(crate) fn render(all: &[Process], chart: &Chart, wish: &Wish) -> Result<String, askama::Error> {
    let wanted = wish.asked.process.as_deref();
    let choice = |process: &Process| Choice {
        value: process.id.clone(),
        label: format!("{} · {}", process.name, process.pid),
        selected: wanted.map_or(chart.process.as_ref() == Some(&process.id), |name| {
            choice::is(process, name)
        }),
    };
    let running = all.iter().filter(|process| process.state == State::Running);
    let listed = |site: &&str| {
        let mut sites = chart.heap.iter().flat_map(|heap| heap.sites.iter());
        sites.any(|holder| holder.site == **site)
    };
    Page {
        base: Base::served(wish.refresh),
        query: wish.query(),
        chart,
        choices: running.map(choice).collect(),
        other: choice::other(all, wanted),
        other_site: wish.asked.site.as_deref().filter(|site| !listed(site)),
        link: query::encode(chart.process.as_deref().unwrap_or_default()),
        drawn: chart.heap.as_ref().map(|heap| drawn(heap, &wish.asked)),
    }
    .render()
}

fn drawn<'a>(heap: &'a Heap, asked: &Asked) -> Drawn<'a> {
    let class = |slot: &u32| Choice {
        value: slot.to_string(),
        label: class(*slot),
        selected: asked.slot == Some(*slot),
    };
    let site = |holder: &Holder| Choice {
        value: holder.site.clone(),
        label: format!("{} · {}", name(holder), units::bytes(holder.bytes)),
        selected: asked.site.as_ref() == Some(&holder.site),
    };
    let matching = heap.cells.iter().filter(|cell| cell.matches).count();
    Drawn {
        heap,
        merged: is_merged(heap.cell_bytes),
        filtered: asked.slot.is_some() || asked.site.is_some(),
        count: units::counted(heap.cells.len() as u64, "cell"),
        cell: units::bytes(heap.cell_bytes),
        took: units::seconds(heap.took_seconds),
        resident: figure(heap.resident_bytes),
        matching: units::counted(matching as u64, "cell"),
        classes: heap.classes.iter().map(class).collect(),
        sites: heap.sites.iter().map(site).collect(),
        cells: heap.cells.iter().map(line).collect(),
    }
}

fn class(slot: u32) -> String {
    match slot {
        0 => "own page run".to_owned(),
        slot => units::counted(u64::from(slot), "byte"),
    }
}

fn name(holder: &Holder) -> String {
    let function = words::clean(&holder.function);
    if function.is_empty() {
        return format!("site {}", holder.site);
    }
    function.into_owned()
}

fn line(place: &Place) -> Line<'_> {
    let state = match place.state.as_str() {
        "in_use" => "in use",
        "retained" => "retained",
        "free" => "given back",
        _ => "never touched",
    };
    let classes: Vec<String> = place.classes.iter().map(|slot| class(*slot)).collect();
    let holders = holders(place);
    let slots = slots(place);
    let occupancy = units::percent(place.live_bytes, place.bytes);
    let mut said = format!("{} at {}: {state}", units::bytes(place.bytes), place.start);
    if !classes.is_empty() {
        let some = classes
            .iter()
            .take(3)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        said += &format!("; slots of {some}; {slots}; {occupancy} live");
    }
    said += &format!("; {} in RAM", units::bytes(place.resident_bytes));
    if !holders.is_empty() {
        said += &format!("; {holders}");
    }
    if let Some(first) = &place.first_touched {
        let pages = units::counted(first.pages, "OS page");
        said += &format!("; first touched by {} ({pages})", toucher(first));
    }
    Line {
        place,
        style: style(place),
        said,
        state,
        class: classes.join(", "),
        slots,
        occupancy,
        resident: figure(place.resident_bytes),
        holders,
    }
}

fn toucher(first: &Toucher) -> String {
    let function = words::clean(&first.function);
    if function.is_empty() {
        return format!("site {}", first.site);
    }
    format!("`{function}`")
}

/// `812 of 1,024 slots used, 1,000 carved`.
fn slots(place: &Place) -> String {
    if place.slots == 0 {
        return "no slot begins here".to_owned();
    }
    let [live, all, carved] = [place.live_slots, place.slots, place.carved_slots];
    format!(
        "{} of {} used, {} carved",
        units::count(live),
        units::counted(all, "slot"),
        units::count(carved)
    )
}

fn holders(place: &Place) -> String {
    let holder = |holder: &Holder| {
        let blocks = units::counted(holder.blocks, "block");
        format!(
            "{} ({blocks}, {})",
            name(holder),
            units::bytes(holder.bytes)
        )
    };
    let mut told: Vec<String> = place.sites.iter().map(holder).collect();
    let more = place.sites_total.saturating_sub(place.sites.len() as u64);
    if more > 0 {
        told.push(format!("{} more", units::counted(more, "site")));
    }
    told.join(", ")
}

/// Classes of style: state, how full in eighths, how much of it in RAM in quarters.
fn style(place: &Place) -> String {
    let state = match place.state.as_str() {
        "in_use" => "in-use",
        "retained" => "kept",
        "free" => "back",
        _ => "new",
    };
    let level = |part: u64, steps: u64| {
        let steps = u128::from(part) * u128::from(steps);
        steps.div_ceil(u128::from(place.bytes.max(1))).min(8)
    };
    let (full, held) = (
        level(place.live_bytes, 8),
        level(place.resident_bytes, 4).min(4),
    );
    let dim = if place.matches { "" } else { " dim" };
    format!("{state} o{full} r{held}{dim}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    fn page(wish: &str) -> String {
        let wish = Wish::parse(wish).expect("parses");
        let all = fixture::report().processes;
        render(&all, &fixture::chart(), &wish).expect("renders")
    }

    // Goal: as many rows as cells, in JSON too, with the same words; hostile names stay text.
    // Method: the fixture.
    #[test]
    fn the_table_is_the_twin_of_the_map() {
        let page = page("process=4711");
        let cells = fixture::chart().heap.expect("drawn").cells;
        assert_eq!(page.matches("role=\"option\"").count(), cells.len());
        assert_eq!(page.matches("<tr id=\"c").count(), cells.len());
        for (index, cell) in cells.iter().enumerate() {
            let (link, row) = (
                format!("href=\"#c{index}\""),
                format!("<tr id=\"c{index}\""),
            );
            assert!(page.contains(&link) && page.contains(&row), "{index}");
            let row = page.split(&row).nth(1).expect("a row");
            let row = row.split("</tr>").next().unwrap_or_default();
            assert!(row.contains(&cell.start), "{row}");
            let line = line(cell);
            for word in [line.state, &line.slots, &line.resident.text] {
                assert!(row.contains(word), "{word} in {row}");
            }
        }
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("pages.json?process=4711"));
        assert!(page.contains("; first touched by `warm_up` (16 OS pages)"));
    }

    // Goal: what a filter leaves out is dim and out of the table; the form keeps the wish. Method:
    // the fixture's cells that do not match.
    #[test]
    fn filters_stay_in_the_form() {
        let page = page("process=4711&slot=64&site=abc");
        assert_eq!(page.matches(" dim\"").count(), 1);
        assert_eq!(
            page.matches(" hidden>").count() - page.matches("data-refresh").count(),
            1
        );
        assert!(page.contains("<option value=\"64\" selected>64 bytes</option>"));
        assert!(page.contains("<option value=\"abc\" selected>"));
    }

    // Goal: why there is no map is said; bad wishes are refused. Method: no heap, wrong parameters.
    #[test]
    fn reasons_are_given() {
        let chart = Chart {
            process: Some("1f00baa1c0ffee01".to_owned()),
            why_not: Some("the process is gone".to_owned()),
            ..Chart::default()
        };
        let page = render(&[], &chart, &Wish::default()).expect("renders");
        assert!(page.contains("the process is gone"));
        let page = render(&[], &Chart::default(), &Wish::default()).expect("renders");
        assert!(page.contains("No process runs"));
        assert!(Wish::parse("slot=x").is_err() && Wish::parse("nonsense=1").is_err());
    }

    // Goal: styles name state, fullness and RAM. Method: by hand.
    #[test]
    fn styles_follow_the_numbers() {
        let place = Place {
            bytes: 65536,
            live_bytes: 1,
            resident_bytes: 40_000,
            state: "in_use".to_owned(),
            matches: true,
            ..Place::default()
        };
        assert_eq!(style(&place), "in-use o1 r3");
        let hostile = Place {
            live_bytes: u64::MAX,
            matches: false,
            ..Place::default()
        };
        assert_eq!(style(&hostile), "new o8 r0 dim");
    }
}
