//! The routes, each a few lines: read the URL, ask the source, render.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::negotiate::Format;
use super::problem::{self, Problem};
use super::source::{self, Source};
use super::{App, Processes, auth, guard, openapi};
use crate::books::report::{Process, Report, SCHEMA_VERSION};
use crate::books::why::{Question, Whys};
use crate::hub::{Filter, NoCheck, Roots};
use crate::web::pages_page::Wish;
use crate::web::view::View;
use crate::web::{
    assets, csv, leaks_page, overview_page, pages_page, query, sizes_page, syscalls_page, text,
    waste_page, whatif_page, why_page,
};

type Answer = Result<Response, Problem>;

/// Every path, as `/openapi.json` lists them.
pub(crate) const PATHS: [&str; 30] = [
    "/",
    "/leaks",
    "/leaks.json",
    "/leaks.csv",
    "/leaks.txt",
    "/waste",
    "/waste.json",
    "/pages",
    "/pages.json",
    "/sizes",
    "/sizes.json",
    "/syscalls",
    "/syscalls.json",
    "/whatif",
    "/whatif.json",
    "/why",
    "/why.json",
    "/processes.json",
    "/metrics",
    "/healthz",
    "/livez",
    "/readyz",
    "/openapi.json",
    "/api/v1/processes",
    "/api/v1/processes/{id}/bill",
    "/api/v1/processes/{id}/check",
    "/api/v1/processes/{id}/checks",
    "/api/v1/processes/{id}/why",
    "/api/v1/leaks",
    "/assets/{name}",
];

/// All routes behind all guards. The last layer is the first a request meets.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/leaks", get(leaks))
        .route("/leaks.json", get(leaks_json))
        .route("/leaks.csv", get(leaks_csv))
        .route("/leaks.txt", get(leaks_text))
        .route("/waste", get(waste))
        .route("/waste.json", get(waste_json))
        .route("/pages", get(pages))
        .route("/pages.json", get(pages_json))
        .route("/sizes", get(sizes))
        .route("/sizes.json", get(sizes_json))
        .route("/syscalls", get(syscalls))
        .route("/syscalls.json", get(syscalls_json))
        .route("/whatif", get(whatif))
        .route("/whatif.json", get(whatif_json))
        .route("/why", get(whys))
        .route("/why.json", get(whys_json))
        .route("/processes.json", get(processes))
        .route("/metrics", get(metrics))
        .route("/healthz", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(description))
        .route("/api/v1/processes", get(processes))
        .route("/api/v1/processes/{id}/bill", get(bill))
        .route("/api/v1/processes/{id}/check", post(check))
        .route("/api/v1/processes/{id}/checks", get(checks))
        .route("/api/v1/processes/{id}/why", get(answers).post(why))
        .route("/api/v1/leaks", get(leaks_json))
        .route("/assets/{name}", get(asset))
        .fallback(nowhere)
        .method_not_allowed_fallback(read_only)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            auth::check,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            guard::check,
        ))
        .layer(middleware::from_fn(problem::for_browsers))
        .layer(middleware::from_fn(guard::headers))
        .with_state(app)
}

fn page(rendered: Result<String, askama::Error>) -> Answer {
    let html = rendered
        .map_err(|error| Problem::new(500, format!("the page could not be rendered: {error}")))?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::VARY, "Accept, Cookie"),
    ];
    Ok((headers, html).into_response())
}

