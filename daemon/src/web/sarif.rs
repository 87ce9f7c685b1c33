//! Lost sites as SARIF 2.1.0, for code hosts and editors.
//!
//! The rules are the classes, the fingerprint is one of class and functions. A process that was not
//! checked makes the invocation unsuccessful.

use serde_json::{Value, json};

use crate::books::report::{Frame, Leak, Process, Report};
use crate::web::fingerprint::Fingerprints;
use crate::web::{findings, headline, query, words};

/// The document.
pub(crate) fn render(report: &Report) -> String {
    let troubles: Vec<Value> = troubles(report);
    let mut fingerprints = Fingerprints::default();
    let mut results: Vec<Value> = Vec::new();
    for process in &report.processes {
        let result = |leak| result(process, leak, &fingerprints.next(leak));
        results.extend(findings::lost(report, process).map(result));
    }
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "pageshim",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": findings::RULES.map(rule),
            } },
            "invocations": [{
                "executionSuccessful": troubles.is_empty(),
                "toolExecutionNotifications": troubles,
            }],
            "results": results,
        }]
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn rule((class, meaning, level): (&str, &str, &str)) -> Value {
    json!({
        "id": class,
        "name": format!("{class}-leak"),
        "shortDescription": { "text": format!("Lost blocks, class {class}") },
        "fullDescription": { "text": meaning },
        "defaultConfiguration": { "level": level },
    })
}

fn troubles(report: &Report) -> Vec<Value> {
    let note = |text: String| json!({ "level": "error", "message": { "text": text } });
    if report.processes.is_empty() {
        return vec![note("no process sent data".to_owned())];
    }
    let trouble = |process: &Process| {
        let why = findings::unjudged(process)?;
        let name = words::clean(&process.name);
        Some(note(format!("{name} (pid {}): {why}", process.pid)))
    };
    report.processes.iter().filter_map(trouble).collect()
}

fn result(process: &Process, leak: &Leak, fingerprint: &str) -> Value {
    let index = findings::RULES.iter().position(|rule| rule.0 == leak.class);
    let level = index.map_or("none", |index| findings::RULES[index].2);
    let suppressions: Vec<Value> = leak
        .suppressed
        .iter()
        .map(|pattern| json!({ "kind": "external", "justification": format!("leak:{pattern}") }))
        .collect();
    json!({
        "ruleId": leak.class,
        "ruleIndex": index.unwrap_or(0),
        "level": level,
        "message": { "text": findings::sentence(process, leak) },
        "locations": [location(process, leading(leak))],
        "stacks": [{
            "message": { "text": "allocated by" },
            "frames": leak.stack.iter().map(|frame| json!({ "location": location(process, Some(frame)), "module": words::clean(&frame.module) })).collect::<Vec<_>>(),
        }],
        "fingerprints": { "pageshimSite/v2": fingerprint },
        "suppressions": suppressions,
        "properties": { "process": process.id, "site": leak.site, "pid": process.pid, "blocks": leak.blocks, "bytes": leak.bytes },
    })
}

/// The frame a person would look at first, or the next outer one whose file is known.
fn leading(leak: &Leak) -> Option<&Frame> {
    let headline = headline::of(&leak.stack)?;
    let known = leak
        .stack
        .iter()
        .skip(headline.index)
        .find(|frame| frame.file.is_some());
    known.or(Some(headline.frame))
}

/// Where a frame is: in its source, else in its module's file.
fn location(process: &Process, frame: Option<&Frame>) -> Value {
    let Some(frame) = frame else {
        return json!({ "physicalLocation": { "artifactLocation": { "uri": uri(&process.executable) } } });
    };
    let mut place = match &frame.file {
        Some(file) => json!({ "artifactLocation": { "uri": uri(file) } }),
        None => json!({ "artifactLocation": { "uri": uri(&frame.module) } }),
    };
    // Lines count from 1; 0 is code without one.
    if let (Some(line), Some(_)) = (frame.line.filter(|line| *line > 0), &frame.file) {
        place["region"] = json!({ "startLine": line });
    }
    let function = words::clean(&frame.function);
    json!({
        "physicalLocation": place,
        "logicalLocations": [{ "fullyQualifiedName": function, "kind": "function" }],
    })
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(query::encode).collect();
    let path = parts.join("/");
    if path.starts_with('/') {
        return format!("file://{path}");
    }
    if path.is_empty() {
        return "unknown".to_owned();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: what consumers of SARIF need is there and sound: version, rules by index, places with
    // lines from 1, fingerprints, suppressions. Method: the fixture, read by another parser of JSON.
    #[test]
    fn lost_sites_are_results() {
        const SCRIPT: &str = "import sys, json
d = json.load(sys.stdin.buffer); run, = d['runs']; rules = run['tool']['driver']['rules']
assert d['version'] == '2.1.0' and len(rules) == 3
assert len({rule['id'] for rule in rules}) == 3
print(run['invocations'][0]['executionSuccessful'], len(run['results']))
for r in run['results']:
    assert rules[r['ruleIndex']]['id'] == r['ruleId'] and r['message']['text']
    assert all(f['location']['physicalLocation']['artifactLocation']['uri'] for s in r['stacks'] for f in s['frames'])
    p = r['locations'][0]['physicalLocation']
    print(r['ruleId'], r['level'], p['artifactLocation']['uri'], p['region']['startLine'], r['properties']['site'], len(r['suppressions']))
    assert len(r['fingerprints']['pageshimSite/v2']) == 16";
        let mut report = fixture::report();
        let said = fixture::python(SCRIPT, &render(&report));
        assert_eq!(
            said,
            "False 1\ndefinite error file:///home/ada/zoo/zoo.c 12 00000000000000aa 0\n"
        );
        report.leaks[3].suppressed = Some("node".to_owned());
        report.processes.remove(1);
        let said = fixture::python(SCRIPT, &render(&report));
        assert!(
            said.starts_with("True 1\n") && said.ends_with(" 1\n"),
            "{said}"
        );
        let none: Value = serde_json::from_str(&render(&Report::default())).expect("JSON");
        assert_eq!(
            none["runs"][0]["invocations"][0]["executionSuccessful"],
            false
        );
    }

    // Goal: paths become URIs. Method: spaces, relative ones, none.
    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("/a b/c.c"), "file:///a%20b/c.c");
        assert_eq!(uri("src/zoo.c"), "src/zoo.c");
        assert_eq!(uri(""), "unknown");
    }
}
