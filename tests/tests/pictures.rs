//! Pictures of the heap: `/sizes` and `/pages`, against the report and in a browser.

use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Browser, Daemon, Job, Running, browser};
use serde_json::Value;

/// The planted fragmenter, waiting.
fn fragmenter(daemon: &Daemon, pages: u64) -> Running {
    let job = Job::new(program("fragment.c")).arg(pages.to_string());
    let mut running = daemon.preload("exact").apply(job).start();
    running.wait_for("ready", 1);
    daemon.known("fragment");
    running
}

fn json(daemon: &Daemon, path: &str) -> Value {
    serde_json::from_str(&daemon.get(path).ok()).expect("JSON")
}

/// What chromium makes of a page.
fn document(daemon: &Daemon, path: &str) -> String {
    browser::document(&format!("http://{}{path}", daemon.address()))
}

// Goal: the classes of a program sum to its page account and hold the planted slots, also after its
// end; a browser draws them. Method: the fragmenter waits, so that nothing moves between two looks.
#[test]
fn classes_sum_to_the_report() {
    let daemon = Daemon::start();
    let running = fragmenter(&daemon, 512);
    let check = || {
        let sizes = json(&daemon, "/sizes.json?process=fragment");
        assert_eq!(sizes["schema_version"], 1);
        let classes = sizes["processes"][0]["classes"].as_array().expect("a list");
        let known = json(&daemon, "/processes.json?process=fragment");
        let pages = &known["processes"][0]["pages"];
        for part in [
            "requested_bytes",
            "rounding_bytes",
            "free_slot_bytes",
            "tail_bytes",
        ] {
            let sum: u64 = classes.iter().map(|class| number(class, part)).sum();
            assert_eq!(sum, number(pages, part), "{part} of {classes:#?}");
        }
        let of = |slot: u64| {
            classes
                .iter()
                .find(|class| number(class, "slot_bytes") == slot)
        };
        let class = of(1024).expect("blocks of 1,024 bytes");
        assert!(number(class, "live_slots") >= 512, "{class:#}");
        assert!(number(class, "free_slots") >= 3 * 512, "{class:#}");
    };
    check();
    let page = document(&daemon, "/sizes?process=fragment");
    assert!(page.contains("1,024 bytes") && page.contains("class=\"seg free\""));
    drop(running.finish());
    daemon.settled("fragment");
    check();
}

fn cells(daemon: &Daemon, query: &str) -> Vec<Value> {
    let chart = json(daemon, &format!("/pages.json?process=fragment{query}"));
    let cells = chart["heap"]["cells"].as_array();
    cells
        .unwrap_or_else(|| panic!("no map: {:#}", chart["why_not"]))
        .clone()
}

// Goal: the map holds the whole heap and names who holds its cells; filters take the right ones.
// Method: the fragmenter's cells against its page account and its sites.
#[test]
fn the_map_is_the_heap() {
    let daemon = Daemon::start();
    let running = fragmenter(&daemon, 512);
    let all = cells(&daemon, "");
    let known = json(&daemon, "/processes.json?process=fragment");
    let pages = &known["processes"][0]["pages"];
    let sum = |part: &str| all.iter().map(|cell| number(cell, part)).sum::<u64>();
    let used = number(pages, "requested_bytes") + number(pages, "rounding_bytes");
    assert!(
        sum("live_bytes").abs_diff(used) * 50 < used,
        "{} {used}",
        sum("live_bytes")
    );
    let committed = number(pages, "committed_bytes") - number(pages, "metadata_bytes");
    assert!(
        sum("bytes").abs_diff(committed) <= 65_536,
        "slice 0 is left out"
    );
    for cell in &all {
        let parts = [
            "in_use_bytes",
            "retained_bytes",
            "free_bytes",
            "untouched_bytes",
        ];
        let parts: u64 = parts.iter().map(|part| number(cell, part)).sum();
        assert_eq!(parts, number(cell, "bytes"), "{cell:#}");
    }
    let chart = json(&daemon, "/pages.json?process=fragment");
    let sites = chart["heap"]["sites"].as_array().expect("a list");
    let late = sites.iter().find(|site| site["function"] == "keep_late");
    let late = late.expect("listed")["site"]
        .as_str()
        .expect("text")
        .to_owned();
    let held = cells(&daemon, &format!("&site={late}"));
    let matching: Vec<&Value> = held.iter().filter(|cell| cell["matches"] == true).collect();
    assert!(matching.len() > 25 && matching.len() < held.len());
    for cell in matching {
        assert_eq!(cell["classes"][0], 1024, "{cell:#}");
        assert_eq!(cell["sites"][0]["function"], "keep_late", "{cell:#}");
    }
    for cell in cells(&daemon, "&slot=64") {
        let has = cell["classes"]
            .as_array()
            .expect("a list")
            .contains(&Value::from(64));
        assert_eq!(cell["matches"], has, "{cell:#}");
    }
    drop(running.finish());
    daemon.settled("fragment");
    let after = json(&daemon, "/pages.json?process=fragment");
    assert!(
        after["heap"].is_null() && after["why_not"].is_string(),
        "{after:#}"
    );
}

