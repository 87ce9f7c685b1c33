//! What people and scrapers get over HTTP.

use pageshim_tests::programs::program;
use pageshim_tests::{Daemon, Job, View, browser, underrun};

/// A daemon that has seen one zoo.
fn with_zoo() -> Daemon {
    let daemon = Daemon::start();
    daemon
        .preload("exact")
        .apply(Job::new(program("zoo.c")))
        .run()
        .ok();
    daemon.settled("zoo");
    daemon
}

// Goal: every form of /leaks names the planted function with its exact numbers. Method: path, query
// and Accept.
#[test]
fn leaks_in_every_form() {
    let daemon = with_zoo();
    for path in [
        "/leaks.csv",
        "/leaks.txt",
        "/leaks",
        "/leaks?format=csv",
        "/leaks?format=txt",
    ] {
        let body = daemon.get_as(path, "text/html").ok();
        for word in ["make_node", "make_buffer", "zoo.c"] {
            assert!(body.contains(word), "{path} holds {word}: {body:.800}");
        }
    }
    let csv = daemon.get("/leaks.csv").ok();
    let line = csv.lines().find(|line| line.contains("make_node"));
    let line = line.expect("a row for make_node");
    assert!(line.contains("6400") && line.contains("100"), "{line}");
    let header = csv.lines().next().expect("a header");
    assert!(
        header.contains("bytes") && header.contains("blocks"),
        "{header}"
    );
    View::parse(&daemon.get_as("/leaks", "application/json").ok()).check_equations();
    View::parse(&daemon.get("/leaks?format=json").ok()).check_equations();
}

// Goal: types and safety of answers. Method: content types, an unknown path, odd paths.
#[test]
fn answers_have_their_types() {
    let daemon = with_zoo();
    for (path, kind) in [
        ("/leaks.json", "application/json"),
        ("/leaks.csv", "text/csv"),
        ("/leaks.txt", "text/plain"),
        ("/leaks", "text/html"),
        ("/", "text/html"),
        ("/metrics", "text/plain"),
    ] {
        let answer = daemon.get_as(path, "text/html,*/*");
        assert!(
            answer.headers.contains(&format!("content-type: {kind}")),
            "{path}: {answer:.0?}"
        );
    }
    assert_eq!(daemon.get("/no/such/page").status, 404);
    let odd = [
        "/leaks?format=papyrus",
        "/leaks.json?process=%00",
        "/leaks?min_bytes=-1",
        "/..%2f..%2fetc/passwd",
    ];
    for path in odd {
        let answer = daemon.get(path);
        assert!(answer.status < 500, "{path}: {}", answer.status);
        assert!(!answer.body.contains("root:"), "{path}");
    }
    daemon.check_healthy();
}

// Goal: text from a process cannot become markup. Method: a service name made of markup.
#[test]
fn names_from_processes_are_escaped() {
    let daemon = Daemon::start();
    let job = daemon.preload("exact").apply(Job::new(program("zoo.c")));
    let name = "<script>alert(1)</script>\"\\";
    job.env("PAGESHIM_SERVICE", name).run().ok();
    daemon.settled(name);
    for path in ["/", "/leaks"] {
        let body = daemon.get_as(path, "text/html").ok();
        assert!(!body.contains("<script>alert"), "{path}");
    }
    let metrics = daemon.metrics();
    assert_eq!(
        metrics
            .series("pageshim_allocated_bytes_total", &[("process", name)])
            .len(),
        1
    );
}

// Goal: a scrape is what Prometheus calls clean, has the promised families and its equations hold.
// Method: promtool, a list of names, sums.
#[test]
fn a_scrape_is_clean() {
    let daemon = with_zoo();
    let text = daemon.get("/metrics").ok();
    underrun::clean(&text);
    for family in [
        "pageshim_build_info",
        "pageshim_processes",
        "pageshim_heap_live_bytes",
        "pageshim_heap_live_allocations",
        "pageshim_heap_peak_bytes",
        "pageshim_allocations_total",
        "pageshim_frees_total",
        "pageshim_allocated_bytes_total",
        "pageshim_freed_bytes_total",
        "pageshim_temporary_allocations_total",
        "pageshim_reallocations_total",
        "pageshim_allocation_size_bytes",
        "pageshim_allocation_lifetime_seconds",
        "pageshim_page_committed_bytes",
        "pageshim_page_live_bytes",
        "pageshim_page_resident_bytes",
        "pageshim_page_waste_bytes",
        "pageshim_page_waste_ratio",
        "pageshim_syscalls_total",
        "pageshim_syscall_seconds_total",
        "pageshim_leak_bytes",
        "pageshim_leak_blocks",
        "pageshim_threads",
        "pageshim_events_total",
        "pageshim_events_dropped_total",
        "pageshim_decode_errors_total",
        "pageshim_shim_metadata_bytes",
        "pageshim_scrape_seconds",
        "process_resident_memory_bytes",
    ] {
        assert!(
            text.contains(&format!("# TYPE {family} ")),
            "{family} is missing"
        );
    }
    daemon.metrics().check_equations("zoo");
}

// Goal: totals of ended processes are folded in and never go down. Method: ten zoos one after the other.
#[test]
fn counters_never_go_down() {
    let daemon = Daemon::start();
    let mut last = 0.0;
    let mut first = 0.0;
    for round in 1..=10 {
        daemon
            .preload("exact")
            .apply(Job::new(program("zoo.c")))
            .run()
            .ok();
        pageshim_tests::wait_until("all rounds are in", pageshim_tests::PATIENCE, || {
            let exited = daemon
                .metrics()
                .sum("pageshim_processes", &[("state", "exited")]);
            (exited + 0.5 >= f64::from(round)).then_some(())
        });
        let total = daemon
            .metrics()
            .sum("pageshim_allocated_bytes_total", &[("process", "zoo")]);
        assert!(total > last, "round {round}: {last} then {total}");
        if round == 1 {
            first = total;
        }
        last = total;
    }
    assert!(
        (last - 10.0 * first).abs() < 0.5,
        "ten times {first} is {last}"
    );
}

// Goal: the page works in a real browser. Method: chromium renders /leaks and prints its document.
#[test]
fn a_browser_renders_leaks() {
    let daemon = with_zoo();
    let document = browser::document(&format!("http://{}/leaks", daemon.address()));
    assert!(
        document.contains("make_node") && document.contains("make_buffer"),
        "{document:.800}"
    );
}
