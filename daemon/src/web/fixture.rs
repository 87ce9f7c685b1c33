//! A report with everything a page must cope with. For tests only.

use std::collections::BTreeMap;

use crate::bill::report::{Bill, Entry, Only, Pinner, Shares, Site, Waste};
use crate::books::check::{Check, Classes};
use crate::books::history::{Checks, History, LostSite};
use crate::books::report::{
    Amount, Exit, Frame, Leak, MisuseReport, Pages, Process, Report, SCHEMA_VERSION, State,
    Syscalls, Threads,
};
use crate::books::sizes::{self, Size, Sizes};
use crate::books::syscalls::{self, Made, Pairs};
use crate::books::why::{Link, Why};
use crate::heatmap::report as heatmap;
use crate::web::why_text;
use crate::whatif::report as whatif;

/// A function name as an attacker would choose it.
pub(crate) const HOSTILE: &str = "evil<script>alert(1)</script>\"'&\u{1b}[31m=cmd";

/// Site with most bytes.
pub(crate) const FIRST_SITE: &str = "a1b2c3d4e5f60718";

/// What `python3` prints of a script that reads `input`.
pub(crate) fn python(script: &str, input: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("read");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "python3 refused\n{input}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn frame(function: &str, file: Option<(&str, u32)>, module: &str, inlined: bool) -> Frame {
    Frame {
        function: function.to_owned(),
        file: file.map(|(name, _)| name.to_owned()),
        line: file.map(|(_, line)| line),
        module: module.to_owned(),
        address: "0x55d0c0de1234".to_owned(),
        inlined,
    }
}

fn leak(process: &str, site: &str, bytes: u64, blocks: u64, stack: Vec<Frame>) -> Leak {
    Leak {
        process: process.to_owned(),
        site: site.to_owned(),
        error: None,
        class: "live".to_owned(),
        blocks,
        bytes,
        held: None,
        suppressed: None,
        growth: None,
        pinned_bytes: None,
        total_blocks: blocks * 3,
        total_bytes: bytes * 3,
        temporary_blocks: blocks,
        lifetime_ms: 12_000,
        total_rounding_bytes: bytes / 4,
        oldest_seconds: 83.5,
        thread: "worker-1".to_owned(),
        incomplete: None,
        stack,
    }
}

fn zoo() -> Process {
    Process {
        id: "1f00baa1c0ffee01".to_owned(),
        pid: 4711,
        name: "zoo".to_owned(),
        executable: "/usr/local/bin/zoo".to_owned(),
        command: vec!["./zoo".to_owned(), "--animals".to_owned(), "12".to_owned()],
        state: State::Running,
        mode: "exact".to_owned(),
        heap: "gpa".to_owned(),
        started_at: "2026-11-22T15:38:57Z".to_owned(),
        seconds: 191.25,
        live: Amount {
            bytes: 3_276_800,
            blocks: 1_204,
        },
        peak: Amount {
            bytes: 9_437_184,
            blocks: 4_096,
        },
        total: Amount {
            bytes: 734_003_200,
            blocks: 1_048_576,
        },
        freed: Amount {
            bytes: 730_726_400,
            blocks: 1_047_372,
        },
        temporary: 524_288,
        apis: BTreeMap::from([
            ("malloc".to_owned(), 1_000_000),
            ("calloc".to_owned(), 48_576),
        ]),
        pages: Pages {
            requested_bytes: 3_276_800,
            rounding_bytes: 262_144,
            free_slot_bytes: 1_048_576,
            tail_bytes: 131_072,
            retained_bytes: 655_360,
            metadata_bytes: 524_288,
            committed_bytes: 5_898_240,
            resident_bytes: 5_242_880,
            resident_peak_bytes: 5_767_168,
            resident_last_bytes: 5_242_880,
        },
        syscalls: Syscalls {
            mmap: 12,
            munmap: 1,
            madvise: 34,
            mremap: 2,
            mprotect: 9,
            other: 0,
            nanoseconds: 1_250_000,
        },
        events_dropped: 12,
        drops: BTreeMap::from([("socket_full".to_owned(), 12)]),
        misuse: BTreeMap::from([("double_free".to_owned(), 3)]),
        misuse_reports: vec![MisuseReport {
            kind: "double_free".to_owned(),
            address: "0x7f0000001040".to_owned(),
            count: 3,
            call: vec![
                frame("drop_node", Some(("/home/ada/zoo/zoo.c", 77)), "zoo", false),
                frame(HOSTILE, None, "libevil.so", false),
            ],
            allocated: vec![frame("make_node", None, "zoo", false)],
            freed: Vec::new(),
        }],
        sites: 57,
        threads: Threads { live: 4, total: 6 },
        why: vec![why()],
        ..Process::default()
    }
}

