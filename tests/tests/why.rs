//! Why a block is alive: the chain of pointers that is told, in each place it is told.

use pageshim_tests::programs::program;
use pageshim_tests::{Browser, Daemon, Ended, Job, Outcome, Running, Way, places};
use serde_json::Value;

/// A program that waits for its standard input to end.
fn start_in(daemon: &Daemon, mode: &str, arguments: &[&str]) -> Running {
    let job = Job::new(program("alive.c")).args(arguments);
    let mut running = daemon.preload(mode).apply(job).start();
    running.wait_for("ready", 1);
    daemon.known_pid(running.pid());
    running
}

fn start(daemon: &Daemon) -> Running {
    start_in(daemon, "exact", &[])
}

/// The address the program printed.
fn address(running: &Running, what: &str) -> String {
    let said = running.stdout();
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{what} ")));
    line.expect("it says where").to_owned()
}

/// `pageshim why`.
fn why(daemon: &Daemon, process: &str, what: &str, more: &[&str]) -> Outcome {
    Job::new(places::pageshim())
        .args(["why", process, what])
        .args(more)
        .arg("--socket")
        .arg(daemon.socket())
        .run()
}

/// The answer, as JSON.
fn told(daemon: &Daemon, what: &str, more: &[&str]) -> Value {
    let options = [&["--format", "json"], more].concat();
    let said = why(daemon, "alive", what, &options).ok().stdout;
    let entry: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(entry["name"], "alive");
    let answers = entry["answers"].as_array().expect("a list");
    assert_eq!(answers.len(), 1, "{entry:#}");
    answers[0].clone()
}

fn chain(answer: &Value) -> &str {
    answer["chain"].as_str().expect("text")
}

/// The id of the site of a function of the program.
fn site_of(daemon: &Daemon, function: &str) -> String {
    let view = daemon.report();
    let process = view.process("alive").clone();
    let mut all = view.leaks_of(&process);
    let found = all.find(|leak| leak["stack"][0]["function"] == function);
    found.expect("a site")["site"]
        .as_str()
        .expect("an id")
        .to_owned()
}

// Goal: blocks held by a variable, a stack, thread-local storage and a mapping, and one that a pointer
// into it holds, are told as what they are. Method: ask for each by its address.
#[test]
fn each_root_is_told() {
    let daemon = Daemon::start();
    let running = start(&daemon);
    let ask = |what: &str| told(&daemon, &address(&running, what), &[]);
    let entry = ask("entry");
    assert_eq!(entry["state"], "reached");
    assert_eq!(entry["class"], "reachable");
    assert_eq!(
        chain(&entry),
        "global `cache` in alive -> block of `cache_insert` (64 B, +8) -> block of `entry_new` (32 B, +0) -> block of `entry_new` (32 B)"
    );
    assert_eq!(entry["links"].as_array().expect("a list").len(), 4);
    assert_eq!(entry["links"][3]["address"], address(&running, "entry"));
    assert_eq!(entry["caution"], Value::Null);
    let tls = ask("tls");
    let said = chain(&tls);
    assert!(
        said.starts_with("thread-local `mine` in alive of thread "),
        "{said}"
    );
    assert!(
        said.ends_with(" (worker) -> block of `tls_new` (32 B)"),
        "{said}"
    );
    let stack = ask("stack");
    let said = chain(&stack);
    assert!(said.starts_with("the stack of thread "), "{said}");
    assert!(
        said.ends_with(" (worker) -> block of `stack_new` (32 B)"),
        "{said}"
    );
    let caution = stack["caution"].as_str().expect("it may be stale");
    assert!(caution.contains("left over"), "{caution}");
    let mapped = ask("mapped");
    assert!(
        chain(&mapped).starts_with("memory the program mapped, at 0x"),
        "{mapped:#}"
    );
    let inside = ask("inside");
    assert_eq!(inside["class"], "possible");
    assert_eq!(
        chain(&inside),
        "global `inside` in alive -> block of `inside_new` (32 B, pointed to at +8)"
    );
    daemon.check_healthy();
    assert_eq!(running.finish().ended, Ended::Code(0));
}

