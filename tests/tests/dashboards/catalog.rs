//! What there is: the dashboards' files, and every metric family the daemon exports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Every family the daemon exports: name, type, labels with sample values.
const METRICS: &str = "
pageshim_build_info gauge version=0.1.0
pageshim_processes gauge state=running|exited|killed
pageshim_heap_live_bytes gauge process=zoo|cat
pageshim_heap_live_allocations gauge process=zoo|cat
pageshim_heap_peak_bytes gauge process=zoo|cat
pageshim_allocations_total counter process=zoo|cat api=malloc|calloc|realloc|aligned|new
pageshim_frees_total counter process=zoo|cat
pageshim_allocated_bytes_total counter process=zoo|cat
pageshim_freed_bytes_total counter process=zoo|cat
pageshim_temporary_allocations_total counter process=zoo|cat
pageshim_reallocations_total counter process=zoo|cat result=in_place|moved
pageshim_allocation_size_bytes histogram process=zoo|cat
pageshim_allocation_lifetime_seconds histogram process=zoo|cat
pageshim_page_committed_bytes gauge process=zoo|cat
pageshim_page_live_bytes gauge process=zoo|cat
pageshim_page_resident_bytes gauge process=zoo|cat
pageshim_page_waste_bytes gauge process=zoo|cat kind=rounding|free_slot|tail|retained|metadata
pageshim_page_waste_ratio gauge process=zoo|cat
pageshim_size_class_slots gauge process=zoo|cat class=16|64|singleton state=live|free
pageshim_syscalls_total counter process=zoo|cat syscall=mmap|munmap|madvise|mremap|mprotect|other
pageshim_syscall_seconds_total counter process=zoo|cat syscall=mmap|munmap|madvise|mremap|mprotect|other
pageshim_leak_bytes gauge process=zoo class=definite|indirect|possible|reachable
pageshim_leak_blocks gauge process=zoo class=definite|indirect|possible|reachable
pageshim_leak_check_pause_seconds gauge process=zoo|cat
pageshim_site_live_bytes gauge process=zoo|cat site=7f3a|other
pageshim_site_info gauge process=zoo|cat site=7f3a function=make_node file=zoo.c:12 module=zoo
pageshim_threads gauge process=zoo|cat
pageshim_misuse_total counter process=zoo kind=double_free|invalid_free
pageshim_events_total counter process=zoo|cat kind=hello|module|thread|segment
pageshim_events_dropped_total counter process=zoo|cat reason=socket_full|no_daemon|sites
pageshim_decode_errors_total counter reason=version
pageshim_shim_metadata_bytes gauge process=zoo|cat
pageshim_exporter_series_dropped_total counter
pageshim_scrape_seconds gauge
process_cpu_seconds_total counter
process_open_fds gauge
process_max_fds gauge
process_virtual_memory_bytes gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_threads gauge";

pub(crate) fn dashboards_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every dashboard as (file name, text, JSON).
pub(crate) fn dashboards() -> Vec<(String, String, Value)> {
    let entries = fs::read_dir(dashboards_dir()).expect("dashboards/ exists");
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("dashboards/ is readable").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = read(&path);
            let json = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            found.push((name, text, json));
        }
    }
    assert!(
        !found.is_empty(),
        "no dashboard in {}",
        dashboards_dir().display()
    );
    found
}

/// The array at `key`, empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The panels that show something: rows left out.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels")
        .iter()
        .filter(|panel| panel["type"] != "row")
}

/// Families as (name, type, label specifications).
pub(crate) fn families() -> impl Iterator<Item = (&'static str, &'static str, Vec<&'static str>)> {
    METRICS.trim().lines().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().expect("a line has a name");
        (
            name,
            words.next().expect("a line has a type"),
            words.collect(),
        )
    })
}

/// The series names a scrape yields: histograms by their three suffixes.
pub(crate) fn series_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, kind, _) in families() {
        let suffixes: &[&str] = if kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    names
}

/// The labels a family has, from [`METRICS`]; `le` and the target's own included.
pub(crate) fn labels_of(name: &str) -> Vec<&'static str> {
    let mut labels = vec!["job", "instance", "le"];
    for (family, _, specifications) in families() {
        if name == family
            || name
                .strip_prefix(family)
                .is_some_and(|rest| rest.starts_with('_'))
        {
            labels.extend(
                specifications
                    .iter()
                    .filter_map(|word| word.split('=').next()),
            );
        }
    }
    labels
}
