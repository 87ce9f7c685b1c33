//! Blocks that only another stack than a thread's own holds, and those its own holds meanwhile.

use pageshim_tests::planted::{Planted, check_found, check_planted, classes, run};
use pageshim_tests::programs::program;
use pageshim_tests::{Job, Way};

/// tests/programs/pivots.c: what each way of it loses and keeps.
const ON_STACKS: &[(&str, &[Planted])] = &[
    (
        "asleep",
        &[
            ("of_coroutine", "reachable", 3, 420),
            ("of_lost", "definite", 3, 423),
        ],
    ),
    ("heap", FOUR_COROUTINES),
    ("mapped", FOUR_COROUTINES),
    ("handler", IN_HANDLER),
    ("pool", IN_POOL),
];
const FOUR_COROUTINES: &[Planted] = &[
    ("of_coroutine", "reachable", 4, 560),
    ("of_lost", "definite", 4, 564),
    ("of_caller", "reachable", 1, 142),
];
const IN_POOL: &[Planted] = &[
    ("of_coroutine", "reachable", 2, 280),
    ("of_lost", "definite", 2, 282),
    ("of_caller", "reachable", 1, 142),
];
const IN_HANDLER: &[Planted] = &[
    ("of_handler", "reachable", 1, 143),
    ("of_caller", "reachable", 1, 142),
    ("of_lost", "definite", 1, 141),
];

// Goal: a coroutine's stack is a root while it waits and while it runs, on memory of each kind; so are the
// stack it was begun from and that of a handler. Method: each of them; each way to check.
#[test]
fn other_stacks_of_a_running_program_are_roots() {
    for (how, planted) in ON_STACKS {
        for way in Way::ALL {
            way.check(&program("pivots.c"), &[how, "wait"], planted);
        }
    }
}

// Goal: the same at the end; with strict roots a thread's own stack is one also while it runs on
// another. Method: exit on each stack.
#[test]
fn other_stacks_are_roots_at_the_end() {
    for (how, planted) in ON_STACKS {
        let run = run(Job::new(program("pivots.c")).arg(how), &[]);
        check_planted(&run, "pivots", planted, how);
        check_found(&run.view, run.view.process("pivots"), planted, how);
    }
    for how in ["heap", "mapped", "handler", "pool", "thread"] {
        let strict = [("PAGESHIM_CHECK", "exit,strict")];
        let run = run(Job::new(program("pivots.c")).arg(how), &strict);
        let found = classes(&run.view, run.view.process("pivots"), "of_caller");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["reachable"], "{how}");
    }
}
