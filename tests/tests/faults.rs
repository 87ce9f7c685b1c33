//! Faults and limits: a defined result for each, never a crash of ours; and memory
//! that nobody uses any more goes back.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use pageshim_tests::programs::program;
use pageshim_tests::{Ended, Job, Outcome, Setting, Temp, is_root, places};

const MODES: [&str; 2] = ["exact", "off"];
/// What the victim says when all it checked was so.
const ALL_WELL: &str = "faults: 0 wrong\n";

/// `faults WHAT` behind `confine LIMITS`, which alone loads the shim, so that the
/// limits are there before it.
fn confined(mode: &str, limits: &[&str], what: &str) -> Outcome {
    let temp = Temp::new();
    let job = Job::new(program("confine.c")).args(limits).arg("--");
    let job = job.arg(program("faults.c")).arg(what);
    job.env("CONFINE_PRELOAD", places::shim())
        .env("PAGESHIM_MODE", mode)
        .env("PAGESHIM_SOCKET", temp.join("nobody"))
        .run()
}

/// Both modes must exit with 0, have nothing to say against the allocator, and write
/// at most `lines` lines of our own.
#[track_caller]
fn survives(limits: &[&str], what: &str, lines: usize) {
    for mode in MODES {
        let outcome = confined(mode, limits, what);
        let said = outcome
            .stdout
            .lines()
            .filter(|line| line.starts_with("skip"));
        said.for_each(|line| println!("{what}, {mode}: {line}"));
        assert_eq!(
            outcome.ended,
            Ended::Code(0),
            "{limits:?} {what}, {mode}: {outcome:#?}"
        );
        assert!(
            outcome.stdout.ends_with(ALL_WELL),
            "{limits:?} {what}, {mode}: {outcome:#?}"
        );
        let ours = outcome.stderr.lines();
        assert!(
            ours.clone().all(|line| line.starts_with("pageshim: ")),
            "{outcome:#?}"
        );
        assert!(
            ours.count() <= lines,
            "{limits:?} {what}, {mode}: {outcome:#?}"
        );
    }
}

// Goal: sizes and alignments nobody can serve are refused as the manual says. Method: near SIZE_MAX,
// each power of two as alignment.
#[test]
fn wild_sizes_and_alignments() {
    survives(&[], "sizes", 0);
}

// Goal: what is no block is reported and ignored. Method: stack, global, mapped, interior and absurd
// pointers to free, realloc and malloc_usable_size; live blocks stay whole.
#[test]
fn pointers_that_are_no_blocks() {
    survives(&[], "pointers", 30);
}

// Goal: a free where a block would begin, but none was ever handed out, is refused: in exact by whoever does
// it, in off by any thread that does not own the page (its own is a limit, told in ARCHITECTURE.md).
#[test]
fn slots_never_handed_out() {
    for (mode, what) in [
        ("exact", "uncarved"),
        ("count", "uncarved"),
        ("exact", "uncarved_by_thread"),
        ("off", "uncarved_by_thread"),
    ] {
        let outcome = confined(mode, &[], what);
        assert!(
            outcome.stdout.ends_with(ALL_WELL),
            "{what}, {mode}: {outcome:#?}"
        );
        let lines = outcome
            .stderr
            .matches("pageshim: invalid free of 0x")
            .count();
        assert_eq!(
            (lines, outcome.stderr.lines().count()),
            (1, 1),
            "{what}, {mode}: {outcome:#?}"
        );
    }
}

// Goal: a second free never gives a block two owners. Method: each kind of block, with free and used
// neighbours, with and without malloc_trim between; a few lines in every mode, off included.
#[test]
fn blocks_freed_twice() {
    survives(&[], "twice", 30);
}

// Goal: refusal is NULL and ENOMEM, and what is freed serves again. Method: small limits on address
// space and data, used up with small, medium and large blocks; a reserve that is refused (40 MiB).
#[test]
fn limits_on_memory() {
    for limits in ["as=0x10000000", "as=0x2800000", "data=0x4000000"] {
        survives(&[limits], "exhaust", 1);
    }
    for limits in ["as=0x2800000", "data=0x2000000"] {
        survives(&[limits], "work", 1);
    }
}

// Goal: no descriptor to be had is no reason to fail. Method: room for one more when it starts (the
// loader needs it), for none later.
#[test]
fn limits_on_descriptors() {
    survives(&["nofile=4"], "files", 1);
}

// Goal: denied system calls cost what they serve and nothing else; calloc is zero though nothing could
// be purged. Method: a filter installed before exec.
#[test]
fn denied_system_calls() {
    for denied in ["deny=madvise", "deny=memfd", "deny=socket"] {
        survives(&[denied], "work", 1);
    }
    survives(&["deny=memfd", "deny=socket", "deny=madvise"], "work", 1);
    let outcome = confined("exact", &["deny=memfd"], "work");
    assert!(
        outcome.stderr.contains("unprofiled"),
        "it is said: {outcome:?}"
    );
}

