//! What a page or a download shows, as its URL says it. The URL holds all of it.

use crate::books::report::{Leak, Report};
use crate::hub::Filter;
use crate::web::{query, units};

/// Names of all parameters, for the message about an unknown one.
pub(crate) const NAMES: [&str; 8] = [
    "process",
    "class",
    "min_bytes",
    "q",
    "limit",
    "sort",
    "format",
    "refresh",
];
/// Classes a site can have.
pub(crate) const CLASSES: [&str; 5] = ["live", "definite", "indirect", "possible", "reachable"];

/// What rows are ordered by; largest, oldest, or first in the alphabet on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Live bytes.
    #[default]
    Bytes,
    /// Live blocks.
    Blocks,
    /// Age of the oldest block.
    Age,
    /// Bytes ever allocated.
    Total,
    /// Name of the first frame.
    Function,
}

impl Sort {
    /// All, with the name in the URL.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("bytes", Self::Bytes),
        ("blocks", Self::Blocks),
        ("age", Self::Age),
        ("total", Self::Total),
        ("function", Self::Function),
    ];

    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, sort)| *sort == self)
            .map_or("bytes", |(name, _)| name)
    }
}

/// Everything the URL may say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Id, pid or name.
    pub(crate) process: Option<String>,
    /// Class of the sites.
    pub(crate) class: Option<String>,
    /// Fewest bytes of a site.
    pub(crate) min_bytes: u64,
    /// Text in a function, file or module.
    pub(crate) q: Option<String>,
    /// Most rows; `Some(0)` is all, `None` what the format usually shows.
    pub(crate) limit: Option<usize>,
    /// Order of rows.
    pub(crate) sort: Sort,
    /// `html`, `json`, `csv`, `txt`.
    pub(crate) format: Option<String>,
    /// Seconds between refreshes; 0 is never.
    pub(crate) refresh: u32,
}

impl View {
    /// Reads a query string; says which parameter is wrong and how.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut view = Self::default();
        for (name, value) in query::pairs(text) {
            view.set(&name, value)?;
        }
        Ok(view)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let wrong = |what: &str| format!("{name}={value}: {what}");
        match name {
            "process" => self.process = Some(value),
            "q" => self.q = Some(value),
            "format" => self.format = Some(value),
            "class" if CLASSES.contains(&value.as_str()) => self.class = Some(value),
            "class" => return Err(wrong(&format!("choose from {}", CLASSES.join(", ")))),
            "min_bytes" => {
                self.min_bytes =
                    units::parse_bytes(&value).ok_or_else(|| wrong("no size, as in 4096 or 4k"))?;
            }
            "limit" => self.limit = Some(value.parse().map_err(|_| wrong("no number of rows"))?),
            "refresh" => self.refresh = value.parse().map_err(|_| wrong("no number of seconds"))?,
            "sort" => {
                let found = Sort::ALL.iter().find(|(name, _)| *name == value);
                self.sort = found
                    .ok_or_else(|| wrong("choose from bytes, blocks, age, total, function"))?
                    .1;
            }
            _ => {
                return Err(format!(
                    "{name} is no parameter here; known are {}",
                    NAMES.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// The view as a query string, without what is the default anyway.
    pub(crate) fn query(&self) -> String {
        let mut parts = Vec::new();
        let mut push = |name: &str, value: Option<String>| {
            parts.extend(value.map(|value| format!("{name}={}", query::encode(&value))));
        };
        push("process", self.process.clone());
        push("class", self.class.clone());
        push(
            "min_bytes",
            (self.min_bytes > 0).then(|| self.min_bytes.to_string()),
        );
        push("q", self.q.clone());
        push("limit", self.limit.map(|limit| limit.to_string()));
        push(
            "sort",
            (self.sort != Sort::Bytes).then(|| self.sort.name().to_owned()),
        );
        push(
            "refresh",
            (self.refresh > 0).then(|| self.refresh.to_string()),
        );
        parts.join("&")
    }

    /// What to ask the hub for, at most `usual` rows unless the URL says more.
    ///
    /// The hub cuts by bytes; for any other order it must give all rows.
    pub(crate) fn filter(&self, usual: Option<usize>) -> Filter {
        let limit = self.rows(usual).filter(|_| self.sort == Sort::Bytes);
        Filter {
            process: self.process.clone(),
            class: self.class.clone(),
            min_bytes: self.min_bytes,
            query: self.q.clone(),
            limit,
        }
    }

    /// Orders and cuts what the hub gave.
    pub(crate) fn arrange(&self, report: &mut Report, usual: Option<usize>) {
        let descending = |key: fn(&Leak) -> u64| move |a: &Leak, b: &Leak| key(b).cmp(&key(a));
        match self.sort {
            Sort::Bytes => {}
            Sort::Blocks => report.leaks.sort_by(descending(|leak| leak.blocks)),
            Sort::Total => report.leaks.sort_by(descending(|leak| leak.total_bytes)),
            Sort::Age => report
                .leaks
                .sort_by(|a, b| b.oldest_seconds.total_cmp(&a.oldest_seconds)),
            Sort::Function => report.leaks.sort_by(|a, b| function(a).cmp(function(b))),
        }
        if let Some(rows) = self.rows(usual) {
            report.leaks.truncate(rows);
        }
    }

    fn rows(&self, usual: Option<usize>) -> Option<usize> {
        match self.limit {
            Some(0) => None,
            Some(limit) => Some(limit),
            None => usual,
        }
    }
}

fn function(leak: &Leak) -> &str {
    leak.stack.first().map_or("", |frame| &frame.function)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: a view survives its own URL, and errors name the parameter. Method: round trip; bad values.
    #[test]
    fn the_url_holds_the_view() {
        let text = "process=zoo&class=live&min_bytes=4k&q=a%20b&limit=5&sort=age&refresh=5";
        let view = View::parse(text).expect("parses");
        assert_eq!((view.min_bytes, view.q.as_deref()), (4096, Some("a b")));
        assert_eq!(View::parse(&view.query()), Ok(view));
        assert_eq!(View::default().query(), "");
        for (bad, needle) in [
            ("min-bytes=4", "known are"),
            ("limit=x", "limit=x"),
            ("class=lost", "definite"),
            ("sort=up", "blocks"),
        ] {
            let error = View::parse(bad).expect_err("bad");
            assert!(error.contains(needle), "{error}");
        }
        assert_eq!(
            View::parse("q=&limit="),
            Ok(View::default()),
            "an empty field of a form says nothing"
        );
    }

    // Goal: any order but the hub's is ours, before the cut. Method: the fixture by name, two rows.
    #[test]
    fn rows_are_ordered_before_they_are_cut() {
        let view = View::parse("sort=function&limit=2").expect("parses");
        assert_eq!(view.filter(None).limit, None);
        let mut report = fixture::report();
        view.arrange(&mut report, None);
        assert_eq!(report.leaks.len(), 2);
        assert_eq!(report.leaks[0].stack[0].function, fixture::HOSTILE);
        assert_eq!(View::default().filter(Some(7)).limit, Some(7));
        assert_eq!(
            View::parse("limit=0")
                .expect("parses")
                .filter(Some(7))
                .limit,
            None
        );
    }
}
