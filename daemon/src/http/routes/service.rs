//! What serves the daemon itself: metrics, health, the API's description, assets.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::answer::Answer;
use crate::http::problem::Problem;
use crate::http::{App, openapi};
use crate::web::assets;

/// For Prometheus.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.source.metrics().await).into_response()
}

/// It answers, so it lives.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Ready is a matter of ours alone: a dead target does not change it.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Answer {
    if app.source.ready() {
        return Ok("ok\n".into_response());
    }
    Err(Problem::new(
        503,
        "the socket takes no new processes: the daemon starts or stops".to_owned(),
    ))
}

/// The OpenAPI description.
pub(super) async fn description() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        openapi::text(),
    )
        .into_response()
}

/// A file that pages name; its name changes with its content.
pub(super) async fn asset(Path(name): Path<String>) -> Answer {
    let asset = assets::find(&name)
        .ok_or_else(|| Problem::new(404, format!("there is no asset {name}; reload the page")))?;
    let headers = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.body).into_response())
}
