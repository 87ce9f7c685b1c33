//! What if: the counted costs of other layers against runs on them, and advice.

use pageshim_tests::programs::program;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, Temp, places};
use serde_json::Value;

/// The entry of `/whatif.json` for `name`, ended.
fn entry(daemon: &Daemon, name: &str) -> Value {
    daemon.settled(name);
    let body = daemon.get(&format!("/whatif.json?process={name}")).ok();
    let whatif: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(whatif["schema_version"], 1);
    let all = whatif["processes"].as_array().expect("a list");
    assert_eq!(all.len(), 1, "{whatif:#}");
    all[0].clone()
}

/// What a run of `job` on `heap` says.
fn run(job: &Job, name: &str, heap: &str, mode: &str) -> Value {
    let daemon = Daemon::start();
    let job = daemon.preload(mode).apply(job.clone());
    job.env("PAGESHIM_HEAP", heap).run().ok();
    entry(&daemon, name)
}

#[track_caller]
fn row<'a>(entry: &'a Value, layer: &str) -> &'a Value {
    let all = entry["costs"].as_array().expect("a list");
    let found = all.iter().find(|cost| cost["layer"] == layer);
    found.unwrap_or_else(|| panic!("no {layer} in {all:#?}"))
}

/// Within 2 %.
#[track_caller]
fn near(counted: u64, real: u64, what: &str) {
    println!("{what}: counted {counted}, real {real}");
    assert!(
        counted.abs_diff(real) * 50 <= real,
        "{what}: counted {counted}, real {real}"
    );
}

/// A run on gpa says what runs on page and arena really cost.
#[track_caller]
fn predicts(job: &Job, name: &str) {
    let gpa = run(job, name, "gpa", "exact");
    assert_eq!(row(&gpa, "gpa")["basis"], "measured");
    for layer in ["page", "arena"] {
        let real = run(job, name, layer, "exact");
        // Bytes differ by the name of the heap, where a program copies its environment.
        let blocks = |of: &Value| number(&of["total"], "blocks");
        assert_eq!(blocks(&real), blocks(&gpa), "not the same requests");
        let (counted, real) = (row(&gpa, layer), row(&real, layer));
        assert_eq!(counted["basis"], "counted");
        assert_eq!(real["basis"], "measured");
        for part in ["pages", "peak_bytes", "syscalls"] {
            let what = format!("{name} on {layer}, {part}");
            near(number(counted, part), number(real, part), &what);
        }
    }
}

// Goal: what a program would cost on other layers is what it costs there. Method: a program of
// lists, growing and large blocks, run on each.
#[test]
fn a_program_of_ours_costs_what_was_said() {
    predicts(&Job::new(program("whatif.c")), "whatif");
}

// Goal: the same of real programs.
#[test]
fn python_costs_what_was_said() {
    let script = "import json\nprint(len(json.dumps([str(i) for i in range(3000)])))";
    let python = Job::new("/usr/bin/python3").args(["-S", "-c", script]);
    // It lists the directory it is in.
    let temp = Temp::new();
    let python = python.env("PYTHONHASHSEED", "0").dir(&temp);
    predicts(&python.clone().env("PYTHONMALLOC", "malloc"), "python3");
    predicts(&python, "python3");
}

// Goal: the same of sqlite.
#[test]
fn sqlite_costs_what_was_said() {
    let sql = "create table t(a, b); insert into t select value, hex(value) \
               from generate_series(1, 20000); create index i on t(b); \
               select count(*), sum(length(b)) from t;";
    predicts(
        &Job::new("/usr/bin/sqlite3").arg(":memory:").input(sql),
        "sqlite3",
    );
}

// Goal: count mode tells what it can, off and sampled say why not. Method: one run of each.
#[test]
fn other_modes_say_what_they_know() {
    let job = Job::new(program("whatif.c"));
    let exact = run(&job, "whatif", "gpa", "exact");
    let counted = run(&job, "whatif", "gpa", "count");
    assert_eq!(
        row(&counted, "page")["syscalls"],
        row(&exact, "page")["syscalls"]
    );
    let layers = counted["costs"].as_array().expect("a list");
    assert!(layers.iter().all(|cost| cost["layer"] != "arena"));
    let sampled = run(&job, "whatif", "gpa", "sampled:4KiB");
    let why = sampled["why_not"].as_str().expect("a reason");
    assert!(
        why.contains("mode sampled does not count every block"),
        "{why}"
    );
    assert_eq!(sampled["advice"], Value::Array(Vec::new()));
}