// Goal: lost blocks are told with what leads to them, sites by any of their blocks or those of a class,
// and a long chain says what it leaves out. Method: each of them.
#[test]
fn lost_blocks_sites_and_long_chains_are_told() {
    let daemon = Daemon::start();
    let running = start(&daemon);
    let hanging = told(&daemon, &address(&running, "hanging"), &[]);
    assert_eq!(
        (&hanging["state"], &hanging["class"]),
        (&"lost".into(), &"indirect".into())
    );
    assert_eq!(
        chain(&hanging),
        "block of `lost_new` (32 B, +0) -> block of `hanging_new` (32 B)"
    );
    let lost = told(
        &daemon,
        &site_of(&daemon, "lost_new"),
        &["--class", "definite"],
    );
    assert_eq!(chain(&lost), "block of `lost_new` (32 B)");
    assert!(
        lost["answer"]
            .as_str()
            .expect("text")
            .contains("no root reaches it")
    );
    let entry = told(&daemon, &site_of(&daemon, "cache_insert"), &[]);
    assert_eq!(
        chain(&entry),
        "global `cache` in alive -> block of `cache_insert` (64 B)"
    );
    let text = why(&daemon, "alive", &address(&running, "long"), &[])
        .ok()
        .stdout;
    assert!(text.contains("  global `list` in alive\n"), "{text}");
    assert!(text.contains("-> … 137 more blocks …"), "{text}");
    assert!(
        text.contains("Alive: a chain of pointers leads to it."),
        "{text}"
    );
    assert_eq!(running.finish().ended, Ended::Code(0));
}

// Goal: bad questions are told, each with what to do. Method: an address of nothing, of a freed block, no
// address, a site that is not, a process that is not, one without records, one that ended.
#[test]
fn bad_questions_are_told() {
    let daemon = Daemon::start();
    let running = start(&daemon);
    let gone = address(&running, "gone");
    let refused = |process: &str, what: &str, said: &str| {
        let outcome = why(&daemon, process, what, &[]);
        assert_eq!(outcome.ended, Ended::Code(1), "{}", outcome.stdout);
        let all = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(all.contains(said), "{all}");
    };
    refused(
        "alive",
        "0x1000",
        "no live block with a record is at 0x1000",
    );
    refused("alive", &gone, "no live block");
    refused("alive", "0xffffffffffffffff", "no address of a program");
    refused(
        "alive",
        "00000000deadbeef",
        "there is no site 00000000deadbeef",
    );
    refused("alive", "cache", "there is no site cache");
    refused("nobody", "0x1000", "there is no process nobody");
    let none = why(
        &daemon,
        "alive",
        &site_of(&daemon, "entry_new"),
        &["--class", "definite"],
    );
    assert!(
        none.stdout.contains("has no definite block"),
        "{}",
        none.stdout
    );
    running.finish();
    daemon.settled("alive");
    refused("alive", "0x1000", "it has ended");
    let plain = start_in(&daemon, "sampled", &[]);
    let said = plain.pid().to_string();
    refused(&said, "0x1000", "blocks have records in the modes");
    plain.finish();
}

// Goal: two who ask at once get each their own answer. Method: four threads, two questions.
#[test]
fn two_may_ask_at_once() {
    let daemon = Daemon::start();
    let running = start(&daemon);
    let (entry, tls) = (address(&running, "entry"), address(&running, "tls"));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            for (what, said) in [(&entry, "`entry_new`"), (&tls, "`tls_new`")] {
                let daemon = &daemon;
                scope.spawn(move || {
                    for _ in 0..4 {
                        let answer = told(daemon, what, &[]);
                        assert!(chain(&answer).contains(said), "{answer:#}");
                    }
                });
            }
        }
    });
    assert_eq!(running.finish().ended, Ended::Code(0));
}

// Goal: a process that the daemon may not stop looks for the chain itself. Method: one that is traced
// already, by a program that only holds on to it.
#[test]
fn a_process_answers_by_itself() {
    answers_by(Way::Itself, &["busy"]);
}

