//! Every dashboard passes the lint, and the lint notices each fault.

use std::collections::BTreeSet;

use serde_json::json;

use crate::catalog::{dashboards, families, list, panels, text};
use crate::expressions::lint_expression;
use crate::lint::lint;

/// Exported, but no panel asks for it, each with the reason. Nothing at present.
const UNUSED: &[&str] = &[];

// Goal: each dashboard is what Grafana's linter and our own rules want. Method: lint each file;
// the text must be the sorted, two-space form so that edits give small diffs.
#[test]
fn dashboards_obey_the_lint_rules() {
    let mut uids = BTreeSet::new();
    for (name, written, mut dashboard) in dashboards() {
        let faults = lint(&dashboard);
        assert!(faults.is_empty(), "{name}:\n  {}", faults.join("\n  "));
        assert!(
            uids.insert(text(&dashboard, "uid").to_string()),
            "{name}: its uid is used twice"
        );
        assert_eq!(
            name,
            format!("{}.json", text(&dashboard, "uid")),
            "file name is uid"
        );
        dashboard.sort_all_objects();
        let canonical = serde_json::to_string_pretty(&dashboard).expect("JSON prints") + "\n";
        assert_eq!(
            written.lines().zip(canonical.lines()).find(|(a, b)| a != b),
            None,
            "{name}"
        );
        assert_eq!(
            written.len(),
            canonical.len(),
            "{name}: not sorted with two spaces"
        );
    }
}

// Goal: nothing exported goes unseen. Method: families minus those some panel asks for.
#[test]
fn every_metric_is_shown_or_listed_as_unused() {
    let mut asked = String::new();
    for (_, _, dashboard) in dashboards() {
        for target in panels(&dashboard).flat_map(|panel| list(panel, "targets")) {
            asked += text(target, "expr");
        }
    }
    for (name, _, _) in families() {
        let shown = asked.contains(&format!("{name}{{")) || asked.contains(&format!("{name}_"));
        assert_ne!(
            shown,
            UNUSED.contains(&name),
            "{name}: shown and UNUSED must differ"
        );
    }
}

// Goal: the lint itself works. Method: spoil one thing at a time in a good dashboard.
#[test]
fn lint_notices_each_fault() {
    let spoiled = [
        ("/uid", json!("x"), "uid"),
        ("/id", json!(7), "id is not null"),
        ("/editable", json!(true), "editable"),
        (
            "/templating/list/0/label",
            json!("DS"),
            "variable datasource",
        ),
        (
            "/templating/list/1/multi",
            json!(false),
            "variable job is not multi",
        ),
        (
            "/templating/list/2/refresh",
            json!(1),
            "variable instance does not refresh",
        ),
        (
            "/templating/list/3/query/query",
            json!("label_values(x, process)"),
            "unknown metric",
        ),
        ("/panels/1/id", json!(1), "used twice"),
        ("/panels/1/gridPos/w", json!(25), "24 columns"),
        ("/panels/1/gridPos/w", json!(5), "overlaps"),
        ("/panels/1/description", json!(""), "description is empty"),
        (
            "/panels/1/datasource/uid",
            json!("prometheus"),
            "not $datasource",
        ),
        (
            "/panels/1/fieldConfig/defaults/unit",
            json!("pages"),
            "unit pages",
        ),
        (
            "/panels/1/fieldConfig/defaults/links/0/url",
            json!("http://x/"),
            "does not lead",
        ),
        ("/panels/1/targets", json!([]), "has no target"),
        (
            "/panels/1/targets/0/legendFormat",
            json!("{{kind}}"),
            "legend names kind",
        ),
        (
            "/panels/1/targets/0/legendFormat",
            json!(""),
            "legendFormat missing",
        ),
        ("/panels/1/targets/0/expr", json!("sum("), "does not parse"),
    ];
    let (_, _, good) = dashboards().swap_remove(0);
    for (pointer, value, expected) in spoiled {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer)
            .unwrap_or_else(|| panic!("{pointer} is there")) = value;
        let faults = lint(&bad);
        let noticed = faults.iter().any(|fault| fault.contains(expected));
        assert!(noticed, "{pointer}: wanted {expected:?}, got {faults:?}");
    }
}

// Goal: the same for expressions. Method: one fault each; JI stands for the two common matchers.
#[test]
fn lint_notices_each_fault_of_an_expression() {
    let all = "job=~\"$job\", instance=~\"$instance\"";
    let expressions = [
        ("pageshim_pages{JI}", "not exported"),
        ("pageshim_scrape_seconds", "lacks job"),
        ("pageshim_scrape_seconds{job=~\"$job\"}", "lacks instance"),
        ("pageshim_threads{JI}", "lacks process"),
        (
            "sum by (kind) (pageshim_scrape_seconds{JI})",
            "no label kind",
        ),
        ("pageshim_scrape_seconds{JI, pid=\"1\"}", "no label pid"),
        ("sum(process_cpu_seconds_total{JI})", "counter outside rate"),
        (
            "rate(process_cpu_seconds_total{JI}[5m])",
            "not over $__rate_interval",
        ),
    ];
    for (expr, expected) in expressions {
        let faults = lint_expression(&expr.replace("JI", all));
        assert!(
            faults.iter().any(|fault| fault.contains(expected)),
            "{expr}: {faults:?}"
        );
    }
}
