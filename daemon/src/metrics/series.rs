//! The series of one group.

use pageshim_wire::frame::{KIND_NAMES, KINDS};
use pageshim_wire::process::{DROP_NAMES, MISUSE_NAMES, VERIFIED_NAMES};
use pageshim_wire::thread::{API_NAMES, LIFETIMES, SYSCALL_NAMES, lifetime_bound_ms};

use super::group::Group;
use super::page::Page;
use crate::books::tally::{
    API, CALL_NS, CALLS, DROPPED, EVENT, EVENTS, LIFETIME, LIFETIME_MS, MISUSE, PLAIN,
    REALLOCATIONS, SIZE_BOUNDS, SIZES, VERIFIED,
};

/// Label of each kind of event.
const EVENT_NAMES: [&str; EVENTS] = {
    let mut names = ["trace_alloc"; EVENTS];
    let mut index = 0;
    while index < KINDS {
        names[index] = KIND_NAMES[index];
        index += 1;
    }
    names[KINDS + 1] = "trace_free";
    names
};
/// Kinds that shims send; `none` and the daemon's own answers are not theirs.
const RECEIVED: [bool; KINDS] = {
    let mut received = [true; KINDS];
    received[0] = false;
    received[2] = false;
    received[3] = false;
    received
};

/// All series of a group.
pub fn of(group: &Group) -> Page {
    let mut page = Page::default();
    heap(&mut page, group);
    counters(&mut page, group);
    histograms(&mut page, group);
    pages(&mut page, group);
    leaks(&mut page, group);
    sites(&mut page, group);
    page
}

fn heap(page: &mut Page, group: &Group) {
    let labels = &[("process", group.name.as_str())][..];
    page.set("pageshim_heap_live_bytes", labels, group.live.bytes);
    page.set("pageshim_heap_live_allocations", labels, group.live.blocks);
    page.set("pageshim_heap_peak_bytes", labels, group.peak.bytes);
    page.set("pageshim_threads", labels, group.threads);
    let sampled = &group.sampled;
    if sampled.processes > 0 {
        let [bytes, blocks] = sampled.live_error();
        let interval = sampled.interval_bytes;
        page.set("pageshim_sample_interval_bytes", labels, interval);
        page.set("pageshim_sampled_processes", labels, sampled.processes);
        page.set_f64("pageshim_heap_live_error_bytes", labels, bytes);
        page.set_f64("pageshim_heap_live_error_allocations", labels, blocks);
    }
    page.set(
        "pageshim_shim_metadata_bytes",
        labels,
        group.pages.metadata_bytes,
    );
}

