//! One frame of a capture.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a frame holds.
pub mod tag {
    /// Counts of what follows.
    pub const HEAD: u32 = 1;
    /// Processes.
    pub const PROCESSES: u32 = 2;
    /// Leaks.
    pub const LEAKS: u32 = 3;
    /// Other sites.
    pub const SITES: u32 = 4;
    /// The end.
    pub const END: u32 = 5;
}

/// Bytes before the payload.
const HEAD_BYTES: usize = 12;
/// Longest payload, and longest JSON in it, that a reader accepts.
const PAYLOAD_MAX: u32 = 64 << 20;
const JSON_MAX: u64 = 256 << 20;

/// A run's end waits for this. Level 6 takes longer and saves a quarter (3.3 MB against 4.3 MB for a compiler).
const LEVEL: u32 = 2;

/// Writes one frame.
pub fn write(to: &mut impl Write, tag: u32, value: &impl Serialize) -> io::Result<()> {
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::new(LEVEL));
    // In large pieces: handing the encoder each token costs ten times the packing.
    let mut buffered = io::BufWriter::with_capacity(64 << 10, &mut deflate);
    serde_json::to_writer(&mut buffered, value)?;
    buffered.flush()?;
    drop(buffered);
    finish(to, tag, &deflate.finish()?)
}

/// Writes one frame: a list whose entries are JSON already.
pub fn write_list(to: &mut impl Write, tag: u32, entries: &[Vec<u8>]) -> io::Result<()> {
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::new(LEVEL));
    let mut before = b"[";
    for entry in entries {
        deflate.write_all(before)?;
        deflate.write_all(entry)?;
        before = b",";
    }
    deflate.write_all(if entries.is_empty() { b"[]" } else { b"]" })?;
    finish(to, tag, &deflate.finish()?)
}

fn finish(to: &mut impl Write, tag: u32, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len())
        .ok()
        .filter(|len| *len <= PAYLOAD_MAX)
        .ok_or_else(|| io::Error::other("a part of it is too long for the format"))?;
    let sum = checksum(tag, len, payload);
    for number in [tag, len, sum] {
        to.write_all(&number.to_le_bytes())?;
    }
    to.write_all(payload)
}

/// Reads one frame; `None` at the end, at a frame cut short or a damaged one.
pub fn read(from: &mut impl Read) -> Option<(u32, Vec<u8>)> {
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head).ok()?;
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (tag, len, sum) = (number(0), number(4), number(8));
    if len > PAYLOAD_MAX {
        return None;
    }
    // Not allocated at once: a damaged length must not cost its bytes.
    let mut payload = Vec::new();
    from.take(len.into()).read_to_end(&mut payload).ok()?;
    (payload.len() == len as usize && checksum(tag, len, &payload) == sum).then_some((tag, payload))
}

/// The value of a payload; `None` when it is not what its tag says.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    let mut json = Vec::new();
    let inflated = DeflateDecoder::new(payload)
        .take(JSON_MAX)
        .read_to_end(&mut json);
    inflated.ok()?;
    serde_json::from_slice(&json).ok()
}

fn checksum(tag: u32, len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&tag.to_le_bytes());
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