// Goal: no mapping to be had, the heap still grows. Method: maps up to max_map_count first.
#[test]
fn no_mapping_left() {
    survives(&[], "maps", 0);
}

// Goal: pages that cannot be dropped are zeroed by hand. Method: mlockall, now and for the future.
#[test]
fn locked_memory() {
    if !is_root() {
        println!("skip: only root may lock this much");
        return;
    }
    survives(&[], "lock", 0);
}

// Goal: without huge pages all goes on. Method: switched off for the process; the system's switch is
// the system's.
#[test]
fn no_huge_pages() {
    survives(&["thp=never"], "work", 0);
}

const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// One case at a time changes a setting of the whole system.
static SYSTEM: Mutex<()> = Mutex::new(());

/// True when whoever runs the tests allows to change `path` by setting `variable`.
fn may_change(path: &str, variable: &str) -> bool {
    let may = std::env::var_os(variable).is_some();
    if !may {
        println!("skip: {variable}=1 allows to change {path} for a moment");
    }
    may
}

/// True when less than half of what strict accounting allows is in use.
fn has_room() -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    value("Committed_AS:")
        .zip(value("CommitLimit:"))
        .is_some_and(|(used, limit)| used * 2 < limit)
}

// Goal: strict accounting sees only what is used, not the reserve. Method: overcommit_memory=2, which
// is the whole system's, so only when asked for, with room for everybody else, and put back; ordinary
// work, limits beside it, and every other heap.
#[test]
fn strict_overcommit() {
    if !may_change(OVERCOMMIT, "PAGESHIM_TESTS_OVERCOMMIT") {
        return;
    }
    let _one = SYSTEM.lock();
    let room = has_room().then(|| Setting::change(Path::new(OVERCOMMIT), "2"));
    let Some(_strict) = room.flatten() else {
        println!("skip: {OVERCOMMIT} cannot be set, or too much memory is promised already");
        return;
    };
    survives(&[], "work", 0);
    survives(&["as=0x10000000"], "exhaust", 0);
    for heap in ["page", "arena", "fixed:1GiB", "debug"] {
        let outcome = under_heap(heap);
        assert_eq!(outcome.ended, Ended::Code(0), "{heap}: {outcome:#?}");
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            (ALL_WELL, ""),
            "{heap}"
        );
    }
}

/// `faults work` on another heap.
fn under_heap(heap: &str) -> Outcome {
    let temp = Temp::new();
    let job = Job::new(program("faults.c")).arg("work");
    let job = job
        .env("LD_PRELOAD", places::shim())
        .env("PAGESHIM_HEAP", heap);
    job.env("PAGESHIM_SOCKET", temp.join("nobody")).run()
}

// Goal: huge pages everywhere or nowhere change no answer, and freed memory comes back all the same.
// Method: the system's own switch, only when asked for, and put back.
#[test]
fn huge_pages_of_the_system() {
    if !may_change(HUGE_PAGES, "PAGESHIM_TESTS_HUGE_PAGES") {
        return;
    }
    let _one = SYSTEM.lock();
    for value in ["always", "never"] {
        let Some(_changed) = Setting::change(Path::new(HUGE_PAGES), value) else {
            println!("skip: {HUGE_PAGES} cannot be set to {value}");
            return;
        };
        survives(&[], "work", 0);
        survives(&["as=0x10000000"], "exhaust", 1);
        for mode in MODES {
            for what in ["trim", "light"] {
                let kib = idle(mode, what);
                assert!(
                    kib < 64 << 10,
                    "{value}, {what}, {mode}: {kib} KiB are still here"
                );
            }
        }
    }
}

/// RSS in KiB of `idle WHAT` at its end.
fn idle(mode: &str, what: &str) -> u64 {
    let temp = Temp::new();
    let job = Job::new(program("idle.c")).arg(what);
    let job = job
        .env("LD_PRELOAD", places::shim())
        .env("PAGESHIM_MODE", mode)
        .env("PAGESHIM_SOCKET", temp.join("nobody"));
    let outcome = job.run().ok();
    println!(
        "{mode} {what}: {} at the end {}",
        outcome.stderr.trim(),
        outcome.stdout.trim()
    );
    outcome.stdout.trim().parse().expect("a number")
}

// Goal: after 1 GiB of mixed blocks was freed, RSS is below 64 MiB: at once on malloc_trim, within 2 s
// of any activity, whoever allocated and whoever freed. Method: each way, one after the other.
#[test]
fn idle_memory_comes_back() {
    for mode in MODES {
        for what in ["trim", "light", "pair", "remote", "dead"] {
            let kib = idle(mode, what);
            assert!(kib < 64 << 10, "{what}, {mode}: {kib} KiB are still here");
        }
    }
}
