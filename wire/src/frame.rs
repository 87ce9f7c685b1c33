//! Frames on the Unix socket: a fixed head, then a payload of known length.
//!
//! # Design
//! ```text
//! shim -> daemon   HELLO (with the memfd beside it), MODULE, THREAD, FORK, EXEC,
//!                  EXIT, SEGMENT, MISUSE, MARK, BATCH, CHECK
//! daemon -> shim   WELCOME or REFUSED
//! ```
//! Payloads are words, little-endian. Whatever a late daemon must know is in the
//! shared state as well; a frame tells *that and when* something happened.
//! The shim never waits for an answer, but for a CHECK, whose answer is in the shared state.

use crate::{VERSION, word_at};

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 16;
/// Longest payload either side accepts.
pub const PAYLOAD_MAX: u32 = 256 * 1024;
/// Bytes of one trace event in a BATCH.
pub const EVENT_BYTES: usize = 24;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// First frame of a connection: [`Hello`]; carries the memfd.
    Hello = 1,
    /// Accepted; no payload.
    Welcome = 2,
    /// Not accepted; payload is the reason as text.
    Refused = 3,
    /// A module slot was written: [slot].
    Module = 4,
    /// A thread slot changed hands: [slot, tid, 1 begins | 2 ends].
    Thread = 5,
    /// The process forked: [child pid or 0].
    Fork = 6,
    /// The process is about to exec.
    Exec = 7,
    /// The process is about to exit: [status].
    Exit = 8,
    /// Address space taken or given back: [address, bytes, 1 committed | 2 purged | 3 released].
    Segment = 9,
    /// Misuse: [kind, address, site of alloc, site of first free, site of this call].
    Misuse = 10,
    /// A mark set by the user: text.
    Mark = 11,
    /// Trace events: [thread slot, first monotonic ns, last monotonic ns], then events.
    Batch = 12,
    /// The process is about to end and waits to be checked: [the longest that may take, ms].
    Check = 13,
}
/// How many words [`crate::process::word::EVENTS`] uses; kinds are below it.
pub const KINDS: usize = 14;
/// Label of each kind, by number.
pub const KIND_NAMES: [&str; KINDS] = [
    "none", "hello", "welcome", "refused", "module", "thread", "fork", "exec", "exit", "segment",
    "misuse", "mark", "batch", "check",
];

impl Kind {
    /// The kind of a number on the wire.
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Refused,
            4 => Self::Module,
            5 => Self::Thread,
            6 => Self::Fork,
            7 => Self::Exec,
            8 => Self::Exit,
            9 => Self::Segment,
            10 => Self::Misuse,
            11 => Self::Mark,
            12 => Self::Batch,
            13 => Self::Check,
            _ => return None,
        })
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of payload.
    pub len: u32,
    /// What the payload is.
    pub kind: Kind,
    /// CLOCK_MONOTONIC of the sender, ns.
    pub time_ns: u64,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The head names another version of the protocol.
    Version(u16),
    /// No such kind.
    Kind(u16),
    /// Longer than [`PAYLOAD_MAX`].
    TooLong(u32),
    /// The payload is shorter than its kind demands or makes no sense.
    Payload,
}

impl Head {
    /// The head as bytes: len u32, kind u16, version u16, time u64.
    pub const fn encode(&self) -> [u8; HEAD_BYTES] {
        let low = self.len as u64 | (self.kind as u64) << 32 | (VERSION as u64) << 48;
        let (a, b) = (low.to_le_bytes(), self.time_ns.to_le_bytes());
        [
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5],
            b[6], b[7],
        ]
    }

    /// Checks and reads a head.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, FrameError> {
        let low = word_at(bytes, 0);
        let (kind, version) = ((low >> 32 & 0xffff) as u16, (low >> 48) as u16);
        let len = (low & 0xffff_ffff) as u32;
        if u32::from(version) != VERSION {
            return Err(FrameError::Version(version));
        }
        if len > PAYLOAD_MAX {
            return Err(FrameError::TooLong(len));
        }
        Ok(Self {
            len,
            kind: Kind::from_number(kind).ok_or(FrameError::Kind(kind))?,
            time_ns: word_at(bytes, 1),
        })
    }
}

