//! What a lost site is called from run to run: tools that keep a baseline compare it.
//!
//! The site id will not do: it is a hash of addresses, which the kernel chooses anew for each run.
//! Lines are left out, so that an edit above a function does not make its findings new.

use std::collections::HashMap;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::books::report::{Frame, Leak};

/// Bytes of the hash that are told.
const BYTES: usize = 8;

/// Fingerprints of one report.
#[derive(Debug, Default)]
pub(crate) struct Fingerprints(HashMap<String, u32>);

impl Fingerprints {
    /// That of the next lost site: class, and module and function of each frame. The second site
    /// of a report with the same ones ends in `-2`.
    pub(crate) fn next(&mut self, leak: &Leak) -> String {
        let mut text = of(leak);
        let count = self.0.entry(text.clone()).or_insert(0);
        *count = count.saturating_add(1);
        if *count > 1 {
            let _ = write!(text, "-{count}");
        }
        text
    }
}

fn of(leak: &Leak) -> String {
    let mut hash = Sha256::new();
    hash.update(&leak.class);
    for frame in &leak.stack {
        // No name holds a control character.
        hash.update(format!("\n{}\t{}", frame.module, function(frame)));
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(BYTES) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A function's name, or where it is in its module; nothing where only an address is known.
fn function(frame: &Frame) -> &str {
    match frame.module.as_str() {
        "?" => "",
        _ => &frame.function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str, address: &str, line: u32) -> Frame {
        Frame {
            function: function.to_owned(),
            module: module.to_owned(),
            address: address.to_owned(),
            line: Some(line),
            ..Frame::default()
        }
    }

    fn leak(site: &str, class: &str, stack: Vec<Frame>) -> Leak {
        Leak {
            site: site.to_owned(),
            class: class.to_owned(),
            stack,
            ..Leak::default()
        }
    }

    // Goal: what differs from run to run, and lines, make no other fingerprint; class, module and
    // function do. Method: one stack, each part changed.
    #[test]
    fn only_addresses_and_lines_may_differ() {
        let stack = |name: &str, module: &str, address: &str, line| {
            vec![
                frame(name, module, address, line),
                frame(&format!("{address}@?"), "?", address, 0),
            ]
        };
        let text = |leak: &Leak| Fingerprints::default().next(leak);
        let first = text(&leak("aa", "definite", stack("new", "zoo", "0x1", 3)));
        let again = leak("bb", "definite", stack("new", "zoo", "0x2", 4));
        assert_eq!((text(&again), first.len()), (first.clone(), 2 * BYTES));
        for other in [
            leak("aa", "possible", stack("new", "zoo", "0x1", 3)),
            leak("aa", "definite", stack("old", "zoo", "0x1", 3)),
            leak("aa", "definite", stack("new", "libzoo.so", "0x1", 3)),
            leak(
                "aa",
                "definite",
                stack("new", "zoo", "0x1", 3)[..1].to_vec(),
            ),
        ] {
            assert_ne!(text(&other), first, "{other:?}");
        }
    }

    // Goal: no two sites of a report have the same one. Method: two places in one function.
    #[test]
    fn sites_of_a_report_differ() {
        let mut all = Fingerprints::default();
        let site = |line| leak("aa", "definite", vec![frame("new", "zoo", "0x1", line)]);
        let (one, two) = (all.next(&site(1)), all.next(&site(2)));
        assert_eq!(two, format!("{one}-2"));
    }
}