fn counters(page: &mut Page, group: &Group) {
    let plain = [
        "pageshim_frees_total",
        "pageshim_allocated_bytes_total",
        "pageshim_freed_bytes_total",
        "pageshim_temporary_allocations_total",
    ];
    for (name, value) in plain.into_iter().zip(group.tally.part(PLAIN)) {
        page.set(name, &[("process", &group.name)], *value);
    }
    let labelled: [(&'static str, &str, &[&str], _); 5] = [
        ("pageshim_allocations_total", "api", &API_NAMES, API),
        (
            "pageshim_reallocations_total",
            "result",
            &["in_place", "moved"],
            REALLOCATIONS,
        ),
        ("pageshim_syscalls_total", "syscall", &SYSCALL_NAMES, CALLS),
        ("pageshim_misuse_total", "kind", &MISUSE_NAMES, MISUSE),
        (
            "pageshim_events_dropped_total",
            "reason",
            &DROP_NAMES,
            DROPPED,
        ),
    ];
    for (name, label, values, range) in labelled {
        for (value, count) in values.iter().zip(group.tally.part(range)) {
            page.set(name, &[("process", &group.name), (label, value)], *count);
        }
    }
    let verified = group.tally.part(VERIFIED);
    if verified.iter().any(|count| *count > 0) {
        for (result, count) in VERIFIED_NAMES.iter().zip(verified) {
            let labels = [("process", group.name.as_str()), ("result", result)];
            page.set("pageshim_stacks_verified_total", &labels, *count);
        }
    }
    for (syscall, ns) in SYSCALL_NAMES.iter().zip(group.tally.part(CALL_NS)) {
        let labels = [("process", group.name.as_str()), ("syscall", syscall)];
        page.set_f64("pageshim_syscall_seconds_total", &labels, *ns as f64 / 1e9);
    }
    for (index, count) in group.tally.part(EVENT).iter().enumerate() {
        if RECEIVED.get(index).copied().unwrap_or(true) {
            let labels = [
                ("process", group.name.as_str()),
                ("kind", EVENT_NAMES[index]),
            ];
            page.set("pageshim_events_total", &labels, *count);
        }
    }
}

fn histograms(page: &mut Page, group: &Group) {
    let labels = &[("process", group.name.as_str())][..];
    let bounds = SIZE_BOUNDS.map(|bound| bound as f64);
    let sizes = (&bounds[..], group.tally.part(SIZES));
    let sum = group.tally.at(PLAIN.start + 1) as f64;
    page.histogram("pageshim_allocation_size_bytes", labels, sizes, sum);
    let bounds: [f64; LIFETIMES - 1] =
        std::array::from_fn(|index| lifetime_bound_ms(index) as f64 / 1000.0);
    let lifetimes = (&bounds[..], group.tally.part(LIFETIME));
    let sum = group.tally.at(LIFETIME_MS) as f64 / 1000.0;
    page.histogram(
        "pageshim_allocation_lifetime_seconds",
        labels,
        lifetimes,
        sum,
    );
}

fn pages(page: &mut Page, group: &Group) {
    let labels = &[("process", group.name.as_str())][..];
    let pages = &group.pages;
    page.set(
        "pageshim_page_committed_bytes",
        labels,
        pages.committed_bytes,
    );
    page.set("pageshim_page_live_bytes", labels, pages.requested_bytes);
    page.set("pageshim_page_resident_bytes", labels, pages.resident_bytes);
    let waste = pages.committed_bytes.saturating_sub(pages.requested_bytes);
    let ratio = waste as f64 / pages.committed_bytes.max(1) as f64;
    page.set_f64("pageshim_page_waste_ratio", labels, ratio);
    for (kind, bytes) in [
        ("rounding", pages.rounding_bytes),
        ("free_slot", pages.free_slot_bytes),
        ("tail", pages.tail_bytes),
        ("retained", pages.retained_bytes),
        ("metadata", pages.metadata_bytes),
    ] {
        let labels = [("process", group.name.as_str()), ("kind", kind)];
        page.set("pageshim_page_waste_bytes", &labels, bytes);
    }
    for (slot_bytes, (live, free)) in &group.slots {
        let class = if *slot_bytes == 0 {
            "singleton".to_owned()
        } else {
            slot_bytes.to_string()
        };
        for (state, count) in [("live", live), ("free", free)] {
            if *slot_bytes != 0 || state == "live" {
                let labels = [
                    ("process", group.name.as_str()),
                    ("class", &class),
                    ("state", state),
                ];
                page.set("pageshim_size_class_slots", &labels, *count);
            }
        }
    }
}

fn leaks(page: &mut Page, group: &Group) {
    for (class, amount) in &group.leaks {
        let labels = [("process", group.name.as_str()), ("class", class)];
        page.set("pageshim_leak_bytes", &labels, amount.bytes);
        page.set("pageshim_leak_blocks", &labels, amount.blocks);
    }
    page.set(
        "pageshim_leak_check_pause_seconds",
        &[("process", &group.name)],
        0,
    );
}

fn sites(page: &mut Page, group: &Group) {
    if group.running == 0 {
        return;
    }
    for site in &group.sites {
        let labels = [("process", group.name.as_str()), ("site", &site.id)];
        page.set("pageshim_site_live_bytes", &labels, site.bytes);
        let info = [
            labels[0],
            labels[1],
            ("function", site.frame.function.as_str()),
            ("file", site.frame.file.as_deref().unwrap_or_default()),
            ("module", &site.frame.module),
        ];
        page.set("pageshim_site_info", &info, 1);
    }
    let labels = [("process", group.name.as_str()), ("site", "other")];
    page.set("pageshim_site_live_bytes", &labels, group.other_sites());
}
