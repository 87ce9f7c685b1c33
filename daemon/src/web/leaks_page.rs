//! `/leaks`: sites with live blocks, and where the committed pages go.

use std::borrow::Cow;

use askama::Template;

use crate::books::report::{Amount, Frame, Leak, Pages, Process, Report, State};
use crate::books::suppress;
use crate::books::why::Why;
use crate::web::assets::{ASSETS, Assets};
use crate::web::bar::{self, Part};
use crate::web::choice::{self, Choice};
use crate::web::lost::{self, Lost};
use crate::web::overview_page::{Figure, figure};
use crate::web::view::{CLASSES, Sort, View};
use crate::web::why_page::{self, Answer};
use crate::web::{headline, names, query, units, words};

/// Rows of the page unless the URL says otherwise.
pub(crate) const ROWS: usize = 100;
/// Processes whose checks are shown.
const CHECKS: usize = 4;
const CALLERS: usize = 2;

#[derive(Template)]
#[template(path = "leaks.html")]
struct Leaks<'a> {
    assets: &'a Assets,
    root: &'a str,
    standalone: bool,
    css: &'static str,
    refresh: u32,
    view: &'a View,
    query: String,
    /// The map of the process that is chosen, or of one.
    map: String,
    choices: Vec<Choice<'a>>,
    /// A process that was asked for by name, or that is not known.
    other: Option<&'a str>,
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

/// Whose page account is shown. Running processes and ended ones are never
/// added up: what ended holds nothing.
struct About<'a> {
    pages: Vec<&'a Pages>,
    whose: String,
    resident: String,
}

impl<'a> About<'a> {
    fn of(processes: &'a [Process]) -> Self {
        let runs = |process: &&Process| process.state == State::Running;
        let running: Vec<&Process> = processes.iter().filter(runs).collect();
        match (processes, running.len()) {
            ([one], 0) => Self {
                pages: vec![one.pages_at_peak.as_ref().unwrap_or(&one.pages)],
                whose: match one.pages_at_peak {
                    Some(_) => "at the fullest sample".to_owned(),
                    None => "at its end".to_owned(),
                },
                resident: words::resident(one),
            },
            ([one], _) => Self {
                pages: vec![&one.pages],
                whose: "now".to_owned(),
                resident: words::resident(one),
            },
            (_, 0) => Self {
                pages: processes.iter().map(|process| &process.pages).collect(),
                whose: format!("of {} that ended, each at its end", processes.len()),
                resident: String::new(),
            },
            (_, count) => Self {
                pages: running.iter().map(|process| &process.pages).collect(),
                whose: format!("of {count} running, now"),
                resident: units::bytes(running.iter().map(|p| p.pages.resident_bytes).sum()),
            },
        }
    }
}

/// One process the page is about.
struct Title<'a> {
    process: &'a Process,
    state: String,
    age: String,
    mode: String,
}

/// An entry of the process selector.
/// `shown + hidden == live`, in the same units.
struct Totals {
    sites: String,
    shown: Figure,
    shown_blocks: String,
    hidden: Figure,
    hidden_blocks: String,
    anything_hidden: bool,
    live: Figure,
    live_blocks: String,
    /// `live`, or what the sum is when some of the processes ended.
    meaning: &'static str,
}

/// A row of the page account: its part of the bar and its share.
struct Row {
    part: Part,
    bytes: Figure,
    share: String,
}

/// A column that can be sorted by.
struct Head {
    label: &'static str,
    link: String,
    sorted: bool,
    numeric: bool,
}

struct Site<'a> {
    leak: &'a Leak,
    owner: Option<&'a Process>,
    bytes: Figure,
    /// How far off bytes and blocks may be, of a sampled process.
    bytes_error: Option<String>,
    blocks_error: Option<String>,
    share: u64,
    blocks: String,
    age: String,
    seen: String,
    total: Figure,
    title: String,
    place: String,
    via: Option<String>,
    callers: Vec<String>,
    frames: Vec<Line<'a>>,
    end: Option<&'a str>,
    /// Whether it becomes more, in words.
    growth: Option<String>,
    /// The line that would suppress a lost one.
    line: Option<String>,
    /// Where to ask why its blocks are alive, of a process that runs.
    ask: Option<String>,
    /// The last answers to that.
    whys: Vec<Answer<'a>>,
}

