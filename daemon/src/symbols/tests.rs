//! Symbols of this very test binary, and of small C programs.

use std::path::Path;
use std::process::Command;

use super::{Symbols, Wanted};
use crate::books::fake::State;
use crate::books::modules::Modules;
use crate::books::report::Frame;

/// A module table with one file mapped at `base`.
fn modules(base: u64, path: &str, build_id: &[u8]) -> Modules {
    let mut state = State::new();
    state.module(0, (base, base + (1 << 40)), build_id, path);
    Modules::read(&state.view(), &state.layout, 1, &Modules::default())
}

fn resolve(symbols: &Symbols, modules: &Modules, frames: &[u64]) -> Vec<Frame> {
    let wanted = Wanted { frames, tick: 9 };
    symbols.session().resolve(1, modules, &[wanted]).remove(0)
}

#[inline(never)]
fn a_function_of_this_binary() -> u64 {
    std::hint::black_box(line!()).into()
}

/// Where the kernel mapped this binary: its load bias.
fn own_bias() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("readable");
    let exe = std::env::current_exe().expect("known");
    let line = maps
        .lines()
        .find(|line| line.ends_with(exe.to_str().expect("utf-8")));
    let start = line
        .and_then(|line| line.split('-').next())
        .expect("mapped");
    u64::from_str_radix(start, 16).expect("hex")
}

// Goal: name, file and line of a function of this binary. Method: its address, through its bias.
#[test]
fn this_binary_knows_its_functions() {
    let line = a_function_of_this_binary();
    let exe = std::env::current_exe().expect("known");
    let modules = modules(own_bias(), exe.to_str().expect("utf-8"), b"");
    let address = (a_function_of_this_binary as *const ()).addr() as u64 + 1;
    let symbols = Symbols::default();
    let frames = resolve(&symbols, &modules, &[address]);
    let last = frames.last().expect("one at least");
    assert!(
        last.function.ends_with("a_function_of_this_binary"),
        "{frames:?}"
    );
    assert!(
        last.file
            .as_deref()
            .is_some_and(|file| file.ends_with("symbols/tests.rs"))
    );
    assert!(
        last.line
            .is_some_and(|found| u64::from(found).abs_diff(line) <= 2)
    );
    assert_eq!(last.address, format!("0x{address:x}"));
    assert_eq!(
        resolve(&symbols, &modules, &[address]),
        frames,
        "and from the cache"
    );
}

// Goal: stacks as JSON say what stacks as frames say, from the first time on and again, of any
// process. Method: addresses in this binary, in none and in a file that is not there, together.
#[test]
fn stacks_as_json_are_the_same() {
    let exe = std::env::current_exe().expect("known");
    let modules = modules(own_bias(), exe.to_str().expect("utf-8"), b"");
    let address = (a_function_of_this_binary as *const ()).addr() as u64 + 1;
    let stacks: [&[u64]; 5] = [&[address, 5, address + 4], &[7], &[], &[address], &[5, 7]];
    let wanted = stacks.map(|frames| Wanted { frames, tick: 9 });
    let symbols = Symbols::default();
    let mut session = symbols.session();
    for pid in [1, 2, 1] {
        let texts = session.written(pid, &modules, &wanted);
        let frames = session.resolve(pid, &modules, &wanted);
        for (text, frames) in texts.into_iter().zip(frames) {
            let text = String::from_utf8(text).expect("JSON");
            let expected = serde_json::to_string(&frames).expect("plain data");
            assert_eq!(format!("[{text}]"), expected);
            let leak = crate::books::report::Leak::default().written_with(text.as_bytes());
            let leak: crate::books::report::Leak = serde_json::from_slice(&leak).expect("JSON");
            assert_eq!(leak.stack, frames);
        }
    }
}

