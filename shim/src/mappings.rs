//! `PAGESHIM_MMAP=1`: what the program itself maps, by call site.
//!
//! # Design
//! `mmap`, `mmap64`, `munmap` and `mremap` are exported always: a symbol cannot be asked
//! for at run time. Each is the kernel's call as libc makes it, before and beside all else:
//! no look-up, no lock, and `errno` only where the kernel refuses; or another library's, where
//! one is preloaded behind us that exports it too. With the variable set the
//! call is billed to its stack as well, and what is mapped is kept by range, so that bytes held
//! are known by site. libc's own calls (threads' stacks, loading) do not come by here.
//!
//! A range is forgotten before the kernel is asked to unmap it and kept after it was
//! mapped: in between another thread may be given the same addresses.
//!
//! # Failure
//! A call from within ourselves (a signal handler's) is passed on and counted as nested.
//! More than [`ROOM`] ranges: billed, but not held (a dropped record).
#![allow(unsafe_code)]

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use pageshim_core::heap::billing::Billed;
use pageshim_core::ranges::{Entry, Gone, Ranges};
use pageshim_core::sync::Lock;
use pageshim_core::sys::{self, Errno};
use pageshim_core::{OS_PAGE_BYTES, heap::billing::Billing};
use pageshim_wire::calls::{Party, key, row};
use pageshim_wire::process::Drop as Dropped;
use pageshim_wire::thread::{Api, Syscall};

use crate::exports::{call, set_errno};
use crate::thread::{Inside, Thread};
use crate::world::{ACCOUNTS, OWN, STATE};
use crate::{serve, thread, tls};

mod next;

use next::Next;

/// Ranges that are kept.
const ROOM: usize = 16 << 10;
const FIXED_REMAP_OR_KEEP: usize = 2 | 4;
const DONT_UNMAP: usize = 4;

static ON: AtomicBool = AtomicBool::new(false);
static RANGES: Lock<Ranges<'static>> = Lock::new(Ranges::new(&mut []));

/// Begins to bill. While booting, in modes that take stacks.
pub(crate) fn begin() {
    let bytes = (ROOM * size_of::<Entry>()).next_multiple_of(OS_PAGE_BYTES);
    let Some(at) = OWN.map(bytes) else { return };
    // SAFETY: fresh zeroed memory that is never unmapped; zeros are entries.
    let entries = unsafe { slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(at), ROOM) };
    *RANGES.lock() = Ranges::new(entries);
    let bytes = i64::try_from(bytes).unwrap_or(0);
    ACCOUNTS.add(pageshim_wire::process::word::METADATA, bytes);
    ON.store(true, Ordering::Release);
}

/// In a forked child: what it inherited is in no bill of its own.
pub(crate) fn forget() {
    if ON.load(Ordering::Relaxed) {
        RANGES.lock().clear();
    }
}

/// Takes the lock for the time of a fork.
pub(crate) fn hold() {
    RANGES.hold();
}

/// Opens it again.
///
/// # Safety
/// No other thread of this process is inside it.
pub(crate) unsafe fn release() {
    // SAFETY: the caller's duty.
    unsafe { RANGES.release() };
}

// The stubs: after the arguments in registers come the stack and frame pointer of the caller,
// as the fifth and sixth of a structure on the stack would.
macro_rules! stub {
    ($($name:literal $stub:ident => $target:path;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $stub() {
            naked_asm!(
                ".cfi_startproc",
                "sub rsp, 8",
                ".cfi_adjust_cfa_offset 8",
                "push rbp",
                ".cfi_adjust_cfa_offset 8",
                "lea rax, [rsp + 16]",
                "push rax",
                ".cfi_adjust_cfa_offset 8",
                "call {}",
                "add rsp, 24",
                ".cfi_adjust_cfa_offset -24",
                "ret",
                ".cfi_endproc",
                sym $target,
            )
        }
    )*};
}

stub! {
    "mmap" mmap_stub => mmap;
    "mmap64" mmap64_stub => mmap;
    "munmap" munmap_stub => munmap;
    "mremap" mremap_stub => mremap;
}

static MMAP: Next = Next::of(c"mmap");
static MUNMAP: Next = Next::of(c"munmap");
static MREMAP: Next = Next::of(c"mremap");

/// Finds who else wants these calls. From the constructor.
pub(crate) fn learn() {
    for next in [&MMAP, &MUNMAP, &MREMAP] {
        next.learn();
    }
}

/// Who calls, while inside us.
struct Caller {
    thread: &'static Thread,
    _inside: Inside<'static>,
    site: u32,
}

/// The caller's site; `None` when nothing is billed, or not now.
fn caller(sp: *const u64, bp: u64) -> Option<Caller> {
    if !ON.load(Ordering::Acquire) {
        return None;
    }
    let entered = tls::get()
        .or_else(thread::attach)
        .and_then(|thread| Some((thread, thread.enter()?)));
    let Some((thread, inside)) = entered else {
        STATE.count_drop(Dropped::Nested);
        return None;
    };
    let site = serve::site_of(thread, &call(Api::Malloc, sp, bp));
    Some(Caller {
        thread,
        _inside: inside,
        site,
    })
}

