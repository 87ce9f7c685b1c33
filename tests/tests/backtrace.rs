//! Our stacks against a debugger's: gdb stops at chosen allocations of a program
//! under the shim, walks the stack by its own unwinder, and must find the same
//! return addresses that the report names, from the caller of malloc to `_start`.

use std::collections::BTreeMap;
use std::path::Path;

use pageshim_tests::programs::program_with;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, Temp};
use serde_json::Value;

/// Sizes 1000003 + 30 n mark the allocations that are compared.
const SCRIPT: &str = r#"
import gdb
for line in ("set confirm off", "set breakpoint pending on", "set startup-with-shell off",
             "set debuginfod enabled off", "set backtrace past-main on", "set print thread-events off",
             "handle SIGUSR1 nostop noprint pass"):
    gdb.execute(line)

seen = set()

class Stop(gdb.Breakpoint):
    def stop(self):
        frame = gdb.selected_frame()
        size = int(frame.read_register("rdi")) & (1 << 64) - 1
        # The export's stub, not the function of that name it jumps to, nor libc's or the loader's.
        if not 1000003 <= size < 1000500 or size in seen:
            return False
        seen.add(size)
        frame = frame.older()
        print("STACK", size)
        while frame:
            kind = {gdb.INLINE_FRAME: "inline", gdb.SIGTRAMP_FRAME: "signal", gdb.TAILCALL_FRAME: "tail"}.get(frame.type(), "frame")
            print("FRAME", kind, hex(frame.pc()), (frame.name() or "?").replace(" ", "_"))
            frame = frame.older()
        return False

Stop("malloc")
Stop("_Znwm")
gdb.execute("run")
"#;

/// A frame as the debugger tells it.
#[derive(Debug)]
struct Frame {
    kind: String,
    pc: u64,
    name: String,
}

/// Stacks by size.
fn debugged(program: &Path, daemon: &Daemon) -> BTreeMap<u64, Vec<Frame>> {
    let temp = Temp::new();
    let script = temp.join("stacks.py");
    std::fs::write(&script, SCRIPT).expect("our own directory");
    let preload = daemon.preload("exact");
    let mut job = Job::new("gdb").args(["-nx", "-batch"]);
    for (key, value) in [
        ("LD_PRELOAD", preload.library.display().to_string()),
        ("PAGESHIM_MODE", preload.mode.clone()),
        ("PAGESHIM_SOCKET", preload.socket.display().to_string()),
    ] {
        job = job.arg("-ex").arg(format!("set environment {key}={value}"));
    }
    let outcome = job.arg("-x").arg(&script).arg(program).run();
    let mut stacks: BTreeMap<u64, Vec<Frame>> = BTreeMap::new();
    let mut size = 0;
    for line in outcome.stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["STACK", at] => {
                size = at.parse().expect("a size");
                stacks.insert(size, Vec::new());
            }
            ["FRAME", kind, pc, name] => stacks.entry(size).or_default().push(Frame {
                kind: kind.to_owned(),
                pc: hex(pc),
                name: name.to_owned(),
            }),
            _ => {}
        }
    }
    assert!(!stacks.is_empty(), "gdb stopped nowhere: {outcome:#?}");
    stacks
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("an address")
}

/// The function's own name: `a::b<int>(int) const` and `b` are the same.
fn bare(name: &str) -> String {
    let name = name
        .replace("operator()", "operator-call")
        .replace('_', " ");
    let mut nested = 0;
    let mut flat = String::new();
    for letter in name.chars() {
        nested += i32::from("<(".contains(letter));
        if nested == 0 {
            flat.push(letter);
        }
        nested -= i32::from(">)".contains(letter));
    }
    let own = flat.rsplit("::").next().unwrap_or(&flat).trim();
    let own = own.split(".part.").next().unwrap_or(own);
    own.trim_end_matches(" const").trim().to_owned()
}

/// Compares one stack: every address, and the names within the program itself.
#[track_caller]
fn same(size: u64, theirs: &[Frame], leak: &Value, module: &str) {
    let ours: Vec<&Value> = leak["stack"].as_array().expect("a stack").iter().collect();
    let show = || {
        let ours: Vec<_> = ours
            .iter()
            .map(|f| (&f["address"], &f["function"]))
            .collect();
        format!("{size}: gdb {theirs:#x?}\nours {ours:#?}")
    };
    assert!(leak["incomplete"].is_null(), "{}", show());
    let mut their_pcs: Vec<u64> = Vec::new();
    // A function that left by a jump has no return address on the stack; gdb infers it.
    let on_stack = |frame: &&Frame| !matches!(frame.kind.as_str(), "inline" | "tail");
    for frame in theirs.iter().filter(on_stack) {
        their_pcs.push(frame.pc);
    }
    let real = ours.iter().filter(|frame| frame["inlined"] == false);
    let pcs: Vec<u64> = real
        .map(|f| hex(f["address"].as_str().expect("hex")))
        .collect();
    assert_eq!(pcs, their_pcs, "{}", show());
    let named = |frame: &&&Value| frame["module"] == module;
    let names: Vec<String> = ours
        .iter()
        .filter(named)
        .map(|frame| bare(frame["function"].as_str().unwrap_or("")))
        .collect();
    let known: Vec<String> = theirs.iter().map(|frame| bare(&frame.name)).collect();
    let mut rest = known.iter();
    assert!(
        names.iter().all(|name| rest.any(|known| known == name)),
        "{names:?} in this order\n{}",
        show()
    );
}

/// Runs the program under gdb and the shim and compares all marked allocations.
#[track_caller]
fn agree(source: &str, flags: &[&str], least: usize) {
    let program = program_with(source, flags);
    let module = program
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let daemon = Daemon::start();
    let stacks = debugged(&program, &daemon);
    assert!(stacks.len() >= least, "{source}: {} stacks", stacks.len());
    let view = daemon.settled(&module);
    let process = view.process(&module);
    let mut compared = 0;
    for (size, theirs) in &stacks {
        let of_size = |leak: &&Value| number(leak, "bytes") == *size && number(leak, "blocks") == 1;
        let leak = view.leaks_of(process).find(of_size);
        let leak = leak.unwrap_or_else(|| panic!("{source}: no site of {size} bytes"));
        same(*size, theirs, leak, &module);
        compared += theirs.len();
    }
    println!(
        "{source} {flags:?}: {} stacks, {compared} frames agree with gdb",
        stacks.len()
    );
}

// Goal: C without frame pointers: recursion, variable frames, callbacks through qsort and bsearch,
// a signal handler, after longjmp, in an exit handler. Method: gdb at eight allocations, two ways
// of compiling.
#[test]
fn c_agrees_with_gdb() {
    agree("backtrace.c", &["-O2", "-fomit-frame-pointer"], 8);
    agree("backtrace.c", &["-O0", "-fno-omit-frame-pointer"], 8);
}

// Goal: C++: a throw's constructor, destructors below the unwinder, handlers, a second throw,
// lambdas below the library, a thread. Method: the same.
#[test]
fn cpp_agrees_with_gdb() {
    agree("unwinding.cpp", &["-O2", "-fomit-frame-pointer"], 8);
    agree("unwinding.cpp", &["-O0"], 8);
}
