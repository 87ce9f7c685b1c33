//! Errors as `application/problem+json` (RFC 9457), or as a page for browsers.
//!
//! A handler returns a [`Problem`]; its answer carries the problem along, and
//! [`for_browsers`], which sees the request, turns it into a page where one is
//! wanted.

use askama::Template;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::negotiate;
use crate::web::base::Base;

/// What went wrong, for whoever asked.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// A problem with what to do about it in `detail`.
    pub(crate) fn new(status: u16, detail: String) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, detail }
    }

    fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Error")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.title(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string() + "\n").into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct Page<'a> {
    base: Base<'a>,
    status: u16,
    title: &'a str,
    detail: &'a str,
}

/// Turns problems into pages for clients that like pages best.
pub(crate) async fn for_browsers(request: Request, next: Next) -> Response {
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let html = negotiate::wants_html(accept);
    let root = "../".repeat(request.uri().path().matches('/').count().saturating_sub(1));
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let page = Page {
        base: Base::below(&root),
        status: problem.status.as_u16(),
        title: problem.title(),
        detail: &problem.detail,
    };
    match page.render() {
        Ok(page) if html => (
            problem.status,
            [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
            page,
        )
            .into_response(),
        _ => response,
    }
}
