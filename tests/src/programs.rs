//! The victims in tests/programs, compiled once and kept in the target directory.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::places;

/// What most victims are built with: symbols, real frames, no call folded away.
const C_FLAGS: &[&str] = &["-g", "-O1", "-Wall", "-fno-builtin", "-pthread"];

/// The path of a source in tests/programs.
pub fn source(name: &str) -> PathBuf {
    places::root().join("tests/programs").join(name)
}

/// The text of a source.
///
/// # Panics
/// When there is none of that name.
pub fn text(name: &str) -> String {
    fs::read_to_string(source(name)).unwrap_or_else(|e| panic!("tests/programs/{name}: {e}"))
}

/// The line of `name` that carries the mark `site: label`.
///
/// # Panics
/// When it is not there.
pub fn line_of(name: &str, label: &str) -> u64 {
    let mark = format!("site: {label}");
    let text = text(name);
    let line = text.lines().position(|line| line.contains(&mark));
    1 + line.unwrap_or_else(|| panic!("no mark {mark:?} in {name}")) as u64
}

/// The program made from `name` (`zoo.c`, `threads.cpp`, `victim.rs`); its file
/// name is the source's without the extension.
pub fn program(name: &str) -> PathBuf {
    program_with(name, &[])
}

/// The same with more compiler flags.
///
/// # Panics
/// When the compiler does.
pub fn program_with(name: &str, flags: &[&str]) -> PathBuf {
    let stem = Path::new(name).file_stem().expect("a name").to_owned();
    let mut hasher = DefaultHasher::new();
    (text(name), flags).hash(&mut hasher);
    let dir = places::target().join(format!("victims/{:016x}", hasher.finish()));
    let made = dir.join(stem);
    if !made.exists() {
        compile(name, flags, &dir, &made);
    }
    made
}

/// Compiles beside the final place and links it there, so that cases may race.
fn compile(name: &str, flags: &[&str], dir: &Path, made: &Path) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let draft = dir.join(format!("draft-{}-{number}", std::process::id()));
    let mut command = match Path::new(name).extension().and_then(|e| e.to_str()) {
        Some("rs") => {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition", "2021", "-g", "-C", "opt-level=1"]);
            rustc.arg("--crate-name").arg(name.replace(".rs", ""));
            rustc
        }
        Some("cpp") => {
            let mut compiler = Command::new("g++");
            compiler.args(C_FLAGS).arg("-std=c++17");
            compiler
        }
        _ => {
            let mut compiler = Command::new("gcc");
            compiler.args(C_FLAGS).arg("-D_GNU_SOURCE");
            compiler
        }
    };
    command.arg("-o").arg(&draft).arg(source(name)).args(flags);
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("cannot start the compiler of {name}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "compiling {name} failed:\n{said}");
    // The first one made stays: another case may be running it.
    let _ = fs::hard_link(&draft, made);
    fs::remove_file(&draft).expect("our own draft");
}