/// A chain from a variable with a hostile name to a block of the site that is listed first.
fn why() -> Why {
    let variable = Link {
        kind: "global".to_owned(),
        address: "0x4060".to_owned(),
        variable: Some(HOSTILE.to_owned()),
        module: Some("zoo".to_owned()),
        ..Link::default()
    };
    let block = Link {
        kind: "block".to_owned(),
        address: "0x7f0000001040".to_owned(),
        bytes: Some(64),
        points_into: Some(0),
        function: Some("make_node".to_owned()),
        site: Some(FIRST_SITE.to_owned()),
        ..Link::default()
    };
    let mut why = Why {
        asked: FIRST_SITE.to_owned(),
        asked_kind: "site".to_owned(),
        state: "reached".to_owned(),
        class: Some("reachable".to_owned()),
        check: 3,
        links: vec![variable, block],
        ..Why::default()
    };
    why_text::fill(&mut why);
    why
}

/// Two processes, one of them dead and checked, four sites.
pub(crate) fn report() -> Report {
    let dead = Process {
        id: "2badf00d00000002".to_owned(),
        pid: 4712,
        name: "worker".to_owned(),
        state: State::Killed,
        exit: Some(Exit {
            code: None,
            signal: Some(9),
        }),
        live: Amount {
            bytes: 4_096,
            blocks: 1,
        },
        peak: Amount {
            bytes: 4_096,
            blocks: 1,
        },
        total: Amount {
            bytes: 4_096,
            blocks: 1,
        },
        pages: Pages {
            requested_bytes: 4_096,
            free_slot_bytes: 61_440,
            committed_bytes: 65_536,
            ..Pages::default()
        },
        check: Some(Check {
            trigger: "exit".to_owned(),
            method: "alone".to_owned(),
            at_seconds: 2.5,
            pause_ns: 1000,
            duration_ns: 2000,
            scanned_bytes: 4096,
            threads: 1,
            classes: Classes {
                definite: Amount {
                    bytes: 4096,
                    blocks: 1,
                },
                ..Classes::default()
            },
            ..Check::default()
        }),
        temporary: 0,
        syscalls: Syscalls::default(),
        threads: Threads { live: 0, total: 1 },
        drops: BTreeMap::new(),
        misuse: BTreeMap::new(),
        misuse_reports: Vec::new(),
        events_dropped: 0,
        parent: Some(zoo().id),
        seconds: 2.5,
        ..zoo()
    };
    let zoo_id = zoo().id;
    let main = || frame("main", Some(("/home/ada/zoo/zoo.c", 61)), "zoo", false);
    let start = || frame("__libc_start_main_impl", None, "libc.so.6", false);
    let node = vec![
        frame("node_new", Some(("/home/ada/zoo/zoo.c", 12)), "zoo", true),
        frame("make_node", Some(("/home/ada/zoo/zoo.c", 27)), "zoo", false),
        main(),
        start(),
    ];
    let template = "std::vector<std::pair<std::string, zoo::animal>, \
        std::allocator<std::pair<std::string, zoo::animal>>>::_M_realloc_insert";
    let vector = vec![
        frame(
            template,
            Some(("/usr/include/c++/12/bits/vector.tcc", 447)),
            "zoo",
            false,
        ),
        main(),
    ];
    let mut cut = leak(
        &zoo_id,
        "00000000deadbeef",
        16_384,
        4,
        vec![frame(HOSTILE, None, "libevil.so", false)],
    );
    cut.incomplete = Some("no_table".to_owned());
    let mut lost = leak(&dead.id, "00000000000000aa", 4_096, 1, node.clone());
    lost.class = "definite".to_owned();
    Report {
        schema_version: SCHEMA_VERSION,
        processes: vec![dead, zoo()],
        leaks: vec![
            leak(&zoo_id, FIRST_SITE, 2_097_152, 1_000, node),
            leak(&zoo_id, "0123456789abcdef", 1_163_264, 200, vector),
            cut,
            lost,
        ],
    }
}

/// Two checks of the zoo, the newer with more lost.
pub(crate) fn checks() -> Checks {
    let site = |blocks: u64| LostSite {
        site: "00000000000000aa".to_owned(),
        class: "definite".to_owned(),
        blocks,
        bytes: blocks * 64,
        function: HOSTILE.to_owned(),
        suppressed: None,
    };
    let mut history = History::default();
    for number in 1..=2 {
        let check = Check {
            number,
            ..Check::default()
        };
        history.note(check, vec![site(number * 3)], 1);
    }
    Checks {
        schema_version: SCHEMA_VERSION,
        process: zoo().id,
        pid: 4711,
        name: "zoo".to_owned(),
        checks: history.newest_first(),
        since: history.since(),
    }
}

