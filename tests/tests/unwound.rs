//! Bad input for the unwinder: code that goes and comes, tables that lie or are not
//! there, stacks that are written over. No crash, no endless loop, and a stack that is
//! not known says so. Elsewhere: tables garbled a million ways (`core/unwind/tables`),
//! longjmp, exceptions, coroutines and signals in malloc on an alternate stack
//! (`programs.rs` for what they say, `verify.rs` for each of their stacks).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pageshim_tests::programs::{program, program_with};
use pageshim_tests::view::{Held, number};
use pageshim_tests::{Daemon, Ended, Job, Outcome, Preload, Temp, View};
use serde_json::Value;

/// A plugin of overlay.c.
fn overlay(name: &str, room: u32) -> PathBuf {
    let name = format!("-DOVERLAY={name}");
    let room = format!("-DROOM={room}");
    let flags = ["-shared", "-fPIC", "-fomit-frame-pointer", &name, &room];
    program_with("overlay.c", &flags)
}

/// Runs it in `exact`; answers what it said and the report once it ended.
#[track_caller]
fn exact(job: Job, name: &str) -> (Outcome, View) {
    let daemon = Daemon::start();
    let job = daemon.preload("exact").apply(job);
    let outcome = job.limit(Duration::from_secs(60)).run();
    let view = daemon.settled(name);
    daemon.check_healthy();
    (outcome, view)
}

/// The same, every stack compared with a plain unwind.
#[track_caller]
fn verified(job: Job, name: &str) -> (Outcome, View) {
    let (outcome, view) = exact(job.env("PAGESHIM_VERIFY", "1"), name);
    let verified = &view.process(name)["verified"];
    for kind in ["frames", "depth", "end", "site"] {
        assert_eq!(number(verified, kind), 0, "{kind} differ: {verified}");
    }
    (outcome, view)
}

/// True when a leak's stack is whole and begins with these functions.
fn begins(leak: &Value, functions: &[&str]) -> bool {
    let stack = leak["stack"].as_array().expect("a stack");
    let same = |(frame, name): (&Value, &&str)| frame["function"] == **name;
    leak["incomplete"].is_null()
        && stack.len() >= functions.len()
        && stack.iter().zip(functions).all(same)
}

// Goal: code that lies where other code lay is unwound by its own rules and billed by its own name,
// each block of it. Method: two plugins of equal layout, other frame sizes, in turn at one place.
#[test]
fn a_module_over_anothers_address() {
    let plugins = [overlay("first", 256), overlay("second", 512)];
    let job = Job::new(program("replaced.c")).arg("20").args(&plugins);
    let (outcome, view) = verified(job, "replaced");
    assert_eq!(outcome.ok().stdout, "replaced: in place\n");
    let process = view.process("replaced");
    for (size, name) in [(1000, "first_leak"), (2000, "second_leak")] {
        let held = Held {
            blocks: 20,
            bytes: 20 * size,
        };
        assert_eq!(view.held_by(process, name), held, "{name}");
        let by = |leak: &&Value| leak["stack"][0]["function"] == name;
        for leak in view.leaks_of(process).filter(by) {
            assert!(begins(leak, &[name, "overlay_work", "main"]), "{leak:#}");
        }
    }
}

// Goal: stacks are right and nothing crashes while modules come and go under other threads that
// allocate through one that stays. Method: two such threads, 500 loads of two others in turn.
#[test]
fn dlclose_while_others_unwind() {
    let plugins = [
        overlay("first", 256),
        overlay("second", 512),
        overlay("third", 384),
    ];
    let job = Job::new(program("replaced.c")).arg("250").args(&plugins);
    let (outcome, view) = verified(job.arg("busy"), "replaced");
    outcome.ok(); // where they lie depends on what else is mapped meanwhile
    let process = view.process("replaced");
    for (size, name) in [(1000, "first_leak"), (2000, "second_leak")] {
        let held = Held {
            blocks: 250,
            bytes: 250 * size,
        };
        assert_eq!(view.held_by(process, name), held, "{name}");
    }
    assert!(number(&process["verified"], "equal") > 1000, "{process}");
}

const SCRIBBLE: &[&str] = &["-fno-omit-frame-pointer"];

