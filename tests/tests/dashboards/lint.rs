//! Lint of a whole dashboard: its frame, variables, layout, panels and links.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::catalog::{list, panels, series_names, text};
use crate::expressions::{label_values, lint_expression, selectors};

/// Unit ids of Grafana that a panel here may use.
const UNITS: &[&str] = &[
    "bytes",
    "binBps",
    "short",
    "percentunit",
    "s",
    "ops",
    "cps",
    "none",
];

/// All faults of a dashboard.
pub(crate) fn lint(dashboard: &Value) -> Vec<String> {
    let mut faults = lint_frame(dashboard);
    faults.extend(lint_variables(dashboard));
    faults.extend(lint_layout(dashboard));
    for panel in panels(dashboard) {
        let title = text(panel, "title");
        faults.extend(
            lint_panel(panel)
                .into_iter()
                .map(|fault| format!("{title:?}: {fault}")),
        );
    }
    faults
}

fn lint_frame(dashboard: &Value) -> Vec<String> {
    let uid = text(dashboard, "uid");
    let rules = [
        (
            uid.starts_with("pageshim-") && uid.len() <= 40,
            "uid is not a fixed pageshim-… of 40",
        ),
        (dashboard["id"].is_null(), "id is not null"),
        (
            dashboard.get("version").is_none(),
            "version is written down",
        ),
        (
            dashboard.get("__inputs").is_none(),
            "__inputs breaks provisioning",
        ),
        (dashboard["editable"] == false, "editable"),
        (dashboard["schemaVersion"] == 39, "schemaVersion is not 39"),
        (dashboard["graphTooltip"] == 1, "graphTooltip is not 1"),
        (
            list(dashboard, "tags").contains(&json!("pageshim")),
            "tag pageshim missing",
        ),
        (!text(dashboard, "refresh").is_empty(), "refresh missing"),
        (
            text(&dashboard["time"], "from").starts_with("now-"),
            "time.from missing",
        ),
    ];
    rules
        .iter()
        .filter(|rule| !rule.0)
        .map(|rule| rule.1.to_string())
        .collect()
}

fn lint_variables(dashboard: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let variables = list(&dashboard["templating"], "list");
    let find = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    match find("datasource") {
        Some(it) if it["type"] == "datasource" && it["label"] == "Data source" => {}
        _ => faults.push("variable datasource missing, or its type or label wrong".to_string()),
    }
    if find("pageshim_url").is_none_or(|variable| variable["type"] != "textbox") {
        faults.push("variable pageshim_url missing or no textbox".to_string());
    }
    for (name, label) in [
        ("job", "Job"),
        ("instance", "Instance"),
        ("process", "Process"),
    ] {
        match find(name) {
            Some(variable) => faults.extend(lint_query_variable(variable, name, label)),
            None => faults.push(format!("variable {name} missing")),
        }
    }
    faults
}

fn lint_query_variable(variable: &Value, name: &str, label: &str) -> Vec<String> {
    let query = label_values(text(&variable["query"], "query"));
    let rules = [
        (variable["type"] == "query", "is no query"),
        (variable["label"] == label, "has another label"),
        (
            variable["datasource"]["uid"] == "$datasource",
            "does not use $datasource",
        ),
        (variable["multi"] == true, "is not multi"),
        (
            variable["allValue"] == ".+",
            "has an allValue other than .+",
        ),
        (
            variable["refresh"] == 2,
            "does not refresh with the time range",
        ),
        (
            variable["current"].get("value").is_some(),
            "has no current value",
        ),
        (
            query.is_some_and(|it| it.1 == name),
            "is no label_values of itself",
        ),
    ];
    let broken = rules.iter().filter(|rule| !rule.0);
    let mut faults: Vec<String> = broken
        .map(|rule| format!("variable {name} {}", rule.1))
        .collect();
    let known = series_names();
    match selectors(query.unwrap_or_default().0) {
        Ok(found) if found.iter().all(|it| known.contains(&it.name)) => {}
        Ok(_) => faults.push(format!("variable {name} asks for an unknown metric")),
        Err(error) => faults.push(format!("variable {name}: {error}")),
    }
    faults
}