/// A bill of the zoo, none of its dead worker.
pub(crate) fn waste() -> Waste {
    let site = Site {
        site: "00000000000000aa".to_owned(),
        blocks: 12,
        live_bytes: 1536,
        requested_bytes: 1536,
        free_slot_bytes: 42_990_080,
        pinned_bytes: 42_991_616,
        first_touched: Only {
            count: 7,
            bytes: 28_672,
        },
        oldest_seconds: 10_800.0,
        stack: vec![frame(HOSTILE, None, "libevil.so", false)],
        ..Site::default()
    };
    let pinner = Pinner {
        site: site.site.clone(),
        function: "session_new".to_owned(),
        blocks: 12,
        bytes: 42_991_616,
        sentence: "12 blocks of `session_new` (oldest 3 h 0 min) pin 41.0 MiB".to_owned(),
        ..Pinner::default()
    };
    let bill = Bill {
        parts: Shares {
            requested_bytes: 1536,
            free_slot_bytes: 42_990_080,
            metadata_bytes: 4096,
            ..Shares::default()
        },
        resident_bytes: 42_995_712,
        smaps_bytes: 42_999_808,
        difference_bytes: -4096,
        explained_percent: 99.97,
        sites: vec![site],
        sites_total: 4,
        pinners: vec![pinner],
        ..Bill::default()
    };
    let entry = |process: &Process| Entry {
        process: process.id.clone(),
        pid: process.pid,
        name: process.name.clone(),
        state: "running".to_owned(),
        ..Entry::default()
    };
    let processes = report().processes;
    let dead = Entry {
        state: "killed".to_owned(),
        why_not: Some("not looked at while it ran".to_owned()),
        ..entry(&processes[0])
    };
    let zoo = Entry {
        bill: Some(bill),
        advice: whatif().processes[0].advice.clone(),
        ..entry(&processes[1])
    };
    Waste {
        schema_version: SCHEMA_VERSION,
        processes: vec![zoo, dead],
    }
}

/// Classes of the zoo, one of them full, one empty, and singletons; and of the dead worker none.
pub(crate) fn sizes() -> Sizes {
    let class = |slot_bytes, parts: [u64; 4], slots: [u64; 2]| Size {
        slot_bytes,
        live_slots: slots[0],
        free_slots: slots[1],
        page_bytes: parts.iter().sum(),
        requested_bytes: parts[0],
        rounding_bytes: parts[1],
        free_slot_bytes: parts[2],
        tail_bytes: parts[3],
    };
    let entry = |process: Process, classes| sizes::Entry {
        process: process.id,
        pid: process.pid,
        name: process.name,
        state: process.state.name().to_owned(),
        mode: process.mode,
        classes,
    };
    let [dead, zoo] = report().processes.try_into().expect("two");
    let classes = vec![
        class(64, [6400, 0, 57_600, 1536], [100, 900]),
        class(1280, [0, 0, 64_000, 1536], [0, 50]),
        class(0, [100_000, 6_496, 0, 24_576], [1, 0]),
    ];
    Sizes {
        schema_version: SCHEMA_VERSION,
        processes: vec![entry(zoo, classes), entry(dead, Vec::new())],
    }
}

/// Causes of the zoo: a loop of large blocks, a hostile name, upkeep, and mappings of its own;
/// and a process that keeps none.
pub(crate) fn syscalls() -> syscalls::Syscalls {
    let made = |calls, nanoseconds, bytes| Made {
        calls,
        nanoseconds,
        bytes,
    };
    let site = |cause: &str, function: &str, call: &str, made: Made| syscalls::Site {
        cause: cause.to_owned(),
        party: "heap".to_owned(),
        function: function.to_owned(),
        calls: BTreeMap::from([(call.to_owned(), made)]),
        nanoseconds: made.nanoseconds,
        range_bytes: made.bytes / 2,
        ranges: made.calls / 2,
        ..syscalls::Site::default()
    };
    let big = syscalls::Site {
        site: "00000000000000cc".to_owned(),
        avoidable: Pairs {
            pairs: 100,
            bytes: 100 << 26,
            nanoseconds: 1_200_000,
        },
        first_touched_pages: 3,
        first_touched_bytes: 3 * 4096,
        stack: vec![frame(
            "hold_big",
            Some(("/home/ada/zoo/zoo.c", 90)),
            "zoo",
            false,
        )],
        ..site("site", "hold_big", "mmap", made(200, 1_300_000, 200 << 26))
    };
    let own = syscalls::Site {
        party: "program".to_owned(),
        site: "00000000000000dd".to_owned(),
        live_ranges: 1,
        live_bytes: 4096,
        ..site("site", HOSTILE, "mmap", made(2, 9_000, 8192))
    };
    let upkeep = site(
        "upkeep",
        "pageshim upkeep",
        "madvise",
        made(34, 40_000, 1 << 20),
    );
    let none = site("start", "requests without a stack", "mmap", made(4, 1, 1));
    let [dead, zoo] = report().processes.try_into().expect("two");
    let entry = |process: Process, sites: Vec<syscalls::Site>| syscalls::Entry {
        process: process.id,
        pid: process.pid,
        name: process.name,
        state: process.state.name().to_owned(),
        totals: BTreeMap::from([("mmap".to_owned(), made(204, 1_300_001, 200 << 26))]),
        sites,
        ..syscalls::Entry::default()
    };
    let dead = syscalls::Entry {
        why_not: Some("not kept by site: mode count takes no stack".to_owned()),
        ..entry(dead, vec![none])
    };
    syscalls::Syscalls {
        schema_version: SCHEMA_VERSION,
        processes: vec![entry(zoo, vec![big, own, upkeep]), dead],
    }
}

