//! Where things lie in a process's shared state (one sealed memfd).
//!
//! # Design
//! ```text
//! 0            header            HEADER_BYTES    process.rs: words, class table, texts
//! modules      MODULES_MAX slots MODULE_BYTES    process.rs: one loaded file each
//! sites        site_capacity     SITE_BYTES      stack.rs:   hash and log offset, by site id
//! log          log_bytes                         stack.rs:   stacks, appended once
//! calls        ROWS              ROW_BYTES       calls.rs:   which site caused which system calls
//! threads      thread_capacity   thread_stride   thread.rs:  counters of one thread slot:
//!                THREAD_HEADER_BYTES, then site_capacity * COUNTERS_BYTES
//! check        CHECK_HEADER_BYTES, then          check.rs:   what the last reachability check found
//!                site_capacity * ROW_BYTES
//! ```
//! The file is sparse: a process that uses 40 sites touches a few pages. The
//! capacities are in the header, because a process with a small address-space
//! limit makes a smaller state.
//!
//! # Invariants
//! I1. Every offset and length is a multiple of 4096, sections do not overlap.
//! I2. Only the owner of a thread slot writes to its region (single writer), so
//!     plain stores of monotone counters are enough and any sum is consistent
//!     once the writer rests.

use crate::calls::{self, CALLS_BYTES};
use crate::check::{CHECK_HEADER_BYTES, ROW_BYTES};
use crate::{Memory, VERSION, word_at};

/// First word of every shared state: "PAGESHM1".
pub const MAGIC: u64 = u64::from_le_bytes(*b"PAGESHM1");
/// Bytes of the process header.
pub const HEADER_BYTES: u64 = 16 * 1024;
/// Module slots.
pub const MODULES_MAX: u64 = 2048;
/// Bytes of one module slot.
pub const MODULE_BYTES: u64 = 512;
/// Bytes of one site entry.
pub const SITE_BYTES: u64 = 16;
/// Bytes of a thread region before its site counters.
pub const THREAD_HEADER_BYTES: u64 = 16 * 1024;
/// Bytes of one site's counters in a thread region (one cache line).
pub const COUNTERS_BYTES: u64 = 64;
/// No state may claim more sites than this; ids fit a record's 22 bits.
pub const SITE_CAPACITY_MAX: u64 = 1 << 22;
/// No state may claim more thread slots than this.
pub const THREAD_CAPACITY_MAX: u64 = 1 << 14;
/// No state may claim a longer stack log than this.
pub const LOG_BYTES_MAX: u64 = 1 << 34;

/// Header word numbers of the layout itself (see [`crate::process`] for the rest).
pub mod word {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`crate::VERSION`].
    pub const VERSION: usize = 1;
    /// Site slots, id 0 included.
    pub const SITE_CAPACITY: usize = 2;
    /// Bytes of the stack log.
    pub const LOG_BYTES: usize = 3;
    /// Thread slots.
    pub const THREAD_CAPACITY: usize = 4;
}

/// Why a shared state was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// Shorter than its header says, or than a header.
    TooSmall,
    /// Does not begin with [`MAGIC`].
    NotOurs,
    /// Another version of the layout; carries what it said.
    Version(u32),
    /// A capacity is zero, not page aligned or past its maximum.
    Capacity,
}

/// Checked positions of all sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Site slots, id 0 ("unknown") included.
    pub site_capacity: u64,
    /// Bytes of the stack log.
    pub log_bytes: u64,
    /// Thread slots.
    pub thread_capacity: u64,
}

impl Layout {
    /// A layout for these capacities, or `None` when one breaks I1 or a maximum.
    pub const fn new(site_capacity: u64, log_bytes: u64, thread_capacity: u64) -> Option<Self> {
        let layout = Self {
            site_capacity,
            log_bytes,
            thread_capacity,
        };
        let sites_fit = site_capacity > 0 && site_capacity <= SITE_CAPACITY_MAX;
        let aligned = site_capacity.is_multiple_of(256) && log_bytes.is_multiple_of(4096);
        let log_fits = log_bytes > 0 && log_bytes <= LOG_BYTES_MAX;
        let threads_fit = thread_capacity > 0 && thread_capacity <= THREAD_CAPACITY_MAX;
        if sites_fit && aligned && log_fits && threads_fit {
            Some(layout)
        } else {
            None
        }
    }

