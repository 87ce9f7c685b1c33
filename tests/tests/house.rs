//! House rules: what the style guide promises about the tree, read from the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pageshim_tests::places::root;

/// Tracked files (all files outside target/ where there is no git), relative to the root.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output();
    let mut found = Vec::new();
    match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            found.extend(
                names
                    .split('\0')
                    .filter(|n| !n.is_empty())
                    .map(PathBuf::from),
            );
        }
        _ => walk(Path::new(""), &mut found),
    }
    found.retain(|path| root().join(path).is_file());
    assert!(found.len() > 20, "the tree is listed");
    found
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(dir))
        .expect("a directory")
        .flatten()
    {
        let path = dir.join(entry.file_name());
        if entry.path().is_dir() {
            if !["target", ".git"].iter().any(|skip| path.ends_with(skip)) {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// Rust sources below `dir`: path and text.
fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let in_room =
        |path: &PathBuf| path.starts_with(dir) && path.extension().is_some_and(|e| e == "rs");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).expect("UTF-8");
        (path, text)
    };
    files().into_iter().filter(in_room).map(read).collect()
}

/// The code of a source: no comments, no texts on one line, nothing after its test module begins.
fn code(text: &str) -> String {
    // A test module in the file ends it; one in a file of its own is a line.
    let in_file = |rest: &&str| rest.lines().next().is_some_and(|line| line.ends_with('{'));
    let parts = text.split("\n#[cfg(test)]\nmod ");
    let before_tests: String = parts
        .enumerate()
        .take_while(|(number, part)| *number == 0 || !in_file(part))
        .map(|(_, part)| part)
        .collect();
    let before_tests = before_tests.replace("#[cfg(any(test, fuzzing))]\nextern crate std;", "");
    let strip = |line: &str| {
        let unquoted = line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
        unquoted.split("//").next().unwrap_or("").to_owned()
    };
    before_tests
        .lines()
        .map(strip)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Fails with every place where code below `dir` names one of `words`.
#[track_caller]
fn forbid(dir: &str, words: &[&str], why: &str) {
    let mut found = Vec::new();
    for (path, text) in sources(dir) {
        if is_test(path.strip_prefix(dir).expect("below it")) {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            for word in words {
                if names(line, word) {
                    found.push(format!(
                        "{}:{}: {}",
                        path.display(),
                        number + 1,
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(found.is_empty(), "{why}\n{}", found.join("\n"));
}

/// True for a file of tests beside the code: `tests.rs`, `x_tests.rs`, `tests/`, `benches/`, `examples/`.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let file = stem.is_some_and(|stem| stem == "tests" || stem.ends_with("_tests"));
    let names = path.parent().into_iter().flat_map(Path::iter);
    file || names
        .into_iter()
        .any(|name| name == "tests" || name == "benches" || name == "examples")
}

/// True when `line` holds `word` as a path's beginning, not as part of another name, nor as a function's.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before) && before != Some(':') && !part(after) && after != Some('(')
    })
}

// Goal: the house-rule reader itself. Method: literal lines.
#[test]
fn the_reader_tells_names_apart() {
    assert!(names("use std::fs;", "std"));
    assert!(names("let x = alloc::vec::Vec::new();", "alloc"));
    assert!(!names("use core::alloc::Layout;", "alloc"));
    assert!(!names("fn std_name() {}", "std"));
    assert!(!names("unsafe fn alloc(&self)", "alloc"));
    assert_eq!(
        code("a // std\n#[cfg(test)]\nmod tests { use std; }").trim(),
        "a"
    );
}

// Goal: imports go down only. Method: forbidden names per room.
#[test]
fn imports_go_down_only() {
    let ours = ["pageshim_core", "pageshim_shim", "pageshim"];
    forbid("wire", &ours, "wire imports nothing of ours");
    forbid("wire", &["std", "alloc"], "wire is no_std without alloc");
    forbid(
        "shim/core",
        &["std", "alloc", "pageshim_shim"],
        "core is no_std without alloc",
    );
    forbid(
        "daemon",
        &["pageshim_core", "pageshim_shim"],
        "the daemon never sees the shim",
    );
    forbid(
        "daemon/src/books",
        &[
            "axum",
            "tokio",
            "std::fs",
            "std::net",
            "Instant",
            "SystemTime",
        ],
        "books are pure: no IO, no clock, no server",
    );
    forbid(
        "daemon/src/bill",
        &[
            "axum",
            "tokio",
            "std::fs",
            "std::net",
            "Instant",
            "SystemTime",
        ],
        "bills are pure: no IO, no clock, no server",
    );
    forbid(
        "shim/core/src/unwind",
        &["crate::heap", "crate::sites", "crate::records"],
        "the unwinder knows nothing above it",
    );
    forbid(
        "shim/core/src/heap",
        &["crate::unwind", "crate::sites", "crate::lost"],
        "the heap knows nothing of attribution",
    );
}

// Goal: dependencies say the same. Method: the manifests.
#[test]
fn manifests_agree() {
    let manifest =
        |dir: &str| fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("a manifest");
    assert!(
        !manifest("wire").contains("[dependencies]"),
        "wire depends on nothing"
    );
    let daemon = manifest("daemon");
    let dependencies = daemon.split("[dependencies]").nth(1).expect("some");
    let dependencies = dependencies.split("\n[").next().expect("some");
    for never in ["pageshim-core", "pageshim-shim"] {
        assert!(
            !dependencies.contains(never),
            "the daemon never depends on {never}"
        );
    }
    for member in ["wire", "shim", "shim/core", "daemon", "tests"] {
        assert!(
            manifest(member).contains("[lints]\nworkspace = true"),
            "{member} uses the lints"
        );
    }
}

// Goal: no_std stays. Method: the attribute in both crates.
#[test]
fn no_std_where_promised() {
    for lib in ["wire/src/lib.rs", "shim/core/src/lib.rs"] {
        let text = fs::read_to_string(root().join(lib)).expect("a crate");
        assert!(text.contains("no_std"), "{lib} is no_std");
    }
}

// Goal: no unsafe where none is needed. Method: the keyword in wire and tests; in the daemon one module at most.
#[test]
fn unsafe_only_where_promised() {
    forbid("wire", &["unsafe"], "wire has no unsafe");
    forbid("tests/src", &["unsafe"], "the harness has no unsafe");
    forbid("tests/tests", &["unsafe"], "cases have no unsafe");
    let holds = |(path, text): (PathBuf, String)| {
        let code = code(&text);
        code.lines()
            .any(|line| names(line, "unsafe"))
            .then_some(path)
    };
    let modules: Vec<_> = sources("daemon").into_iter().filter_map(holds).collect();
    assert!(
        modules.len() <= 1,
        "one mapping module at most: {modules:?}"
    );
}

// Goal: no machine's paths and no registry's host names in the tree. Method: search every text file.
#[test]
fn no_machine_paths_or_registry_hosts() {
    let words = [
        ["/work/", "shared"].concat(),
        ["/work/", "main"].concat(),
        ["/tmp/", "wt/"].concat(),
        ["/tmp/", "contracts"].concat(),
        ["crates", ".io"].concat(),
        ["pypi", ".org"].concat(),
        ["npmjs", ".com"].concat(),
        ["proxy.golang", ".org"].concat(),
    ];
    let mut found = Vec::new();
    for path in files() {
        if path.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for word in &words {
            if text.contains(word) {
                found.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

// Goal: files stay readable. Method: list long ones; only absurd ones fail. Cases may be longer
// than the code they test.
#[test]
fn files_have_a_length_people_read() {
    for (room, most) in [
        ("wire", 900),
        ("shim", 900),
        ("daemon", 900),
        ("tests", 2000),
    ] {
        for (path, text) in sources(room) {
            let lines = text.lines().count();
            if lines > 450 {
                println!("{lines:5}  {} (is it still one room?)", path.display());
            }
            assert!(
                lines <= most,
                "{} has {lines} lines: split it",
                path.display()
            );
        }
    }
}

// Goal: every source opens by saying what it is. Method: the first line.
#[test]
fn sources_open_with_what_they_are() {
    let mut silent = Vec::new();
    for room in ["wire/src", "shim", "daemon", "tests"] {
        for (path, text) in sources(room) {
            let said = text.starts_with("//!") || text.contains("\n//! ");
            if !said && !is_test(path.strip_prefix(room).expect("below it")) {
                silent.push(path);
            }
        }
    }
    assert!(silent.is_empty(), "no module comment: {silent:?}");
}

// Goal: dashboards are JSON, rules and their runbooks exist. Method: parse, follow names.
#[test]
fn dashboards_parse() {
    for path in files() {
        let is_json = path.extension().is_some_and(|e| e == "json");
        if path.starts_with("dashboards") && is_json {
            let text = fs::read_to_string(root().join(&path)).expect("UTF-8");
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
            assert!(parsed.is_ok(), "{}: {:?}", path.display(), parsed.err());
        }
    }
}

// Goal: files that documents link to exist. Method: relative links of every Markdown file.
#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files() {
        if path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("UTF-8");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or("");
            if target.is_empty() || target.contains(':') {
                continue;
            }
            let from = root().join(&path);
            if !from.parent().expect("a directory").join(target).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

// Goal: scripts can be run. Method: the executable bit and the syntax of tests/run and .ci/run.
#[test]
fn scripts_are_executable() {
    use std::os::unix::fs::PermissionsExt;
    for script in ["tests/run", ".ci/run"] {
        let path = root().join(script);
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert!(mode & 0o111 == 0o111, "{script} is executable");
        let checked = Command::new("bash")
            .arg("-n")
            .arg(&path)
            .status()
            .expect("bash");
        assert!(checked.success(), "{script} parses");
    }
}