// Goal: a stack the program writes over, with garbage or with addresses of code that another thread
// is just unloading, harms nobody; blocks are counted whatever the stack. Method: return addresses and
// saved frame pointers above a leaf set to all kinds of words for the time of an allocation.
#[test]
fn self_modifying_stacks() {
    let plugin = overlay("first", 256);
    let job = Job::new(program_with("scribble.c", SCRIBBLE));
    let (outcome, view) = exact(job.arg(&plugin), "scribble");
    let said = outcome.ok().stdout;
    assert_eq!(said, "scribble: done\n");
    // Some of it takes luck: reading what is just unmapped killed one run in four.
    let temp = Temp::new();
    for _ in 0..12 {
        let job = Job::new(program_with("scribble.c", SCRIBBLE)).arg(&plugin);
        let preload = Preload::new("exact", &temp.join("nobody"));
        assert_eq!(preload.apply(job).run().ok().stdout, said);
    }
    let process = view.process("scribble");
    let held = |leak: &Value| number(leak, "bytes") == 48 * number(leak, "blocks");
    let leaks = view
        .leaks_of(process)
        .filter(|leak| leak["stack"][0]["function"] == "scribbled");
    let leaks: Vec<&Value> = leaks.filter(|leak| held(leak)).collect();
    let blocks: u64 = leaks.iter().map(|leak| number(leak, "blocks")).sum();
    assert_eq!(blocks, 20_000, "every block is counted on some stack");
    let partly = leaks.iter().filter(|leak| !leak["incomplete"].is_null());
    assert!(partly.count() > 3, "what is not known says so");
}

// Goal: a recursion of 100,000 frames is cut, said to be, and each capture stays cheap. Method: equal
// output, every stack verified, in a time that a walk over all frames each time would not keep.
#[test]
fn a_hundred_thousand_frames() {
    let job = Job::new(program("deep.c")).arg("100000");
    let (outcome, _) = verified(job.limit(Duration::from_secs(60)), "deep");
    assert_eq!(outcome.ok().stdout, "deep: 300003\n");
}

/// Live blocks that the stacks of `function` hold, all of them whole or all of them not.
#[track_caller]
fn held_whole(view: &View, process: &Value, function: &str, whole: bool) -> Held {
    let by = |leak: &&Value| leak["stack"][0]["function"] == function;
    for leak in view.leaks_of(process).filter(by) {
        assert_eq!(leak["incomplete"].is_null(), whole, "{leak:#}");
    }
    view.held_by(process, function)
}

const NODES: Held = Held {
    blocks: 100,
    bytes: 6400,
};

// Goal: code without unwind tables is followed by its frame pointers, or its stacks say that they end
// there; blocks count either way. Method: the same program compiled both ways.
#[test]
fn missing_tables() {
    let none = "-fno-asynchronous-unwind-tables";
    for (flag, whole) in [
        ("-fno-omit-frame-pointer", true),
        ("-fomit-frame-pointer", false),
    ] {
        let victim = program_with("zoo.c", &[none, "-fno-unwind-tables", flag]);
        let plain = Job::new(&victim).run();
        let (outcome, view) = exact(Job::new(&victim), "zoo");
        assert_eq!(outcome, plain, "{flag}");
        view.check_equations();
        let process = view.process("zoo");
        assert_eq!(
            held_whole(&view, process, "make_node", whole),
            NODES,
            "{flag}"
        );
    }
}

// Goal: a stripped program's stacks are as whole as ever; functions have stable stand-ins. Method: strip.
#[test]
fn stripped() {
    let temp = Temp::new();
    let victim = temp.join("zoo");
    let done = Command::new("strip")
        .arg("-s")
        .arg("-o")
        .arg(&victim)
        .arg(program("zoo.c"))
        .status();
    assert!(done.is_ok_and(|status| status.success()), "strip");
    let plain = Job::new(&victim).run();
    let (outcome, view) = verified(Job::new(&victim), "zoo");
    assert_eq!(outcome, plain);
    let process = view.process("zoo");
    let nodes = |leak: &&Value| number(leak, "blocks") == 100 && number(leak, "bytes") == 6400;
    let leak = view.leaks_of(process).find(nodes).expect("the nodes");
    assert!(leak["incomplete"].is_null(), "{leak:#}");
    let function = leak["stack"][0]["function"].as_str().unwrap_or("");
    assert!(
        function.starts_with("fun_") && function.ends_with("@zoo"),
        "{function}"
    );
}

/// Where a section lies in a file: offset and size.
fn section(file: &Path, name: &str) -> (usize, usize) {
    let output = Command::new("readelf").arg("-SW").arg(file).output();
    let text = String::from_utf8(output.expect("readelf runs").stdout).expect("ASCII");
    let line = text
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {}", file.display()));
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| *word == name)
        .expect("just found");
    let hex = |index: usize| usize::from_str_radix(words[at + index], 16).expect("hex");
    (hex(3), hex(4))
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn word(&mut self) -> [u8; 4] {
        let odd = [0, 1, 4, 0x7fff_ffff, 0xffff_ffff, 0xffff_fff0, 0x8000_0000];
        let number = match self.next() % 3 {
            0 => odd[self.next() as usize % odd.len()],
            1 => self.next() as u32 & 0xffff,
            _ => self.next() as u32,
        };
        number.to_le_bytes()
    }
}

/// The ways an entry is garbled.
const WAYS: [&str; 7] = [
    "lengths",
    "CIE pointers",
    "augmentation",
    "ULEB",
    "expressions",
    "header",
    "anything",
];

