//! Sites and the stack log: each distinct stack, written once, as a delta.
//!
//! # Design
//! Site entry `id` (16 bytes): word 0 the stack's 64-bit hash (0 = not yet
//! published, written last), word 1 the byte offset of its record in the log.
//!
//! Log record (8-byte words):
//! ```text
//! w0  site id (32) | new frames (16) | shared frames (16)
//! w1  prefix site id (32) | thread slot (16) | end reason (16)
//! w2  tick when first seen
//! w3… `new frames` program counters, leaf first
//! ```
//! The whole stack, leaf first, is the new frames followed by the outermost
//! `shared` frames of the prefix site's stack. A prefix site is always an older
//! id, so decoding ends.
//!
//! A program counter is a return address (look up at minus one), except when
//! [`EXACT_PC`] is set: then a signal interrupted the program exactly there.

use crate::layout::Layout;
use crate::{Memory, word_at};

/// Bit of a program counter that is an interrupted instruction, not a return address.
pub const EXACT_PC: u64 = 1 << 63;
/// Words of a log record before its program counters.
pub const RECORD_WORDS: usize = 3;
/// Deepest stack a record may describe.
pub const DEPTH_MAX: usize = 4096;

/// Why a stack ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum End {
    /// At the outermost frame: the stack is whole.
    Complete = 0,
    /// At the depth limit.
    DepthLimit = 1,
    /// At code without unwind tables.
    NoTable = 2,
    /// At a table whose rule cannot be followed.
    BadRule = 3,
    /// At a slot outside the stack's bounds.
    OutOfBounds = 4,
    /// Frames stopped going outwards.
    NoProgress = 5,
}

impl End {
    /// The reason a record carries; unknown numbers read as `BadRule`.
    pub const fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Complete,
            1 => Self::DepthLimit,
            2 => Self::NoTable,
            4 => Self::OutOfBounds,
            5 => Self::NoProgress,
            _ => Self::BadRule,
        }
    }
}

/// A record's fixed part, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The site this record is of.
    pub site: u32,
    /// Program counters that follow.
    pub new_frames: u16,
    /// Outermost frames taken from `prefix`.
    pub shared_frames: u16,
    /// An older site, or 0 when `shared_frames` is 0.
    pub prefix: u32,
    /// Thread slot that saw the stack first.
    pub thread: u16,
    /// How the stack ended.
    pub end: End,
    /// When it was first seen.
    pub tick: u64,
    /// Byte offset in the state of the first program counter.
    pub frames_at: u64,
}

impl Record {
    /// Reads the record of `site`; `None` when it is not published or not sound.
    pub fn of_site(memory: &(impl Memory + ?Sized), layout: &Layout, site: u32) -> Option<Self> {
        if u64::from(site) >= layout.site_capacity {
            return None;
        }
        let mut entry = [0; 16];
        if !memory.read(layout.site(u64::from(site)), &mut entry) || word_at(&entry, 0) == 0 {
            return None;
        }
        let offset = word_at(&entry, 1);
        let fixed = RECORD_WORDS as u64 * 8;
        if !offset.is_multiple_of(8) || offset.checked_add(fixed)? > layout.log_bytes {
            return None;
        }
        let mut head = [0; RECORD_WORDS * 8];
        if !memory.read(layout.log() + offset, &mut head) {
            return None;
        }
        let (first, second) = (word_at(&head, 0), word_at(&head, 1));
        let record = Self {
            site: low32(first),
            new_frames: low16(first >> 32),
            shared_frames: low16(first >> 48),
            prefix: low32(second),
            thread: low16(second >> 32),
            end: End::from_number(low16(second >> 48)),
            tick: word_at(&head, 2),
            frames_at: layout.log() + offset + fixed,
        };
        let frames = u64::from(record.new_frames) * 8;
        let fits = offset + fixed + frames <= layout.log_bytes;
        let ordered = record.shared_frames == 0 || record.prefix < site;
        let depth = usize::from(record.new_frames) + usize::from(record.shared_frames);
        (record.site == site && fits && ordered && depth <= DEPTH_MAX).then_some(record)
    }

    /// The first two words of this record, as the shim writes them.
    pub const fn words(&self) -> [u64; RECORD_WORDS] {
        [
            self.site as u64 | (self.new_frames as u64) << 32 | (self.shared_frames as u64) << 48,
            self.prefix as u64 | (self.thread as u64) << 32 | (self.end as u64) << 48,
            self.tick,
        ]
    }
}

const fn low32(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

const fn low16(word: u64) -> u16 {
    (word & 0xffff) as u16
}
