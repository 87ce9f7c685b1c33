//! The runs of a gpa, from the page structs of a process that goes on meanwhile.

use pageshim_wire::heap::{Kind, SLICE_BYTES, SLICE_SHIFT, page};

use super::memory::Peek;

/// Structs read at a time: few, so that a run is looked at soon after its struct.
/// With 512, a busy program's runs had often changed by then.
const PIECE: u64 = 16;

/// Where the books lie, from the header of the shared state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Address of the first slice.
    pub base: u64,
    /// Bytes reserved for slices.
    pub reserved: u64,
    /// Bytes of slices made accessible so far.
    pub committed: u64,
    /// Address of the page structs.
    pub structs: u64,
    /// Address of the records.
    pub records: u64,
    /// The class of pages that are one block: the last.
    pub single: u8,
}

/// What a run is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Slots of one size.
    Slots {
        /// Bytes of a slot.
        bytes: u32,
        /// Slots there is room for.
        room: u32,
        /// Slots carved so far.
        carved: u32,
        /// Slots in use, as the owner last counted.
        used: u32,
    },
    /// One block.
    Single {
        /// Bytes it may use.
        usable: u64,
        /// Its record.
        record: u64,
    },
    /// Free: kept for reuse, or given back to the kernel.
    Free,
    /// Never used.
    Untouched,
}

/// Neighbouring slices with one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address of its first byte.
    pub start: u64,
    /// Its bytes, a multiple of the slice's.
    pub bytes: u64,
    /// Size class, for runs in use.
    pub class: u8,
    /// Address of its records (8 bytes a slot), 0 when it has none.
    pub records: u64,
    /// What for.
    pub used: Use,
}

/// Gives each run to `each`, in order of address and without keeping them. Where a
/// struct makes no sense its slice is given as untouched, and false with it. `each`
/// answers the bytes it has dealt with (a run may have another length by then), or
/// `None` to stop. Answers where the walk stopped: at the end of the committed
/// slices, unless it was told to or a struct could not be read.
pub fn walk(
    memory: &impl Peek,
    place: &Place,
    mut each: impl FnMut(Run, bool) -> Option<u64>,
) -> u64 {
    let slices = place.committed.min(place.reserved) >> SLICE_SHIFT;
    let mut piece = Vec::new();
    let mut loaded = 0..0;
    let mut slice = 1;
    while slice < slices && place.structs != 0 {
        if !loaded.contains(&slice) {
            let count = PIECE.min(slices - slice);
            piece.resize((count as usize) * page::BYTES, 0);
            if !memory.peek(place.structs + slice * page::BYTES as u64, &mut piece) {
                break;
            }
            loaded = slice..slice + count;
        }
        let at = ((slice - loaded.start) as usize) * page::BYTES;
        let run = Struct(&piece[at..at + page::BYTES]).run(place, slice, slices);
        let sound = run.is_some();
        match each(run.unwrap_or(untouched(place, slice)), sound) {
            Some(bytes) => slice += (bytes >> SLICE_SHIFT).max(1),
            None => break,
        }
    }
    place.base + (slice.min(slices) << SLICE_SHIFT)
}

/// Reads the struct of one run anew; `None` when it makes no sense now.
pub fn again(memory: &impl Peek, place: &Place, run: &Run) -> Option<Run> {
    let slices = place.committed.min(place.reserved) >> SLICE_SHIFT;
    let slice = run.start.checked_sub(place.base)? >> SLICE_SHIFT;
    let mut bytes = [0; page::BYTES];
    let read = memory.peek(place.structs + slice * page::BYTES as u64, &mut bytes);
    (read && slice < slices)
        .then(|| Struct(&bytes).run(place, slice, slices))
        .flatten()
}

impl Run {
    /// True when both describe the same slots; how many of them are in use may differ.
    pub fn is_like(&self, other: &Self) -> bool {
        let place = |run: &Self| (run.start, run.bytes, run.class, run.records);
        let shape = |run: &Self| match run.used {
            Use::Slots {
                bytes,
                room,
                carved,
                ..
            } => Some((bytes, room, carved)),
            Use::Single { usable, .. } => Some((0, 0, (usable >> 4) as u32)),
            Use::Free | Use::Untouched => None,
        };
        place(self) == place(other) && shape(self) == shape(other)
    }
}

fn untouched(place: &Place, slice: u64) -> Run {
    Run {
        start: place.base + (slice << SLICE_SHIFT),
        bytes: SLICE_BYTES,
        class: 0,
        records: 0,
        used: Use::Untouched,
    }
}

struct Struct<'a>(&'a [u8]);

