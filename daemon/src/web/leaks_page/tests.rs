//! The page of the fixture.

use super::*;
use crate::web::fixture;

fn html(text: &str) -> String {
    let view = View::parse(text).expect("parses");
    let report = fixture::report();
    let mut shown = view.filter(Some(ROWS)).apply(report.clone());
    view.arrange(&mut shown, Some(ROWS));
    render(&report.processes, &shown, &view).expect("renders")
}

// Goal: a lost site has a line to copy until a rule takes it; growth is a word beside the class.
// Method: the fixture's lost site before and after, with a slope.
#[test]
fn lost_sites_have_a_line_to_copy() {
    let mut report = fixture::report();
    let shown = |report: &Report| standalone(report);
    let page = shown(&report);
    assert_eq!(page.matches("<code class=\"line\">leak:").count(), 1);
    assert!(page.contains("leak:node_new</code>"));
    report.leaks[3].suppressed = Some("^node_*".to_owned());
    report.leaks[3].growth = Some(crate::books::growth::Growth {
        released_percent: 0.0,
        bytes_per_minute: Some(1_258_291.0),
        span_seconds: 60.0,
    });
    let page = shown(&report);
    assert!(!page.contains("<code class=\"line\">"));
    assert!(page.contains("title=\"leak:^node_*\">suppressed<"));
    assert!(page.contains("grows 1.2 MiB/min, nothing freed"));
}

// Goal: a hostile name stays text, everywhere on the page. Method: the fixture's name, and a search for it.
#[test]
fn hostile_names_are_escaped() {
    for page in [
        html(""),
        html("q=%22%3E%3Cscript%3E&process=%3Cb%3E"),
        standalone(&fixture::report()),
    ] {
        assert!(
            !page.contains("<script>") && !page.contains("<b>"),
            "{page}"
        );
    }
    assert!(html("").contains("&#60;script&#62;alert(1)"));
}

// Goal: shown + hidden = live, whatever is filtered. Method: one row of the fixture.
#[test]
fn totals_add_up() {
    let page = html("process=4711&limit=1");
    for needle in ["2,097,152 bytes", "1,179,648 bytes", "3,276,800 bytes"] {
        assert!(page.contains(needle), "{needle}");
    }
}

// Goal: ended and running processes are not mixed in one account, nor called live alike.
// Method: the fixture whole, and each of its processes.
#[test]
fn ended_and_running_are_not_mixed() {
    let both = html("");
    for needle in [
        "In RAM (resident): <strong>5.0 MiB</strong>",
        "of 1 running, now",
        "5,898,240 bytes",
        "= live, or live at exit:",
    ] {
        assert!(both.contains(needle), "{needle}");
    }
    let dead = html("process=4712");
    for needle in [
        "not known: it ended before",
        "at its end",
        "= live at exit:",
    ] {
        assert!(dead.contains(needle), "{needle}");
    }
    assert!(!dead.contains("0 B</strong> resident") && html("process=4711").contains("= live:"));
}

// Goal: a misuse names its call, on the page and in the file. Method: the fixture's.
#[test]
fn misuse_names_its_call() {
    for page in [html(""), standalone(&fixture::report())] {
        for needle in [
            "double free of 0x7f0000001040, 3 times",
            "drop_node",
            "zoo.c:77",
        ] {
            assert!(page.contains(needle), "{needle}");
        }
    }
}

// Goal: pinners are told where a bill is there. Method: the fixture with one.
#[test]
fn pinners_are_told() {
    let mut report = fixture::report();
    assert!(!standalone(&report).contains("Pinned pages"));
    report.processes[1].bill = fixture::waste().processes[0].bill.clone();
    let page = standalone(&report);
    assert!(page.contains("Pinned pages") && page.contains("12 blocks of `session_new`"));
}

// Goal: filters stay in links and downloads. Method: look for the query in both.
#[test]
fn links_keep_the_filters() {
    let page = html("process=4711&q=node");
    assert!(page.contains("leaks.csv?process=4711&#38;q=node"));
    assert!(page.contains("leaks?process=4711&#38;q=node&#38;sort=age"));
    assert!(page.contains("(inlined)") || page.contains("inlined"));
}

// Goal: no inline script or style, no foreign address: the policy forbids them. Method: search.
#[test]
fn nothing_inline_nothing_foreign() {
    let page = html("");
    for forbidden in [" style=", "<style", "onclick", "https://", "//cdn"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}
