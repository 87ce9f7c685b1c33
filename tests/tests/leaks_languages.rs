//! Leak checks of programs in Rust and of a Python extension, block for block as Memcheck says.

use pageshim_tests::planted::{Planted, check_memcheck, check_memcheck_once, check_planted, run};
use pageshim_tests::programs::{program, program_with};
use pageshim_tests::{Job, Temp};

/// What tests/programs/lost.rs loses and keeps.
const IN_RUST: &[Planted] = &[
    ("forgotten", "definite", 3, 612),
    ("leaked", "definite", 1, 205),
    ("leaked_text", "definite", 1, 100),
    ("in_cycle", "definite", 1, 72),
    ("in_cycle", "indirect", 1, 72),
    ("raw_parts", "definite", 1, 206),
    ("in_static", "reachable", 1, 201),
    ("in_table", "reachable", 10, 2020),
    ("in_local", "reachable", 1, 203),
    ("by_local", "reachable", 1, 207),
    ("inner_part", "possible", 1, 208),
    ("shared", "definite", 1, 232),
    ("shared", "possible", 1, 232),
];

/// What tests/programs/held.c, a module of Python's, loses and keeps.
const IN_PYTHON: &[Planted] = &[
    ("of_lost", "definite", 4, 120_400),
    ("of_bytes", "definite", 3, 93_099),
    ("of_raw", "definite", 2, 61_200),
    ("of_tuple", "reachable", 1, 32_040),
    ("of_ring", "definite", 1, 30_312),
    ("of_ring", "indirect", 1, 30_312),
    ("of_static", "reachable", 1, 30_200),
    ("of_capsule", "reachable", 1, 30_300),
    ("of_middle", "possible", 1, 30_400),
    ("of_local", "reachable", 1, 30_500),
    ("of_chain", "reachable", 5, 151_560),
    ("of_kept", "reachable", 1, 32_033),
];

/// Loads the module by its path, holds as many blocks as told, so that the planted ones lie elsewhere,
/// plants, and leaves before the interpreter takes all down.
const SCRIPT: &str = "
import os, sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
loader = ExtensionFileLoader('held', sys.argv[1])
held = module_from_spec(spec_from_loader('held', loader))
loader.exec_module(held)
room = [bytes(30000 + 16 * i) for i in range(int(sys.argv[2]))]
held.plant()
print('planted', flush=True)
os._exit(0)
";

// Goal: Rust's boxes, cycles of counted pointers, statics and thread-local values are what they are,
// and Memcheck agrees. Method: a program that has each.
#[test]
fn rust_programs_agree_with_memcheck() {
    let job = || Job::new(program("lost.rs"));
    check_planted(&run(job(), &[]), "lost", IN_RUST, "Rust");
    check_memcheck(job(), IN_RUST);
}

// Goal: the same for a module of Python's, whose interpreter keeps its objects in many ways.
// Method: objects on malloc, where both tools see them.
#[test]
fn python_extensions_agree_with_memcheck() {
    let temp = Temp::new();
    let script = temp.join("plant.py");
    std::fs::write(&script, SCRIPT).expect("writable");
    let asked = Job::new("python3-config")
        .arg("--includes")
        .run()
        .ok()
        .stdout;
    let includes: Vec<&str> = asked.split_whitespace().collect();
    let flags: Vec<&str> = ["-shared", "-fPIC"].into_iter().chain(includes).collect();
    let module = program_with("held.c", &flags);
    let job = |held: &str| {
        let python = Job::new("python3").arg(&script).arg(&module).arg(held);
        python
            .env("PYTHONMALLOC", "malloc")
            .env("PYTHONHASHSEED", "0")
    };
    check_planted(&run(job("0"), &[]), "python3", IN_PYTHON, "Python");
    check_memcheck_once(["0", "7", "100"].map(job), IN_PYTHON);
}
