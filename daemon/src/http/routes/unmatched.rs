//! Requests that no route takes: what might have been meant.

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::PATHS;
use crate::http::problem::Problem;

/// No such path.
pub(super) async fn nowhere(uri: Uri) -> Problem {
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

/// The path is there, the method is not.
pub(super) async fn read_only(uri: Uri) -> Response {
    let (allow, why) = match uri.path().rsplit('/').next() {
        Some("check") => ("POST", "a check is asked for with POST"),
        Some("why") if uri.path().starts_with("/api/") => (
            "GET, HEAD, POST",
            "answers are read with GET or HEAD, a question is put with POST",
        ),
        _ => ("GET, HEAD", "this is read with GET or HEAD"),
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
