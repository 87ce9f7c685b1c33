//! Calls that misused the heap.

use crate::books::report::{Frame, MisuseReport};
use crate::web::units;

/// `double free of 0x1040, 3 times`.
pub(crate) fn misuse(report: &MisuseReport) -> String {
    let times = match report.count {
        0 | 1 => String::new(),
        count => format!(", {} times", units::count(count)),
    };
    let kind = report.kind.replace('_', " ");
    format!("{kind} of {}{times}", report.address)
}

/// What the call of a misuse is to it: what was written where it must not be was
/// written earlier, by somebody who is not known.
pub(crate) fn misuse_call(report: &MisuseReport) -> &'static str {
    match report.kind.as_str() {
        "overflow" | "write_after_free" => "found by",
        _ => "called from",
    }
}

/// The stacks of a misuse that are known, with what each is.
pub(crate) fn misuse_stacks(report: &MisuseReport) -> Vec<(&'static str, &[Frame])> {
    let freed = match report.kind.as_str() {
        "double_free" => "freed first by",
        _ => "freed by",
    };
    let all = [
        (misuse_call(report), &report.call),
        ("allocated by", &report.allocated),
        (freed, &report.freed),
    ];
    all.into_iter()
        .filter(|(_, stack)| !stack.is_empty())
        .map(|(what, stack)| (what, &stack[..]))
        .collect()
}
