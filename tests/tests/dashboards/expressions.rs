//! PromQL of a panel: the selectors in an expression, and the lint of one expression.

use std::time::Duration;

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{self, Expr, LabelModifier};

use crate::catalog::{labels_of, series_names};

/// Stands for `$__rate_interval` in the lint, so that it is told from a written duration.
const RATE_INTERVAL: Duration = Duration::from_secs(7777);

/// One selector in an expression, and the function right around it.
pub(crate) struct Selector {
    pub(crate) name: String,
    matchers: Matchers,
    function: Option<&'static str>,
    range: Option<Duration>,
    grouped_by: Vec<String>,
}

/// Replaces what Grafana would: durations here, label variables stay patterns.
pub(crate) fn with_durations(expr: &str, rate_interval: Duration) -> String {
    let seconds = rate_interval.as_secs();
    expr.replace("$__rate_interval", &format!("{seconds}s"))
        .replace("$__range", "5m")
        .replace("$__interval", "15s")
}

/// All selectors of `expr`, or why it does not parse.
pub(crate) fn selectors(expr: &str) -> Result<Vec<Selector>, String> {
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

/// Faults of one panel expression, by the linter's target rules and ours.
pub(crate) fn lint_expression(expr: &str) -> Vec<String> {
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

/// `label_values(SELECTOR, LABEL)` as (SELECTOR, LABEL).
pub(crate) fn label_values(query: &str) -> Option<(&str, &str)> {
    let inner = query.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = inner.rsplit_once(',')?;
    Some((selector.trim(), label.trim()))
}
