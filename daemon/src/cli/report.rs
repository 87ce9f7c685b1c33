//! `pageshim report`: a capture file or a process of a running daemon, in the format asked for.

use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::suppressions::SuppressionsOption;
use super::{SocketOption, client, places, print};
use crate::books::report::Report;
use crate::books::suppress::Rules;
use crate::capture::{self, CaptureError};
use crate::hub::Filter;
use crate::web::view::CLASSES;
use crate::web::{csv, folded, junit, leaks_page, sarif, text};

const EXAMPLES: &str = "\
Examples:
  pageshim report pageshim.app.4711.pgs
  pageshim report 4711 --format json        a live process of the daemon
  pageshim report app.pgs --format html > app.html
  pageshim report app.pgs --format folded --limit 1000 | flamegraph.pl > app.svg";

/// Sites in a text report unless `--limit` says otherwise.
const TEXT_SITES: usize = 20;

/// Options of `report`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// A capture file, or pid, name or id of a process of the daemon
    #[arg(value_name = "FILE|PROCESS")]
    source: String,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Most sites [default: 20 as text or html, all otherwise; 0 is all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only sites of this class; without a reachability check all are live
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(CLASSES))]
    class: Option<String>,
    /// Only sites with a function, file or module that contains this
    #[arg(short = 'f', long = "filter", value_name = "TEXT")]
    query: Option<String>,
    #[command(flatten)]
    suppressions: SuppressionsOption,
    #[command(flatten)]
    socket: SocketOption,
}

/// Formats a report has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs; the schema of /leaks.json
    Json,
    /// One row a site
    Csv,
    /// One page without script
    Html,
    /// Stacks for flame graph tools
    Folded,
    /// Lost sites for code hosts and editors (2.1.0)
    Sarif,
    /// Lost sites as test cases
    Junit,
}

/// Prints it.
pub(crate) fn main(options: &Options) -> Result<(), String> {
    let filter = filter(options);
    let rules = options.suppressions.load()?;
    let path = Path::new(&options.source);
    let report = if path.is_file() {
        match from_file(path, &filter, &rules) {
            Ok(report) => report,
            Err(CaptureError::NotACapture { .. }) if is_name(&options.source) => {
                // A file that happens to be called like a process, as its own binary is.
                let other = format!("{} is not a capture, and", path.display());
                from_daemon(options, &filter, &rules).map_err(|why| format!("{other} {why}"))?
            }
            Err(error) => return Err(error.to_string()),
        }
    } else {
        from_daemon(options, &filter, &rules)?
    };
    print::out(&render(options.format, &report));
    Ok(())
}

fn filter(options: &Options) -> Filter {
    let short = matches!(options.format, Format::Text | Format::Html);
    let limit = options.limit.unwrap_or(if short { TEXT_SITES } else { 0 });
    Filter {
        class: options.class.clone(),
        query: options.query.clone(),
        limit: (limit > 0).then_some(limit),
        ..Filter::default()
    }
}

/// Whether it may be a process: neither a path nor a capture's name.
fn is_name(source: &str) -> bool {
    !source.ends_with(".pgs") && !source.contains('/')
}

fn from_file(path: &Path, filter: &Filter, rules: &Rules) -> Result<Report, CaptureError> {
    let mut opened = capture::open(path)?;
    if let Some(note) = opened.note {
        print::say(&format!("note: {}: {note}", path.display()));
    }
    rules.apply(&mut opened.report);
    Ok(filter.apply(opened.report))
}

fn from_daemon(options: &Options, filter: &Filter, rules: &Rules) -> Result<Report, String> {
    let source = &options.source;
    if !is_name(source) {
        return Err(format!("{source}: no such file"));
    }
    let socket = places::socket(options.socket.socket.as_deref());
    let url = client::url(&socket).map_err(|why| format!("{source} is no file, and {why}"))?;
    of_process(&url, source, filter, rules)
}

/// What the daemon at `url` knows of the process `source`.
pub(crate) fn of_process(
    url: &str,
    source: &str,
    filter: &Filter,
    rules: &Rules,
) -> Result<Report, String> {
    // Rules are for whole checks: sums would be wrong over a part of the sites.
    let whole = Filter::default();
    let asked = if rules.is_empty() { filter } else { &whole };
    let mut query = format!("process={}", client::encode(source));
    for (name, value) in [("class", &asked.class), ("q", &asked.query)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", client::encode(value)));
        }
    }
    if let Some(limit) = asked.limit {
        query.push_str(&format!("&limit={limit}"));
    }
    let body = client::get(url, &format!("leaks.json?{query}"))?;
    let mut report: Report = serde_json::from_slice(&body)
        .map_err(|error| format!("the daemon at {url} speaks another version: {error}"))?;
    if report.processes.is_empty() {
        return Err(format!(
            "{source} is neither a capture nor a process of the daemon at {url}; `pageshim ps` lists those"
        ));
    }
    if !rules.is_empty() {
        rules.apply(&mut report);
        report = filter.apply(report);
    }
    Ok(report)
}

fn render(format: Format, report: &Report) -> String {
    match format {
        Format::Text => text::report(report),
        Format::Json => serde_json::to_string_pretty(report).unwrap_or_default() + "\n",
        Format::Csv => csv::leaks(report),
        Format::Html => leaks_page::standalone(report),
        Format::Folded => folded::leaks(report),
        Format::Sarif => sarif::render(report),
        Format::Junit => junit::render(report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: each format is its own, and JSON is the contract's. Method: the fixture through each.
    #[test]
    fn every_format_renders() {
        let report = fixture::report();
        let back: Report = serde_json::from_str(&render(Format::Json, &report)).expect("JSON");
        assert_eq!(back, report);
        assert!(render(Format::Csv, &report).starts_with("process,pid,"));
        assert!(render(Format::Folded, &report).contains(";node_new 2097152"));
        let html = render(Format::Html, &report);
        assert!(
            html.starts_with("<!doctype html>")
                && html.contains("<style>")
                && !html.contains("<script")
        );
    }
}
