//! Who has the layers call the kernel: each call is billed to the call site at work.
//!
//! # Design
//! A layer does not know for whom it works. It asks [`Billing::site`], which asks the
//! shim's [`Who`]: the site the calling thread's heap was last told of. Rows lie in the
//! shared state (see [`pageshim_wire::calls`]); without one nothing is billed, and what
//! was counted until then goes to site 0 when it comes.
//!
//! A range that was got lately is kept by its address, one for each of a few places, so
//! that giving it back within [`PAIR_NS`] shows as a pair. A place taken by another range
//! loses its pair: the number is a lower bound.
//!
//! # Concurrency
//! Relaxed additions. A place's address is cleared first and written last (Release), read
//! first (Acquire) and claimed by compare-and-swap, so torn contents are never used.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use pageshim_wire::calls::{
    BILLED, CALLS_BYTES, PAIR_NS, PROBES, Party, ROW_WORDS, ROWS, home, key, next, row,
};
use pageshim_wire::thread::Syscall;

use crate::OS_PAGE_BYTES;

/// Answers the site the calling thread works for, 0 when it is not known.
pub type Who = fn() -> u32;

/// A call as it is billed.
#[derive(Clone, Copy, Debug)]
pub struct Billed {
    /// Site it was made for.
    pub site: u32,
    /// When it began, monotonic ns.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

impl Billed {
    /// What it took.
    pub const fn ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

type Row = [AtomicU64; ROW_WORDS];
type Rows = [Row; ROWS as usize];
const PLACES: usize = 64;

#[derive(Debug)]
struct Got {
    address: AtomicUsize,
    bytes: AtomicUsize,
    end_ns: AtomicU64,
    ns: AtomicU64,
    key: AtomicU64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Billing {
    rows: AtomicPtr<Rows>,
    who: AtomicPtr<Who>,
    /// Bytes of calls made before there were rows.
    private_bytes: [AtomicU64; BILLED],
    lately: [Got; PLACES],
}

impl Default for Billing {
    fn default() -> Self {
        Self::new()
    }
}

impl Billing {
    /// No rows, nobody to ask.
    pub const fn new() -> Self {
        Self {
            rows: AtomicPtr::new(ptr::null_mut()),
            who: AtomicPtr::new(ptr::null_mut()),
            private_bytes: [const { AtomicU64::new(0) }; BILLED],
            lately: [const {
                Got {
                    address: AtomicUsize::new(0),
                    bytes: AtomicUsize::new(0),
                    end_ns: AtomicU64::new(0),
                    ns: AtomicU64::new(0),
                    key: AtomicU64::new(0),
                }
            }; PLACES],
        }
    }

    /// Whom to ask from now on.
    pub fn ask(&self, who: &'static Who) {
        self.who
            .store(ptr::from_ref(who).cast_mut(), Ordering::Release);
    }

    /// The site at work.
    pub fn site(&self) -> u32 {
        // SAFETY: ask() stores a reference that lives for ever.
        let who = unsafe { self.who.load(Ordering::Acquire).as_ref() };
        who.map_or(0, |who| who())
    }

    /// Bills to `rows` from now on; `made` calls (number, ns) were made before.
    ///
    /// # Safety
    /// Null, or mapped 8-aligned words of the section's size, until the next call of this.
    pub unsafe fn begin(&self, rows: *mut AtomicU64, made: impl Fn(usize) -> (u64, u64)) {
        self.lately
            .iter()
            .for_each(|got| got.address.store(0, Ordering::Relaxed));
        self.rows.store(rows.cast(), Ordering::Release);
        for (call, bytes) in self.private_bytes.iter().enumerate() {
            let ((count, ns), bytes) = (made(call), bytes.swap(0, Ordering::Relaxed));
            if count > 0 {
                self.add_call(key(0, Party::Layers), call, [count, ns, bytes]);
            }
        }
    }

    /// Bills one call of `party` for `bytes`.
    pub fn count(&self, call: Syscall, party: Party, billed: &Billed, bytes: usize) {
        let key = key(billed.site, party);
        self.add_call(key, call as usize, [1, billed.ns(), bytes as u64]);
    }

    fn add_call(&self, key: u64, call: usize, amounts: [u64; 3]) {
        if call >= BILLED {
            return;
        }
        let Some(row) = self.row(key) else {
            self.private_bytes[call].fetch_add(amounts[2], Ordering::Relaxed);
            return;
        };
        for (index, amount) in amounts.into_iter().enumerate() {
            row[row::CALLS + 3 * call + index].fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// The row of a key, claimed when it is new; row 0 when there is no place, `None`
    /// without rows.
    pub fn row(&self, key: u64) -> Option<&'static Row> {
        // SAFETY: begin()'s caller vouched for them.
        let rows = unsafe { self.rows.load(Ordering::Acquire).as_ref() }?;
        let mut place = home(key);
        for _ in 0..PROBES {
            let row = &rows[usize::try_from(place).unwrap_or(0)];
            let held = &row[row::KEY];
            let found = match held.load(Ordering::Relaxed) {
                0 => held
                    .compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed)
                    .unwrap_or_else(|now| now),
                taken => taken,
            };
            if found == key || found == 0 {
                return Some(row);
            }
            place = next(place);
        }
        Some(&rows[0])
    }

    fn place(&self, address: usize) -> &Got {
        let mixed = (address / OS_PAGE_BYTES).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.lately[mixed >> 58]
    }