// Goal: the map works from the keyboard in a real browser, and its filter by URL. Method: chromium
// presses keys; focus, details and dim cells are asked of the page.
#[test]
fn the_map_works_from_the_keyboard() {
    let daemon = Daemon::start();
    let _running = fragmenter(&daemon, 512);
    let address = daemon.address();
    let mut browser = Browser::start();
    browser.open(&format!("http://{address}/pages?process=fragment"));
    let count = "document.querySelectorAll('[data-cells] > a').length";
    let rows = "document.querySelectorAll('.twin tbody tr').length";
    let cells = browser.value(count).as_u64().expect("a number");
    assert!(cells > 50, "{cells}");
    assert_eq!(browser.value(rows), cells);
    let focus =
        "[...document.querySelector('[data-cells]').children].indexOf(document.activeElement)";
    browser.value("document.querySelector('[data-cells] > a').focus()");
    let row = browser
        .value("(c => c.filter(a => a.offsetTop === c[0].offsetTop).length)([...document.querySelectorAll('[data-cells] > a')])")
        .as_u64()
        .expect("a number");
    for (key, at) in [
        ("ArrowRight", 1),
        ("ArrowDown", 1 + row),
        ("ArrowLeft", row),
        ("ArrowUp", 0),
        ("ArrowUp", 0),
        ("End", cells - 1),
        ("ArrowRight", cells - 1),
        ("Home", 0),
    ] {
        browser.press(key);
        assert_eq!(browser.value(focus), at, "{key}");
        let said =
            "document.querySelector('[data-said]').textContent === document.activeElement.title";
        assert_eq!(browser.value(said), true, "{key}");
        assert_eq!(
            browser
                .value("document.querySelectorAll('[data-cells] > a[tabindex=\"0\"]').length < 2"),
            true
        );
    }
    browser.press("ArrowRight");
    browser.press("Enter");
    let details = browser.value("document.querySelector('dialog[open] dl').textContent");
    let details = details.as_str().expect("open").to_owned();
    assert!(
        details.contains("Address0x") && details.contains("In RAM"),
        "{details}"
    );
    browser.press("Escape");
    assert_eq!(
        browser.value("document.querySelector('dialog[open]')"),
        Value::Null
    );
    assert_eq!(browser.value(focus), 1, "the focus is back");
    browser.open(&format!(
        "http://{address}/pages?process=fragment&slot=1024"
    ));
    let dim = browser.value("document.querySelectorAll('[data-cells] > a.dim').length");
    let hidden = browser.value("document.querySelectorAll('.twin tbody tr[hidden]').length");
    let dim = dim.as_u64().expect("a number");
    assert!(dim > 0 && dim < cells, "{dim} of {cells}");
    assert_eq!(hidden, dim);
}