/// Payload of [`Kind::Hello`]. Its words keep their place in all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`crate::layout::MAGIC`].
    pub magic: u64,
    /// The shim's [`VERSION`].
    pub version: u32,
    /// Token of the process image, as in the shared state.
    pub token: u64,
    /// Process id as the process sees it.
    pub pid: u32,
}

impl Hello {
    /// Bytes of the payload.
    pub const BYTES: usize = 32;

    /// The payload as bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.magic.to_le_bytes());
        bytes[8..16].copy_from_slice(&u64::from(self.version).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.token.to_le_bytes());
        bytes[24..].copy_from_slice(&u64::from(self.pid).to_le_bytes());
        bytes
    }

    /// Checks and reads a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let magic = word_at(bytes, 0);
        if bytes.len() < Self::BYTES || magic != crate::layout::MAGIC {
            return Err(FrameError::Payload);
        }
        Ok(Self {
            magic,
            version: u32::try_from(word_at(bytes, 1)).unwrap_or(u32::MAX),
            token: word_at(bytes, 2),
            pid: u32::try_from(word_at(bytes, 3)).map_err(|_| FrameError::Payload)?,
        })
    }
}

/// One traced allocation or free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Block address.
    pub address: u64,
    /// Requested bytes.
    pub bytes: u64,
    /// Site of the block.
    pub site: u32,
    /// True for a free.
    pub free: bool,
    /// Low 31 bits of the tick.
    pub tick: u32,
}

impl Event {
    /// The event as bytes: address, bytes, site | tick << 32 | free << 63.
    pub fn encode(&self) -> [u64; 3] {
        let tick = u64::from(self.tick & 0x7fff_ffff) << 32;
        let free = u64::from(self.free) << 63;
        [self.address, self.bytes, u64::from(self.site) | tick | free]
    }

    /// Reads event `index` of a batch's events; `None` past the end.
    pub fn decode(bytes: &[u8], index: usize) -> Option<Self> {
        let start = index.checked_mul(EVENT_BYTES)?;
        let event = bytes.get(start..start.checked_add(EVENT_BYTES)?)?;
        let last = word_at(event, 2);
        Some(Self {
            address: word_at(event, 0),
            bytes: word_at(event, 1),
            site: (last & 0xffff_ffff) as u32,
            free: last >> 63 == 1,
            tick: (last >> 32 & 0x7fff_ffff) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: what is encoded decodes to itself. Method: one value of each shape.
    #[test]
    fn heads_hellos_and_events_round_trip() {
        let head = Head {
            len: 32,
            kind: Kind::Hello,
            time_ns: 5,
        };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        let hello = Hello {
            magic: crate::layout::MAGIC,
            version: VERSION,
            token: 9,
            pid: 7,
        };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        let event = Event {
            address: 0x7f00,
            bytes: 24,
            site: 3,
            free: true,
            tick: 99,
        };
        let mut bytes = [0; EVENT_BYTES];
        for (i, word) in event.encode().iter().enumerate() {
            bytes[i * 8..i * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(Event::decode(&bytes, 0), Some(event));
        assert_eq!(Event::decode(&bytes, 1), None);
    }

    // Goal: garbage is an error, never a panic. Method: bad kind, length, version.
    #[test]
    fn garbage_is_refused() {
        let head = Head {
            len: 1,
            kind: Kind::Exit,
            time_ns: 0,
        };
        let mut bytes = head.encode();
        bytes[4] = 99;
        assert_eq!(Head::decode(&bytes), Err(FrameError::Kind(99)));
        bytes[6] = 7;
        assert_eq!(Head::decode(&bytes), Err(FrameError::Version(7)));
        bytes = head.encode();
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Head::decode(&bytes), Err(FrameError::TooLong(u32::MAX)));
        assert_eq!(Hello::decode(&[0; 64]), Err(FrameError::Payload));
    }
}
