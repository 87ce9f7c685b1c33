//! Who is let in, and who keeps nobody out.

use std::io::Write;
use std::net::TcpStream;

use super::server::Running;
use super::source::Fixture;
use crate::http::{Config, Server};

// Goal: a rebound name learns nothing; no name is no better. Method: foreign, missing and doubled Host.
#[test]
fn foreign_hosts_are_refused() {
    let server = Running::start(None);
    for host in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host:\r\n",
    ] {
        let (head, body) = server.ask("GET", "/leaks.json", host);
        assert!(head.starts_with("http/1.1 421"), "{host}: {head}");
        assert!(!body.contains("zoo"), "{body}");
    }
    let port = server.address.port();
    assert!(
        server
            .ask("GET", "/healthz", &format!("Host: 127.0.0.1:{port}\r\n"))
            .0
            .starts_with("http/1.1 200")
    );
}

// Goal: HEAD is GET without a body; big requests are refused. Method: both.
#[test]
fn head_and_limits() {
    let server = Running::start(None);
    for path in ["/", "/leaks.json", "/metrics"] {
        let (head, body) = server.ask("HEAD", path, "");
        assert!(
            head.starts_with("http/1.1 200") && body.is_empty() && head.contains("content-length"),
            "{head}"
        );
    }
    assert!(
        server
            .ask("GET", "/", "Content-Length: 99999999\r\n")
            .0
            .starts_with("http/1.1 413")
    );
    assert!(
        server
            .get(&format!("/leaks?q={}", "x".repeat(9000)))
            .0
            .starts_with("http/1.1 414")
    );
}

// Goal: with a token, everything but health needs it; a browser gets a cookie. Method: each way in.
#[test]
fn a_token_closes_all_but_health() {
    let token = "0123456789abcdef";
    let server = Running::start(Some(token));
    assert!(server.get("/leaks.json").0.starts_with("http/1.1 401"));
    assert!(server.get("/?token=wrong").0.starts_with("http/1.1 401"));
    assert!(server.get("/healthz").0.starts_with("http/1.1 200"));
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert!(
        server
            .ask("GET", "/leaks.json", &bearer)
            .0
            .starts_with("http/1.1 200")
    );
    let (head, _) = server.get(&format!("/?token={token}"));
    assert!(
        head.starts_with("http/1.1 303") && head.contains("httponly; samesite=strict"),
        "{head}"
    );
    let cookie = format!("Cookie: a=b; pageshim_token={token}\r\n");
    assert!(
        server
            .ask("GET", "/leaks", &cookie)
            .0
            .starts_with("http/1.1 200")
    );
}

// Goal: clients that never finish do not keep others out. Method: many half requests, then a whole one.
#[test]
fn slow_clients_do_not_hurt() {
    let server = Running::start(None);
    let half: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).expect("listens");
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: local")
                .expect("sends");
            stream
        })
        .collect();
    assert!(server.get("/metrics").0.starts_with("http/1.1 200"));
    drop(half);
}

// Goal: a port in use is told with its holder. Method: start twice on one port.
#[test]
fn a_port_in_use_names_its_holder() {
    let server = Running::start(None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let config = Config::new(&server.address.to_string(), "/l".into(), "/s".into());
    let why = runtime
        .block_on(Server::start(Fixture, config))
        .expect_err("in use");
    assert!(
        why.contains(&format!("pid {}", std::process::id())) && why.contains("--listen"),
        "{why}"
    );
}