impl Caller {
    fn billing() -> &'static Billing {
        ACCOUNTS.billing()
    }

    /// Makes the call and bills it.
    fn make(
        &self,
        kind: Syscall,
        bytes: usize,
        run: impl FnOnce() -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        self.thread.works_for(self.site);
        let start_ns = sys::fast_monotonic_ns();
        let answer = run();
        let billed = Billed {
            site: self.site,
            start_ns,
            end_ns: sys::fast_monotonic_ns(),
        };
        Self::billing().count(kind, Party::Program, &billed, bytes);
        answer
    }

    fn took(gone: Gone) {
        hold_more(gone.site, -signed(gone.bytes), -gone.ranges);
    }

    fn forget(address: usize, bytes: usize) {
        let end = address.saturating_add(rounded(bytes));
        RANGES.lock().remove(address, end, Self::took);
    }

    fn keep(address: usize, bytes: usize, site: u32) {
        let (bytes, mut ranges) = (rounded(bytes), RANGES.lock());
        let end = address.saturating_add(bytes);
        ranges.remove(address, end, Self::took);
        if ranges.insert(address, end, site) {
            hold_more(site, signed(bytes), 1);
        } else {
            STATE.count_drop(Dropped::Records);
        }
    }
}

fn hold_more(site: u32, bytes: i64, ranges: i64) {
    if let Some(row) = ACCOUNTS.billing().row(key(site, Party::Program)) {
        row[row::LIVE_BYTES].fetch_add(bytes.cast_unsigned(), Ordering::Relaxed);
        row[row::LIVE_RANGES].fetch_add(ranges.cast_unsigned(), Ordering::Relaxed);
        if ranges > 0 && bytes > 0 {
            row[row::GOT].fetch_add(1, Ordering::Relaxed);
            row[row::GOT_BYTES].fetch_add(bytes.cast_unsigned(), Ordering::Relaxed);
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Whole OS pages, as the kernel takes lengths; what is too long it refuses anyway.
fn rounded(bytes: usize) -> usize {
    bytes.checked_next_multiple_of(OS_PAGE_BYTES).unwrap_or(0)
}

fn pointer(answer: Result<usize, Errno>) -> *mut c_void {
    match answer {
        Ok(address) => ptr::with_exposed_provenance_mut(address),
        Err(Errno(number)) => {
            set_errno(number);
            ptr::without_provenance_mut(usize::MAX)
        }
    }
}

extern "C" fn mmap(
    address: usize,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: usize,
    sp: *const u64,
    bp: u64,
) -> *mut c_void {
    let wide = |number: c_int| number as isize as usize;
    let args = [
        address,
        bytes,
        wide(protection),
        wide(flags),
        wide(fd),
        offset,
    ];
    // SAFETY: the program's own call, as it is.
    let kernel = || unsafe { sys::pass_mmap(args) };
    let run = || MMAP.call(args).unwrap_or_else(kernel);
    let Some(caller) = caller(sp, bp) else {
        return pointer(run());
    };
    let answer = caller.make(Syscall::Mmap, bytes, run);
    if let Ok(at) = answer {
        Caller::keep(at, bytes, caller.site);
    }
    drop(caller);
    pointer(answer)
}

extern "C" fn munmap(
    address: usize,
    bytes: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    sp: *const u64,
    bp: u64,
) -> c_int {
    // SAFETY: the program's own call, as it is.
    let kernel = || unsafe { sys::unmap(address, bytes) }.map(|()| 0);
    let args = [address, bytes, 0, 0, 0, 0];
    let run = || MUNMAP.call(args).unwrap_or_else(kernel);
    let answer = match caller(sp, bp) {
        None => run(),
        Some(caller) => {
            if address.is_multiple_of(OS_PAGE_BYTES) {
                Caller::forget(address, bytes);
            }
            caller.make(Syscall::Munmap, bytes, run)
        }
    };
    match answer {
        Ok(_) => 0,
        Err(Errno(number)) => {
            set_errno(number);
            -1
        }
    }
}

extern "C" fn mremap(
    address: usize,
    bytes: usize,
    new_bytes: usize,
    flags: usize,
    target: usize,
    _: usize,
    sp: *const u64,
    bp: u64,
) -> *mut c_void {
    let flags = flags & 0xffff_ffff;
    // Without the flags the fifth argument was never given.
    let target = if flags & FIXED_REMAP_OR_KEEP == 0 {
        0
    } else {
        target
    };
    let args = [address, bytes, new_bytes, flags, target, 0];
    // SAFETY: the program's own call, as it is.
    let kernel = || unsafe { sys::pass_mremap(args) };
    let run = || MREMAP.call(args).unwrap_or_else(kernel);
    let Some(caller) = caller(sp, bp) else {
        return pointer(run());
    };
    let moves = address.is_multiple_of(OS_PAGE_BYTES) && flags & DONT_UNMAP == 0;
    if moves {
        Caller::forget(address, bytes);
    }
    let answer = caller.make(Syscall::Mremap, new_bytes, run);
    match answer {
        Ok(at) => Caller::keep(at, new_bytes, caller.site),
        // Still where it was, and now of this site.
        Err(_) if moves && sys::is_mapped(address) => Caller::keep(address, bytes, caller.site),
        Err(_) => {}
    }
    drop(caller);
    pointer(answer)
}