    /// A range came from the kernel.
    pub fn got(&self, address: usize, bytes: usize, billed: &Billed) {
        let place = self.place(address);
        place.address.store(0, Ordering::Relaxed);
        place.bytes.store(bytes, Ordering::Relaxed);
        place.end_ns.store(billed.end_ns, Ordering::Relaxed);
        place.ns.store(billed.ns(), Ordering::Relaxed);
        let key = key(billed.site, Party::Layers);
        place.key.store(key, Ordering::Relaxed);
        if let Some(row) = self.row(key) {
            row[row::GOT].fetch_add(1, Ordering::Relaxed);
            row[row::GOT_BYTES].fetch_add(bytes as u64, Ordering::Relaxed);
        }
        // Release pairs with the Acquire in gave().
        place.address.store(address, Ordering::Release);
    }

    /// A range went back to the kernel.
    pub fn gave(&self, address: usize, bytes: usize, billed: &Billed) {
        let place = self.place(address);
        if place.address.load(Ordering::Acquire) != address {
            return;
        }
        let same = place.bytes.load(Ordering::Relaxed) == bytes;
        let rested = billed
            .start_ns
            .saturating_sub(place.end_ns.load(Ordering::Relaxed));
        let ns = place.ns.load(Ordering::Relaxed) + billed.ns();
        let key = place.key.load(Ordering::Relaxed);
        let ours = place
            .address
            .compare_exchange(address, 0, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if same
            && ours
            && rested <= PAIR_NS
            && let Some(row) = self.row(key)
        {
            row[row::PAIRS].fetch_add(1, Ordering::Relaxed);
            row[row::PAIR_BYTES].fetch_add(bytes as u64, Ordering::Relaxed);
            row[row::PAIR_NS].fetch_add(ns, Ordering::Relaxed);
        }
    }
}

const _: () = assert!(size_of::<Rows>() == CALLS_BYTES as usize);

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    fn rows() -> &'static [AtomicU64] {
        let words: Vec<_> = (0..CALLS_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
        Box::leak(words.into_boxed_slice())
    }

    fn begin(billing: &Billing) -> &'static [AtomicU64] {
        let words = rows();
        let first = words.as_ptr().cast_mut();
        // SAFETY: leaked words of the section's size.
        unsafe { billing.begin(first, |call| (call as u64, 10 * call as u64)) };
        words
    }

    fn billed(site: u32, start_ns: u64, end_ns: u64) -> Billed {
        Billed {
            site,
            start_ns,
            end_ns,
        }
    }

    fn word(billing: &Billing, site: u32, index: usize) -> u64 {
        billing.row(key(site, Party::Layers)).expect("rows")[index].load(Ordering::Relaxed)
    }

    // Goal: what was counted before there were rows is in them afterwards, and calls find
    // their site. Method: one call before, two after.
    #[test]
    fn calls_go_to_their_site_and_early_ones_to_none() {
        let billing = Billing::new();
        billing.count(Syscall::Munmap, Party::Layers, &billed(5, 0, 7), 4096);
        let _ = begin(&billing);
        let munmap = row::CALLS + 3 * Syscall::Munmap as usize;
        assert_eq!(word(&billing, 0, munmap), 1, "as begin() was told");
        assert_eq!(word(&billing, 0, munmap + 2), 4096);
        for end in [3, 4] {
            billing.count(Syscall::Munmap, Party::Layers, &billed(5, 0, end), 100);
        }
        let row = [0, 1, 2].map(|index| word(&billing, 5, munmap + index));
        assert_eq!(row, [2, 7, 200]);
    }

    // Goal: a pair is the same range, given back soon. Method: all that is not, and one that is.
    #[test]
    fn a_pair_is_the_same_range_given_back_soon() {
        let billing = Billing::new();
        let _ = begin(&billing);
        let pairs = |billing: &Billing| word(billing, 9, row::PAIRS);
        billing.got(0x10_0000, 4096, &billed(9, 0, 1000));
        billing.gave(0x10_0000, 8192, &billed(1, 1100, 1200));
        assert_eq!(pairs(&billing), 0, "another length");
        billing.got(0x10_0000, 4096, &billed(9, 0, 1000));
        billing.gave(0x10_0000, 4096, &billed(1, 1001 + PAIR_NS, 9_000_000));
        assert_eq!(pairs(&billing), 0, "too late");
        billing.gave(0x10_0000, 4096, &billed(1, 1100, 1200));
        assert_eq!(pairs(&billing), 0, "given back before");
        billing.got(0x10_0000, 4096, &billed(9, 0, 1000));
        billing.gave(0x10_0000, 4096, &billed(1, 1000 + PAIR_NS, 1050 + PAIR_NS));
        assert_eq!(pairs(&billing), 1);
        assert_eq!(word(&billing, 9, row::PAIR_BYTES), 4096);
        assert_eq!(word(&billing, 9, row::PAIR_NS), 1050);
    }

    // Goal: more sites than rows lose nothing. Method: three times as many; all calls are found.
    #[test]
    fn a_full_table_counts_on_row_zero() {
        let billing = Billing::new();
        let words = begin(&billing);
        let sites = 3 * u32::try_from(ROWS).expect("fits");
        for site in 1..=sites {
            billing.count(Syscall::Mremap, Party::Layers, &billed(site, 0, 1), 1);
        }
        let mremap = row::CALLS + 3 * Syscall::Mremap as usize;
        let sum: u64 = words
            .chunks(ROW_WORDS)
            .map(|row| row[mremap].load(Ordering::Relaxed))
            .sum();
        let early = Syscall::Mremap as u64;
        assert_eq!(sum, u64::from(sites) + early);
        assert!(words[mremap].load(Ordering::Relaxed) > 0, "row 0");
    }
}
