//! Alerts and recording rules: they ask for what exists, and promtool accepts them.

use std::process::Command;

use crate::catalog::{dashboards_dir, read, series_names};
use crate::expressions::selectors;
use crate::programs::tool;

/// One alert or recording rule, as far as the text tells without a YAML reader.
struct Rule {
    kind: &'static str,
    name: String,
    expr: String,
    body: String,
}

/// The rules of a file. Relies on its layout: `- alert:` or `- record:` opens a rule,
/// `expr:` is one line or a `|` block.
fn rules(file: &str) -> Vec<Rule> {
    let mut found: Vec<Rule> = Vec::new();
    let mut in_expr = false;
    for line in read(&dashboards_dir().join("rules").join(file)).lines() {
        for kind in ["alert", "record"] {
            if let Some(name) = line.trim().strip_prefix(&format!("- {kind}: ")) {
                let (name, expr, body) = (name.to_string(), String::new(), String::new());
                found.push(Rule {
                    kind,
                    name,
                    expr,
                    body,
                });
            }
        }
        let Some(rule) = found.last_mut() else {
            continue;
        };
        rule.body.push_str(line);
        rule.body.push('\n');
        if let Some(expr) = line.strip_prefix("        expr: ") {
            in_expr = true;
            rule.expr.push_str(expr.trim_start_matches('|'));
        } else if in_expr && line.starts_with("          ") {
            rule.expr.push_str(line);
        } else {
            in_expr = false;
        }
    }
    found
}

// Goal: rules ask only for what exists, alerts help whoever they wake and have a case.
// Method: parse each expression; look for the keys by name.
#[test]
fn rules_ask_for_what_exists_and_explain_themselves() {
    let recorded = rules("pageshim-recording.yaml");
    let alerts = rules("pageshim-alerts.yaml");
    let cases = read(&dashboards_dir().join("rules/pageshim-alerts_test.yaml"));
    let mut known = series_names();
    known.insert("up".to_string());
    known.extend(recorded.iter().map(|rule| rule.name.clone()));
    assert!(
        recorded.len() >= 5 && alerts.len() >= 8,
        "the reader of rules lost some"
    );
    for rule in recorded.iter().chain(&alerts) {
        let found = selectors(&rule.expr)
            .unwrap_or_else(|error| panic!("{} does not parse: {error}\n{}", rule.name, rule.expr));
        assert!(
            !found.is_empty(),
            "{}: no selector in {:?}",
            rule.name,
            rule.expr
        );
        for selector in found {
            assert!(
                known.contains(&selector.name),
                "{}: {}",
                rule.name,
                selector.name
            );
        }
        if rule.kind == "record" {
            assert_eq!(
                rule.name.split(':').count(),
                3,
                "{}: level:metric:operation",
                rule.name
            );
            continue;
        }
        assert!(rule.name.starts_with("Pageshim"), "{}: prefix", rule.name);
        assert!(
            cases.contains(&format!("\"{}\"", rule.name)),
            "{}: no case",
            rule.name
        );
        for key in ["severity: ", "summary: ", "description: ", "runbook: "] {
            assert!(rule.body.contains(key), "{}: {key} missing", rule.name);
        }
    }
}

// Goal: what promtool knows better than we do. Method: its own checks, on each of our files.
#[test]
fn promtool_accepts_rules_cases_and_configuration() {
    let Some(promtool) = tool("promtool", "rules, their cases and dev/prometheus.yml") else {
        return;
    };
    let runs: [&[&str]; 3] = [
        &[
            "check",
            "rules",
            "rules/pageshim-alerts.yaml",
            "rules/pageshim-recording.yaml",
        ],
        &["test", "rules", "rules/pageshim-alerts_test.yaml"],
        &["check", "config", "dev/prometheus.yml"],
    ];
    for arguments in runs {
        let output = Command::new(&promtool)
            .args(arguments)
            .current_dir(dashboards_dir())
            .output()
            .expect("promtool was found");
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "promtool {arguments:?}:\n{said}\n{complaint}"
        );
    }
}
