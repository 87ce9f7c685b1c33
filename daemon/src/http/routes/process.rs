//! One process of `/api/v1/processes`: its bill, its checks, and the questions that may be put to it.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;

use super::answer::{Answer, json_answer, page_or_json};
use super::asked::one_process;
use crate::books::report::Process;
use crate::books::why::Question;
use crate::http::negotiate::{self, Format};
use crate::http::problem::Problem;
use crate::http::{App, guard};
use crate::hub::{NoCheck, Roots};
use crate::web::{query, why_page};

/// The bill of one process, with who it is.
pub(super) async fn bill(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let filter = one_process(&id);
    let found = app.source.waste(&filter).await.processes.into_iter().next();
    json_answer(&found.ok_or_else(|| unknown(&id))?)
}

/// Checks a process for lost blocks now; answers what `/leaks.json` says of the process, or
/// sends a browser to the page that does.
pub(super) async fn check(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    guard::same_origin(&headers)?;
    let roots = roots(query.as_deref().unwrap_or_default())?;
    let process = app.source.check(&id, roots).await;
    let process = process.map_err(|no| no_check(&id, no))?;
    if to_a_page(&headers)? {
        let page = format!("../../../../leaks?process={}", query::encode(&process));
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, page)]).into_response());
    }
    json_answer(&one(&app, &process).await?)
}

/// Whether who asked is to be sent to a page: a browser, which says that it takes one. Who says
/// nothing, as tools do, wants an answer.
fn to_a_page(headers: &HeaderMap) -> Result<bool, Problem> {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    let page = page_or_json(None, headers)? == Format::Html;
    Ok(page && negotiate::wants_html(accept))
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
pub(super) async fn checks(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let found = app.source.checks(&id).await;
    json_answer(&found.ok_or_else(|| unknown(&id))?)
}

/// Looks for the chain of pointers to a block: of an address or a site, named in the URL or, by
/// a form, in the body.
pub(super) async fn why(
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
    if to_a_page(&headers)? {
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
pub(super) async fn answers(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    json_answer(&why_page::entry(&one(&app, &id).await?))
}

/// What is known of one process, without its sites.
async fn one(app: &App, id: &str) -> Result<Process, Problem> {
    let filter = one_process(id);
    let mut found = app.source.report(&filter).await.processes.into_iter();
    found.next().ok_or_else(|| unknown(id))
}

fn no_check(id: &str, no: NoCheck) -> Problem {
    match no {
        NoCheck::Unknown => unknown(id),
        NoCheck::NoSite(why) => Problem::new(404, why),
        NoCheck::Failed(why) => Problem::new(409, format!("{id} could not be checked: {why}")),
    }
}

fn unknown(id: &str) -> Problem {
    Problem::new(
        404,
        format!("there is no process {id}; /api/v1/processes lists those known"),
    )
}