async fn overview(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    let view = View::parse(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let report = app.source.report(&no_leaks()).await;
    page(overview_page::render(
        &report,
        &app.library,
        &app.socket,
        view.refresh,
    ))
}

fn no_leaks() -> Filter {
    Filter {
        limit: Some(0),
        ..Filter::default()
    }
}

async fn leaks(
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

async fn leaks_json(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    send(&app, view(query)?, Format::Json).await
}

async fn leaks_csv(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    send(&app, view(query)?, Format::Csv).await
}

async fn leaks_text(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    send(&app, view(query)?, Format::Text).await
}

fn view(query: Option<String>) -> Result<View, Problem> {
    View::parse(query.as_deref().unwrap_or_default()).map_err(|why| Problem::new(400, why))
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
        Format::Json | Format::Html => (json(&report), "application/json"),
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

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default() + "\n"
}

async fn processes(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
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

/// A page with a twin in JSON: its name in the URL or the `Accept` header chooses.
async fn twin<T: serde::Serialize>(
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

/// Asks the source for what a page of some processes shows.
type Ask<T> = for<'a> fn(&'a dyn Source, &'a Filter) -> source::Answer<'a, T>;
/// Renders that: all processes to choose from, what was asked for, the URL's wishes.
type Render<T> = fn(&[Process], &T, &View) -> Result<String, askama::Error>;

/// A page of the processes the URL names, or its twin.
async fn either<T: serde::Serialize>(
    app: &App,
    RawQuery(query): RawQuery,
    headers: &HeaderMap,
    ask: Ask<T>,
    render: Render<T>,
) -> Answer {
    let view = view(query)?;
    let filter = of_process(&view);
    let taken = ask(app.source.as_ref(), &filter);
    let render = |all: &[Process], taken: &T| render(all, taken, &view);
    twin(app, view.format.as_deref(), headers, taken, render).await
}

/// The twin alone.
async fn data<T: serde::Serialize>(app: &App, RawQuery(query): RawQuery, ask: Ask<T>) -> Answer {
    let filter = of_process(&view(query)?);
    json_answer(&ask(app.source.as_ref(), &filter).await)
}

async fn waste(app: State<Arc<App>>, query: RawQuery, headers: HeaderMap) -> Answer {
    either(
        &app,
        query,
        &headers,
        <dyn Source>::waste,
        waste_page::render,
    )
    .await
}

/// What to answer where there are a page and its twin only.
fn page_or_json(named: Option<&str>, headers: &HeaderMap) -> Result<Format, Problem> {
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

async fn waste_json(app: State<Arc<App>>, query: RawQuery) -> Answer {
    data(&app, query, <dyn Source>::waste).await
}

async fn sizes(app: State<Arc<App>>, query: RawQuery, headers: HeaderMap) -> Answer {
    either(
        &app,
        query,
        &headers,
        <dyn Source>::sizes,
        sizes_page::render,
    )
    .await
}

async fn sizes_json(app: State<Arc<App>>, query: RawQuery) -> Answer {
    data(&app, query, <dyn Source>::sizes).await
}

async fn syscalls(app: State<Arc<App>>, query: RawQuery, headers: HeaderMap) -> Answer {
    either(
        &app,
        query,
        &headers,
        <dyn Source>::syscalls,
        syscalls_page::render,
    )
    .await
}

async fn syscalls_json(app: State<Arc<App>>, query: RawQuery) -> Answer {
    data(&app, query, <dyn Source>::syscalls).await
}

async fn whatif(app: State<Arc<App>>, query: RawQuery, headers: HeaderMap) -> Answer {
    either(
        &app,
        query,
        &headers,
        <dyn Source>::whatif,
        whatif_page::render,
    )
    .await
}

async fn whatif_json(app: State<Arc<App>>, query: RawQuery) -> Answer {
    data(&app, query, <dyn Source>::whatif).await
}

async fn pages(
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

async fn pages_json(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    let wish = wish(query)?;
    json_answer(&app.source.chart(&wish.asked).await)
}

fn wish(query: Option<String>) -> Result<Wish, Problem> {
    Wish::parse(query.as_deref().unwrap_or_default()).map_err(|why| Problem::new(400, why))
}

/// The bill of one process, with who it is.
async fn bill(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let filter = Filter {
        process: Some(id.clone()),
        ..no_leaks()
    };
    let found = app.source.waste(&filter).await.processes.into_iter().next();
    json_answer(&found.ok_or_else(|| unknown(&id))?)
}

/// Checks a process for lost blocks now; answers what `/leaks.json` says of the process, or
/// sends a browser to the page that does.
async fn check(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    guard::same_origin(&headers)?;
    let roots = roots(query.as_deref().unwrap_or_default())?;
    let process = app.source.check(&id, roots).await;
    let process = process.map_err(|no| no_check(&id, no))?;
    if page_or_json(None, &headers)? == Format::Html {
        let page = format!("../../../../leaks?process={}", query::encode(&process));
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, page)]).into_response());
    }
    json_answer(&one(&app, &process).await?)
}

fn no_check(id: &str, no: NoCheck) -> Problem {
    match no {
        NoCheck::Unknown => unknown(id),
        NoCheck::NoSite(why) => Problem::new(404, why),
        NoCheck::Failed(why) => Problem::new(409, format!("{id} could not be checked: {why}")),
    }
}

/// What is known of one process, without its sites.
async fn one(app: &App, id: &str) -> Result<Process, Problem> {
    let filter = Filter {
        process: Some(id.to_owned()),
        ..no_leaks()
    };
    let mut found = app.source.report(&filter).await.processes.into_iter();
    found.next().ok_or_else(|| unknown(id))
}

/// Looks for the chain of pointers to a block: of an address or a site, named in the URL or, by
/// a form, in the body.
async fn why(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
    headers: HeaderMap,
    body: String,
) -> Answer {
    guard::same_origin(&headers)?;
    let asked = format!("{}&{}", asked.unwrap_or_default(), body.trim());
    let question = question(&asked).map_err(|why| Problem::new(400, why))?;
    let process = app.source.why(&id, &question).await;
    let process = process.map_err(|no| no_check(&id, no))?;
    if page_or_json(None, &headers)? == Format::Html {
        let page = format!("../../../../why?process={}", query::encode(&process));
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, page)]).into_response());
    }
    let mut entry = why_page::entry(&one(&app, &process).await?);
    // Another may have asked something else meanwhile.
    entry.answers.retain(|why| question.is_of(why));
    json_answer(&entry)
}

