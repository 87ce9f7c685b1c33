//! A tiny HTTP client: one GET, one answer, over TCP or a Unix socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: String,
    /// Body, invalid UTF-8 replaced.
    pub body: String,
}

impl Answer {
    /// The body, when the status is 200.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 200, "{self:#?}");
        self.body
    }
}

/// GET over TCP; `address` is `host:port`, `accept` the Accept header.
///
/// # Errors
/// What connecting, writing or reading said.
pub fn get(address: &str, path: &str, accept: &str) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    exchange(stream, address, path, accept)
}

/// GET over a Unix socket (programs that would otherwise need a free port).
///
/// # Errors
/// What connecting, writing or reading said.
pub fn get_unix(socket: &Path, path: &str) -> std::io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    exchange(stream, "localhost", path, "*/*")
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    path: &str,
    accept: &str,
) -> std::io::Result<Answer> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| std::io::Error::other("not an HTTP answer"))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let (first, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    let headers = headers.to_lowercase();
    let body = &bytes[split + 4..];
    let body = if headers.contains("transfer-encoding: chunked") {
        dechunk(body)
    } else {
        body.to_vec()
    };
    Some(Answer {
        status: first.split(' ').nth(1)?.parse().ok()?,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..end]);
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else {
            break;
        };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or(&[]);
        if size == 0 {
            break;
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: both ways a server may frame a body are read. Method: literal answers.
    #[test]
    fn answers_are_parsed() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").expect("an answer");
        assert_eq!((plain.status, plain.body.as_str()), (200, "hi"));
        let chunked = parse(
            b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n",
        )
        .expect("an answer");
        assert_eq!((chunked.status, chunked.body.as_str()), (404, "hi!"));
        assert!(parse(b"garbage").is_none());
    }
}
