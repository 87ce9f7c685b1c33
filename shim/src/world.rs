//! The process's own statics: the only mutable state that is not a thread's.
//!
//! All of it is valid as zero or const-initialised, because the first call comes
//! before any constructor.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use pageshim_core::heap::accounts::Accounts;
use pageshim_core::heap::gpa::Spaces;
use pageshim_core::heap::page::Pages;
use pageshim_core::modules::Modules;
use pageshim_core::sites::Sites;
use pageshim_core::state::State;
use pageshim_core::unwind::Rows;
use pageshim_wire::process::Mode;

pub(crate) static ACCOUNTS: Accounts = Accounts::new();
/// Pages for blocks.
pub(crate) static PAGES: Pages = Pages::new(&ACCOUNTS);
/// Pages for our own tables, which no request of the program caused.
pub(crate) static OWN: Pages = PAGES.for_own_tables();
pub(crate) static SPACES: Spaces = Spaces::new(PAGES);
pub(crate) static STATE: State = State::new();
pub(crate) static SITES: Sites = Sites::new(OWN);
pub(crate) static MODULES: Modules = Modules::new();

static ROWS: AtomicPtr<Rows> = AtomicPtr::new(ptr::null_mut());
static MODE: AtomicU8 = AtomicU8::new(Mode::Off as u8);

/// The unwind rows, once stacks are captured.
#[inline]
pub(crate) fn rows() -> Option<&'static Rows> {
    // SAFETY: set_rows() stores null or zeroed memory of a table's size, never unmapped.
    unsafe { ROWS.load(Ordering::Acquire).as_ref() }
}

/// Maps the table of unwind rows.
pub(crate) fn make_rows() -> bool {
    let Some(at) = OWN.map(Rows::BYTES) else {
        return false;
    };
    let bytes = i64::try_from(Rows::BYTES).unwrap_or(0);
    ACCOUNTS.add(pageshim_wire::process::word::METADATA, bytes);
    ROWS.store(ptr::with_exposed_provenance_mut(at), Ordering::Release);
    true
}

/// How this process is profiled.
#[inline]
pub(crate) fn mode() -> Mode {
    Mode::from_word(u64::from(MODE.load(Ordering::Relaxed))).unwrap_or(Mode::Off)
}

pub(crate) fn set_mode(mode: Mode) {
    MODE.store(mode as u8, Ordering::Relaxed);
}

/// True when each block has a record, not only those that are sampled.
pub(crate) fn records_all() -> bool {
    !matches!(mode(), Mode::Off | Mode::Sampled)
}

/// True when blocks have records.
pub(crate) fn recording() -> bool {
    mode() != Mode::Off
}
