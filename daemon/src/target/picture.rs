//! Takes the chart of a running process: reads, draws, forgets.

use std::time::{Duration, Instant};

use pageshim_wire::heap::SLICE_BYTES;

use super::access::{Access, Records, Trouble, committed};
use super::memory::Peek;
use super::origins::Origins;
use super::snapshot::{self, Place, Use};
use crate::heatmap::chart::{Cell, Chart, Held};

/// Longest time for one chart.
const LIMIT: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Cells by address.
    pub cells: Vec<Cell>,
    /// All sites, most bytes first.
    pub sites: Vec<Held>,
    /// Runs that changed while they were read, and structs that made no sense.
    pub moved: u64,
    /// How long it took.
    pub took: Duration,
}

/// Draws the heap of process `pid` whose books lie at `place`; cells with blocks of
/// site `wanted` are marked.
pub fn take(
    pid: u32,
    place: &Place,
    page_bytes: u64,
    wanted: Option<u32>,
) -> Result<Picture, Trouble> {
    let started = Instant::now();
    let access = Access::open(pid, place, page_bytes)?;
    let committed = committed(place);
    let resident = access.pages.resident(place.base, committed)?;
    // Slice 0 is never handed out.
    let (first, end) = (place.base + SLICE_BYTES, place.base + committed);
    let chart = Chart::new(first, end, resident, wanted);
    draw(&access.memory, place, chart, started)
}

fn draw(
    memory: &impl Peek,
    place: &Place,
    mut chart: Chart,
    started: Instant,
) -> Result<Picture, Trouble> {
    let (mut moved, mut late) = (0, false);
    let mut records = Records::default();
    let mut origins = Origins::default();
    snapshot::walk(memory, place, |run, sound| {
        let read = records.read(memory, place, &run);
        let now = snapshot::again(memory, place, &run);
        // What was read is drawn in any case: a picture is of about now.
        let same = run.used == Use::Untouched || now.is_some_and(|now| now.is_like(&run));
        moved += u64::from(!sound || !read || !same);
        chart.add(&run, records.words());
        origins.read(memory, place, &run);
        chart.opened(&run, &origins);
        late = started.elapsed() > LIMIT;
        (!late).then_some(run.bytes)
    });
    if late {
        return Err(Trouble::TooLong);
    }
    let (cells, sites) = chart.finish();
    Ok(Picture {
        cells,
        sites,
        moved,
        took: started.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::pagemap::Resident;
    use pageshim_wire::heap::SLICE_SHIFT;
    use pageshim_wire::heap::record::SITE_BITS;
    use pageshim_wire::heap::{Kind, page};

    /// Page structs at 0x1000, records at 0x8000, slices behind.
    struct Bytes(Vec<u8>);

    impl Peek for Bytes {
        fn peek(&self, address: u64, into: &mut [u8]) -> bool {
            let found = usize::try_from(address)
                .ok()
                .and_then(|from| self.0.get(from..from + into.len()));
            found.map(|found| into.copy_from_slice(found)).is_some()
        }
    }

    // Goal: runs are read with their records; records that are not among the books are not
    // believed. Method: two runs by hand, one of them with records outside.
    #[test]
    fn runs_are_drawn_with_their_records() {
        let place = Place {
            base: 0x10_0000,
            reserved: 1 << 20,
            committed: 4 * SLICE_BYTES,
            structs: 0x1000,
            records: 0x8000,
            single: 40,
        };
        let mut bytes = Bytes(vec![0; 0x10_0000]);
        let mut set =
            |at: usize, value: &[u8]| bytes.0[at..at + value.len()].copy_from_slice(value);
        for (slice, records) in [(1, 0x8000u64), (2, 0x4000_0000)] {
            let at = 0x1000 + slice * page::BYTES;
            let start = place.base + ((slice as u64) << SLICE_SHIFT);
            set(at + page::KIND, &[Kind::Head as u8]);
            set(at + page::SLICES, &1u32.to_le_bytes());
            set(at + page::START, &start.to_le_bytes());
            set(at + page::SLOT_BYTES, &64u32.to_le_bytes());
            set(at + page::SLOTS, &1024u32.to_le_bytes());
            set(at + page::CAPACITY, &64u32.to_le_bytes());
            set(at + page::USED, &2u32.to_le_bytes());
            set(at + page::RECORDS, &records.to_le_bytes());
        }
        set(0x8000 + 5 * 8, &(77 | 3u64 << SITE_BITS).to_le_bytes());
        let first = place.base + SLICE_BYTES;
        let resident = Resident::of(place.base, 4096, &[true; 64]);
        let chart = Chart::new(first, place.base + place.committed, resident, Some(77));
        let picture = draw(&bytes, &place, chart, Instant::now()).expect("drawn");
        let live: Vec<u64> = picture.cells.iter().map(|cell| cell.slots[2]).collect();
        assert_eq!((live, picture.moved), (vec![1, 2, 0], 1));
        assert!(picture.cells[0].wanted && picture.cells[0].sites[0].site == 77);
        assert_eq!(picture.sites.len(), 1);
    }
}
