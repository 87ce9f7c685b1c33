//! Dashboards and rules: what they ask exists, and a real Prometheus answers it.
//!
//! Three depths. The lint needs nothing but the files. promtool (Debian package
//! `prometheus`) judges rules and configuration; without it those cases say so and
//! pass. The last two start a real Prometheus: over an exporter written here from
//! [`METRICS`], then over the real daemon and shim with a program that allocates.
//!
//! # Design
//! [`METRICS`] is the exported list, with labels; the sample exporter is made from
//! it, and the end-to-end case holds the daemon to it. Lint rules return sentences,
//! so that one run names every fault, and `lint_notices_each_fault` proves each rule
//! on a spoiled copy. Waiting is always for a condition with a deadline ([`until`]).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{self, Expr, LabelModifier};
use serde_json::{Value, json};

/// Every family the daemon exports: name, type, labels with sample values.
const METRICS: &str = "
pageshim_build_info gauge version=0.1.0
pageshim_processes gauge state=running|exited|killed
pageshim_heap_live_bytes gauge process=zoo|cat
pageshim_heap_live_allocations gauge process=zoo|cat
pageshim_heap_peak_bytes gauge process=zoo|cat
pageshim_allocations_total counter process=zoo|cat api=malloc|calloc|realloc|aligned|new
pageshim_frees_total counter process=zoo|cat
pageshim_allocated_bytes_total counter process=zoo|cat
pageshim_freed_bytes_total counter process=zoo|cat
pageshim_temporary_allocations_total counter process=zoo|cat
pageshim_reallocations_total counter process=zoo|cat result=in_place|moved
pageshim_allocation_size_bytes histogram process=zoo|cat
pageshim_allocation_lifetime_seconds histogram process=zoo|cat
pageshim_page_committed_bytes gauge process=zoo|cat
pageshim_page_live_bytes gauge process=zoo|cat
pageshim_page_resident_bytes gauge process=zoo|cat
pageshim_page_waste_bytes gauge process=zoo|cat kind=rounding|free_slot|tail|retained|metadata
pageshim_page_waste_ratio gauge process=zoo|cat
pageshim_size_class_slots gauge process=zoo|cat class=16|64|singleton state=live|free
pageshim_syscalls_total counter process=zoo|cat syscall=mmap|munmap|madvise|mremap|mprotect|other
pageshim_syscall_seconds_total counter process=zoo|cat syscall=mmap|munmap|madvise|mremap|mprotect|other
pageshim_leak_bytes gauge process=zoo class=definite|indirect|possible|reachable
pageshim_leak_blocks gauge process=zoo class=definite|indirect|possible|reachable
pageshim_leak_check_pause_seconds gauge process=zoo|cat
pageshim_site_live_bytes gauge process=zoo|cat site=7f3a|other
pageshim_site_info gauge process=zoo|cat site=7f3a function=make_node file=zoo.c:12 module=zoo
pageshim_threads gauge process=zoo|cat
pageshim_misuse_total counter process=zoo kind=double_free|invalid_free
pageshim_events_total counter process=zoo|cat kind=hello|module|thread|segment
pageshim_events_dropped_total counter process=zoo|cat reason=socket_full|no_daemon|sites
pageshim_decode_errors_total counter reason=version
pageshim_shim_metadata_bytes gauge process=zoo|cat
pageshim_exporter_series_dropped_total counter
pageshim_scrape_seconds gauge
process_cpu_seconds_total counter
process_open_fds gauge
process_max_fds gauge
process_virtual_memory_bytes gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_threads gauge";

/// Exported, but no panel asks for it, each with the reason. Nothing at present.
const UNUSED: &[&str] = &[];

/// Panels a healthy run rightly leaves empty, each with the reason.
const MAY_BE_EMPTY: &[(&str, &str)] = &[
    ("Lost bytes", "no reachability check has been asked for"),
    ("Misuse of the heap", "the program makes no heap faults"),
    ("Not recorded, by reason", "nothing need be dropped"),
    (
        "Decode errors by reason",
        "the only client speaks correctly",
    ),
];

/// Stands for `$__rate_interval` in the lint, so that it is told from a written duration.
const RATE_INTERVAL: Duration = Duration::from_secs(7777);
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
/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