struct Line<'a> {
    frame: &'a Frame,
    function: Cow<'a, str>,
    place: String,
}

/// The page. `all` are the processes to choose from, `report` what the view let through.
pub(crate) fn render(
    all: &[Process],
    report: &Report,
    view: &View,
) -> Result<String, askama::Error> {
    page(all, report, view, false).render()
}

/// The same in one file, without form and script, for `pageshim report --format html`.
pub(crate) fn standalone(report: &Report) -> String {
    let view = View::default();
    page(&[], report, &view, true)
        .render()
        .unwrap_or_else(|error| format!("{error}\n"))
}

fn page<'a>(all: &'a [Process], report: &'a Report, view: &'a View, standalone: bool) -> Leaks<'a> {
    let about = About::of(&report.processes);
    let pages = sum(about.pages.iter().copied());
    let totals = totals(report);
    let live = report
        .processes
        .iter()
        .map(|process| process.live.bytes)
        .sum();
    Leaks {
        assets: &ASSETS,
        root: "",
        standalone,
        css: if standalone { ASSETS.style.body } else { "" },
        refresh: view.refresh,
        view,
        query: view.query(),
        map: match &view.process {
            Some(process) => format!("pages?process={}", query::encode(process)),
            None => "pages".to_owned(),
        },
        other: choice::other(all, view.process.as_deref()),
        choices: choice::choices(all, view.process.as_deref()),
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

fn sum<'a>(all: impl Iterator<Item = &'a Pages>) -> Pages {
    all.fold(Pages::default(), |a, b| Pages {
        requested_bytes: a.requested_bytes + b.requested_bytes,
        rounding_bytes: a.rounding_bytes + b.rounding_bytes,
        free_slot_bytes: a.free_slot_bytes + b.free_slot_bytes,
        tail_bytes: a.tail_bytes + b.tail_bytes,
        retained_bytes: a.retained_bytes + b.retained_bytes,
        metadata_bytes: a.metadata_bytes + b.metadata_bytes,
        committed_bytes: a.committed_bytes + b.committed_bytes,
        resident_bytes: a.resident_bytes + b.resident_bytes,
        resident_peak_bytes: a.resident_peak_bytes + b.resident_peak_bytes,
        resident_last_bytes: a.resident_last_bytes + b.resident_last_bytes,
    })
}

fn account(pages: &Pages) -> Vec<Row> {
    let parts = bar::stacked(&words::page_parts(pages));
    let row = |part: Part| Row {
        bytes: figure(part.bytes),
        share: units::percent(part.bytes, pages.committed_bytes),
        part,
    };
    parts.into_iter().map(row).collect()
}

fn totals(report: &Report) -> Totals {
    let shown = report
        .leaks
        .iter()
        .fold(Amount::default(), |a, leak| Amount {
            bytes: a.bytes + leak.bytes,
            blocks: a.blocks + leak.blocks,
        });
    let live = report
        .processes
        .iter()
        .fold(Amount::default(), |a, process| Amount {
            bytes: a.bytes + process.live.bytes,
            blocks: a.blocks + process.live.blocks,
        });
    // A process may free between the two readings; what is shown is then all there was.
    let live = Amount {
        bytes: live.bytes.max(shown.bytes),
        blocks: live.blocks.max(shown.blocks),
    };
    let hidden = Amount {
        bytes: live.bytes - shown.bytes,
        blocks: live.blocks - shown.blocks,
    };
    Totals {
        sites: units::counted(report.leaks.len() as u64, "site"),
        shown: figure(shown.bytes),
        shown_blocks: units::counted(shown.blocks, "block"),
        hidden: figure(hidden.bytes),
        hidden_blocks: units::counted(hidden.blocks, "block"),
        anything_hidden: hidden.bytes > 0 || hidden.blocks > 0,
        live: figure(live.bytes),
        live_blocks: units::counted(live.blocks, "block"),
        meaning: meaning(&report.processes),
    }
}

