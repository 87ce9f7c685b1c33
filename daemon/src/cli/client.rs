//! Asking a running daemon: its URL from the file beside its socket, then one HTTP request.
//!
//! The daemon is ours and the connection is closed after one answer, so this
//! reads a status line, skips headers and takes the body to the end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::places;

const TIMEOUT: Duration = Duration::from_secs(60);
/// What is asked for by POST may be a check.
const TIMEOUT_POST: Duration = crate::hub::LONGEST_CHECK.saturating_add(Duration::from_secs(10));
const ANSWER_MAX: u64 = 1 << 30;

/// URL of the daemon of `socket`.
pub(crate) fn url(socket: &Path) -> Result<String, String> {
    let nobody = || {
        format!(
            "no daemon listens on {}; start one with `pageshim daemon`, or name its socket with --socket",
            socket.display()
        )
    };
    if !places::listens(socket) {
        return Err(nobody());
    }
    let path = places::url_file(socket);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("the daemon's URL is not known: {}: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Body of `url` + `path`; `path` has no leading slash.
pub(crate) fn get(url: &str, path: &str) -> Result<Vec<u8>, String> {
    ask("GET", url, path, TIMEOUT)
}

/// The same after having something done.
pub(crate) fn post(url: &str, path: &str) -> Result<Vec<u8>, String> {
    ask("POST", url, path, TIMEOUT_POST)
}

fn ask(method: &str, url: &str, path: &str, limit: Duration) -> Result<Vec<u8>, String> {
    let authority = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next())
        .ok_or_else(|| format!("{url} is no http URL"))?;
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!(
                "the daemon at {url} has not answered for {} s",
                limit.as_secs()
            )
        }
        _ => format!("the daemon at {url} does not answer: {error}"),
    };
    let mut stream = TcpStream::connect(authority).map_err(failed)?;
    stream.set_read_timeout(Some(limit)).map_err(failed)?;
    let token = match std::env::var_os("PAGESHIM_AUTH_TOKEN_FILE") {
        Some(file) => format!(
            "Authorization: Bearer {}\r\n",
            crate::http::token(Path::new(&file))?
        ),
        None => String::new(),
    };
    let request = format!(
        "{method} /{path} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\n{token}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_MAX)
        .read_to_end(&mut answer)
        .map_err(failed)?;
    body(&answer).map_err(|why| format!("the daemon at {url} said: {why}"))
}

/// The body of an answer with status 200, else why not.
fn body(answer: &[u8]) -> Result<Vec<u8>, String> {
    if answer.is_empty() {
        return Err("nothing: it closed the connection".to_owned());
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or("nothing that is HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    let body = &answer[end + 4..];
    if status == "200" {
        return Ok(body.to_vec());
    }
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = problem.get("detail").and_then(serde_json::Value::as_str);
    Err(detail.map_or_else(|| format!("status {status}"), ToOwned::to_owned))
}

/// Percent-encodes everything that is not plain in a query value.
pub(crate) fn encode(value: &str) -> String {
    crate::web::query::encode(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: bodies and reasons are found, noise is refused. Method: three answers.
    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nhi"),
            Ok(b"hi".to_vec())
        );
        let problem = body(b"HTTP/1.1 404 Not Found\r\n\r\n{\"detail\":\"no such\"}");
        assert_eq!(problem, Err("no such".to_owned()));
        assert!(body(b"SSH-2.0").is_err());
        assert!(body(b"").is_err_and(|why| why.contains("closed the connection")));
    }

    // Goal: a daemon that does not answer in time is told as that, and one asked to check has the time a
    // check takes. Method: a port nobody reads from.
    #[test]
    fn a_silent_daemon_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let why = ask("GET", &url, "", Duration::from_millis(20)).expect_err("silence");
        assert!(why.contains("has not answered for 0 s"), "{why}");
        assert!(TIMEOUT_POST > crate::hub::LONGEST_CHECK);
    }

    // Goal: a missing daemon is told with what to do. Method: a socket that does not exist.
    #[test]
    fn a_missing_daemon_is_told() {
        let why = url(Path::new("/nonexistent/s")).expect_err("nobody");
        assert!(why.contains("pageshim daemon"), "{why}");
    }
}
