//! Captures whole, cut, damaged, and files that are none.

use std::fs;
use std::path::PathBuf;

use super::{CaptureError, Counts, Writer, open};
use crate::books::report::{Frame, Leak, Process};

fn directory(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("pageshim-capture-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("writable");
    dir
}

fn leaks(count: usize) -> Vec<Leak> {
    let leak = |index: usize| Leak {
        process: "aa".into(),
        site: format!("{index:016x}"),
        bytes: 5000 - index as u64,
        stack: vec![Frame {
            function: format!("f{index}"),
            ..Frame::default()
        }],
        ..Leak::default()
    };
    (0..count).map(leak).collect()
}

fn written(path: &std::path::Path) {
    let counts = Counts {
        processes: 2,
        leaks: 30,
        sites: 1,
    };
    let process = |id: &str| Process {
        id: id.into(),
        ..Process::default()
    };
    let mut writer = Writer::create(path, counts).expect("writable");
    writer
        .processes(&[process("aa"), process("bb")])
        .expect("written");
    for chunk in leaks(30).chunks(10) {
        writer.leaks(chunk).expect("written");
    }
    writer.sites(&leaks(1)).expect("written");
    assert!(!path.exists(), "not there before it is whole");
    writer.finish().expect("renamed");
}

// Goal: a capture cut at any byte opens and says what is missing. Method: every prefix of one.
#[test]
fn every_prefix_opens() {
    let dir = directory("prefix");
    let (whole, cut) = (dir.join("whole.pgs"), dir.join("cut.pgs"));
    written(&whole);
    let bytes = fs::read(&whole).expect("readable");
    let opened = open(&whole).expect("whole");
    assert_eq!((opened.report.leaks, opened.note), (leaks(30), None));
    let mut last = 0;
    for len in 1..bytes.len() {
        fs::write(&cut, &bytes[..len]).expect("writable");
        let opened = open(&cut).expect("prefixes open");
        let found = opened.report.leaks.len();
        assert!(found >= last && found.is_multiple_of(10));
        last = found;
        let note = opened.note.expect("something is missing");
        assert!(note.starts_with("truncated: "), "{note}");
        if found > 0 {
            assert_eq!(note, format!("truncated: {found} of 30 sites"));
        }
    }
    assert_eq!(last, 30);
    assert_eq!(
        fs::read_dir(&dir).expect("readable").count(),
        2,
        "no part file is left"
    );
    fs::remove_dir_all(&dir).expect("ours");
}

// Goal: a flipped bit anywhere is noticed, never believed. Method: flip one in each byte.
#[test]
fn every_flipped_byte_is_noticed() {
    let dir = directory("flip");
    let path = dir.join("x.pgs");
    written(&path);
    let bytes = fs::read(&path).expect("readable");
    for at in super::MAGIC.len()..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).expect("writable");
        let opened = open(&path).expect("the magic is whole");
        assert!(opened.note.is_some(), "byte {at}");
        assert!(leaks(30).starts_with(&opened.report.leaks));
    }
    fs::remove_dir_all(&dir).expect("ours");
}

// Goal: other files are refused by what they are. Method: a few kinds, a later version, none at all.
#[test]
fn other_files_are_refused() {
    let dir = directory("other");
    let path = dir.join("x");
    let said = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("writable");
        open(&path).expect_err("refused").to_string()
    };
    assert!(said(b"").contains("an empty file"));
    assert!(said(b"\x7fELF\x02").contains("ELF"));
    assert!(said(b"{\"a\": 1}").contains("JSON"));
    assert!(said(b"hello there").contains("but text"));
    assert!(said(b"pageshim capture 2\nxxxx").contains("format \"2\""));
    let missing = open(&dir.join("none"));
    assert!(matches!(missing, Err(CaptureError::Io { .. })));
    let nowhere = Writer::create(&dir.join("no/where.pgs"), Counts::default());
    assert!(matches!(nowhere, Err(CaptureError::Io { .. })));
    fs::remove_dir_all(&dir).expect("ours");
}

// Goal: a special file is written, not replaced. Method: /dev/null stays what it is.
#[test]
fn special_files_stay() {
    let null = std::path::Path::new("/dev/null");
    let writer = Writer::create(null, Counts::default()).expect("writable");
    writer.finish().expect("written");
    assert!(!fs::metadata(null).expect("there").is_file());
}
