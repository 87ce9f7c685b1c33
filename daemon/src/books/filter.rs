//! Choosing a part of a report.

use super::report::{Leak, Process, Report};

/// What a reader wants to see; the default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Id, pid or name of a process.
    pub process: Option<String>,
    /// Class of leaks.
    pub class: Option<String>,
    /// Sites with fewer live bytes are left out.
    pub min_bytes: u64,
    /// Substring of function, file or module of any frame, case ignored.
    pub query: Option<String>,
    /// Leaks per report; `None` for all.
    pub limit: Option<usize>,
}

impl Filter {
    /// The part of `report` that is asked for.
    pub fn apply(&self, mut report: Report) -> Report {
        report
            .processes
            .retain(|process| self.takes_process(process));
        let ids: std::collections::HashSet<&str> = report
            .processes
            .iter()
            .map(|process| process.id.as_str())
            .collect();
        report
            .leaks
            .retain(|leak| ids.contains(leak.process.as_str()) && self.takes(leak));
        report.leaks.truncate(self.limit.unwrap_or(usize::MAX));
        report
    }

    /// Whether a process is asked for.
    pub fn takes_process(&self, process: &Process) -> bool {
        self.process.as_deref().is_none_or(|wanted| {
            wanted == process.id || wanted == process.name || wanted == process.pid.to_string()
        })
    }

    /// Whether a leak is asked for, by everything but its process and the limit.
    pub fn takes(&self, leak: &Leak) -> bool {
        self.takes_class(&leak.class) && leak.bytes >= self.min_bytes && self.mentions(leak)
    }

    /// Whether a class is asked for.
    pub fn takes_class(&self, class: &str) -> bool {
        self.class.as_deref().is_none_or(|wanted| wanted == class)
    }

    fn mentions(&self, leak: &Leak) -> bool {
        let Some(query) = self.query.as_deref().filter(|query| !query.is_empty()) else {
            return true;
        };
        let query = query.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&query);
        leak.stack.iter().any(|frame| {
            has(&frame.function) || has(&frame.module) || frame.file.as_deref().is_some_and(has)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Frame;
    use super::*;

    fn report() -> Report {
        let process = |id: &str, pid, name: &str| Process {
            id: id.into(),
            pid,
            name: name.into(),
            ..Process::default()
        };
        let leak = |process: &str, bytes, function: &str| Leak {
            process: process.into(),
            class: "live".into(),
            bytes,
            stack: vec![Frame {
                function: function.into(),
                file: Some("Zoo.c".into()),
                module: "libzoo.so".into(),
                ..Frame::default()
            }],
            ..Leak::default()
        };
        Report {
            schema_version: 1,
            processes: vec![process("aa", 7, "zoo"), process("bb", 8, "farm")],
            leaks: vec![
                leak("aa", 90, "feed"),
                leak("bb", 50, "milk"),
                leak("aa", 10, "walk"),
            ],
        }
    }

    // Goal: each field narrows the report. Method: one filter at a time, functions that remain.
    #[test]
    fn each_field_narrows() {
        let left = |filter: Filter| {
            let report = filter.apply(report());
            let names = report
                .leaks
                .iter()
                .map(|leak| leak.stack[0].function.clone());
            (report.processes.len(), names.collect::<Vec<_>>().join(" "))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(left(Filter::default()), (2, "feed milk walk".into()));
        for wanted in ["aa", "7", "zoo"] {
            let filter = Filter {
                process: text(wanted),
                ..Filter::default()
            };
            assert_eq!(left(filter), (1, "feed walk".into()));
        }
        let filter = Filter {
            min_bytes: 50,
            limit: Some(1),
            ..Filter::default()
        };
        assert_eq!(left(filter), (2, "feed".into()));
        let filter = Filter {
            query: text("MIL"),
            ..Filter::default()
        };
        assert_eq!(left(filter), (2, "milk".into()));
        let filter = Filter {
            query: text("zoo.C"),
            ..Filter::default()
        };
        assert_eq!(left(filter), (2, "feed milk walk".into()));
        let filter = Filter {
            class: text("definite"),
            ..Filter::default()
        };
        assert_eq!(left(filter), (2, String::new()));
    }
}
