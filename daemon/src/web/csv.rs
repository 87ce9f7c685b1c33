//! The report as CSV: RFC 4180, one row a site, exact numbers.
//!
//! # Invariants
//! I1. A text cell never begins a formula in a spreadsheet: names come from the
//!     profiled program, which may be hostile. Such a cell starts with `'`.

use std::fmt::Write;

use crate::books::report::{Leak, Report, SiteError};
use crate::web::words;

const HEADER: &str = "process,pid,name,site,class,blocks,bytes,pinned_bytes,total_blocks,\
    total_bytes,temporary_blocks,oldest_seconds,thread,function,file,line,module,incomplete,stack,\
    blocks_error,bytes_error,total_blocks_error,total_bytes_error\r\n";

/// All sites of `report`.
pub(crate) fn leaks(report: &Report) -> String {
    let mut out = HEADER.to_owned();
    for leak in &report.leaks {
        row(&mut out, report, leak);
    }
    out
}

fn row(out: &mut String, report: &Report, leak: &Leak) {
    let process = words::process_of(report, leak);
    let first = leak.stack.first();
    let stack: Vec<&str> = leak.stack.iter().map(|f| f.function.as_str()).collect();
    let error = |of: fn(&SiteError) -> u64| {
        let error = leak.error.as_ref().map(|error| of(error).to_string());
        error.unwrap_or_default()
    };
    let texts = [
        text(&leak.process),
        process.map(|p| p.pid.to_string()).unwrap_or_default(),
        text(process.map_or("", |p| &p.name)),
        text(&leak.site),
        text(&leak.class),
        leak.blocks.to_string(),
        leak.bytes.to_string(),
        leak.pinned_bytes.map(|n| n.to_string()).unwrap_or_default(),
        leak.total_blocks.to_string(),
        leak.total_bytes.to_string(),
        leak.temporary_blocks.to_string(),
        format!("{:.3}", leak.oldest_seconds),
        text(&leak.thread),
        text(first.map_or("", |f| &f.function)),
        text(first.and_then(|f| f.file.as_deref()).unwrap_or("")),
        first
            .and_then(|f| f.line)
            .map(|n| n.to_string())
            .unwrap_or_default(),
        text(first.map_or("", |f| &f.module)),
        text(leak.incomplete.as_deref().unwrap_or("")),
        text(&stack.join(" < ")),
        // Empty of an exact process.
        error(|error| error.blocks),
        error(|error| error.bytes),
        error(|error| error.total_blocks),
        error(|error| error.total_bytes),
    ];
    let _ = write!(out, "{}\r\n", texts.join(","));
}

/// One text cell: guarded (I1), quoted when it must be.
fn text(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guard = if formula { "'" } else { "" };
    if cell.contains(['"', ',', '\n', '\r']) {
        return format!("\"{guard}{}\"", cell.replace('"', "\"\""));
    }
    format!("{guard}{cell}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: cells are quoted and guarded as RFC 4180 and I1 say. Method: each awkward cell.
    #[test]
    fn awkward_cells_are_quoted_and_guarded() {
        assert_eq!(text("plain"), "plain");
        assert_eq!(text("a,b"), "\"a,b\"");
        assert_eq!(text("say \"hi\""), "\"say \"\"hi\"\"\"");
        for formula in ["=1+1", "+1", "-1", "@x"] {
            assert_eq!(text(formula), format!("'{formula}"));
        }
        assert_eq!(text("=HYPERLINK(\"x\",1)"), "\"'=HYPERLINK(\"\"x\"\",1)\"");
    }

    // Goal: one row a site with as many cells as the header. Method: the fixture, templates with commas.
    #[test]
    fn every_site_is_a_row_of_the_same_width() {
        let csv = leaks(&fixture::report());
        let rows: Vec<&str> = csv.split("\r\n").filter(|row| !row.is_empty()).collect();
        assert_eq!(rows.len(), 5);
        let width = |row: &str| {
            let mut quoted = false;
            let commas = row.chars().filter(|c| {
                quoted ^= *c == '"';
                *c == ',' && !quoted
            });
            commas.count()
        };
        assert!(rows.iter().all(|row| width(row) == 22), "{csv}");
    }
}