/// Ids once each, and no two panels on one cell of the 24 columns.
fn lint_layout(dashboard: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(dashboard, "panels") {
        let title = text(panel, "title");
        if !panel["id"].as_u64().is_some_and(|id| ids.insert(id)) {
            faults.push(format!(
                "{title:?}: id {} missing or used twice",
                panel["id"]
            ));
        }
        let side = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(0);
        let (x, y, w, h) = (side("x"), side("y"), side("w"), side("h"));
        if w == 0 || h == 0 || x + w > 24 {
            faults.push(format!(
                "{title:?}: gridPos leaves the 24 columns or is empty"
            ));
        }
        let area = (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line)));
        if area.filter(|cell| !cells.insert(*cell)).count() > 0 {
            faults.push(format!("{title:?}: overlaps another panel"));
        }
    }
    faults
}

fn lint_panel(panel: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let defaults = &panel["fieldConfig"]["defaults"];
    if text(panel, "title").is_empty() || text(panel, "description").is_empty() {
        faults.push("title or description is empty".to_string());
    }
    if panel["datasource"]["uid"] != "$datasource" {
        faults.push("datasource is not $datasource".to_string());
    }
    for unit in [
        Some(&defaults["unit"]),
        panel["options"]["yAxis"].get("unit"),
    ] {
        let unit = unit.map_or("short", |unit| unit.as_str().unwrap_or("(none)"));
        if !UNITS.contains(&unit) {
            faults.push(format!("unit {unit} is not one of {UNITS:?}"));
        }
    }
    let targets = list(panel, "targets");
    if targets.is_empty() {
        faults.push("has no target".to_string());
    }
    faults.extend(targets.iter().flat_map(lint_target));
    let references = targets
        .iter()
        .map(|target| text(target, "refId"))
        .collect::<BTreeSet<_>>();
    if references.len() != targets.len() {
        faults.push("a refId is missing or used twice".to_string());
    }
    faults.extend(lint_links(panel));
    faults
}

fn lint_target(target: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let (expr, legend) = (text(target, "expr"), text(target, "legendFormat"));
    if target["datasource"]["uid"] != "$datasource" || legend.is_empty() {
        faults.push("datasource or legendFormat missing".to_string());
    }
    for part in legend.split("{{").skip(1) {
        let label = part.split("}}").next().unwrap_or_default();
        if !expr.contains(label) {
            faults.push(format!("legend names {label}, which is not kept"));
        }
    }
    faults.extend(lint_expression(expr));
    let with_expr = |fault| format!("{fault}: {expr}");
    faults.into_iter().map(with_expr).collect()
}

/// Links lead to the daemon's pages, and name only labels the expressions keep.
fn lint_links(panel: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut links = list(&panel["fieldConfig"]["defaults"], "links").to_vec();
    for change in list(&panel["fieldConfig"], "overrides") {
        for property in list(change, "properties")
            .iter()
            .filter(|it| it["id"] == "links")
        {
            links.extend(list(property, "value").to_vec());
        }
    }
    for link in &links {
        let url = text(link, "url");
        if !url.starts_with("${pageshim_url}/leaks?") || text(link, "title").is_empty() {
            faults.push(format!(
                "link {url} does not lead to ${{pageshim_url}}/leaks?…"
            ));
        }
        for reference in url.split("${__").skip(1) {
            let name = reference.split(['}', ':']).next().unwrap_or_default();
            let label = name.rsplit('.').next().unwrap_or_default();
            if list(panel, "targets")
                .iter()
                .any(|target| !text(target, "expr").contains(label))
            {
                faults.push(format!(
                    "link {url} names {label}, which a target does not keep"
                ));
            }
        }
    }
    faults
}
