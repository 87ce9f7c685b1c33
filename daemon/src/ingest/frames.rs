//! Bytes of a stream, cut into frames.

use pageshim_wire::frame::{EVENT_BYTES, Event, FrameError, HEAD_BYTES, Head, Kind};

/// Most bytes that wait for the rest of their frame.
#[cfg(test)]
const BUFFER_MAX: usize = HEAD_BYTES + pageshim_wire::frame::PAYLOAD_MAX as usize;
/// A buffer larger than this is given back when it is empty.
const KEEP: usize = 64 * 1024;

/// Collects bytes until a frame is whole. Never holds more than one frame and
/// what was read with it.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    used: usize,
}

impl Frames {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.used);
        self.used = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` when more bytes are needed. After an
    /// error the stream is beyond repair.
    pub fn next(&mut self) -> Result<Option<(Head, &[u8])>, FrameError> {
        let rest = &self.bytes[self.used..];
        let Some(head) = rest.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let head = Head::decode(head)?;
        let end = HEAD_BYTES + head.len as usize;
        if rest.len() < end {
            return Ok(None);
        }
        let start = self.used + HEAD_BYTES;
        self.used += end;
        Ok(Some((head, &self.bytes[start..self.used])))
    }

    /// Whether part of a frame waits for its rest.
    pub fn is_half(&self) -> bool {
        self.used < self.bytes.len()
    }
}

/// Allocations and frees in a batch of trace events.
pub fn count_batch(payload: &[u8]) -> Result<(u64, u64), FrameError> {
    const FIXED: usize = 24;
    let events = payload.get(FIXED..).ok_or(FrameError::Payload)?;
    if !events.len().is_multiple_of(EVENT_BYTES) {
        return Err(FrameError::Payload);
    }
    let count = events.len() / EVENT_BYTES;
    let decoded = (0..count).filter_map(|index| Event::decode(events, index));
    let frees = decoded.filter(|event| event.free).count() as u64;
    Ok((count as u64 - frees, frees))
}

/// Checks that a frame has what its kind demands.
pub fn check(kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
    let words = match kind {
        Kind::Welcome | Kind::Refused | Kind::Hello => return Err(FrameError::Kind(kind as u16)),
        Kind::Exec | Kind::Mark => 0,
        Kind::Module | Kind::Fork | Kind::Exit | Kind::Check => 1,
        Kind::Thread | Kind::Segment | Kind::Batch => 3,
        Kind::Misuse => 5,
    };
    if payload.len() < words * 8 {
        return Err(FrameError::Payload);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let head = Head {
            len: payload.len() as u32,
            kind,
            time_ns: 1,
        };
        [&head.encode()[..], payload].concat()
    }

    // Goal: any cut of the stream gives the same frames. Method: push byte by byte and all at once.
    #[test]
    fn cuts_do_not_matter() {
        let mut stream = frame(Kind::Exit, &7u64.to_le_bytes());
        stream.extend(frame(Kind::Exec, &[]));
        stream.extend(frame(Kind::Mark, b"half")[..18].iter());
        for step in [1, 3, 1000] {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for part in stream.chunks(step) {
                frames.push(part);
                while let Some((head, payload)) = frames.next().expect("sound") {
                    seen.push((head.kind, payload.len()));
                }
            }
            assert_eq!(seen, [(Kind::Exit, 8), (Kind::Exec, 0)]);
            assert!(frames.is_half());
        }
    }

    // Goal: random bytes end in an error or wait for more, inside the buffer's bound.
    // Method: many short random streams, some behind a sound head.
    #[test]
    fn random_bytes_are_survived() {
        let mut seed = 88_172_645_463_325_252u64;
        for round in 0..20_000 {
            let mut stream = if round % 3 == 0 {
                frame(Kind::Batch, &[0; 24])
            } else {
                Vec::new()
            };
            for _ in 0..8 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                stream.extend(seed.to_le_bytes());
            }
            let mut frames = Frames::default();
            frames.push(&stream);
            while let Ok(Some((head, payload))) = frames.next() {
                let _ = (check(head.kind, payload), count_batch(payload));
            }
            assert!(frames.bytes.len() <= BUFFER_MAX);
        }
    }

    // Goal: batches are counted, half an event is an error. Method: one allocation, two frees.
    #[test]
    fn batches_are_counted() {
        let mut payload = vec![0; 24];
        for free in [false, true, true] {
            let event = Event {
                address: 1,
                bytes: 2,
                site: 3,
                free,
                tick: 4,
            };
            event
                .encode()
                .iter()
                .for_each(|word| payload.extend(word.to_le_bytes()));
        }
        assert_eq!(count_batch(&payload), Ok((1, 2)));
        assert_eq!(count_batch(&payload[..90]), Err(FrameError::Payload));
        assert_eq!(count_batch(&[0; 8]), Err(FrameError::Payload));
        assert_eq!(check(Kind::Misuse, &[0; 39]), Err(FrameError::Payload));
        assert!(check(Kind::Hello, &[0; 64]).is_err());
    }
}