/// Three cells of the zoo: one in use, held by a hostile site; one kept; one that the filter
/// leaves out.
pub(crate) fn chart() -> heatmap::Chart {
    let place = |start: u64, state: &str| heatmap::Place {
        start: format!("0x{start:x}"),
        bytes: 65_536,
        state: state.to_owned(),
        matches: true,
        ..heatmap::Place::default()
    };
    let holder = heatmap::Holder {
        site: "00000000000000aa".to_owned(),
        function: HOSTILE.to_owned(),
        blocks: 812,
        bytes: 51_968,
    };
    let used = heatmap::Place {
        in_use_bytes: 65_536,
        resident_bytes: 65_536,
        live_bytes: 51_968,
        runs: 1,
        slots: 1024,
        carved_slots: 1000,
        live_slots: 812,
        classes: vec![64],
        sites: vec![holder.clone()],
        sites_total: 3,
        first_touched: Some(heatmap::Toucher {
            site: "00000000000000bb".to_owned(),
            function: "warm_up".to_owned(),
            pages: 16,
        }),
        ..place(0x7f00_0001_0000, "in_use")
    };
    let back = heatmap::Place {
        free_bytes: 65_536,
        matches: false,
        ..place(0x7f00_0003_0000, "free")
    };
    heatmap::Chart {
        schema_version: SCHEMA_VERSION,
        process: Some("1f00baa1c0ffee01".to_owned()),
        pid: 4711,
        name: HOSTILE.to_owned(),
        heap: Some(heatmap::Heap {
            cell_bytes: 65_536,
            resident_bytes: 65_536,
            classes: vec![64, 0],
            sites: vec![holder],
            sites_total: 4,
            cells: vec![used, place(0x7f00_0002_0000, "retained"), back],
            ..heatmap::Heap::default()
        }),
        why_not: None,
    }
}

/// The zoo elsewhere, with advice; and a worker of which only samples were seen.
pub(crate) fn whatif() -> whatif::WhatIf {
    let cost = |layer: &str, basis, pages, syscalls| whatif::Cost {
        layer: layer.to_owned(),
        basis,
        pages: Some(pages),
        peak_bytes: Some(pages * 4096),
        waste_bytes: Some(pages * 96),
        syscalls,
        note: "model: of a test".to_owned(),
    };
    let mut report = report();
    for process in &mut report.processes {
        process.costs = vec![
            cost("page", whatif::Basis::Counted, 1204, Some(2_095_948)),
            cost("glibc", whatif::Basis::Model, 33, None),
        ];
    }
    let (dead, zoo) = (
        &mut report.processes[0].clone(),
        report.processes[1].clone(),
    );
    dead.mode = "sampled".to_owned();
    dead.costs.clear();
    let mut leaks = report.leaks;
    leaks.retain(|leak| leak.process == zoo.id);
    let mut zoo = crate::whatif::entry::entry(&zoo, leaks);
    zoo.name = HOSTILE.to_owned() + "zoo";
    zoo.advice = vec![whatif::Advice {
        rule: "temporary".to_owned(),
        text: "`node_new` made 1,000,000 blocks".to_owned(),
        confidence: whatif::Confidence::High,
        because: "every block was seen".to_owned(),
        ..whatif::Advice::default()
    }];
    whatif::WhatIf {
        schema_version: SCHEMA_VERSION,
        processes: vec![zoo, crate::whatif::entry::entry(dead, Vec::new())],
    }
}
