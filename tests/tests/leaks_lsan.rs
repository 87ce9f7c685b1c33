//! LeakSanitizer's word on a list of programs, beside ours with strict roots.
//!
//! # Design
//! LeakSanitizer is preloaded, so the same binaries run under both: as a part of AddressSanitizer,
//! because on its own gcc 12's crashes programs that set a signal's handler. It knows no class `possible`
//! (a pointer into a block keeps it) and calls all of a ring indirect, so what is compared is
//! definite and indirect blocks together, by the function of the program that asked for them.

use std::collections::BTreeMap;

use pageshim_tests::planted::{Run, bare, run};
use pageshim_tests::programs::{program, source};
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Job, Temp};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libasan.so.8";

/// Blocks that stale words may hold in a program.
const STALE_BLOCKS: u64 = 2;

/// Lost blocks by function.
type Lost = BTreeMap<String, Held>;

/// Lost by LeakSanitizer's report.
fn by_lsan(job: Job) -> Lost {
    let temp = Temp::new();
    let log = temp.join("lsan");
    let options = format!("exitcode=0:log_path={}", log.display());
    let plain = job.run();
    let watched = job
        .env("LD_PRELOAD", LIBRARY)
        .env("ASAN_OPTIONS", "detect_leaks=1:fast_unwind_on_malloc=0")
        .env("LSAN_OPTIONS", options)
        .run();
    assert_eq!(plain.ended, watched.ended, "{}", watched.stderr);
    let mut all = Lost::new();
    for entry in std::fs::read_dir(&*temp).expect("ours").flatten() {
        let said = std::fs::read_to_string(entry.path()).expect("a report");
        let mut record: Option<Held> = None;
        let mut frames = Vec::new();
        for line in said.lines().chain([""]) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [
                    "Direct" | "Indirect",
                    "leak",
                    "of",
                    bytes,
                    "byte(s)",
                    "in",
                    blocks,
                    ..,
                ] => {
                    let number = |text: &str| text.parse().expect("a number");
                    record = Some(Held {
                        blocks: number(blocks),
                        bytes: number(bytes),
                    });
                }
                [at, _, "in", function, ..] if at.starts_with('#') && *at != "#0" => {
                    frames.push(bare(function).to_owned());
                }
                [] => {
                    if let Some(held) = record.take() {
                        add(&mut all, &frames, held);
                    }
                    frames.clear();
                }
                _ => {}
            }
        }
    }
    all
}

/// Lost by our check with strict roots.
fn by_us(run: &Run) -> Lost {
    let mut all = Lost::new();
    for process in run.view.processes() {
        let check = &process["check"];
        assert_eq!(
            (&check["state"], &check["strict"]),
            (&"done".into(), &true.into()),
            "{process:#}"
        );
        for leak in run.view.leaks_of(process) {
            if leak["class"] != "definite" && leak["class"] != "indirect" {
                continue;
            }
            let frames = leak["stack"].as_array().into_iter().flatten();
            let names = frames.filter_map(|frame| frame["function"].as_str());
            let names: Vec<String> = names.map(|name| bare(name).to_owned()).collect();
            let held = Held {
                blocks: number(leak, "blocks"),
                bytes: number(leak, "bytes"),
            };
            add(&mut all, &names, held);
        }
    }
    all
}

/// Counts blocks for the outermost function but `main` and what calls it: both tools know its name,
/// while they name what the compiler put inside of others in their own ways.
fn add(all: &mut Lost, frames: &[String], held: Held) {
    let end = frames
        .iter()
        .rposition(|name| name == "main")
        .unwrap_or(frames.len());
    let name = frames[..end].last().map_or("main", String::as_str);
    let sum = all.entry(name.to_owned()).or_default();
    sum.blocks += held.blocks;
    sum.bytes += held.bytes;
}

fn total(lost: &Lost) -> Held {
    lost.values().fold(Held::default(), |sum, held| Held {
        blocks: sum.blocks + held.blocks,
        bytes: sum.bytes + held.bytes,
    })
}

// Goal: LeakSanitizer finds the same blocks lost. Method: a list of programs under both; prints a table.
#[test]
fn leak_sanitizer_agrees() {
    let victim = |name: &str, arguments: &[&str]| Job::new(program(name)).args(arguments);
    let programs = [
        ("leaks.c", victim("leaks.c", &[])),
        ("leaks.c threads", victim("leaks.c", &["threads"])),
        ("leaks.cpp", victim("leaks.cpp", &[])),
        ("leaks.cpp lose", victim("leaks.cpp", &["lose"])),
        ("lost.rs", victim("lost.rs", &["return"])),
        ("victim.rs", victim("victim.rs", &[])),
        ("zoo.c", victim("zoo.c", &[])),
        ("ends.c", victim("ends.c", &["tiny"])),
        ("exceptions.cpp", victim("exceptions.cpp", &[])),
        ("longjmp.c", victim("longjmp.c", &[])),
        ("deep.c", victim("deep.c", &[])),
        ("fragment.c", victim("fragment.c", &[])),
        ("whatif.c", victim("whatif.c", &[])),
        (
            "sqlite3",
            Job::new("sqlite3").args([":memory:", "create table t(a); select 1;"]),
        ),
        (
            "bash",
            Job::new("bash").args([
                "-c",
                "f() { local x=$1; echo ${x^^}; }; for i in 1 2 3; do f a$i; done",
            ]),
        ),
        (
            "perl",
            Job::new("perl").args([
                "-e",
                "my $a = []; push @$a, $a; my %h = map { $_ => 1 } 1..99;",
            ]),
        ),
        ("git", Job::new("git").args(["--version"])),
        (
            "python3",
            Job::new("python3")
                .args(["-c", "import json, re; print(json.loads('[1, {}]'))"])
                .env("PYTHONMALLOC", "malloc"),
        ),
        (
            "cc1",
            Job::new("/usr/lib/gcc/x86_64-linux-gnu/12/cc1")
                .args(["-quiet", "-O2", "-o", "/dev/null"])
                .arg(source("deep.c")),
        ),
        (
            "awk",
            Job::new("awk")
                .args(["BEGIN { for (i = 0; i < 99; i++) a[i] = i \"x\"; print length(a) }"]),
        ),
        ("sort", Job::new("sort").input("b\na\nc\n")),
    ];
    println!("| program | LeakSanitizer | pageshim, strict |");
    let mut wrong = Vec::new();
    for (name, job) in programs {
        let theirs = by_lsan(job.clone());
        let ours = by_us(&run(job, &[("PAGESHIM_CHECK", "exit,strict")]));
        let (a, b) = (total(&theirs), total(&ours));
        println!(
            "| {name} | {} bytes in {} blocks | {} bytes in {} |",
            a.bytes, a.blocks, b.bytes, b.blocks
        );
        // It cannot name what is stripped, nor Rust's functions. Of programs that were not written
        // to be the same each time, a stale word may hold a block in one run and not in the next
        // (sort's only one, for LeakSanitizer).
        let agree = match name.split_once('.') {
            Some((_, ending)) if ending.starts_with('c') => theirs == ours,
            Some(_) => a == b,
            None => a.blocks.abs_diff(b.blocks) <= STALE_BLOCKS,
        };
        if !agree {
            wrong.push(format!(
                "{name}: LeakSanitizer {theirs:#?}, pageshim {ours:#?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
