//! The report as folded stacks: `process;outermost;…;leaf bytes`, for any flame graph tool.

use std::fmt::Write;

use crate::books::report::{Leak, Report};
use crate::web::words;

/// One line a site, live bytes as the number.
pub(crate) fn leaks(report: &Report) -> String {
    let mut out = String::new();
    for leak in &report.leaks {
        let _ = writeln!(out, "{} {}", stack(report, leak), leak.bytes);
    }
    out
}

fn stack(report: &Report, leak: &Leak) -> String {
    let process = words::process_of(report, leak);
    let mut root = name(process.map_or("unknown", |p| p.name.as_str()));
    if process.is_some_and(|process| process.sampling.is_some()) {
        root.push_str(" (sampled)");
    }
    let mut names = vec![root];
    names.extend(leak.stack.iter().rev().map(|frame| name(&frame.function)));
    names.join(";")
}

/// A frame's name without what the format uses itself.
fn name(function: &str) -> String {
    words::clean(function).replace(';', ":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: outermost first, bytes last, no separator inside a name. Method: the fixture.
    #[test]
    fn stacks_fold_outermost_first() {
        let folded = leaks(&fixture::report());
        let first = folded.lines().next().expect("four sites");
        assert_eq!(
            first,
            "zoo;__libc_start_main_impl;main;make_node;node_new 2097152"
        );
        assert_eq!(folded.lines().count(), 4);
        assert_eq!(name("a;b"), "a:b");
    }
}
