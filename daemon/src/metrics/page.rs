//! Families in the making.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// Every family of ours: name and help. A name ending in `_total` is a counter,
/// the two of [`HISTOGRAMS`] are histograms, the rest gauges.
const FAMILIES: [(&str, &str); 39] = [
    ("pageshim_build_info", "Version of the daemon, as a label."),
    (
        "pageshim_processes",
        "Processes known since the daemon started, by how they stand.",
    ),
    (
        "pageshim_heap_live_bytes",
        "Requested bytes of blocks not yet freed, in running processes. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_heap_live_allocations",
        "Blocks not yet freed, in running processes. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_heap_peak_bytes",
        "Most live bytes so far; processes of one name are added up. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_allocations_total",
        "Blocks allocated, by family of calls. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_frees_total",
        "Blocks freed. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_allocated_bytes_total",
        "Requested bytes allocated. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_freed_bytes_total",
        "Requested bytes freed. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_temporary_allocations_total",
        "Blocks freed before their thread's next allocation. Not counted in mode sampled.",
    ),
    (
        "pageshim_reallocations_total",
        "Reallocations, by whether the block moved.",
    ),
    (
        "pageshim_allocation_size_bytes",
        "Blocks by bytes of their slot; blocks with pages of their own are above the last bound. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_allocation_lifetime_seconds",
        "Freed blocks by time from allocation to free, within a tick of 4 ms. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_page_committed_bytes",
        "Accessible bytes of the heap with its metadata.",
    ),
    (
        "pageshim_page_live_bytes",
        "Requested bytes of live blocks: the useful part of the committed bytes. An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_page_resident_bytes",
        "Resident bytes of the heap as the kernel counts them, 0 when it cannot be asked.",
    ),
    (
        "pageshim_page_waste_bytes",
        "Committed bytes that hold no requested byte, by kind.",
    ),
    (
        "pageshim_page_waste_ratio",
        "Share of the committed bytes that is waste, 0 to 1.",
    ),
    (
        "pageshim_size_class_slots",
        "Slots of each size class, by whether a block is in them.",
    ),
    ("pageshim_syscalls_total", "System calls made by the shim."),
    (
        "pageshim_syscall_seconds_total",
        "Time in system calls made by the shim.",
    ),
    (
        "pageshim_leak_bytes",
        "Live requested bytes by leak class; of the last ended process where none runs.",
    ),
    (
        "pageshim_leak_blocks",
        "Live blocks by leak class; of the last ended process where none runs.",
    ),
    (
        "pageshim_leak_check_pause_seconds",
        "Longest time a reachability check stopped a process, 0 before the first.",
    ),
    (
        "pageshim_site_live_bytes",
        "Live requested bytes of the largest allocation sites, the rest as site=\"other\". An estimate where pageshim_sample_interval_bytes is set.",
    ),
    (
        "pageshim_site_info",
        "Where a site of pageshim_site_live_bytes is.",
    ),
    (
        "pageshim_sample_interval_bytes",
        "Mean bytes between samples, the largest of running processes in mode sampled; their bytes and blocks are estimates.",
    ),
    (
        "pageshim_sampled_processes",
        "Running processes in mode sampled, whose estimates are added to what exact ones of that name count.",
    ),
    (
        "pageshim_heap_live_error_bytes",
        "Standard error of pageshim_heap_live_bytes.",
    ),
    (
        "pageshim_heap_live_error_allocations",
        "Standard error of pageshim_heap_live_allocations.",
    ),
    (
        "pageshim_threads",
        "Threads that have allocated and still run.",
    ),
    (
        "pageshim_misuse_total",
        "Misuse of the heap that was reported and survived.",
    ),
    (
        "pageshim_stacks_verified_total",
        "Captured stacks compared with full unwinds under PAGESHIM_VERIFY=1, by outcome.",
    ),
    (
        "pageshim_events_total",
        "Frames received, by kind; trace_alloc and trace_free count events inside batches.",
    ),
    (
        "pageshim_events_dropped_total",
        "What was not recorded, by reason.",
    ),
    (
        "pageshim_decode_errors_total",
        "Connections refused or closed because of what they sent, by reason.",
    ),
    (
        "pageshim_shim_metadata_bytes",
        "Bytes the shim holds for its own books inside the processes.",
    ),
    (
        "pageshim_exporter_series_dropped_total",
        "Series left out of scrapes because there were more than 5000.",
    ),
    (
        "pageshim_scrape_seconds",
        "Time this scrape took to put together.",
    ),
];

/// Those that are histograms.
const HISTOGRAMS: [&str; 2] = [
    "pageshim_allocation_size_bytes",
    "pageshim_allocation_lifetime_seconds",
];

/// Labels of one series.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Families by name.
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<&'static str, Vec<Metric>>,
    series: usize,
}

impl Page {
    /// Adds a series with a whole number.
    pub fn set(&mut self, name: &'static str, labels: Labels<'_>, value: u64) {
        self.set_f64(name, labels, value as f64);
    }

    /// Adds a series.
    pub fn set_f64(&mut self, name: &'static str, labels: Labels<'_>, value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if name.ends_with("_total") {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(name, metric, 1);
    }

    /// Adds a histogram: bounds, counts (one more than bounds) and the sum.
    pub fn histogram(
        &mut self,
        name: &'static str,
        labels: Labels<'_>,
        (bounds, counts): (&[f64], &[u64]),
        sum: f64,
    ) {
        let mut total = 0u64;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (index, count) in counts.iter().enumerate() {
            total = total.saturating_add(*count);
            if let Some(bound) = bounds.get(index) {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(total);
                buckets.push(bucket);
            }
        }
        let series = buckets.len() + 3;
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(sum);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.push(name, metric, series);
    }

    fn push(&mut self, name: &'static str, metric: Metric, series: usize) {
        debug_assert!(
            FAMILIES.iter().any(|family| family.0 == name),
            "{name} has no help"
        );
        self.families.entry(name).or_default().push(metric);
        self.series += series;
    }

    /// Series so far.
    pub const fn series(&self) -> usize {
        self.series
    }

    /// Takes over another page's series.
    pub fn append(&mut self, other: Self) {
        for (name, metrics) in other.families {
            self.families.entry(name).or_default().extend(metrics);
        }
        self.series += other.series;
    }

    /// The text of all families and of `more`.
    pub fn text(self, more: Vec<MetricFamily>) -> String {
        let ours = self.families.into_iter().map(|(name, metrics)| {
            let help = FAMILIES.iter().find(|family| family.0 == name);
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.map_or(name, |family| family.1).to_owned());
            family.set_field_type(kind(name));
            family.set_metric(metrics);
            family
        });
        let families: Vec<MetricFamily> = ours.chain(more).collect();
        let text = TextEncoder::new().encode_to_string(&families);
        text.unwrap_or_else(|error| {
            tracing::error!(%error, "metrics could not be encoded");
            String::new()
        })
    }
}

fn kind(name: &str) -> MetricType {
    if HISTOGRAMS.contains(&name) {
        MetricType::HISTOGRAM
    } else if name.ends_with("_total") {
        MetricType::COUNTER
    } else {
        MetricType::GAUGE
    }
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}
