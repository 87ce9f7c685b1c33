//! Patterns as LeakSanitizer has them.
//!
//! # Design
//! A pattern is sought anywhere in the function, file or module of any frame, `*` stands for any
//! text, `^` at its begin and `$` at its end hold it to the begin and the end.

use crate::books::report::Frame;

/// Whether `pattern` is found in the function, file or module of a frame. A module is meant by its
/// path, and where that is not known, by its name: the name in a path would match other anchors.
pub(super) fn takes(pattern: &str, frame: &Frame) -> bool {
    matches(pattern, &frame.function)
        || matches(pattern, module(frame))
        || frame
            .file
            .as_deref()
            .is_some_and(|file| matches(pattern, file))
}

/// The module's path, or what is known of it.
fn module(frame: &Frame) -> &str {
    match frame.module_path.as_str() {
        "" => &frame.module,
        path => path,
    }
}

/// Whether `pattern` is found in `text`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, at_begin) = match pattern.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let (pattern, at_end) = match pattern.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let Some((last, middle)) = rest.split_last() else {
        return match (at_begin, at_end) {
            (true, true) => text == first,
            (true, false) => text.starts_with(first),
            (false, true) => text.ends_with(first),
            (false, false) => text.contains(first),
        };
    };
    let begun = if at_begin {
        text.strip_prefix(first)
    } else {
        after(text, first)
    };
    let left = middle
        .iter()
        .try_fold(begun.unwrap_or_default(), |text, part| after(text, part));
    begun.is_some()
        && left.is_some_and(|left| {
            if at_end {
                left.ends_with(last)
            } else {
                left.contains(last)
            }
        })
}

/// What follows the first `part` in `text`.
fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.split_once(part).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a module is known by its whole path, as in LeakSanitizer. Method: parts of it and the
    // whole, with each sign; a report of an older version, which has names only.
    #[test]
    fn modules_match_by_path() {
        let mut frame = Frame {
            module: "libzoo.so".to_owned(),
            module_path: "/opt/zoo/lib/libzoo.so".to_owned(),
            ..Frame::default()
        };
        for (pattern, expected) in [
            ("/opt/zoo/lib/libzoo.so", true),
            ("^/opt/zoo/lib/", true),
            ("libzoo", true),
            ("/libzoo.so$", true),
            ("zoo/*.so$", true),
            ("^libzoo.so$", false),
            ("/usr/lib", false),
        ] {
            assert_eq!(takes(pattern, &frame), expected, "{pattern}");
        }
        frame.module_path.clear();
        assert!(takes("^libzoo.so$", &frame) && !takes("/libzoo.so$", &frame));
    }

    // Goal: patterns mean what they mean in LeakSanitizer's files. Method: each sign alone and together.
    #[test]
    fn patterns_match_as_in_leak_sanitizer() {
        for (pattern, text, expected) in [
            ("node", "make_node_new", true),
            ("^node", "make_node", false),
            ("^make", "make_node", true),
            ("node$", "make_node", true),
            ("node$", "make_node_new", false),
            ("^make_node$", "make_node", true),
            ("^make$", "make_node", false),
            ("m*n*e", "make_node", true),
            ("m*x*e", "make_node", false),
            ("^a*e$", "make_node", false),
            ("^m*e$", "make_node", true),
            ("lib*.so$", "libzoo.so", true),
            ("lib*.so$", "libzoo.so.1", false),
            ("*", "", true),
            ("^*$", "anything", true),
            ("a*a", "a", false),
            ("^ab*b$", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} in {text}");
        }
    }
}