// Goal: a process of which the kernel makes no copy is searched itself, and goes on. Method: one whose
// user may have no more processes.
#[test]
fn a_process_that_is_not_copied_answers() {
    answers_by(Way::InPlace, &[]);
}

/// Asks for each kind of root, twice.
#[track_caller]
fn answers_by(way: Way, arguments: &[&str]) {
    let daemon = Daemon::start();
    let watched = way.start(&daemon, &program("alive.c"), arguments, "ready");
    for _ in 0..2 {
        for (what, starts, ends) in [
            ("entry", "global `cache` in alive -> ", "`entry_new` (32 B)"),
            (
                "tls",
                "thread-local `mine` in alive of thread ",
                "`tls_new` (32 B)",
            ),
            ("stack", "the stack of thread ", "`stack_new` (32 B)"),
            ("mapped", "memory the program mapped", "`mapped_new` (32 B)"),
            ("inside", "global `inside` in alive", "pointed to at +8)"),
            ("hanging", "block of `lost_new`", "`hanging_new` (32 B)"),
        ] {
            let answer = told(&daemon, &address(&watched.running, what), &[]);
            let said = chain(&answer);
            assert!(said.starts_with(starts), "{way:?}: {said}");
            assert!(said.ends_with(ends), "{way:?}: {said}");
        }
    }
    let process = daemon.report().process("alive").clone();
    let method = process["check"]["method"].as_str().unwrap_or("");
    assert!(way.is(method), "{method}");
    assert_eq!(watched.finish().ended, Ended::Code(0));
}

// Goal: an answer is still told when its process has ended. Method: JSON, page and report.
#[test]
fn the_answer_stays_with_the_process() {
    let daemon = Daemon::start();
    let running = start(&daemon);
    let entry = address(&running, "entry");
    told(&daemon, &entry, &[]);
    let id = daemon.report().process("alive")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(running.finish().ended, Ended::Code(0));
    daemon.settled("alive");
    for path in [
        format!("/api/v1/processes/{id}/why"),
        "/why.json".to_owned(),
    ] {
        let answer = daemon.get(&path).ok();
        assert!(answer.contains("global `cache` in alive"), "{answer}");
    }
    let page = daemon.get_as("/why", "text/html").ok();
    assert!(page.contains("global `cache` in alive"), "{page}");
    let process = daemon.report().process("alive").clone();
    assert_eq!(process["why"][0]["asked"], entry);
}

// Goal: the button of a row asks, and the answer reads as a list there and on its page. Method: Enter.
#[test]
fn the_button_asks() {
    let daemon = Daemon::start();
    let running = start(&daemon);
    let site = site_of(&daemon, "cache_insert");
    let address = daemon.address();
    let mut browser = Browser::start();
    browser.open(&format!("http://{address}/leaks?process=alive"));
    let row = format!("document.getElementById('site-{site}')");
    browser.value(&format!("{row}.querySelector('details').open = true"));
    browser.value(&format!("{row}.querySelector('.ask button').focus()"));
    browser.press("Enter");
    let said = |browser: &mut Browser| {
        pageshim_tests::wait_until("the answer", pageshim_tests::PATIENCE, || {
            let list = "document.readyState === 'complete' && document.querySelector('ol.chain') ? document.querySelector('ol.chain').innerText : ''";
            let text = browser.value(list);
            let text = text.as_str().unwrap_or("").to_owned();
            (!text.is_empty()).then_some(text)
        })
    };
    let text = said(&mut browser);
    assert!(text.contains("global `cache` in alive"), "{text}");
    assert!(text.contains("block of `cache_insert` (64 B)"), "{text}");
    let rows = browser.value("document.querySelectorAll('.answer table tbody tr').length");
    assert_eq!(rows, 2);
    browser.open(&format!("http://{address}/leaks?process=alive"));
    browser.value(&format!("{row}.querySelector('details').open = true"));
    let text = browser.value(&format!("{row}.querySelector('ol.chain').innerText"));
    assert!(
        text.as_str().expect("text").contains("global `cache`"),
        "{text}"
    );
    assert_eq!(running.finish().ended, Ended::Code(0));
}