// ---- the files -------------------------------------------------------------

fn dashboards_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every dashboard as (file name, text, JSON).
fn dashboards() -> Vec<(String, String, Value)> {
    let entries = fs::read_dir(dashboards_dir()).expect("dashboards/ exists");
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("dashboards/ is readable").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = read(&path);
            let json = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            found.push((name, text, json));
        }
    }
    assert!(
        !found.is_empty(),
        "no dashboard in {}",
        dashboards_dir().display()
    );
    found
}

/// The array at `key`, empty when there is none.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The panels that show something: rows left out.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels")
        .iter()
        .filter(|panel| panel["type"] != "row")
}

/// Families as (name, type, label specifications).
fn families() -> impl Iterator<Item = (&'static str, &'static str, Vec<&'static str>)> {
    METRICS.trim().lines().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().expect("a line has a name");
        (
            name,
            words.next().expect("a line has a type"),
            words.collect(),
        )
    })
}

/// The series names a scrape yields: histograms by their three suffixes.
fn series_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, kind, _) in families() {
        let suffixes: &[&str] = if kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    names
}

// ---- expressions -----------------------------------------------------------

/// One selector in an expression, and the function right around it.
struct Selector {
    name: String,
    matchers: Matchers,
    function: Option<&'static str>,
    range: Option<Duration>,
    grouped_by: Vec<String>,
}

/// Replaces what Grafana would: durations here, label variables stay patterns.
fn with_durations(expr: &str, rate_interval: Duration) -> String {
    let seconds = rate_interval.as_secs();
    expr.replace("$__rate_interval", &format!("{seconds}s"))
        .replace("$__range", "5m")
        .replace("$__interval", "15s")
}

/// All selectors of `expr`, or why it does not parse.
fn selectors(expr: &str) -> Result<Vec<Selector>, String> {
    let mut found = Vec::new();
    collect(&parser::parse(expr)?, None, &mut found);
    Ok(found)
}

