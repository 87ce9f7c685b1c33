//! Pages about chosen processes, each with its twin in JSON.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use serde::Serialize;

use super::answer::{Answer, json_answer, page, twin};
use super::asked::{no_leaks, of_process, view};
use crate::books::report::{Process, SCHEMA_VERSION};
use crate::books::why::Whys;
use crate::http::problem::Problem;
use crate::http::source::{self, Source};
use crate::http::{App, Processes};
use crate::hub::Filter;
use crate::web::pages_page::Wish;
use crate::web::view::View;
use crate::web::{overview_page, pages_page, why_page};

/// Asks the source for what a page of some processes shows.
type Ask<T> = for<'a> fn(&'a dyn Source, &'a Filter) -> source::Answer<'a, T>;
/// Renders that: all processes to choose from, what was asked for, the URL's wishes.
type Render<T> = fn(&[Process], &T, &View) -> Result<String, askama::Error>;

/// A page of the processes the URL names, or its twin where that is asked for.
pub(super) fn either<T>(ask: Ask<T>, render: Render<T>) -> MethodRouter<Arc<App>>
where
    T: Serialize + Send + 'static,
{
    get(
        move |State(app): State<Arc<App>>, RawQuery(query): RawQuery, headers: HeaderMap| async move {
            let view = view(query)?;
            let filter = of_process(&view);
            let taken = ask(app.source.as_ref(), &filter);
            let render = |all: &[Process], taken: &T| render(all, taken, &view);
            twin(&app, view.format.as_deref(), &headers, taken, render).await
        },
    )
}

/// The twin alone.
pub(super) fn data<T>(ask: Ask<T>) -> MethodRouter<Arc<App>>
where
    T: Serialize + Send + 'static,
{
    get(
        move |State(app): State<Arc<App>>, RawQuery(query): RawQuery| async move {
            let filter = of_process(&view(query)?);
            json_answer(&ask(app.source.as_ref(), &filter).await)
        },
    )
}

/// Who runs, and how to get the first one.
pub(super) async fn overview(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    let view = View::parse(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let report = app.source.report(&no_leaks()).await;
    page(overview_page::render(
        &report,
        &app.library,
        &app.socket,
        view.refresh,
    ))
}

/// Who is known.
pub(super) async fn processes(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    let filter = Filter {
        process: view(query)?.process,
        ..no_leaks()
    };
    let known = Processes {
        schema_version: SCHEMA_VERSION,
        processes: app.source.report(&filter).await.processes,
    };
    let body = serde_json::to_string(&known).unwrap_or_default() + "\n";
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A map of one heap.
pub(super) async fn pages(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let wish = wish(query)?;
    let taken = app.source.chart(&wish.asked);
    twin(
        &app,
        wish.format.as_deref(),
        &headers,
        taken,
        |all, chart| pages_page::render(all, chart, &wish),
    )
    .await
}

/// Its twin.
pub(super) async fn pages_json(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    let wish = wish(query)?;
    json_answer(&app.source.chart(&wish.asked).await)
}

fn wish(query: Option<String>) -> Result<Wish, Problem> {
    Wish::parse(query.as_deref().unwrap_or_default()).map_err(|why| Problem::new(400, why))
}

/// Chains of pointers that were asked for.
pub(super) async fn whys(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let view = view(query)?;
    let taken = known_whys(&app, &view);
    twin(
        &app,
        view.format.as_deref(),
        &headers,
        taken,
        |all, whys| why_page::render(all, whys, &view),
    )
    .await
}

/// Their twin.
pub(super) async fn whys_json(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    json_answer(&known_whys(&app, &view(query)?).await)
}

async fn known_whys(app: &App, view: &View) -> Whys {
    let report = app.source.report(&of_process(view)).await;
    Whys {
        schema_version: SCHEMA_VERSION,
        processes: report.processes.iter().map(why_page::entry).collect(),
    }
}
