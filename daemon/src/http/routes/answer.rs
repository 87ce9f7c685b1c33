//! How a route answers: as a page, as JSON, or as the one of them that is asked for.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::asked::no_leaks;
use crate::books::report::Process;
use crate::http::App;
use crate::http::negotiate::Format;
use crate::http::problem::Problem;

/// What a handler returns.
pub(super) type Answer = Result<Response, Problem>;

/// A rendered page.
pub(super) fn page(rendered: Result<String, askama::Error>) -> Answer {
    let html = rendered
        .map_err(|error| Problem::new(500, format!("the page could not be rendered: {error}")))?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::VARY, "Accept, Cookie"),
    ];
    Ok((headers, html).into_response())
}

/// Anything as JSON.
pub(super) fn json_answer(what: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_string(what).unwrap_or_default() + "\n";
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::VARY, "Accept"),
    ];
    Ok((headers, body).into_response())
}

/// A page with a twin in JSON: its name in the URL or the `Accept` header chooses.
pub(super) async fn twin<T: serde::Serialize>(
    app: &App,
    named: Option<&str>,
    headers: &HeaderMap,
    taken: impl Future<Output = T>,
    render: impl FnOnce(&[Process], &T) -> Result<String, askama::Error>,
) -> Answer {
    let format = page_or_json(named, headers)?;
    let taken = taken.await;
    if format == Format::Json {
        return json_answer(&taken);
    }
    let all = app.source.report(&no_leaks()).await.processes;
    page(render(&all, &taken))
}

/// What to answer where there are a page and its twin only.
pub(super) fn page_or_json(named: Option<&str>, headers: &HeaderMap) -> Result<Format, Problem> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let wanted = match named {
        Some(name) => Format::named(name),
        None => Format::accepted(accept),
    };
    let known = |format: &Format| matches!(format, Format::Html | Format::Json);
    wanted
        .filter(known)
        .ok_or_else(|| Problem::new(406, "there is text/html and application/json".to_owned()))
}