fn meaning(processes: &[Process]) -> &'static str {
    let ended = |process: &Process| process.state != State::Running;
    if processes.iter().all(ended) {
        "live at exit"
    } else if processes.iter().any(ended) {
        "live, or live at exit"
    } else {
        "live"
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

fn site<'a>(report: &'a Report, leak: &'a Leak, live: u64) -> Site<'a> {
    let short = |frame: &Frame| names::short(&words::clean(&frame.function));
    let place = |frame: &Frame| words::place(frame).unwrap_or_else(|| frame.module.clone());
    let headline = headline::of(&leak.stack);
    let first = headline.as_ref().map(|headline| headline.frame);
    let outer = headline.as_ref().map_or(0, |headline| headline.index + 1);
    let owner = words::process_of(report, leak);
    Site {
        ask: owner.and_then(|owner| ask(owner, leak)),
        whys: owner.map_or_else(Vec::new, |owner| whys(owner, leak)),
        leak,
        owner,
        bytes: figure(leak.bytes),
        bytes_error: leak.error.map(|error| units::bytes(error.bytes)),
        blocks_error: leak.error.map(|error| units::count(error.blocks)),
        share: (units::share(leak.bytes, live.max(1)) as u64).clamp(1, 100),
        blocks: units::count(leak.blocks),
        age: units::seconds(leak.oldest_seconds),
        seen: words::first_seen(leak, words::process_of(report, leak)),
        total: figure(leak.total_bytes),
        title: first.map_or_else(|| "stack not known".to_owned(), short),
        place: first.map(place).unwrap_or_default(),
        via: headline.as_ref().and_then(|headline| headline.via.clone()),
        callers: leak
            .stack
            .iter()
            .skip(outer)
            .take(CALLERS)
            .map(short)
            .collect(),
        frames: leak.stack.iter().map(line).collect(),
        end: leak.incomplete.as_deref().map(words::incomplete),
        growth: leak
            .growth
            .as_ref()
            .map(|growth| words::growth(leak, growth)),
        line: suppressible(leak)
            .then(|| suppress::line(&leak.stack))
            .flatten(),
    }
}

/// Where to ask why a row's blocks are alive.
fn ask(owner: &Process, leak: &Leak) -> Option<String> {
    let class = match leak.class.as_str() {
        "live" => String::new(),
        class => format!("&class={class}"),
    };
    let runs = owner.state == State::Running;
    let path = |process: &str| format!("api/v1/processes/{process}/why?site={}{class}", leak.site);
    runs.then(|| path(&owner.id))
}

/// Answers about a row's blocks.
fn whys<'a>(owner: &'a Process, leak: &Leak) -> Vec<Answer<'a>> {
    let about = |why: &&Why| {
        let class = why.asked_class.as_ref();
        why.asked == leak.site && class.is_none_or(|class| *class == leak.class)
    };
    let sites = format!("leaks?process={}", query::encode(&owner.id));
    let found = owner.why.iter().filter(about);
    found.map(|why| why_page::answer(why, &sites)).collect()
}

/// Whether a rule would take it out of the findings.
fn suppressible(leak: &Leak) -> bool {
    suppress::is_lost(&leak.class) && leak.suppressed.is_none()
}

