//! What routes answer: formats, filters, assets, problems.

use super::server::Running;
use crate::books::report::Report;

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
