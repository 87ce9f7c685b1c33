//! The text of `/metrics` as samples that can be asked for.

use std::collections::BTreeMap;

/// One line of the exposition.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Metric name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// A scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// All samples, in the order of the text.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads the text format.
    ///
    /// # Panics
    /// When a line is not a sample.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        Self {
            samples: lines
                .map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}")))
                .collect(),
        }
    }

    /// Samples of `name` whose labels include `labels`.
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(fits).collect()
    }

    /// Sum over [`Self::series`]; zero when there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).iter().map(|s| s.value).sum()
    }

    /// The equations every scrape must obey for `process`, heap at rest.
    ///
    /// # Panics
    /// When one does not hold.
    #[track_caller]
    pub fn check_equations(&self, process: &str) {
        let of = |name: &str| self.sum(name, &[("process", process)]);
        let equal = |what: &str, left: f64, right: f64| {
            assert!(
                (left - right).abs() < 0.5,
                "{process}: {what}: {left} != {right}"
            );
        };
        equal(
            "live + waste = committed",
            of("pageshim_page_live_bytes") + of("pageshim_page_waste_bytes"),
            of("pageshim_page_committed_bytes"),
        );
        equal(
            "histogram count = allocations",
            of("pageshim_allocation_size_bytes_count"),
            of("pageshim_allocations_total"),
        );
        equal(
            "histogram sum = allocated bytes",
            of("pageshim_allocation_size_bytes_sum"),
            of("pageshim_allocated_bytes_total"),
        );
        let (live, blocks) = (
            of("pageshim_heap_live_bytes"),
            of("pageshim_heap_live_allocations"),
        );
        if live > 0.0 {
            equal(
                "allocated - freed = live bytes",
                of("pageshim_allocated_bytes_total") - of("pageshim_freed_bytes_total"),
                live,
            );
            equal(
                "allocations - frees = live blocks",
                of("pageshim_allocations_total") - of("pageshim_frees_total"),
                blocks,
            );
            equal("sites = live", of("pageshim_site_live_bytes"), live);
            assert!(
                of("pageshim_heap_peak_bytes") >= live,
                "{process}: peak < live"
            );
        }
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => (&line[..=end], line[end + 1..].trim()),
        None => line.split_once(' ')?,
    };
    let value = value.split(' ').next()?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, pairs(rest.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.replace("+Inf", "inf").parse().ok()?,
    })
}

/// `a="x",b="y\"z"` as a map.
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, letter) => value.push(letter),
            }
        };
        labels.insert(key.to_owned(), value);
        rest = after[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: labels with quotes, commas and braces survive. Method: literal text.
    #[test]
    fn exposition_text_is_read() {
        let text =
            "# HELP a b\na{x=\"1\",y=\"q\\\"},z\"} 2\na{x=\"2\"} 3.5\nb 1e3\nc{le=\"+Inf\"} 4\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.samples.len(), 4);
        assert_eq!(metrics.series("a", &[("y", "q\"},z")]).len(), 1);
        assert!((metrics.sum("a", &[]) - 5.5).abs() < 1e-9);
        assert!((metrics.sum("b", &[]) - 1000.0).abs() < 1e-9);
        assert!(metrics.sum("none", &[]).abs() < 1e-9);
    }
}
