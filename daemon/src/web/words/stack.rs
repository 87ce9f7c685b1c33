//! Frames and ends of stacks.

use crate::books::report::Frame;

/// `zoo.c:12`, the file's name only.
pub(crate) fn place(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref()?;
    let name = file.rsplit('/').next().unwrap_or(file);
    Some(match frame.line {
        Some(line) => format!("{name}:{line}"),
        None => name.to_owned(),
    })
}

/// `/home/ada/zoo.c:12`, or the module where the file is not known.
pub(crate) fn full_place(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        (None, _) => frame.module.clone(),
    }
}

/// Why a stack ends before its outermost frame, as a sentence's end.
pub(crate) fn incomplete(reason: &str) -> &str {
    match reason {
        "depth_limit" => "at the depth limit",
        "no_table" => "at code without unwind tables",
        "bad_rule" => "at an unwind rule that cannot be followed",
        "out_of_bounds" => "outside the stack's bounds",
        "no_progress" => "where frames stop going outwards",
        other => other,
    }
}
