//! Every route over a real connection: the router on a free port, a fixture behind it.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::source::Answer;
use super::*;
use crate::bill::report::Waste;
use crate::books::history::Checks;
use crate::books::report::Report;
use crate::books::sizes::Sizes;
use crate::books::syscalls::Syscalls;
use crate::books::why::Question;
use crate::heatmap::report::{Asked, Chart};
use crate::hub::{Filter, NoCheck, Roots};
use crate::web::fixture;
use crate::whatif::report::WhatIf;

struct Fixture;

impl Source for Fixture {
    fn report<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Report> {
        Box::pin(async move { filter.apply(fixture::report()) })
    }

    fn waste<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Waste> {
        Box::pin(async move {
            let mut waste = fixture::waste();
            let named = |wanted: &str, entry: &crate::bill::report::Entry| {
                wanted == entry.process || wanted == entry.name || wanted == entry.pid.to_string()
            };
            waste
                .processes
                .retain(|entry| filter.process.as_deref().is_none_or(|p| named(p, entry)));
            waste
        })
    }

    fn sizes<'a>(&'a self, _: &'a Filter) -> Answer<'a, Sizes> {
        Box::pin(async { fixture::sizes() })
    }

    fn syscalls<'a>(&'a self, _: &'a Filter) -> Answer<'a, Syscalls> {
        Box::pin(async { fixture::syscalls() })
    }

    fn whatif<'a>(&'a self, _: &'a Filter) -> Answer<'a, WhatIf> {
        Box::pin(async { fixture::whatif() })
    }

    fn chart<'a>(&'a self, _: &'a Asked) -> Answer<'a, Chart> {
        Box::pin(async { fixture::chart() })
    }

    fn check<'a>(&'a self, wanted: &'a str, roots: Roots) -> Answer<'a, Result<String, NoCheck>> {
        Box::pin(async move {
            match wanted {
                _ if roots == Roots::Strict => Err(NoCheck::Failed("strictly".to_owned())),
                "zoo" => Ok(fixture::report().processes[0].id.clone()),
                "stuck" => Err(NoCheck::Failed("it is stuck".to_owned())),
                _ => Err(NoCheck::Unknown),
            }
        })
    }

    fn why<'a>(
        &'a self,
        wanted: &'a str,
        question: &'a Question,
    ) -> Answer<'a, Result<String, NoCheck>> {
        Box::pin(async move {
            match (wanted, question) {
                ("zoo", Question::Site(site, _)) if site == "none" => {
                    Err(NoCheck::NoSite("there is no site none".to_owned()))
                }
                _ => self.check(wanted, Roots::Own).await,
            }
        })
    }

    fn checks<'a>(&'a self, wanted: &'a str) -> Answer<'a, Option<Checks>> {
        Box::pin(async move { (wanted == "zoo").then(fixture::checks) })
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(async { "pageshim_build_info 1\n".to_owned() })
    }

    fn ready(&self) -> bool {
        true
    }
}

