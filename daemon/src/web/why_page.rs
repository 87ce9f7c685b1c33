//! `/why`: chains of pointers that keep blocks alive.

use askama::Template;

use crate::books::report::{Process, State};
use crate::books::why::{Entry, Link, Why, Whys};
use crate::web::base::Base;
use crate::web::choice::Chosen;
use crate::web::view::View;
use crate::web::why_text::{self, Step};
use crate::web::{query, units, words};

/// Processes on the page; the twin has all.
const SECTIONS: usize = 8;

#[derive(Template)]
#[template(path = "why.html")]
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
    runs: bool,
    link: String,
    answers: Vec<Answer<'a>>,
}

/// One answer.
pub(crate) struct Answer<'a> {
    pub(crate) why: &'a Why,
    pub(crate) title: String,
    pub(crate) when: String,
    pub(crate) rows: Vec<Row<'a>>,
    /// Each link, for the table.
    pub(crate) all: Vec<Row<'a>>,
}

/// A link, or what stands for those left out.
pub(crate) struct Row<'a> {
    pub(crate) text: String,
    pub(crate) link: Option<&'a Link>,
    /// Of a block: the page with its site.
    pub(crate) site: Option<String>,
    pub(crate) place: String,
}

/// The page. `all` are the processes to choose from.
pub(crate) fn render(all: &[Process], whys: &Whys, view: &View) -> Result<String, askama::Error> {
    let entries = &whys.processes;
    Page {
        base: Base::served(view.refresh),
        chosen: Chosen::of(all, view),
        more: entries.len().saturating_sub(SECTIONS),
        sections: entries.iter().take(SECTIONS).map(section).collect(),
    }
    .render()
}

/// What is known of a process.
pub(crate) fn entry(process: &Process) -> Entry {
    Entry {
        process: process.id.clone(),
        pid: process.pid,
        name: process.name.clone(),
        state: match process.state {
            State::Running => "running",
            State::Exited => "exited",
            State::Killed => "killed",
        }
        .to_owned(),
        answers: process.why.clone(),
    }
}

fn section(entry: &Entry) -> Section<'_> {
    let link = format!("leaks?process={}", query::encode(&entry.process));
    Section {
        runs: entry.state == "running",
        answers: entry.answers.iter().map(|why| answer(why, &link)).collect(),
        link,
        entry,
    }
}

/// An answer as rows; `sites` is the page its sites are on.
pub(crate) fn answer<'a>(why: &'a Why, sites: &str) -> Answer<'a> {
    let told = |step: Step<'a>| match step {
        Step::Links(link, 1) => row(link, sites),
        Step::Links(link, times) => {
            let row = row(link, sites);
            Row {
                text: format!("{times} times {}", row.text),
                ..row
            }
        }
        Step::LeftOut(text) => Row {
            text: format!("… {text} …"),
            link: None,
            site: None,
            place: String::new(),
        },
    };
    let class = why.asked_class.as_deref();
    Answer {
        title: match (why.asked_kind.as_str(), class) {
            ("site", Some(class)) => format!("{class} blocks of site {}", why.asked),
            ("site", None) => format!("site {}", why.asked),
            _ => why.asked.clone(),
        },
        when: format!(
            "{} after its start, check {}",
            units::seconds(why.at_seconds),
            why.check
        ),
        rows: why_text::steps(why).into_iter().map(told).collect(),
        all: why.links.iter().map(|link| row(link, sites)).collect(),
        why,
    }
}

fn row<'a>(link: &'a Link, sites: &str) -> Row<'a> {
    let frame = link.stack.first();
    Row {
        text: words::clean(&link.text).into_owned(),
        link: Some(link),
        site: link
            .site
            .as_ref()
            .map(|site| format!("{sites}#site-{site}")),
        place: frame.map(words::full_place).unwrap_or_default(),
    }
}
