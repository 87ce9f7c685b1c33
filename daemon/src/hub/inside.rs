//! Looking into a running process whose state says where its heap's books lie.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pageshim_wire::process::{Control, Heap, word};

use super::leads::Seen;
use super::record::Record;
use crate::books::leaks::Lead;
use crate::books::sites::SiteSums;
use crate::ingest::SharedState;
use crate::target::access::Trouble;
use crate::target::snapshot::Place;

/// How long a process may take to let us in.
const CONSENT: Duration = Duration::from_millis(400);
/// How many times what the last look took must pass before the next.
const REST_TIMES: u32 = 20;

/// How long after a look that took so long none is taken: at least `least`.
pub fn rest(least: Duration, took: Duration) -> Duration {
    least.max(took * REST_TIMES)
}

/// Calls `look` with process, books and page size; once more with the process's
/// consent where the kernel wants that.
pub fn look<T>(
    record: &Record,
    state: &SharedState,
    look: impl Fn(u32, &Place, u64) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    if Heap::from_word(state.header(word::HEAP)) != Some(Heap::Gpa) {
        return Err(Trouble::NoBooks);
    }
    let page_bytes = state.header(word::OS_PAGE_BYTES);
    if record.peer_pid == 0 || !page_bytes.is_power_of_two() || page_bytes > 1 << 16 {
        return Err(Trouble::Nonsense);
    }
    let take = || look(record.peer_pid, &place(state), page_bytes);
    match take() {
        Err(Trouble::Refused) => {
            let asked = state.ask(Control::Consent);
            let started = Instant::now();
            while state.header(word::CONTROL_DONE) != asked && started.elapsed() < CONSENT {
                std::thread::sleep(Duration::from_millis(10));
            }
            take()
        }
        other => other,
    }
}

fn place(state: &SharedState) -> Place {
    let classes = state.header(word::CLASS_COUNT);
    Place {
        base: state.header(word::HEAP_BASE),
        reserved: state.header(word::HEAP_RESERVED),
        committed: state.header(word::HEAP_COMMITTED),
        structs: state.header(word::HEAP_STRUCTS),
        records: state.header(word::HEAP_RECORDS),
        single: u8::try_from(classes.saturating_sub(1)).unwrap_or(u8::MAX),
    }
}

/// The process as its reports see it, without leads.
pub fn seen(record: &Arc<Record>) -> Seen {
    Seen {
        record: Arc::clone(record),
        observed: record.look(),
        leads: Vec::new(),
        verdict: Arc::default(),
    }
}

/// Leads to these sites, to have them named: without sums.
pub fn leads(sites: impl Iterator<Item = u32>) -> Vec<Lead> {
    let lead = |site| Lead {
        site,
        sums: SiteSums::default(),
        part: None,
    };
    sites.map(lead).collect()
}