/// A server on a thread of its own; stops when dropped.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(token: Option<&str>) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let mut config = Config::new("127.0.0.1:0", "/l/libpageshim.so".into(), "/s".into());
        config.token = token.map(ToOwned::to_owned);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let server = Server::start(Fixture, config).await.expect("starts");
                tell.send(server.address).expect("test waits");
                let _ = stopped.await;
                server.stop(Duration::from_secs(1)).await;
            });
        });
        let address = told.recv().expect("server starts");
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Sends `method path` with extra header lines; answers head and body.
    fn ask(&self, method: &str, path: &str, extra: &str) -> (String, String) {
        let host = if extra.to_ascii_lowercase().contains("host:") {
            ""
        } else {
            "Host: localhost\r\n"
        };
        let mut stream = TcpStream::connect(self.address).expect("listens");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{extra}\r\n"
        )
        .expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        (head.to_ascii_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (String, String) {
        self.ask("GET", path, "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// Goal: each route answers 200 with its type, guarded. Method: all of them.
#[test]
fn every_route_answers() {
    let server = Running::start(None);
    for (path, kind, needle) in [
        ("/", "text/html; charset=utf-8", "pid 4711"),
        ("/leaks", "text/html; charset=utf-8", "make_node"),
        ("/leaks.json", "application/json", "\"schema_version\":1"),
        (
            "/leaks.csv",
            "text/csv; charset=utf-8; header=present",
            "process,pid,",
        ),
        ("/leaks.txt", "text/plain; charset=utf-8", "zoo (pid 4711"),
        ("/pages", "text/html; charset=utf-8", "Map of the heap"),
        ("/pages?format=json", "application/json", "\"cells\":[{"),
        ("/pages.json", "application/json", "\"state\":\"in_use\""),
        ("/sizes", "text/html; charset=utf-8", "Size classes"),
        ("/sizes?format=json", "application/json", "\"classes\":[{"),
        ("/sizes.json", "application/json", "\"slot_bytes\":64"),
        ("/syscalls", "text/html; charset=utf-8", "System calls"),
        ("/syscalls?format=json", "application/json", "\"sites\":[{"),
        ("/syscalls.json", "application/json", "\"cause\":\"upkeep\""),
        ("/whatif", "text/html; charset=utf-8", "What if"),
        ("/whatif.json", "application/json", "\"advice\":[{"),
        ("/processes.json", "application/json", "\"pid\":4711"),
        ("/api/v1/processes", "application/json", "\"pid\":4711"),
        (
            "/api/v1/processes/zoo/checks",
            "application/json",
            "\"since\":[{",
        ),
        ("/api/v1/leaks", "application/json", "\"leaks\":[{"),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "pageshim_build_info 1",
        ),
        ("/healthz", "text/plain; charset=utf-8", "ok"),
        ("/livez", "text/plain; charset=utf-8", "ok"),
        ("/readyz", "text/plain; charset=utf-8", "ok"),
        ("/openapi.json", "application/json", "\"openapi\":\"3.1.0\""),
    ] {
        let (head, body) = server.get(path);
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert!(
            head.contains(&format!("content-type: {kind}\r\n")),
            "{path}: {head}"
        );
        assert!(body.contains(needle), "{path}: {body}");
        for header in [
            "content-security-policy: default-src 'self'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path} lacks {header}");
        }
    }
}

// Goal: assets named by a page exist and may be kept for ever. Method: follow the links of /leaks.
#[test]
fn assets_of_a_page_are_served() {
    let server = Running::start(None);
    let (_, page) = server.get("/leaks");
    let links: Vec<&str> = page
        .split('"')
        .filter(|text| text.starts_with("assets/"))
        .collect();
    assert_eq!(links.len(), 3);
    for link in links {
        let (head, _) = server.get(&format!("/{link}"));
        assert!(
            head.starts_with("http/1.1 200") && head.contains("immutable"),
            "{link}: {head}"
        );
    }
}

// Goal: format and filters do what they say. Method: Accept, format=, process, q, limit.
#[test]
fn formats_and_filters_work_over_the_wire() {
    let server = Running::start(None);
    let (head, _) = server.ask("GET", "/leaks", "Accept: application/json\r\n");
    assert!(head.contains("content-type: application/json") && head.contains("vary: accept"));
    assert!(
        server
            .get("/leaks?format=csv")
            .0
            .contains("content-type: text/csv")
    );
    let report: Report =
        serde_json::from_str(&server.get("/leaks.json?process=4711&q=vector").1).expect("JSON");
    assert_eq!((report.processes.len(), report.leaks.len()), (1, 1));
    let report: Report =
        serde_json::from_str(&server.get("/leaks.json?sort=blocks&limit=1").1).expect("JSON");
    assert_eq!((report.leaks.len(), report.leaks[0].blocks), (1, 1000));
    assert!(
        server
            .ask("GET", "/leaks", "Accept: image/png\r\n")
            .0
            .starts_with("http/1.1 406")
    );
}

// Goal: errors are problems, pages for browsers, with what to do. Method: each error, both clients.
#[test]
fn errors_are_problems() {
    let server = Running::start(None);
    for (method, path, status, needle) in [
        ("GET", "/leak", 404, "did you mean /leaks?"),
        ("GET", "/no/such/page", 404, "nothing at /no/such/page"),
        ("GET", "/assets/style.css", 404, "reload"),
        ("GET", "/leaks?min-bytes=1", 400, "known are"),
        ("GET", "/pages?slot=x", 400, "no number"),
        ("GET", "/leaks?format=pdf", 400, "choose from"),
        ("POST", "/leaks", 405, "GET or HEAD"),
    ] {
        let (head, body) = server.ask(method, path, "");
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{path}: {head}"
        );
        assert!(
            head.contains("application/problem+json") && body.contains(needle),
            "{path}: {body}"
        );
        let (head, body) = server.ask(method, path, "Accept: text/html,*/*;q=0.8\r\n");
        assert!(
            head.contains("content-type: text/html") && body.contains("<h1>"),
            "{path}: {head}"
        );
        assert!(
            head.starts_with(&format!("http/1.1 {status}"))
                && head.contains("content-security-policy")
        );
    }
    let (_, body) = server.ask("GET", "/a/<b>/c", "Accept: text/html\r\n");
    assert!(!body.contains("<b>"), "{body}");
}

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