    /// Reads and checks the layout of a state of `total_bytes`.
    pub fn of(memory: &(impl Memory + ?Sized), total_bytes: u64) -> Result<Self, LayoutError> {
        let mut head = [0; 40];
        if total_bytes < HEADER_BYTES || !memory.read(0, &mut head) {
            return Err(LayoutError::TooSmall);
        }
        if word_at(&head, word::MAGIC) != MAGIC {
            return Err(LayoutError::NotOurs);
        }
        let version = word_at(&head, word::VERSION);
        if version != u64::from(VERSION) {
            return Err(LayoutError::Version(
                u32::try_from(version).unwrap_or(u32::MAX),
            ));
        }
        let layout = Self::new(
            word_at(&head, word::SITE_CAPACITY),
            word_at(&head, word::LOG_BYTES),
            word_at(&head, word::THREAD_CAPACITY),
        )
        .ok_or(LayoutError::Capacity)?;
        if layout.total_bytes() > total_bytes {
            return Err(LayoutError::TooSmall);
        }
        Ok(layout)
    }

    /// Byte offset of module slot `index`.
    pub const fn module(&self, index: u64) -> u64 {
        HEADER_BYTES + index * MODULE_BYTES
    }

    /// Byte offset of site entry `site`.
    pub const fn site(&self, site: u64) -> u64 {
        HEADER_BYTES + MODULES_MAX * MODULE_BYTES + site * SITE_BYTES
    }

    /// Byte offset of the stack log.
    pub const fn log(&self) -> u64 {
        self.site(self.site_capacity)
    }

    /// Bytes of one thread region.
    pub const fn thread_stride(&self) -> u64 {
        THREAD_HEADER_BYTES + self.site_capacity * COUNTERS_BYTES
    }

    /// Byte offset of row `index` of the bill of system calls.
    pub const fn calls(&self, index: u64) -> u64 {
        self.log() + self.log_bytes + index * calls::ROW_BYTES
    }

    /// Byte offset of thread region `slot`.
    pub const fn thread(&self, slot: u64) -> u64 {
        self.calls(0) + CALLS_BYTES + slot * self.thread_stride()
    }

    /// Byte offset of the counters of `site` in thread region `slot`.
    pub const fn counters(&self, slot: u64, site: u64) -> u64 {
        self.thread(slot) + THREAD_HEADER_BYTES + site * COUNTERS_BYTES
    }

    /// Byte offset of the last check's header.
    pub const fn check(&self) -> u64 {
        self.thread(self.thread_capacity)
    }

    /// Byte offset of what the last check found of `site`.
    pub const fn check_row(&self, site: u64) -> u64 {
        self.check() + CHECK_HEADER_BYTES + site * ROW_BYTES
    }

    /// Bytes of the whole state. Cannot overflow: the maxima bound it to 2^53.
    pub const fn total_bytes(&self) -> u64 {
        self.check_row(self.site_capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: sections follow each other and stay page aligned. Method: arithmetic on a real layout.
    #[test]
    fn sections_are_page_aligned_and_in_order() {
        let layout = Layout::new(1 << 20, 1 << 28, 4096).expect("valid");
        for offset in [
            layout.module(0),
            layout.site(0),
            layout.log(),
            layout.calls(0),
            layout.thread(0),
            layout.thread(1),
            layout.check(),
            layout.check_row(0),
            layout.total_bytes(),
        ] {
            assert_eq!(offset % 4096, 0);
        }
        assert!(layout.module(MODULES_MAX) <= layout.site(0));
        assert!(layout.site(layout.site_capacity) <= layout.log());
        assert_eq!(layout.calls(0), layout.log() + layout.log_bytes);
        assert_eq!(layout.thread(0), layout.calls(0) + CALLS_BYTES);
    }

    // Goal: a hostile header never yields a layout. Method: each bad word in turn.
    #[test]
    fn a_hostile_header_is_refused() {
        let mut state = [0; HEADER_BYTES as usize];
        let total = HEADER_BYTES;
        assert_eq!(
            Layout::of(&state[..], total),
            Err(LayoutError::NotOurs),
            "zeros"
        );
        state[..8].copy_from_slice(&MAGIC.to_le_bytes());
        state[8..16].copy_from_slice(&7u64.to_le_bytes());
        assert_eq!(Layout::of(&state[..], total), Err(LayoutError::Version(7)));
        state[8..16].copy_from_slice(&u64::from(VERSION).to_le_bytes());
        assert_eq!(Layout::of(&state[..], total), Err(LayoutError::Capacity));
        for (word, value) in [(2, u64::MAX), (3, 4096), (4, 1)] {
            state[word * 8..word * 8 + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        assert_eq!(Layout::of(&state[..], total), Err(LayoutError::Capacity));
        state[16..24].copy_from_slice(&256u64.to_le_bytes());
        assert_eq!(Layout::of(&state[..], total), Err(LayoutError::TooSmall));
        assert_eq!(Layout::of(&state[..10], 10), Err(LayoutError::TooSmall));
    }
}
