//! The optional token: a header for programs, a cookie for browsers.
//!
//! `/?token=…` once turns into a cookie and a redirect, so that the token does
//! not stay in the address bar. Health checks need none.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::App;
use super::problem::Problem;
use crate::web::query;

const COOKIE: &str = "pageshim_token";
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Lets requests through that know the token, when there is one.
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(token) = &app.token else {
        return Ok(next.run(request).await);
    };
    let path = request.uri().path();
    if OPEN.contains(&path) || knows(request.headers(), token) {
        return Ok(next.run(request).await);
    }
    let pairs = query::pairs(request.uri().query().unwrap_or_default());
    let given = pairs.iter().find(|(name, _)| name == "token");
    if path == "/" && given.is_some_and(|(_, value)| same(value, token)) {
        return Ok(login(token));
    }
    Err(Problem::new(401, "this pageshim wants its token: send `Authorization: Bearer TOKEN`, or open /?token=TOKEN once".to_owned()))
}

fn knows(headers: &HeaderMap, token: &str) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &header::HeaderValue| value.to_str().ok())
    };
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let cookies = text(header::COOKIE).unwrap_or_default();
    let cookie = cookies
        .split(';')
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    [bearer, cookie]
        .into_iter()
        .flatten()
        .any(|given| same(given, token))
}

/// Compares digests, so that time tells nothing about the token.
fn same(given: &str, token: &str) -> bool {
    Sha256::digest(given.as_bytes()) == Sha256::digest(token.as_bytes())
}

fn login(token: &str) -> Response {
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict");
    Response::builder()
        .status(StatusCode::SEE_OTHER)
        .header(header::LOCATION, "./")
        .header(header::SET_COOKIE, cookie)
        .body(Body::empty())
        .expect("token() lets only header-safe tokens through")
}
