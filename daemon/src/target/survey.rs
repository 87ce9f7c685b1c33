//! Takes the bill of a running process: reads, splits, forgets.
//!
//! # Memory
//! A bit for each committed OS page, the records of one run at a time, a cost for
//! each site. The list of runs is never held.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use pageshim_wire::heap::{SLICE_BYTES, SLICE_SHIFT};
use thiserror::Error;

use super::memory::{Memory, Peek};
use super::pagemap::Pagemap;
use super::smaps::{self, Around};
use super::snapshot::{self, Place, Run, Use};
use crate::bill::cost::{Cost, Parts};
use crate::bill::ledger::Ledger;

/// Longest time for one bill: a heap larger than that gets none.
const LIMIT: Duration = Duration::from_secs(30);
/// Largest heap a process may claim: twice what the shim reserves.
const COMMITTED_MAX: u64 = 1 << 40;

/// Why there is no bill.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Trouble {
    /// It is not there any more.
    #[error("the process is gone")]
    Gone,
    /// The kernel says no.
    #[error(
        "the kernel does not let the daemon read the process (kernel.yama.ptrace_scope, or another user); run the daemon as the same user with ptrace_scope 0 or 1, or as root"
    )]
    Refused,
    /// Nothing to read.
    #[error("its heap keeps no page structs; the bill is for PAGESHIM_HEAP=gpa")]
    NoBooks,
    /// Its header says what cannot be.
    #[error("its shared state makes no sense")]
    Nonsense,
    /// Too large.
    #[error("reading it took longer than 30 s")]
    TooLong,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Parts of the slices.
    pub parts: Parts,
    /// Bills by site.
    pub costs: HashMap<u32, Cost>,
    /// What smaps says.
    pub around: Around,
    /// Runs that changed while they were read, and structs that made no sense.
    pub moved_runs: u64,
    /// How long it took.
    pub took: Duration,
}

/// Takes the bill of process `pid` whose books lie at `place`.
pub fn take(pid: u32, place: &Place, page_bytes: u64) -> Result<Survey, Trouble> {
    let started = Instant::now();
    if place.structs == 0 {
        return Err(Trouble::NoBooks);
    }
    let end = place.base.checked_add(place.reserved);
    let end = end.filter(|_| place.structs < place.base && place.committed <= COMMITTED_MAX);
    let reserve = place.structs..end.ok_or(Trouble::Nonsense)?;
    let memory = Memory::open(pid).map_err(|error| trouble(&error))?;
    let pages = Pagemap::open(pid, page_bytes).map_err(|error| trouble(&error))?;
    let stacks = smaps::stack_pointers(pid);
    let text = std::fs::read(format!("/proc/{pid}/smaps")).map_err(|error| trouble(&error))?;
    let mappings = smaps::parse(&String::from_utf8_lossy(&text));
    let around = smaps::sort(&mappings, &reserve, place.base, &stacks);
    let committed = place.committed.min(place.reserved);
    let resident = pages.resident(place.base, committed);
    let resident = resident.map_err(|error| trouble(&error))?;
    let mut reader = Reader::new(&memory, place, Ledger::new(resident, around.huge > 0));
    reader.read(started + LIMIT)?;
    let (parts, costs) = reader.ledger.finish();
    Ok(Survey {
        parts,
        costs,
        around,
        moved_runs: reader.moved,
        took: started.elapsed(),
    })
}

fn trouble(error: &std::io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::PermissionDenied => Trouble::Refused,
        _ => Trouble::Gone,
    }
}

/// Reads runs with their records into a ledger.
struct Reader<'a, M> {
    memory: &'a M,
    place: &'a Place,
    ledger: Ledger,
    bytes: Vec<u8>,
    words: Vec<u64>,
    moved: u64,
}

impl<'a, M: Peek> Reader<'a, M> {
    fn new(memory: &'a M, place: &'a Place, ledger: Ledger) -> Self {
        Self {
            memory,
            place,
            ledger,
            bytes: Vec::new(),
            words: Vec::new(),
            moved: 0,
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let (memory, place) = (self.memory, self.place);
        self.ledger.add(&never_used(place.base, SLICE_BYTES), &[]);
        let mut late = false;
        let walked = snapshot::walk(memory, place, |run| {
            self.run(run);
            late = Instant::now() > deadline;
            !late
        });
        if late {
            return Err(Trouble::TooLong);
        }
        self.moved += walked.torn;
        let end = place.base + (place.committed.min(place.reserved) >> SLICE_SHIFT << SLICE_SHIFT);
        if walked.end < end {
            self.moved += 1;
            let rest = never_used(walked.end, end - walked.end);
            self.ledger.moved(&rest);
        }
        Ok(())
    }

    /// A run that changed while it was read is read once more; after that its bytes
    /// are told apart.
    fn run(&mut self, run: Run) {
        let mut wanted = run;
        for _ in 0..2 {
            let read = self.records(&wanted);
            let now = snapshot::again(self.memory, self.place, &wanted);
            match now {
                Some(now) if read && now.is_like(&wanted) => {
                    self.ledger.add(&wanted, &self.words);
                    return;
                }
                // Where it ends must stay: the next run is read from there.
                Some(now) if now.bytes == run.bytes => wanted = now,
                _ => break,
            }
        }
        self.moved += 1;
        self.ledger.moved(&run);
    }

    /// Reads the records of a run; false when they are not where it says.
    fn records(&mut self, run: &Run) -> bool {
        self.words.clear();
        let Use::Slots { carved, .. } = run.used else {
            return true;
        };
        if run.records == 0 || carved == 0 {
            return true;
        }
        self.bytes.resize(carved as usize * 8, 0);
        let books = self.place.structs..self.place.base;
        let read = books.contains(&run.records) && self.memory.peek(run.records, &mut self.bytes);
        let words = self.bytes.chunks_exact(8);
        let words = words.map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        self.words.extend(words);
        read
    }
}

fn never_used(start: u64, bytes: u64) -> Run {
    Run {
        start,
        bytes,
        class: 0,
        records: 0,
        used: Use::Untouched,
    }
}