// Goal: another build of a file is not trusted, a missing one and no module are survived.
// Method: a wrong build id, a path that is not there, an address in no module.
#[test]
fn what_is_unknown_has_a_stable_name() {
    let exe = std::env::current_exe().expect("known");
    let symbols = Symbols::default();
    let wrong = modules(0x1000, exe.to_str().expect("utf-8"), b"not its build id");
    let name = exe.file_name().expect("a name").to_string_lossy();
    let function = |frames: Vec<Frame>| frames[0].function.clone();
    assert_eq!(
        function(resolve(&symbols, &wrong, &[0x1235])),
        format!("0x234@{name}")
    );
    let missing = modules(0x1000, "/nowhere/libgone.so", b"");
    assert_eq!(
        function(resolve(&symbols, &missing, &[0x1235])),
        "0x234@libgone.so"
    );
    assert_eq!(function(resolve(&symbols, &missing, &[0x5])), "0x5@?");
    let exact = 0x1235 | pageshim_wire::stack::EXACT_PC;
    assert_eq!(
        function(resolve(&symbols, &missing, &[exact])),
        "0x235@libgone.so"
    );
    let pipe = modules(0x1000, "/dev/zero", b"");
    assert_eq!(function(resolve(&symbols, &pipe, &[0x1235])), "0x234@zero");
}

/// Compiles a C program; `None` where there is no compiler.
fn compiled(dir: &Path, flags: &[&str]) -> Option<(String, u64)> {
    let source = dir.join("zoo.c");
    let text = "#include <stdlib.h>\n\
        static inline __attribute__((always_inline)) void *inner(void) {\n\
            return malloc(3);\n}\n\
        __attribute__((noinline)) void *outer(void) { void *p = inner(); __asm__(\"\" ::: \"memory\"); return p; }\n\
        int main(void) { return outer() == 0; }\n";
    std::fs::write(&source, text).ok()?;
    let out = dir.join("zoo");
    let mut gcc = Command::new("gcc");
    gcc.args(["-g", "-O1", "-o"]).arg(&out).arg(&source);
    if !gcc.status().is_ok_and(|status| status.success()) {
        return None;
    }
    let listing = Command::new("nm").arg(&out).output().ok()?;
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let line = listing.lines().find(|line| line.ends_with(" outer"))?;
    let outer = u64::from_str_radix(line.split(' ').next()?, 16).ok()?;
    for flag in flags {
        Command::new("strip").arg(flag).arg(&out).status().ok()?;
    }
    Some((out.to_str()?.to_owned(), outer))
}

// Goal: inlined calls are spelled out, and a stripped file still tells functions apart.
// Method: a C program whose malloc call is inlined, before and after strip.
#[test]
fn inlined_calls_and_stripped_files() {
    let dir = std::env::temp_dir().join(format!("pageshim-symbols-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("writable");
    let base = 0x10_0000;
    if let Some((path, outer)) = compiled(&dir, &[]) {
        let symbols = Symbols::default();
        let frames = (4..24)
            .map(|step| resolve(&symbols, &modules(base, &path, b""), &[base + outer + step]));
        let both = |frames: &Vec<Frame>| {
            frames.len() == 2
                && (
                    frames[0].function.as_str(),
                    frames[0].line,
                    frames[0].inlined,
                ) == ("inner", Some(3), true)
                && (
                    frames[1].function.as_str(),
                    frames[1].line,
                    frames[1].inlined,
                ) == ("outer", Some(5), false)
        };
        assert!(
            frames.into_iter().any(|frames| both(&frames)),
            "inner at line 3 inside outer"
        );
    }
    if let Some((path, outer)) = compiled(&dir, &["--strip-all"]) {
        let frames = resolve(
            &Symbols::default(),
            &modules(base, &path, b""),
            &[base + outer + 5],
        );
        assert_eq!(frames[0].function, format!("fun_{outer:x}@zoo"));
    }
    std::fs::remove_dir_all(&dir).expect("ours");
}

// Goal: a program rebuilt to the same while it runs keeps its names; another build gives none.
// Method: the kernel's text for a replaced file, with this binary's build id and with another.
#[test]
fn a_replaced_file_counts_when_it_is_the_same_build() {
    let exe = std::env::current_exe().expect("known");
    let path = format!("{} (deleted)", exe.to_str().expect("utf-8"));
    let build_id = super::elf::build_id(&exe).expect("linkers write one");
    let file = |build_id: &[u8]| {
        let modules = modules(0x1000, &path, build_id);
        let found = modules.find(0x1001, 9).expect("one module");
        super::elf::source(&found.file)
    };
    assert_eq!(file(&build_id), Some(exe));
    assert_eq!(file(b"another build"), None);
    assert_eq!(file(b""), None, "nothing shows that it is the same");
}
