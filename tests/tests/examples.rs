//! The examples of the layers say what they are there to show.

use std::process::Command;

use pageshim_tests::places;

/// What `shim/core/examples/NAME.rs` prints.
fn said(name: &str) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "-p", "pageshim-core", "--example", name])
        .current_dir(places::root())
        .env("CARGO_TARGET_DIR", places::target())
        .output()
        .expect("cargo can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {complaint}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The line of `text` that begins with `begin`, spaces joined.
#[track_caller]
fn line(text: &str, begin: &str) -> String {
    let joined = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = text.lines().map(joined);
    lines
        .find(|line| line.starts_with(begin))
        .unwrap_or_else(|| panic!("no line {begin:?} in:\n{text}"))
}

// Goal: two bytes from the page layer are a page and a system call each; heap and arena share both.
#[test]
fn two_bytes() {
    let text = said("two_bytes");
    let facts = [
        (
            "page 1 x",
            "2 requested, 4096 bytes committed, 1 system calls (1 mmap)",
        ),
        (
            "page 1000 x",
            "2000 requested, 4096000 bytes committed, 1000 system calls (1000 mmap)",
        ),
        (
            "gpa 1000 x",
            "2000 requested, 0 bytes committed, 0 system calls (none)",
        ),
        (
            "arena 1 x",
            "2 requested, 4096 bytes committed, 1 system calls (1 mmap)",
        ),
        (
            "arena 1000 x",
            "2000 requested, 0 bytes committed, 0 system calls (none)",
        ),
    ];
    for (begin, fact) in facts {
        let line = line(&text, begin);
        assert!(line.ends_with(fact), "{line}");
    }
    let sum = line(&text, "the arena now:");
    assert!(sum.starts_with("the arena now: 2002 requested"), "{sum}");
}

// Goal: a leak is found at the end, and a double free names three places; nothing stays committed.
#[test]
fn leak() {
    let text = said("leak");
    let double = line(&text, "DoubleFree: block 0x");
    for part in [
        "of 12 bytes was freed already",
        "; allocated at 0x",
        "; freed at 0x",
        "; now at 0x",
    ] {
        assert!(double.contains(part), "{double}");
    }
    let leak = line(&text, "Leak: block 0x");
    assert!(
        leak.contains("of 17 bytes was never freed; allocated at 0x"),
        "{leak}"
    );
    assert_eq!(
        line(&text, "deinit:"),
        "deinit: Leaked(1); 0 bytes still committed"
    );
}

// Goal: a full buffer says no and changes nothing; with a fallback, the next block comes from there.
#[test]
fn fixed_buffer() {
    let text = said("fixed_buffer");
    let full = "40 bytes with 80 of 100 used: refused, nothing changed; 80 requested + 0 retained + 20 tail = 100";
    assert_eq!(line(&text, "40 bytes with 80"), full);
    assert_eq!(line(&text, "after a reset"), "after a reset: 0 used");
    let places: Vec<_> = text
        .lines()
        .filter(|line| line.contains("bytes from"))
        .collect();
    assert_eq!(places, ["60 bytes from the buffer", "60 bytes from a page"]);
    assert_eq!(
        line(&text, "the fallback"),
        "the fallback holds 4096 bytes for 60"
    );
}

// Goal: a whole Rust program lives on a stack of layers, and the parts of the slabs add up.
#[test]
fn global() {
    let text = said("global");
    assert_eq!(
        line(&text, "235560 letters"),
        "235560 letters in 40000 words"
    );
    let slabs = line(&text, "8 slabs:");
    let numbers = slabs.split(' ').filter_map(|word| word.parse::<u64>().ok());
    let numbers: Vec<_> = numbers.skip(1).collect();
    let (total, parts) = numbers.split_last().expect("a sum");
    assert_eq!(
        (parts.iter().sum::<u64>(), *total),
        (524_288, 524_288),
        "{slabs}"
    );
}
