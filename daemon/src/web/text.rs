//! The report as text, for terminals and mails. Names are cleaned of control characters.

mod facts;

use std::fmt::Write;

use crate::books::report::{Leak, MisuseReport, Process, Report};
use crate::web::words::{self, clean};
use crate::web::{units, waste_page};

pub(crate) use facts::facts;

/// Processes, then sites.
pub(crate) fn report(report: &Report) -> String {
    let mut out = String::new();
    if report.processes.is_empty() {
        out.push_str("no process has reported yet\n");
    }
    for process in &report.processes {
        process_block(&mut out, process);
    }
    if !report.leaks.is_empty() {
        if let Some(sampled) = words::sampled(&report.processes) {
            let _ = writeln!(out, "sampled: {sampled}");
        }
        let bytes = report.leaks.iter().map(|leak| leak.bytes).sum();
        let blocks = report.leaks.iter().map(|leak| leak.blocks).sum();
        let _ = writeln!(
            out,
            "{}: {} in {}",
            units::counted(report.leaks.len() as u64, "site"),
            units::bytes(bytes),
            units::counted(blocks, "block"),
        );
    }
    if report.leaks.is_empty() && !report.processes.is_empty() {
        let _ = writeln!(out, "no sites: {}", words::no_sites(report));
    }
    for (i, leak) in report.leaks.iter().enumerate() {
        site_block(&mut out, report, i + 1, leak);
    }
    out
}

fn process_block(out: &mut String, process: &Process) {
    let _ = writeln!(
        out,
        "{} (pid {}, {}, {}; {}, {} heap, id {})",
        clean(&process.name),
        process.pid,
        words::state(process),
        units::seconds(process.seconds),
        words::mode(process),
        clean(&process.heap),
        clean(&process.id),
    );
    for (label, line) in facts(process) {
        let _ = writeln!(out, "  {label:<10} {line}");
    }
    for report in &process.misuse_reports {
        misuse_block(out, report);
    }
    bill_block(out, process);
    out.push('\n');
}

fn misuse_block(out: &mut String, report: &MisuseReport) {
    let _ = writeln!(out, "  misuse: {}", clean(&words::misuse(report)));
    for (what, stack) in words::misuse_stacks(report) {
        for (i, frame) in stack.iter().enumerate() {
            let label = if i == 0 { what } else { "" };
            let place = words::full_place(frame);
            let _ = writeln!(
                out,
                "    {label:<14} {}  {}",
                clean(&frame.function),
                clean(&place)
            );
        }
    }
}

/// Who holds the resident pages.
fn bill_block(out: &mut String, process: &Process) {
    let Some(bill) = &process.bill else {
        if process.exit.is_some() {
            let why = "not looked at while it ran (`report` and /waste look at running programs)";
            let _ = writeln!(out, "  {:<10} {why}", "bill");
        }
        return;
    };
    let age = units::seconds(bill.age_seconds);
    let when = match process.exit {
        Some(_) => format!("{age} before the end"),
        None => format!("{age} ago"),
    };
    let parts = waste_page::parts(&bill.parts);
    let parts = parts.iter().filter(|part| part.3 > 0);
    let parts: Vec<String> = parts
        .map(|part| format!("{} {}", part.1.to_lowercase(), units::bytes(part.3)))
        .collect();
    let outside: Vec<String> = waste_page::outside(&bill.outside)
        .into_iter()
        .map(|(name, figure)| format!("{name} {}", figure.text))
        .collect();
    let _ = writeln!(
        out,
        "  {:<10} {} of heap in RAM {when}: {}; {} of smaps explained\n  {:<10} {}",
        "bill",
        units::bytes(bill.resident_bytes),
        parts.join(", "),
        waste_page::explained(bill),
        "outside",
        outside.join(", "),
    );
    if bill.unseen_bytes > 0 {
        let bytes = units::bytes(bill.unseen_bytes);
        let why = "committed in further reserves (the address space is limited)";
        let _ = writeln!(out, "  {:<10} {bytes} {why}", "not billed");
    }
    for pinner in &bill.pinners {
        let _ = writeln!(out, "  {:<10} {}", "pinned", clean(&pinner.sentence));
    }
}

fn site_block(out: &mut String, report: &Report, number: usize, leak: &Leak) {
    let process = words::process_of(report, leak);
    let owner = process
        .map(|p| format!("{}[{}]", clean(&p.name), p.pid))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "\n{number:>4}. {}, {}{}, first seen {}, thread {}, {owner}, site {}",
        words::site_amount(leak),
        clean(&leak.class),
        remarks(leak),
        words::first_seen(leak, process),
        clean(&leak.thread),
        clean(&leak.site),
    );
    for frame in &leak.stack {
        let inlined = if frame.inlined { " (inlined)" } else { "" };
        let place = words::full_place(frame);
        let _ = writeln!(
            out,
            "        {}{inlined}  {}",
            clean(&frame.function),
            clean(&place)
        );
    }
    if let Some(reason) = &leak.incomplete {
        let _ = writeln!(
            out,
            "        (the stack ends {})",
            clean(words::incomplete(reason))
        );
    }
}

