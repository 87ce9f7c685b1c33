//! Reading a capture.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::frame::{self, tag};
use super::writer::{Counts, Head};
use super::{CaptureError, MAGIC, MAGIC_ANY, Opened};
use crate::books::report::{Leak, Process, Report, SCHEMA_VERSION};

/// Reads a capture, as much of it as is whole.
pub fn open(path: &Path) -> Result<Opened, CaptureError> {
    let failed = |error| CaptureError::Io {
        what: "read",
        path: path.to_owned(),
        error,
    };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut start = Vec::new();
    let wanted = MAGIC.len() as u64;
    file.by_ref()
        .take(wanted)
        .read_to_end(&mut start)
        .map_err(failed)?;
    if start != MAGIC && (start.is_empty() || !MAGIC.starts_with(&start)) {
        return Err(refused(path, &start));
    }
    Ok(read(&mut file))
}

fn read(file: &mut impl Read) -> Opened {
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        ..Report::default()
    };
    let mut counts = None;
    let mut sites = Vec::new();
    let mut whole = false;
    while let Some((tag, payload)) = frame::read(file) {
        match tag {
            tag::HEAD => counts = frame::decode::<Head>(&payload).map(|head| head.counts),
            tag::PROCESSES => report.processes.extend(list::<Process>(&payload)),
            tag::LEAKS => report.leaks.extend(list::<Leak>(&payload)),
            tag::SITES => sites.extend(list::<Leak>(&payload)),
            tag::END => whole = true,
            _ => {}
        }
    }
    let note = (!whole).then(|| note(counts, &report));
    Opened {
        report,
        sites,
        note,
    }
}

fn list<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Vec<T> {
    frame::decode(payload).unwrap_or_default()
}

/// What is missing, in words.
fn note(counts: Option<Counts>, report: &Report) -> String {
    let (processes, leaks) = (report.processes.len(), report.leaks.len());
    let of = |found: usize, all: usize, what: &str| {
        format!("truncated: {} of {} {what}", grouped(found), grouped(all))
    };
    match counts {
        None => "truncated: cut off before its first process".to_owned(),
        Some(all) if processes < all.processes => {
            of(processes, all.processes, "processes, no sites")
        }
        Some(all) => of(leaks, all.leaks, "sites"),
    }
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What the file is instead.
fn refused(path: &Path, start: &[u8]) -> CaptureError {
    let path = path.to_owned();
    if let Some(rest) = start.strip_prefix(MAGIC_ANY) {
        let theirs = String::from_utf8_lossy(rest).trim_end().to_owned();
        return CaptureError::Version { path, theirs };
    }
    let what = match start {
        [] => "an empty file",
        [0x7f, b'E', b'L', b'F', ..] => "a program or library (ELF)",
        [0x1f, 0x8b, ..] => "a gzip file (a pprof profile?)",
        [b'{' | b'[', ..] => "JSON (a report? captures are the files that `-o` writes)",
        _ if start
            .iter()
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) =>
        {
            "text"
        }
        _ => "something else",
    };
    let what = what.to_owned();
    CaptureError::NotACapture { path, what }
}
