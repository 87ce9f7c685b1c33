//! `/leaks` in its four formats.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;

use super::answer::{Answer, page};
use super::asked::{no_leaks, view};
use crate::books::report::Report;
use crate::http::App;
use crate::http::negotiate::Format;
use crate::http::problem::Problem;
use crate::web::view::View;
use crate::web::{csv, leaks_page, text};

/// In the format the URL names or the `Accept` header likes best.
pub(super) async fn any(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let view = view(query)?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let format = match &view.format {
        Some(name) => Format::named(name).ok_or_else(|| {
            Problem::new(
                400,
                format!("format={name}: choose from html, json, csv, txt"),
            )
        })?,
        None => Format::accepted(accept).ok_or_else(|| {
            Problem::new(
                406,
                "there is text/html, application/json, text/csv and text/plain".to_owned(),
            )
        })?,
    };
    send(&app, view, format).await
}

/// As the report's schema.
pub(super) async fn json(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    send(&app, view(query)?, Format::Json).await
}

/// One row a site.
pub(super) async fn csv(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    send(&app, view(query)?, Format::Csv).await
}

/// For terminals.
pub(super) async fn text(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    send(&app, view(query)?, Format::Text).await
}

async fn send(app: &App, view: View, format: Format) -> Answer {
    let usual = (format == Format::Html).then_some(leaks_page::ROWS);
    let mut report = app.source.report(&view.filter(usual)).await;
    view.arrange(&mut report, usual);
    if format == Format::Html {
        let all = app.source.report(&no_leaks()).await.processes;
        return page(leaks_page::render(&all, &report, &view));
    }
    // A report of a million sites is seconds of formatting: not on the thread that serves /metrics.
    let body = tokio::task::spawn_blocking(move || match format {
        Format::Csv => (
            csv::leaks(&report),
            "text/csv; charset=utf-8; header=present",
        ),
        Format::Text => (text::report(&report), "text/plain; charset=utf-8"),
        Format::Json | Format::Html => (to_json(&report), "application/json"),
    });
    let (body, kind) = body
        .await
        .map_err(|error| Problem::new(500, error.to_string()))?;
    Ok((
        [(header::CONTENT_TYPE, kind), (header::VARY, "Accept")],
        body,
    )
        .into_response())
}

fn to_json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default() + "\n"
}
