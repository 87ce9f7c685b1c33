//! The routes: which path is answered by whom, and behind which guards.
//!
//! # Design
//! ```text
//! leaks      /leaks in its formats
//! views      pages about processes, each with its twin in JSON
//! process    one process: bill, checks, questions put to it
//! service    metrics, health, description, assets
//! unmatched  all else
//!   -> asked (the URL's wishes), answer (page or JSON)
//! ```

mod answer;
mod asked;
mod leaks;
mod process;
mod service;
mod unmatched;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use super::source::Source;
use super::{App, auth, guard, problem};
use crate::web::{sizes_page, syscalls_page, waste_page, whatif_page};

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
        .route("/", get(views::overview))
        .route("/leaks", get(leaks::any))
        .route("/leaks.json", get(leaks::json))
        .route("/leaks.csv", get(leaks::csv))
        .route("/leaks.txt", get(leaks::text))
        .route(
            "/waste",
            views::either(<dyn Source>::waste, waste_page::render),
        )
        .route("/waste.json", views::data(<dyn Source>::waste))
        .route("/pages", get(views::pages))
        .route("/pages.json", get(views::pages_json))
        .route(
            "/sizes",
            views::either(<dyn Source>::sizes, sizes_page::render),
        )
        .route("/sizes.json", views::data(<dyn Source>::sizes))
        .route(
            "/syscalls",
            views::either(<dyn Source>::syscalls, syscalls_page::render),
        )
        .route("/syscalls.json", views::data(<dyn Source>::syscalls))
        .route(
            "/whatif",
            views::either(<dyn Source>::whatif, whatif_page::render),
        )
        .route("/whatif.json", views::data(<dyn Source>::whatif))
        .route("/why", get(views::whys))
        .route("/why.json", get(views::whys_json))
        .route("/processes.json", get(views::processes))
        .route("/metrics", get(service::metrics))
        .route("/healthz", get(service::alive))
        .route("/livez", get(service::alive))
        .route("/readyz", get(service::ready))
        .route("/openapi.json", get(service::description))
        .route("/api/v1/processes", get(views::processes))
        .route("/api/v1/processes/{id}/bill", get(process::bill))
        .route("/api/v1/processes/{id}/check", post(process::check))
        .route("/api/v1/processes/{id}/checks", get(process::checks))
        .route(
            "/api/v1/processes/{id}/why",
            get(process::answers).post(process::why),
        )
        .route("/api/v1/leaks", get(leaks::json))
        .route("/assets/{name}", get(service::asset))
        .fallback(unmatched::nowhere)
        .method_not_allowed_fallback(unmatched::read_only)
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
