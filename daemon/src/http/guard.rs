//! What stands before every route: which host names are ours, how long a
//! request may be, and the headers every answer carries.
//!
//! The host check is against DNS rebinding: a page of a foreign site cannot
//! read us by giving its own name our address, because it sends that name.
//! An address in the Host header needs no name and cannot be rebound.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use super::problem::Problem;

const BODY_MAX: u64 = 64 * 1024;
const URL_MAX: usize = 8 * 1024;
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

/// Host names requests may carry.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    bound: IpAddr,
    allowed: Vec<String>,
}

impl Hosts {
    /// The usual ones for what we are bound to, and `allowed`.
    pub(crate) fn new(bound: SocketAddr, allowed: Vec<String>) -> Self {
        Self {
            bound: bound.ip(),
            allowed,
        }
    }

    /// Is a Host header of this value one of ours? The port does not matter: it may be forwarded.
    pub(crate) fn allows(&self, host: &str) -> bool {
        let name = name_of(host);
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return address.is_loopback() || address == self.bound || self.bound.is_unspecified();
        }
        let known = |allowed: &String| allowed.eq_ignore_ascii_case(name);
        name.eq_ignore_ascii_case("localhost") || self.allowed.iter().any(known)
    }
}

/// `localhost` of `localhost:9764`, `[::1]` of `[::1]:9764`.
fn name_of(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon)
            if host[colon + 1..].bytes().all(|byte| byte.is_ascii_digit())
                && !host.ends_with(']') =>
        {
            &host[..colon]
        }
        _ => host,
    }
}

/// Refuses foreign hosts and oversized requests.
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let host = host(request.headers(), request.uri());
    if !host.as_deref().is_some_and(|host| app.hosts.allows(host)) {
        let shown = host.unwrap_or_default();
        return Err(Problem::new(
            421,
            format!(
                "this pageshim does not answer for the host name \"{shown}\"; ask for 127.0.0.1 or localhost, or start the daemon with --allow-host NAME"
            ),
        ));
    }
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_MAX) {
        return Err(Problem::new(
            413,
            format!("a request may carry at most {BODY_MAX} bytes"),
        ));
    }
    if request.uri().to_string().len() > URL_MAX {
        return Err(Problem::new(
            414,
            format!("a URL may have at most {URL_MAX} bytes"),
        ));
    }
    Ok(next.run(request).await)
}

fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut all = headers.get_all(header::HOST).iter();
    let first = all.next()?.to_str().ok()?.to_owned();
    all.next().is_none().then_some(first)
}

/// Refuses what a page of another site would send: forms may post anywhere.
///
/// Our pages send no referrer, and so `Origin: null`: where a browser says how the request
/// came about, that decides.
pub(crate) fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host");
    let is_ours = |origin: &str| {
        let name = origin.split_once("://").map(|parts| parts.1);
        name.is_some() && name == host
    };
    let ours = match text("sec-fetch-site") {
        Some(site) => matches!(site, "same-origin" | "none"),
        None => text("origin").is_none_or(is_ours),
    };
    if ours {
        return Ok(());
    }
    Err(Problem::new(
        403,
        "only pages of this daemon may ask for that".to_owned(),
    ))
}

/// Puts the security headers on every answer, whoever made it.
pub(crate) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(bound: &str) -> Hosts {
        Hosts::new(
            bound.parse().expect("address"),
            vec!["mem.example".to_owned()],
        )
    }

    // Goal: our names with any port, nothing else. Method: names a rebinding page would send, and ours.
    #[test]
    fn only_our_names_are_answered() {
        let local = hosts("127.0.0.1:9764");
        for ours in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:9764",
            "[::1]",
            "[::1]:80",
            "mem.example:9764",
        ] {
            assert!(local.allows(ours), "{ours}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example:9764",
            "192.168.0.7",
            "10.0.0.1:9764",
            "127.0.0.1.evil",
            "[::2]",
        ] {
            assert!(!local.allows(foreign), "{foreign}");
        }
    }

    // Goal: bound to every address, any address is ours, still no name. Method: 0.0.0.0 and one address.
    #[test]
    fn addresses_count_when_we_are_bound_to_them() {
        let any = hosts("0.0.0.0:9764");
        assert!(any.allows("192.168.0.7:9764") && !any.allows("evil.example"));
        let one = hosts("192.168.0.7:9764");
        assert!(one.allows("192.168.0.7:9764") && !one.allows("192.168.0.8"));
    }
}