/// Call frame programs that loop, read wild or never end their numbers.
const PROGRAMS: [&[u8]; 6] = [
    &[0x0f, 3, 0x2f, 0xfd, 0xff],    // CFA: skip back onto itself
    &[0x0f, 4, 0x08, 1, 0x28, 0xfb], // CFA: branch back, cut short
    &[0x0f, 10, 0x0e, 8, 7, 6, 5, 4, 3, 2, 1, 0x06], // CFA: what a wild address holds
    &[0x0f, 2, 0x30, 0x06],          // CFA: what address 0 holds
    &[
        0x0c, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
    &[
        0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0b, 0x0b, 0x16, 6, 0xff,
    ],
];

/// Garbles the tables of the ELF file at `from` one way into `to`.
fn garble(from: &Path, to: &Path, way: usize, random: &mut Random) {
    let mut bytes = fs::read(from).expect("a program");
    let (frames_at, frames_size) = section(from, ".eh_frame");
    let (header_at, header_size) = section(from, ".eh_frame_hdr");
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize
    };
    let mut at = frames_at;
    while at + 8 < frames_at + frames_size && word(&bytes, at) != 0 {
        let end = at + 4 + word(&bytes, at);
        let common = word(&bytes, at + 4) == 0;
        match WAYS[way] {
            "lengths" if random.next().is_multiple_of(2) => {
                bytes[at..at + 4].copy_from_slice(&random.word());
            }
            "CIE pointers" if !common => bytes[at + 4..at + 8].copy_from_slice(&random.word()),
            "augmentation" if common => {
                let texts = [*b"zP\0", *b"eh\0", *b"zRS", *b"zL\0", *b"\xff\xff\xff"];
                let text = texts[random.next() as usize % texts.len()];
                bytes[at + 9..at + 12].copy_from_slice(&text);
            }
            "ULEB" if !common => bytes[at + 16..end].fill(0x80 | random.next() as u8),
            "expressions" if !common && end > at + 17 => {
                let program = PROGRAMS[random.next() as usize % PROGRAMS.len()];
                let room = &mut bytes[at + 17..end];
                room.fill(0);
                let used = room.len().min(program.len());
                room[..used].copy_from_slice(&program[..used]);
            }
            "anything" => {
                let place = at + random.next() as usize % (end - at);
                bytes[place] = random.next() as u8;
            }
            _ => {}
        }
        at = end;
    }
    if WAYS[way] == "header" {
        for _ in 0..1 + random.next() % 8 {
            let place = header_at + 4 * (random.next() as usize % (header_size / 4));
            bytes[place..place + 4].copy_from_slice(&random.word());
        }
    }
    // By another process: a case beside this one may fork while we hold a file open for
    // writing, and a file somebody may write to cannot be run.
    let draft = to.with_extension("draft");
    fs::copy(from, &draft).expect("a copy");
    fs::write(&draft, bytes).expect("our own copy");
    let copied = Command::new("cp").arg("-p").arg(&draft).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp");
}

// Goal: a program and a plugin whose unwind tables are garbage run as ever, each of their blocks is
// counted, and nothing takes long. Method: seven ways to garble every entry, six times each, the
// output compared with the plain run and the books with the sound program's.
#[test]
fn corrupt_tables() {
    let (temp, daemon, mut random) = (Temp::new(), Daemon::start(), Random(0x1234_5678_9abc_def1));
    let (sound, plugin) = (program("zoo.c"), overlay("first", 256));
    let plain = Job::new(&sound).run();
    let (victim, broken) = (temp.join("zoo"), temp.join("broken.so"));
    let loader = program("replaced.c");
    let run = |job: Job| {
        let job = daemon.preload("exact").apply(job);
        job.limit(Duration::from_secs(20)).run()
    };
    assert_eq!(run(Job::new(&sound)), plain);
    for (way, name) in WAYS.iter().enumerate() {
        for time in 0..6 {
            garble(&sound, &victim, way, &mut random);
            assert_eq!(run(Job::new(&victim)), plain, "{name}, {time}");
            garble(&plugin, &broken, way, &mut random);
            let said = run(Job::new(&loader).arg("3").arg(&broken));
            assert_eq!(said.ended, Ended::Code(0), "{name}, {time}: {said:?}");
        }
    }
    let view = pageshim_tests::wait_until("all ended", Duration::from_secs(20), || {
        let view = daemon.report();
        let ended = |process: &Value| process["state"] != "running";
        view.processes().iter().all(ended).then_some(view)
    });
    view.check_equations();
    let zoos = view.named("zoo");
    assert_eq!(zoos.len(), WAYS.len() * 6 + 1);
    for zoo in &zoos {
        assert_eq!(
            (&zoo["total"], &zoo["live"]),
            (&zoos[0]["total"], &zoos[0]["live"])
        );
    }
    let partly = |leak: &&Value| !leak["incomplete"].is_null();
    let partly = zoos
        .iter()
        .filter(|zoo| view.leaks_of(zoo).any(|leak| partly(&leak)));
    assert!(partly.count() > WAYS.len(), "what is not known says so");
    daemon.check_healthy();
}
