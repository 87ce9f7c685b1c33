//! A row of the page: one site, its stack, and what can be asked about it.

use std::borrow::Cow;

use crate::books::report::{Frame, Leak, Process, Report, State};
use crate::books::suppress;
use crate::books::why::Why;
use crate::web::overview_page::{Figure, figure};
use crate::web::why_page::{self, Answer};
use crate::web::{headline, names, query, units, words};

/// Callers named under a site's function.
const CALLERS: usize = 2;

/// A site with what a row says of it.
pub(super) struct Site<'a> {
    pub(super) leak: &'a Leak,
    pub(super) owner: Option<&'a Process>,
    pub(super) bytes: Figure,
    /// How far off bytes and blocks may be, of a sampled process.
    pub(super) bytes_error: Option<String>,
    pub(super) blocks_error: Option<String>,
    pub(super) share: u64,
    pub(super) blocks: String,
    pub(super) age: String,
    pub(super) seen: String,
    pub(super) total: Figure,
    pub(super) title: String,
    pub(super) place: String,
    pub(super) via: Option<String>,
    pub(super) callers: Vec<String>,
    pub(super) frames: Vec<Line<'a>>,
    pub(super) end: Option<&'a str>,
    /// Whether it becomes more, in words.
    pub(super) growth: Option<String>,
    /// The line that would suppress a lost one.
    pub(super) line: Option<String>,
    /// Where to ask why its blocks are alive, of a process that runs.
    pub(super) ask: Option<String>,
    /// The last answers to that.
    pub(super) whys: Vec<Answer<'a>>,
}

/// A frame of a stack.
pub(super) struct Line<'a> {
    pub(super) frame: &'a Frame,
    pub(super) function: Cow<'a, str>,
    pub(super) place: String,
}

/// The row of a site; `live` are the bytes its share is of.
pub(super) fn site<'a>(report: &'a Report, leak: &'a Leak, live: u64) -> Site<'a> {
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

/// A frame as the page shows it.
pub(super) fn line(frame: &Frame) -> Line<'_> {
    Line {
        frame,
        function: words::clean(&frame.function),
        place: words::full_place(frame),
    }
}