fn question(asked: &str) -> Result<Question, String> {
    let pairs = query::pairs(asked);
    if let Some((name, _)) = pairs
        .iter()
        .find(|(name, _)| !["address", "site", "class"].contains(&name.as_str()))
    {
        return Err(format!(
            "{name} is no parameter here; known are address, site, class"
        ));
    }
    let value = |wanted: &str| {
        let found = pairs.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    Question::new(value("address"), value("site"), value("class"))
}

/// The last chains that were asked for.
async fn answers(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    json_answer(&why_page::entry(&one(&app, &id).await?))
}

async fn known_whys(app: &App, view: &View) -> Whys {
    let report = app.source.report(&of_process(view)).await;
    Whys {
        schema_version: SCHEMA_VERSION,
        processes: report.processes.iter().map(why_page::entry).collect(),
    }
}

async fn whys(
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

async fn whys_json(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    json_answer(&known_whys(&app, &view(query)?).await)
}

/// `roots=all` or `roots=strict`.
fn roots(query: &str) -> Result<Roots, Problem> {
    let mut roots = Roots::Own;
    for (name, value) in query::pairs(query) {
        roots = match (name.as_str(), value.as_str()) {
            ("roots", "all") => Roots::Own,
            ("roots", "strict") => Roots::Strict,
            ("roots", _) => return Err(Problem::new(400, "roots is all or strict".to_owned())),
            _ => roots,
        };
    }
    Ok(roots)
}

/// The last checks of one process, and the last two compared.
async fn checks(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let found = app.source.checks(&id).await;
    json_answer(&found.ok_or_else(|| unknown(&id))?)
}

fn unknown(id: &str) -> Problem {
    Problem::new(
        404,
        format!("there is no process {id}; /api/v1/processes lists those known"),
    )
}

fn of_process(view: &View) -> Filter {
    Filter {
        process: view.process.clone(),
        ..no_leaks()
    }
}

fn json_answer(what: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_string(what).unwrap_or_default() + "\n";
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::VARY, "Accept"),
    ];
    Ok((headers, body).into_response())
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.source.metrics().await).into_response()
}

async fn alive() -> &'static str {
    "ok\n"
}

/// Ready is a matter of ours alone: a dead target does not change it.
async fn ready(State(app): State<Arc<App>>) -> Answer {
    if app.source.ready() {
        return Ok("ok\n".into_response());
    }
    Err(Problem::new(
        503,
        "the socket takes no new processes: the daemon starts or stops".to_owned(),
    ))
}

async fn description() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        openapi::text(),
    )
        .into_response()
}

async fn asset(Path(name): Path<String>) -> Answer {
    let asset = assets::find(&name)
        .ok_or_else(|| Problem::new(404, format!("there is no asset {name}; reload the page")))?;
    let headers = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.body).into_response())
}

async fn nowhere(uri: Uri) -> Problem {
    let path = uri.path();
    let near = PATHS
        .iter()
        .filter(|known| !known.contains('{'))
        .min_by_key(|known| distance(path, known));
    let hint = near
        .filter(|known| distance(path, known) <= 3)
        .map(|known| format!("; did you mean {known}?"));
    Problem::new(
        404,
        format!("there is nothing at {path}{}", hint.unwrap_or_default()),
    )
}

async fn read_only(uri: Uri) -> Response {
    let (allow, why) = if uri.path().ends_with("/check") {
        ("POST", "a check is asked for with POST")
    } else {
        ("GET, HEAD", "this is read with GET or HEAD")
    };
    let mut response = Problem::new(405, why.to_owned()).into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, header::HeaderValue::from_static(allow));
    debug_assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    response
}

/// Edits from one path to another; paths that differ much in length are far.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