fn line(frame: &Frame) -> Line<'_> {
    Line {
        frame,
        function: words::clean(&frame.function),
        place: words::full_place(frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    fn html(text: &str) -> String {
        let view = View::parse(text).expect("parses");
        let report = fixture::report();
        let mut shown = view.filter(Some(ROWS)).apply(report.clone());
        view.arrange(&mut shown, Some(ROWS));
        render(&report.processes, &shown, &view).expect("renders")
    }

    // Goal: a lost site has a line to copy until a rule takes it; growth is a word beside the class.
    // Method: the fixture's lost site before and after, with a slope.
    #[test]
    fn lost_sites_have_a_line_to_copy() {
        let mut report = fixture::report();
        let shown = |report: &Report| standalone(report);
        let page = shown(&report);
        assert_eq!(page.matches("<code class=\"line\">leak:").count(), 1);
        assert!(page.contains("leak:node_new</code>"));
        report.leaks[3].suppressed = Some("^node_*".to_owned());
        report.leaks[3].growth = Some(crate::books::growth::Growth {
            released_percent: 0.0,
            bytes_per_minute: Some(1_258_291.0),
            span_seconds: 60.0,
        });
        let page = shown(&report);
        assert!(!page.contains("<code class=\"line\">"));
        assert!(page.contains("title=\"leak:^node_*\">suppressed<"));
        assert!(page.contains("grows 1.2 MiB/min, nothing freed"));
    }

    // Goal: a hostile name stays text, everywhere on the page. Method: the fixture's name, and a search for it.
    #[test]
    fn hostile_names_are_escaped() {
        for page in [
            html(""),
            html("q=%22%3E%3Cscript%3E&process=%3Cb%3E"),
            standalone(&fixture::report()),
        ] {
            assert!(
                !page.contains("<script>") && !page.contains("<b>"),
                "{page}"
            );
        }
        assert!(html("").contains("&#60;script&#62;alert(1)"));
    }

    // Goal: shown + hidden = live, whatever is filtered. Method: one row of the fixture.
    #[test]
    fn totals_add_up() {
        let page = html("process=4711&limit=1");
        for needle in ["2,097,152 bytes", "1,179,648 bytes", "3,276,800 bytes"] {
            assert!(page.contains(needle), "{needle}");
        }
    }

    // Goal: ended and running processes are not mixed in one account, nor called live alike.
    // Method: the fixture whole, and each of its processes.
    #[test]
    fn ended_and_running_are_not_mixed() {
        let both = html("");
        for needle in [
            "In RAM (resident): <strong>5.0 MiB</strong>",
            "of 1 running, now",
            "5,898,240 bytes",
            "= live, or live at exit:",
        ] {
            assert!(both.contains(needle), "{needle}");
        }
        let dead = html("process=4712");
        for needle in [
            "not known: it ended before",
            "at its end",
            "= live at exit:",
        ] {
            assert!(dead.contains(needle), "{needle}");
        }
        assert!(
            !dead.contains("0 B</strong> resident") && html("process=4711").contains("= live:")
        );
    }

    // Goal: a misuse names its call, on the page and in the file. Method: the fixture's.
    #[test]
    fn misuse_names_its_call() {
        for page in [html(""), standalone(&fixture::report())] {
            for needle in [
                "double free of 0x7f0000001040, 3 times",
                "drop_node",
                "zoo.c:77",
            ] {
                assert!(page.contains(needle), "{needle}");
            }
        }
    }

    // Goal: pinners are told where a bill is there. Method: the fixture with one.
    #[test]
    fn pinners_are_told() {
        let mut report = fixture::report();
        assert!(!standalone(&report).contains("Pinned pages"));
        report.processes[1].bill = fixture::waste().processes[0].bill.clone();
        let page = standalone(&report);
        assert!(page.contains("Pinned pages") && page.contains("12 blocks of `session_new`"));
    }

    // Goal: filters stay in links and downloads. Method: look for the query in both.
    #[test]
    fn links_keep_the_filters() {
        let page = html("process=4711&q=node");
        assert!(page.contains("leaks.csv?process=4711&#38;q=node"));
        assert!(page.contains("leaks?process=4711&#38;q=node&#38;sort=age"));
        assert!(page.contains("(inlined)") || page.contains("inlined"));
    }

    // Goal: no inline script or style, no foreign address: the policy forbids them. Method: search.
    #[test]
    fn nothing_inline_nothing_foreign() {
        let page = html("");
        for forbidden in [" style=", "<style", "onclick", "https://", "//cdn"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