/// The advice of `rule`, about `function`.
#[track_caller]
fn advised<'a>(entry: &'a Value, rule: &str, function: &str) -> &'a Value {
    let all = entry["advice"].as_array().expect("a list");
    let by = |advice: &&Value| {
        advice["rule"] == rule
            && advice["text"]
                .as_str()
                .is_some_and(|t| t.contains(function))
    };
    let found = all.iter().find(by);
    found.unwrap_or_else(|| panic!("no {rule} of {function} in {all:#?}"))
}

// Goal: planted patterns are told with site, numbers and confidence, everywhere. Method: JSON, page,
// summary, capture.
#[test]
fn planted_patterns_are_advised() {
    let temp = Temp::new();
    let capture = temp.join("advice.pgs");
    let job = Job::new(places::pageshim())
        .args(["run", "-o"])
        .arg(&capture)
        .args([
            "--",
            program("whatif.c").to_str().expect("a path"),
            "advice",
        ]);
    let ran = job.run().ok();
    let said: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|l| l.starts_with("  advice"))
        .collect();
    assert_eq!(said.len(), 3, "{}", ran.stderr);
    let whatif = |format| {
        let command = Job::new(places::pageshim()).arg("whatif").arg(&capture);
        command.args(["--format", format]).run().ok().stdout
    };
    let json: Value = serde_json::from_str(&whatif("json")).expect("JSON");
    let entry = &json["processes"][0];
    let temporary = advised(entry, "temporary", "`scratch` made 50,000 blocks of 100 B");
    assert_eq!(temporary["confidence"], "high");
    assert_eq!(number(&temporary["saves"], "calls"), 100_000);
    let together = advised(entry, "together", "`push` made 50,000 blocks of 48 B");
    assert_eq!(together["confidence"], "medium");
    let rounding = advised(entry, "rounding", "`tiny` holds 40,000 blocks of 1 B");
    assert_eq!(number(&rounding["saves"], "bytes"), 40_000 * 15);
    advised(entry, "temporary", "`scratch`");
    let churn = advised(entry, "churn", "`picture` made and freed 2,000 blocks");
    assert!(number(&churn["saves"], "calls") >= 4000);
    let sites = entry["sites"].as_array().expect("a list");
    for advice in [temporary, together, rounding, churn] {
        let site = sites.iter().find(|site| site["site"] == advice["site"]);
        assert!(site.is_some_and(|site| {
            site["place"]
                .as_str()
                .is_some_and(|p| p.starts_with("whatif.c:"))
        }));
    }
    let text = whatif("text");
    assert!(
        text.contains("advice: `scratch` made 50,000 blocks"),
        "{text}"
    );
    assert!(text.contains("jemalloc  model"), "{text}");
}

// Goal: the page heap's cost is told by who runs on it, here and where the waste is shown. Method:
// the same program on page; pages and twins.
#[test]
fn a_page_for_each_small_block_is_advised_against() {
    let daemon = Daemon::start();
    let job = Job::new(program("ends.c")).arg("tiny");
    let job = daemon.preload("exact").apply(job);
    job.env("PAGESHIM_HEAP", "page").run().ok();
    let entry = entry(&daemon, "ends");
    let advice = advised(&entry, "page_blocks", "hold an OS page each");
    assert_eq!(advice["confidence"], "high");
    for path in ["/whatif", "/waste"] {
        let url = format!("{path}?process=ends");
        let page = daemon.get_as(&url, "text/html").ok();
        assert!(page.contains("hold an OS page each"), "{path}: {page}");
    }
    let waste = daemon.get("/waste.json?process=ends").ok();
    let waste: Value = serde_json::from_str(&waste).expect("JSON");
    assert_eq!(waste["processes"][0]["advice"], entry["advice"]);
}