fn collect(expr: &Expr, function: Option<&'static str>, found: &mut Vec<Selector>) {
    match expr {
        Expr::Aggregate(inner) => {
            let before = found.len();
            collect(&inner.expr, None, found);
            if let Some(LabelModifier::Include(by)) = &inner.modifier {
                for selector in &mut found[before..] {
                    selector.grouped_by.extend(by.labels.iter().cloned());
                }
            }
            if let Some(param) = &inner.param {
                collect(param, None, found);
            }
        }
        Expr::Unary(inner) => collect(&inner.expr, None, found),
        Expr::Paren(inner) => collect(&inner.expr, function, found),
        Expr::Subquery(inner) => collect(&inner.expr, None, found),
        Expr::Binary(inner) => {
            collect(&inner.lhs, None, found);
            collect(&inner.rhs, None, found);
        }
        Expr::Call(call) => {
            for argument in &call.args.args {
                collect(argument, Some(call.func.name), found);
            }
        }
        Expr::VectorSelector(selector) => found.push(Selector {
            name: selector.name.clone().unwrap_or_default(),
            matchers: selector.matchers.clone(),
            function,
            range: None,
            grouped_by: Vec::new(),
        }),
        Expr::MatrixSelector(selector) => found.push(Selector {
            name: selector.vs.name.clone().unwrap_or_default(),
            matchers: selector.vs.matchers.clone(),
            function,
            range: Some(selector.range),
            grouped_by: Vec::new(),
        }),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

/// The labels a family has, from [`METRICS`]; `le` and the target's own included.
fn labels_of(name: &str) -> Vec<&'static str> {
    let mut labels = vec!["job", "instance", "le"];
    for (family, _, specifications) in families() {
        if name == family
            || name
                .strip_prefix(family)
                .is_some_and(|rest| rest.starts_with('_'))
        {
            labels.extend(
                specifications
                    .iter()
                    .filter_map(|word| word.split('=').next()),
            );
        }
    }
    labels
}

/// Faults of one panel expression, by the linter's target rules and ours.
fn lint_expression(expr: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let found = match selectors(&with_durations(expr, RATE_INTERVAL)) {
        Ok(found) => found,
        Err(error) => return vec![format!("does not parse: {error}")],
    };
    let known = series_names();
    for selector in found {
        let name = &selector.name;
        if name != "up" && !known.contains(name) {
            faults.push(format!("asks for {name}, which is not exported"));
        }
        for label in ["job", "instance"] {
            if !selects(&selector.matchers, label) {
                faults.push(format!("{name} lacks {label}=~\"${label}\""));
            }
        }
        let labels = labels_of(name);
        if labels.contains(&"process") && !selects(&selector.matchers, "process") {
            faults.push(format!("{name} lacks process=~\"$process\""));
        }
        let matched = selector.matchers.matchers.iter().map(|it| &it.name);
        for label in matched.chain(&selector.grouped_by) {
            if !labels.contains(&label.as_str()) {
                faults.push(format!("{name} has no label {label}"));
            }
        }
        faults.extend(lint_counter(&selector));
    }
    faults
}

fn selects(matchers: &Matchers, label: &str) -> bool {
    matchers.matchers.iter().any(|matcher| {
        matcher.name == label
            && matches!(matcher.op, MatchOp::Re(_))
            && matcher.value == format!("${label}")
    })
}

/// Counters only as rates, and rates only over `$__rate_interval`.
fn lint_counter(selector: &Selector) -> Option<String> {
    let name = &selector.name;
    let counter = ["_total", "_bucket", "_sum", "_count"]
        .iter()
        .any(|end| name.ends_with(end));
    let function = selector.function.unwrap_or_default();
    if counter && !["rate", "irate", "increase"].contains(&function) {
        return Some(format!("{name} is a counter outside rate, irate, increase"));
    }
    let rate = ["rate", "irate"].contains(&function);
    (rate && selector.range != Some(RATE_INTERVAL))
        .then(|| format!("{name}: {function} not over $__rate_interval"))
}

// ---- dashboards ------------------------------------------------------------

/// All faults of a dashboard.
fn lint(dashboard: &Value) -> Vec<String> {
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

/// `label_values(SELECTOR, LABEL)` as (SELECTOR, LABEL).
fn label_values(query: &str) -> Option<(&str, &str)> {
    let inner = query.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = inner.rsplit_once(',')?;
    Some((selector.trim(), label.trim()))
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

// ---- rules -----------------------------------------------------------------

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

// ---- programs and waiting --------------------------------------------------

/// Asks `probe` until it answers, at most for `limit`; its last error is the message.
fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => {
                panic!("{what}: not within {} s: {error}", limit.as_secs())
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The program called `name` on PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// `name` of the Debian package prometheus; says what a test leaves out without it.
fn tool(name: &str, left_out: &str) -> Option<PathBuf> {
    let found = on_path(name);
    if found.is_none() {
        eprintln!("{name} is not on PATH: {left_out} not checked (apt-get install prometheus)");
    }
    found
}

/// A directory of its own for one test; gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pageshim-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn create(&self, name: &str) -> Stdio {
        File::create(self.file(name))
            .expect("the scratch directory is writable")
            .into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that ends with the test, and where it writes its errors.
struct Kept {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Kept {
    fn start(name: &'static str, scratch: &Scratch, command: &mut Command) -> Self {
        let log = format!("{name}.log");
        let child = command
            .stdin(Stdio::null())
            .stderr(scratch.create(&log))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            child,
            name,
            log: scratch.file(&log),
        }
    }

    /// Panics with the end of its log when it has ended.
    fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be asked") {
            panic!("{} ended early, {status}:\n{}", self.name, self.log_end());
        }
    }

    fn log_end(&self) -> String {
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// GET over loopback: the body of a 200, else what came instead.
fn get(address: &str, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address}{path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        return Ok(body.to_string());
    }
    Err(format!(
        "{}: {body}",
        head.lines().next().unwrap_or("no answer")
    ))
}

// ---- Prometheus ------------------------------------------------------------

/// A Prometheus of our own that scrapes one target each second, with our rules.
struct Prometheus {
    process: Kept,
    address: String,
}

impl Prometheus {
    fn start(binary: &Path, scratch: &Scratch, target: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free loopback port");
        let address = port.to_string();
        let config = scratch.file("prometheus.yml");
        fs::write(&config, configuration(target)).expect("the scratch directory is writable");
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                scratch.file("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null());
        let mut process = Kept::start("prometheus", scratch, &mut command);
        until("Prometheus is ready", PATIENCE, || {
            process.must_run();
            get(&address, "/-/ready")
        });
        Self { process, address }
    }

    fn api(&self, path: &str) -> Result<Value, String> {
        let answer: Value = serde_json::from_str(&get(&self.address, path)?)
            .map_err(|error| format!("{path}: {error}"))?;
        if answer["status"] == "success" {
            return Ok(answer["data"].clone());
        }
        Err(answer["error"].to_string())
    }

    /// How many series answer `expr`, at least one.
    fn ask(&self, expr: &str) -> Result<usize, String> {
        let mut path = "/api/v1/query?query=".to_string();
        for byte in expr.bytes() {
            if byte.is_ascii_alphanumeric() {
                path.push(char::from(byte));
            } else {
                let _ = write!(path, "%{byte:02X}");
            }
        }
        let data = self.api(&path)?;
        match list(&data, "result").len() {
            0 => Err("no series".to_string()),
            count => Ok(count),
        }
    }

    /// Waits until `metric` has been scraped often enough for rates.
    fn await_scrapes(&mut self, metric: &str) {
        until("scrapes are in", PATIENCE, || {
            self.process.must_run();
            let problem = self.scrape_errors();
            self.ask(&format!("count_over_time({metric}[1m]) >= 3"))
                .map_err(|error| format!("{error}; scrape errors {problem:?}"))
        });
    }

    fn scrape_errors(&self) -> Vec<String> {
        let data = match self.api("/api/v1/targets?state=active") {
            Ok(data) => data,
            Err(error) => return vec![error],
        };
        let targets = list(&data, "activeTargets");
        let bad = targets
            .iter()
            .filter(|it| it["health"] != "up" || it["lastError"] != "");
        let mut errors: Vec<String> = bad.map(|it| it["lastError"].to_string()).collect();
        if targets.is_empty() {
            errors.push("no target".to_string());
        }
        errors
    }

    /// Every panel and variable expression that has no answer yet, with why.
    fn unanswered(&self, may_be_empty: &[(&str, &str)]) -> Vec<String> {
        let mut faults = Vec::new();
        for (_, _, dashboard) in dashboards() {
            for panel in panels(&dashboard) {
                let title = text(panel, "title");
                let excused = may_be_empty.iter().any(|(excused, _)| *excused == title);
                for target in list(panel, "targets") {
                    let expr = substituted(text(target, "expr"));
                    match self.ask(&expr) {
                        Err(error) if !excused || error != "no series" => {
                            faults.push(format!("{title:?}: {error}: {expr}"));
                        }
                        _ => {}
                    }
                }
            }
            for variable in list(&dashboard["templating"], "list") {
                let query = text(&variable["query"], "query");
                if let Some((selector, label)) = label_values(query) {
                    let expr = substituted(&format!("count by ({label}) ({selector})"));
                    if let Err(error) = self.ask(&expr) {
                        faults.push(format!("variable {}: {error}", variable["name"]));
                    }
                }
            }
        }
        faults
    }

    /// Rules Prometheus could not evaluate, and annotations it could not expand.
    fn rule_errors(&self) -> Vec<String> {
        let data = match self.api("/api/v1/rules") {
            Ok(data) => data,
            Err(error) => return vec![error],
        };
        let rules: Vec<&Value> = list(&data, "groups")
            .iter()
            .flat_map(|group| list(group, "rules"))
            .collect();
        let mut errors = Vec::new();
        for rule in &rules {
            if rule["health"] != "ok" {
                errors.push(format!(
                    "{}: {} {}",
                    rule["name"], rule["health"], rule["lastError"]
                ));
            }
            if list(rule, "alerts")
                .iter()
                .any(|it| it.to_string().contains("error expanding"))
            {
                errors.push(format!("{}: {}", rule["name"], rule["alerts"]));
            }
        }
        if rules.is_empty() {
            errors.push("no rule was loaded".to_string());
        }
        errors
    }

    /// Demands an answer to all panels, sound rules, clean scrapes.
    fn must_answer_everything(&self, may_be_empty: &[(&str, &str)]) {
        until("every panel answers", PATIENCE, || {
            let faults = self.unanswered(may_be_empty);
            if faults.is_empty() {
                Ok(())
            } else {
                Err(format!("\n  {}", faults.join("\n  ")))
            }
        });
        until("every rule evaluates", PATIENCE, || {
            let faults = self.rule_errors();
            if faults.is_empty() {
                Ok(())
            } else {
                Err(faults.join("\n  "))
            }
        });
        assert_eq!(self.scrape_errors(), Vec::<String>::new());
    }
}

/// What Grafana would send with every variable on All.
fn substituted(expr: &str) -> String {
    with_durations(expr, Duration::from_secs(10))
        .replace("$job", ".+")
        .replace("$instance", ".+")
        .replace("$process", ".+")
}

fn configuration(target: &str) -> String {
    let rules = dashboards_dir().join("rules");
    let rules = rules.display();
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{rules}/pageshim-recording.yaml', '{rules}/pageshim-alerts.yaml']\n\
         scrape_configs:\n  - job_name: pageshim\n    static_configs: [{{targets: ['{target}']}}]\n"
    )
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

// ---- the sample exporter ---------------------------------------------------

/// A scrape in which every family of [`METRICS`] has a value; counters go up with `seconds`.
fn sample_scrape(seconds: u64) -> String {
    let mut page = String::new();
    for (name, kind, specifications) in families() {
        let _ = writeln!(
            page,
            "# HELP {name} Sample of {name}.\n# TYPE {name} {kind}"
        );
        for labels in combinations(&specifications) {
            let braces = |labels: &[String]| {
                if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{}}}", labels.join(","))
                }
            };
            let count = 100 + 10 * seconds;
            if kind != "histogram" {
                let value = if kind == "counter" { count } else { 100 };
                let _ = writeln!(page, "{name}{} {value}", braces(&labels));
                continue;
            }
            for (bound, part) in [("16", 2), ("64", 1), ("+Inf", 1)] {
                let mut bucket = labels.clone();
                bucket.push(format!("le=\"{bound}\""));
                let _ = writeln!(page, "{name}_bucket{} {}", braces(&bucket), count / part);
            }
            let labels = braces(&labels);
            let _ = writeln!(
                page,
                "{name}_sum{labels} {}\n{name}_count{labels} {count}",
                20 * count
            );
        }
    }
    page
}

/// `["a=1|2", "b=3"]` as `[[a="1", b="3"], [a="2", b="3"]]`.
fn combinations(specifications: &[&str]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for word in specifications {
        let (label, values) = word.split_once('=').expect("label=value|value");
        all = all
            .iter()
            .flat_map(|labels: &Vec<String>| {
                values.split('|').map(move |value| {
                    let mut more = labels.clone();
                    more.push(format!("{label}=\"{value}\""));
                    more
                })
            })
            .collect();
    }
    all
}

/// Serves [`sample_scrape`] on a loopback port until the test's process ends.
fn start_exporter() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address")
        .to_string();
    let start = Instant::now();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut line = String::new();
            let mut lines = BufReader::new(&stream);
            // The request ends with an empty line; its content does not matter here.
            while lines.read_line(&mut line).is_ok_and(|read| read > 2) {}
            let body = sample_scrape(start.elapsed().as_secs());
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

// Goal: the expressions fit the list of metrics, before and without any daemon. Method: a real
// Prometheus over a sample in which everything has a value, so nothing may be empty.
#[test]
fn panels_answer_from_a_sample_scrape() {
    let Some(binary) = tool("prometheus", "panels over a sample scrape") else {
        return;
    };
    let scratch = Scratch::new("sample");
    let mut prometheus = Prometheus::start(&binary, &scratch, &start_exporter());
    prometheus.await_scrapes("pageshim_build_info");
    prometheus.must_answer_everything(&[]);
}

// ---- end to end ------------------------------------------------------------

/// What the release build puts beside this test's profile: `target/release/NAME`.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test
        .ancestors()
        .nth(3)
        .expect("the test is in target/PROFILE/deps");
    let path = target.join("release").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release` first",
        path.display()
    );
    path
}

/// Starts the daemon; the listening address is in its first line.
fn start_daemon(scratch: &Scratch, socket: &Path) -> (Kept, String) {
    let mut command = Command::new(built("pageshim"));
    command
        .args(["daemon", "--listen", "127.0.0.1:0", "--socket"])
        .arg(socket);
    for variable in ["HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        command.env(variable, &scratch.0);
    }
    let mut daemon = Kept::start("daemon", scratch, command.stdout(Stdio::piped()));
    let stdout = daemon.child.stdout.take().expect("stdout is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let line = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        panic!(
            "the daemon printed no first line; its errors:\n{}",
            daemon.log_end()
        )
    });
    let url = line
        .split_whitespace()
        .find_map(|word| word.split_once("http://"));
    let Some((_, rest)) = url else {
        panic!("no URL in the daemon's first line: {line}")
    };
    let digit = |it: char| it.is_ascii_digit() || it == '.' || it == ':';
    (
        daemon,
        rest.split(|it| !digit(it))
            .next()
            .unwrap_or_default()
            .to_string(),
    )
}

/// Allocates, frees, grows and keeps in three threads until it is killed.
const PROGRAM: &str = "
import threading, time
kept = []
def churn():
    while True:
        blocks = [bytearray(1 << (i % 17)) for i in range(300)]
        if len(kept) < 50000:
            kept.extend(bytes(64) for _ in range(50))
        grown = bytearray()
        for _ in range(500):
            grown += b'x' * 100
        large = bytearray(8 << 20)
        del blocks, grown, large
        time.sleep(0.02)
for _ in range(2):
    threading.Thread(target=churn, daemon=True).start()
churn()
";

fn start_program(scratch: &Scratch, socket: &Path) -> Kept {
    let python = on_path("python3").expect("python3 is not on PATH: apt-get install python3");
    let mut command = Command::new(python);
    command
        .args(["-c", PROGRAM])
        .env("PYTHONMALLOC", "malloc")
        .env("LD_PRELOAD", built("libpageshim.so"))
        .env("PAGESHIM_SOCKET", socket)
        .stdout(Stdio::null());
    Kept::start("program", scratch, &mut command)
}

// Goal: an operator's dashboards show something for a real program. Method: daemon, a program under
// the shim, Debian's Prometheus; all panels must answer, the daemon must export nothing unlisted.
#[test]
fn every_panel_answers_from_a_real_scrape() {
    let binary = on_path("prometheus")
        .expect("prometheus is not on PATH: apt-get install prometheus, or put it on PATH");
    let scratch = Scratch::new("scrape");
    let socket = scratch.file("pageshim.sock");
    let (mut daemon, address) = start_daemon(&scratch, &socket);
    let mut program = start_program(&scratch, &socket);
    until("the daemon knows the program", PATIENCE, || {
        daemon.must_run();
        program.must_run();
        let page = get(&address, "/metrics")?;
        let known = page
            .lines()
            .any(|line| line.starts_with("pageshim_heap_live_bytes{"));
        known
            .then_some(())
            .ok_or(format!("no pageshim_heap_live_bytes in:\n{page}"))
    });
    let mut prometheus = Prometheus::start(&binary, &scratch, &address);
    prometheus.await_scrapes("pageshim_heap_live_bytes");
    prometheus.must_answer_everything(MAY_BE_EMPTY);
    daemon.must_run();
    program.must_run();
    let names = prometheus
        .api("/api/v1/label/__name__/values")
        .expect("Prometheus lists names");
    let known = series_names();
    for name in names
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let ours = name.starts_with("pageshim_") || name.starts_with("process_");
        assert!(
            !ours || known.contains(name),
            "{name} is exported, but not in METRICS here"
        );
    }
}

// Goal: excuses do not outlive their panels. Method: each title in the list is a panel's.
#[test]
fn excused_panels_exist() {
    let all = dashboards();
    let titles: Vec<&str> = all
        .iter()
        .flat_map(|it| panels(&it.2).map(|panel| text(panel, "title")))
        .collect();
    for (title, reason) in MAY_BE_EMPTY {
        assert!(titles.contains(title), "{title:?} ({reason}) is no panel");
    }
}

// Goal: the sample is what a daemon may say. Method: promtool's own check of an exposition.
#[test]
fn promtool_accepts_the_sample_scrape() {
    let Some(promtool) = tool("promtool", "the sample scrape") else {
        return;
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool was found");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin
        .write_all(sample_scrape(1).as_bytes())
        .expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("a child can be waited for");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
