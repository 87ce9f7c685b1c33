//! A report as scripts see it: the JSON document and questions to it.

use std::collections::HashMap;

use serde_json::Value;

/// Blocks and requested bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Blocks.
    pub blocks: u64,
    /// Requested bytes.
    pub bytes: u64,
}

/// A parsed `/leaks.json`, `pageshim report --format json` or the like.
#[derive(Clone, Debug)]
pub struct View {
    /// The document.
    pub json: Value,
}

impl View {
    /// Reads the document.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let json = serde_json::from_str(text)
            .unwrap_or_else(|e| panic!("not a JSON report ({e}): {text:.400}"));
        Self { json }
    }

    /// All processes.
    pub fn processes(&self) -> &[Value] {
        list(&self.json, "processes")
    }

    /// Processes of this name.
    pub fn named(&self, name: &str) -> Vec<&Value> {
        let is = |process: &&Value| process["name"] == name;
        self.processes().iter().filter(is).collect()
    }

    /// The one process of this name.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[track_caller]
    pub fn process(&self, name: &str) -> &Value {
        let found = self.named(name);
        let all: Vec<_> = self.processes().iter().map(|p| &p["name"]).collect();
        assert_eq!(found.len(), 1, "processes named {name} among {all:?}");
        found[0]
    }

    /// Leaks of the process with this id.
    pub fn leaks_of<'a>(&'a self, process: &'a Value) -> impl Iterator<Item = &'a Value> {
        let is = move |leak: &&Value| leak["process"] == process["id"];
        list(&self.json, "leaks").iter().filter(is)
    }

    /// Live blocks that `function` itself asked for (it is the first frame).
    pub fn held_by(&self, process: &Value, function: &str) -> Held {
        let by = |leak: &&Value| is_named(&leak["stack"][0], function);
        total(self.leaks_of(process).filter(by))
    }

    /// Live blocks with `function` anywhere on their stack.
    pub fn held_below(&self, process: &Value, function: &str) -> Held {
        let below = |leak: &&Value| {
            let frames = leak["stack"].as_array();
            frames.is_some_and(|frames| frames.iter().any(|frame| is_named(frame, function)))
        };
        total(self.leaks_of(process).filter(below))
    }

    /// The first frame of a leak `function` asked for.
    ///
    /// # Panics
    /// When there is no such leak.
    #[track_caller]
    pub fn frame<'a>(&'a self, process: &'a Value, function: &str) -> &'a Value {
        let mut frames = self.leaks_of(process).map(|leak| &leak["stack"][0]);
        frames
            .find(|frame| is_named(frame, function))
            .unwrap_or_else(|| panic!("no leak by {function} in {:#}", self.json["leaks"]))
    }

    /// The equations every report must obey for each process at rest.
    ///
    /// # Panics
    /// When one does not hold.
    #[track_caller]
    pub fn check_equations(&self) {
        assert_eq!(self.json["schema_version"], 1);
        let mut sums: HashMap<&str, Held> = HashMap::new();
        for leak in list(&self.json, "leaks") {
            let sum = sums
                .entry(leak["process"].as_str().unwrap_or(""))
                .or_default();
            sum.blocks += number(leak, "blocks");
            sum.bytes += number(leak, "bytes");
        }
        for process in self.processes() {
            let id = process["id"].as_str().unwrap_or("");
            check_process(process, sums.get(id).copied().unwrap_or_default());
        }
    }
}

/// `sites` is what the leaks of the process sum to.
#[track_caller]
fn check_process(process: &Value, sites: Held) {
    let name = &process["name"];
    let of = |part: &str, field: &str| number(&process[part], field);
    for field in ["bytes", "blocks"] {
        let rest = of("total", field).checked_sub(of("freed", field));
        assert_eq!(
            rest,
            Some(of("live", field)),
            "{name}: {field}: total - freed = live"
        );
    }
    assert!(
        of("peak", "bytes") >= of("live", "bytes"),
        "{name}: peak >= live"
    );
    assert!(
        of("total", "bytes") >= of("peak", "bytes"),
        "{name}: total >= peak"
    );
    let parts = [
        "requested_bytes",
        "rounding_bytes",
        "free_slot_bytes",
        "tail_bytes",
        "retained_bytes",
        "metadata_bytes",
    ];
    let sum: u64 = parts.iter().map(|part| of("pages", part)).sum();
    assert_eq!(
        sum,
        of("pages", "committed_bytes"),
        "{name}: page parts sum to committed"
    );
    let (requested, live) = (of("pages", "requested_bytes"), of("live", "bytes"));
    if process["sampling"].is_null() {
        assert_eq!(requested, live, "{name}: pages.requested = live.bytes");
    } else {
        // The account is of exact pages; an estimate may be more than they hold.
        assert!(requested <= live, "{name}: pages.requested <= live.bytes");
    }
    if process["mode"] == "exact" || process["mode"] == "trace" {
        assert_eq!(
            sites.bytes,
            of("live", "bytes"),
            "{name}: leaks sum to live bytes"
        );
        assert_eq!(
            sites.blocks,
            of("live", "blocks"),
            "{name}: leaks sum to live blocks"
        );
    }
    let apis = process["apis"].as_object();
    let calls: u64 = apis
        .into_iter()
        .flatten()
        .filter_map(|(_, n)| n.as_u64())
        .sum();
    assert_eq!(
        calls,
        of("total", "blocks"),
        "{name}: apis sum to total blocks"
    );
}
/// `value[field]` as a number.
///
/// # Panics
/// When it is not one.
#[track_caller]
pub fn number(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} is not a number in {value:#}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn total<'a>(leaks: impl Iterator<Item = &'a Value>) -> Held {
    leaks.fold(Held::default(), |sum, leak| Held {
        blocks: sum.blocks + number(leak, "blocks"),
        bytes: sum.bytes + number(leak, "bytes"),
    })
}

/// Function names compare without arguments, namespace or hash: `a::leak(int)` is `leak`.
fn is_named(frame: &Value, function: &str) -> bool {
    let full = frame["function"].as_str().unwrap_or("");
    let full = full.replace("(anonymous namespace)", "anonymous");
    let bare = full.split(['(', '<']).next().unwrap_or(&full);
    bare.rsplit("::").any(|part| part == function)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the questions find what a report holds. Method: a literal report.
    #[test]
    fn questions_are_answered() {
        let view = View::parse(
            r#"{"schema_version":1,"processes":[{"id":"a","name":"zoo"}],
                "leaks":[{"process":"a","blocks":2,"bytes":10,"stack":[{"function":"(anonymous namespace)::make(int)"},{"function":"main"}]},
                         {"process":"a","blocks":1,"bytes":7,"stack":[{"function":"other"},{"function":"main"}]},
                         {"process":"b","blocks":9,"bytes":9,"stack":[{"function":"make"}]}]}"#,
        );
        let zoo = view.process("zoo");
        assert_eq!(
            view.held_by(zoo, "make"),
            Held {
                blocks: 2,
                bytes: 10
            }
        );
        assert_eq!(view.held_by(zoo, "main"), Held::default());
        assert_eq!(
            view.held_below(zoo, "main"),
            Held {
                blocks: 3,
                bytes: 17
            }
        );
        assert_eq!(view.frame(zoo, "other")["function"], "other");
    }
}