// Goal: a chain is asked for by address or site, from our own pages only, and bad questions are told.
// Method: the ways it can be asked.
#[test]
fn a_chain_is_asked_for() {
    let server = Running::start(None);
    let path = "/api/v1/processes/zoo/why";
    let json = "Accept: application/json\r\n";
    let asked = format!("{path}?site={}", fixture::FIRST_SITE);
    let (head, body) = server.ask("POST", &asked, json);
    assert!(
        head.starts_with("http/1.1 200") && body.contains("\"answers\":[{\"asked\""),
        "{head}{body}"
    );
    let own = "Accept: text/html\r\nOrigin: http://localhost\r\n";
    let (head, _) = server.ask("POST", &asked, own);
    assert!(head.starts_with("http/1.1 303"), "{head}");
    assert!(
        head.contains("location: ../../../../why?process="),
        "{head}"
    );
    let (head, _) = server.ask("POST", &asked, "Origin: http://evil.example\r\n");
    assert!(head.starts_with("http/1.1 403"), "{head}");
    for (path, status, said) in [
        (path.to_owned(), "400", "name one of address"),
        (format!("{path}?address=main"), "400", "no address"),
        (format!("{path}?adress=0x10"), "400", "known are address"),
        (format!("{path}?site=ab&class=dead"), "400", "choose from"),
        (format!("{path}?site=none"), "404", "no site none"),
        (
            "/api/v1/processes/none/why?site=ab".to_owned(),
            "404",
            "no process",
        ),
        (
            "/api/v1/processes/stuck/why?address=0x10".to_owned(),
            "409",
            "it is stuck",
        ),
    ] {
        let (head, body) = server.ask("POST", &path, json);
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{path}: {head}"
        );
        assert!(body.contains(said), "{path}: {body}");
    }
    let (_, read) = server.ask("GET", path, json);
    assert!(read.contains("\"chain\":\"global `"), "{read}");
    let (_, page) = server.get("/why");
    assert!(page.contains("block of `make_node` (64 B)"), "{page}");
    assert!(!page.contains("<script>alert"), "{page}");
    let (_, page) = server.get("/leaks");
    assert!(page.contains("class=\"chain\""), "{page}");
}

// Goal: a check is asked for with POST, by nobody but our own pages and tools. Method: the ways it can be asked.
#[test]
fn a_check_is_posted() {
    let server = Running::start(None);
    let path = "/api/v1/processes/zoo/check";
    let json = "Accept: application/json\r\n";
    let (head, body) = server.ask("POST", path, json);
    assert!(
        head.starts_with("http/1.1 200") && body.contains("\"check\""),
        "{head}{body}"
    );
    let (head, _) = server.ask(
        "POST",
        path,
        "Accept: text/html\r\nOrigin: http://localhost\r\n",
    );
    assert!(
        head.starts_with("http/1.1 303") && head.contains("location: ../../../../leaks?process="),
        "{head}"
    );
    let (head, body) = server.ask("POST", path, "Origin: http://evil.example\r\n");
    assert!(head.starts_with("http/1.1 403"), "{head}{body}");
    let (head, _) = server.ask("POST", path, "Sec-Fetch-Site: cross-site\r\n");
    assert!(head.starts_with("http/1.1 403"), "{head}");
    let (head, body) = server.ask("POST", "/api/v1/processes/stuck/check", json);
    assert!(
        head.starts_with("http/1.1 409") && body.contains("it is stuck"),
        "{head}{body}"
    );
    for (query, status, says) in [
        ("roots=strict", 409, "strictly"),
        ("roots=all", 200, "check"),
        ("roots=none", 400, "roots is all or strict"),
    ] {
        let (head, body) = server.ask("POST", &format!("{path}?{query}"), json);
        let status = format!("http/1.1 {status}");
        assert!(
            head.starts_with(&status) && body.contains(says),
            "{query}: {head}{body}"
        );
    }
    let (head, _) = server.ask("POST", "/api/v1/processes/nobody/check", json);
    assert!(head.starts_with("http/1.1 404"), "{head}");
    let (head, body) = server.get(path);
    assert!(
        head.starts_with("http/1.1 405") && body.contains("POST"),
        "{head}{body}"
    );
}