impl Struct<'_> {
    fn u32(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    /// The run that begins at `slice`; `None` when the struct is not sound.
    fn run(&self, place: &Place, slice: u64, slices: u64) -> Option<Run> {
        let kind = Kind::from_byte(self.0[page::KIND])?;
        let mut run = untouched(place, slice);
        if kind == Kind::Untouched {
            return Some(run);
        }
        let count = u64::from(self.u32(page::SLICES));
        if count == 0 || count > slices - slice || kind == Kind::Interior {
            return None;
        }
        run.bytes = count << SLICE_SHIFT;
        if kind == Kind::Free {
            run.used = Use::Free;
            return Some(run);
        }
        run.class = self.0[page::CLASS];
        run.records = self.u64(page::RECORDS);
        run.used = if run.class == place.single {
            self.single(run.bytes)?
        } else {
            self.slots(run.bytes)?
        };
        (self.u64(page::START) == run.start).then_some(run)
    }

    fn single(&self, bytes: u64) -> Option<Use> {
        let usable = self.u64(page::SINGLE_BYTES);
        let record = self.u64(page::SINGLE_RECORD);
        (usable <= bytes).then_some(Use::Single { usable, record })
    }

    fn slots(&self, bytes: u64) -> Option<Use> {
        let slot = self.u32(page::SLOT_BYTES);
        let (room, carved) = (self.u32(page::SLOTS), self.u32(page::CAPACITY));
        let fits = slot != 0 && u64::from(slot) * u64::from(room) <= bytes && carved <= room;
        fits.then_some(Use::Slots {
            bytes: slot,
            room,
            carved,
            used: self.u32(page::USED).min(carved),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All runs in order of address.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Snapshot {
        /// The runs; they cover the committed slices without a gap.
        runs: Vec<Run>,
        /// Structs that made no sense when they were read; their slices count as untouched.
        torn: u64,
    }

    /// Reads all runs. Slice 0 is never handed out and is left out.
    fn take(memory: &impl Peek, place: &Place) -> Snapshot {
        let mut found = Snapshot::default();
        walk(memory, place, |run, sound| {
            found.torn += u64::from(!sound);
            found.push(run);
            Some(run.bytes)
        });
        found
    }

    impl Snapshot {
        fn push(&mut self, run: Run) {
            match self.runs.last_mut() {
                Some(last) if last.used == Use::Untouched && run.used == Use::Untouched => {
                    last.bytes += run.bytes;
                }
                _ => self.runs.push(run),
            }
        }
    }

    const PLACE: Place = Place {
        base: 0x10_0000,
        reserved: 1 << 30,
        committed: 8 * SLICE_BYTES,
        structs: 0x1000,
        records: 0,
        single: 40,
    };

    struct Bytes(Vec<u8>);

    impl Peek for Bytes {
        fn peek(&self, address: u64, into: &mut [u8]) -> bool {
            let from = (address - PLACE.structs) as usize;
            let found = self.0.get(from..from + into.len());
            found.map(|found| into.copy_from_slice(found)).is_some()
        }
    }

    impl Bytes {
        fn new() -> Self {
            Self(vec![0; 8 * page::BYTES])
        }

        fn set(&mut self, slice: usize, at: usize, value: &[u8]) {
            let at = slice * page::BYTES + at;
            self.0[at..at + value.len()].copy_from_slice(value);
        }

        fn head(&mut self, slice: usize, slices: u32, class: u8) {
            let start = PLACE.base + ((slice as u64) << SLICE_SHIFT);
            self.set(slice, page::KIND, &[Kind::Head as u8]);
            self.set(slice, page::CLASS, &[class]);
            self.set(slice, page::SLICES, &slices.to_le_bytes());
            self.set(slice, page::START, &start.to_le_bytes());
            for later in slice + 1..slice + slices as usize {
                self.set(later, page::KIND, &[Kind::Interior as u8]);
            }
        }
    }

    // Goal: each kind of run is read, in order and without a gap. Method: structs by hand.
    #[test]
    fn runs_are_read() {
        let mut bytes = Bytes::new();
        bytes.head(1, 1, 3);
        bytes.set(1, page::SLOT_BYTES, &64u32.to_le_bytes());
        bytes.set(1, page::SLOTS, &1024u32.to_le_bytes());
        bytes.set(1, page::CAPACITY, &128u32.to_le_bytes());
        bytes.set(1, page::USED, &100u32.to_le_bytes());
        bytes.head(2, 3, PLACE.single);
        bytes.set(2, page::SINGLE_BYTES, &180_224u64.to_le_bytes());
        bytes.set(2, page::SINGLE_RECORD, &77u64.to_le_bytes());
        bytes.set(5, page::KIND, &[Kind::Free as u8]);
        bytes.set(5, page::SLICES, &1u32.to_le_bytes());
        let found = take(&bytes, &PLACE);
        let uses: Vec<_> = found
            .runs
            .iter()
            .map(|run| (run.bytes / SLICE_BYTES, run.used))
            .collect();
        let slots = Use::Slots {
            bytes: 64,
            room: 1024,
            carved: 128,
            used: 100,
        };
        let single = Use::Single {
            usable: 180_224,
            record: 77,
        };
        assert_eq!(
            uses,
            [(1, slots), (3, single), (1, Use::Free), (2, Use::Untouched)]
        );
        assert_eq!(found.torn, 0);
        assert_eq!(found.runs[0].start, PLACE.base + SLICE_BYTES);
    }

    // Goal: structs that make no sense are skipped and counted. Method: a run past the end, slots that
    // do not fit, an interior slice without a head, a wild kind.
    #[test]
    fn torn_structs_are_counted() {
        let mut bytes = Bytes::new();
        bytes.head(1, 1, 3);
        bytes.set(1, page::SLICES, &99u32.to_le_bytes());
        bytes.head(2, 1, 3);
        bytes.set(2, page::SLOT_BYTES, &4096u32.to_le_bytes());
        bytes.set(2, page::SLOTS, &4096u32.to_le_bytes());
        bytes.set(3, page::KIND, &[Kind::Interior as u8]);
        bytes.set(4, page::KIND, &[200]);
        let found = take(&bytes, &PLACE);
        assert_eq!(found.torn, 4);
        let all: u64 = found.runs.iter().map(|run| run.bytes).sum();
        assert_eq!(all, 7 * SLICE_BYTES);
    }
}
