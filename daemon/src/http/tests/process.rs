//! What may be asked of one process.

use super::server::Running;
use crate::web::fixture;

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
    for said in ["", "Accept: */*\r\n"] {
        let (head, body) = server.ask("POST", path, said);
        assert!(
            head.starts_with("http/1.1 200") && body.contains("\"check\""),
            "who names no page gets an answer: {head}{body}"
        );
    }
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

// Goal: a chain is asked for by address or site, from our own pages only, and bad questions are told.
// Method: the ways it can be asked.
#[test]
fn a_chain_is_asked_for() {
    let server = Running::start(None);
    let (head, _) = server.ask("DELETE", "/api/v1/processes/zoo/why", "");
    assert!(
        head.starts_with("http/1.1 405") && head.contains("head, post"),
        "{head}"
    );
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