/// What else there is to say of a site's class.
fn remarks(leak: &Leak) -> String {
    let suppressed = leak.suppressed.as_ref();
    let suppressed = suppressed.map(|pattern| format!(" (suppressed by leak:{})", clean(pattern)));
    let growth = leak.growth.as_ref();
    let growth = growth.map(|growth| format!(", {}", words::growth(leak, growth)));
    suppressed.unwrap_or_default() + &growth.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::web::fixture;

    // Goal: a reader finds amounts, places, losses; a terminal is safe. Method: the fixture.
    #[test]
    fn the_text_says_what_a_reader_needs() {
        let text = super::report(&fixture::report());
        for needle in [
            "zoo (pid 4711, running, 3 min 11 s; exact mode, gpa heap",
            "worker (pid 4712, killed by SIGKILL",
            "definite 4.0 KiB in 1 block",
            "resident   5.0 MiB now, 5.5 MiB at the highest sample",
            "pages      requested 3.1 MiB, rounding 256 KiB, free slots 1.0 MiB, metadata 512 KiB; \
                spare address space 768 KiB (tails 128 KiB, retained 640 KiB)",
            "pages      at exit: requested 4.0 KiB, free slots 60.0 KiB\n",
            "first seen 1 min 23 s ago",
            "first seen 1 min 23 s before the end",
            "node_new (inlined)  /home/ada/zoo/zoo.c:12",
            "the stack ends at code without unwind tables",
            "socket full 12",
            "misuse     3 (double free 3); last called from drop_node  zoo.c:77",
            "misuse: double free of 0x7f0000001040, 3 times\n    called from    drop_node  /home/ada/zoo/zoo.c:77",
            "allocated by   make_node  zoo",
        ] {
            assert!(text.contains(needle), "{needle} not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    // Goal: the bill of a live process is told with its pinners, and that of an ended one with
    // its age, or why there is none. Method: the fixture's processes with and without a bill.
    #[test]
    fn the_bill_is_told() {
        let mut report = fixture::report();
        let text = super::report(&report);
        assert_eq!(
            text.matches("bill       not looked at while it ran")
                .count(),
            1
        );
        let mut bill = fixture::waste().processes[0].bill.clone();
        if let Some(bill) = &mut bill {
            bill.age_seconds = 2.0;
        }
        for process in &mut report.processes {
            process.bill.clone_from(&bill);
        }
        let text = super::report(&report);
        for needle in [
            "41.0 MiB of heap in RAM 2.0 s ago: requested 1.5 KiB, free slots 41.0 MiB, metadata 4.0 KiB; 99.97 %",
            "in RAM 2.0 s before the end",
            "outside    stacks",
            "pinned     12 blocks of `session_new` (oldest 3 h 0 min) pin 41.0 MiB",
        ] {
            assert!(text.contains(needle), "{needle} not in\n{text}");
        }
    }

    // Goal: system calls have their cause in words. Method: the fixture's causes.
    #[test]
    fn callers_are_told() {
        let mut report = fixture::report();
        let sites = fixture::syscalls().processes[0].sites.clone();
        let brief = crate::books::syscalls::Brief {
            sites,
            ..Default::default()
        };
        report.processes[1].syscall_bill = Some(brief);
        let text = super::report(&report);
        for needle in [
            "caused by  `hold_big` (mmap 200; 1.3 ms), `",
            "(its own mmap 2;",
            "pageshim upkeep (madvise 34;",
            "to spare   100 ranges of `hold_big` went back to the kernel within 1 ms",
        ] {
            assert!(text.contains(needle), "{needle} not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    // Goal: a report without sites does not just end. Method: the fixture without its sites.
    #[test]
    fn a_report_without_sites_says_why() {
        let mut report = fixture::report();
        report.leaks.clear();
        let text = super::report(&report);
        assert!(
            text.contains("\nno sites: 1,205 blocks live, none of them"),
            "{text}"
        );
    }

    // Goal: an ended process is judged by its fullest moment, not by what its end left.
    // Method: a dead process with an account of its peak; an incomplete stack beside a drop.
    #[test]
    fn ended_processes_show_their_peak() {
        let mut report = fixture::report();
        let peak = report.processes[1].pages;
        report.processes[0].pages_at_peak = Some(peak);
        report.processes[1].drops.insert("unwind".into(), 1_468);
        report.processes[1].events_dropped += 1_468;
        let text = super::report(&report);
        for needle in [
            "pages      at the fullest sample: requested 3.1 MiB",
            "dropped    12 (socket full 12)",
            "incomplete 1,468 stacks are known in part",
        ] {
            assert!(text.contains(needle), "{needle} not in\n{text}");
        }
    }
}
