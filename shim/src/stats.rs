//! glibc's statistics and tuning calls, answered with our own numbers.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use pageshim_core::heap::gpa::classes::{CLASSES, SINGLETON, slot_bytes};
use pageshim_core::sys;
use pageshim_wire::process::{CLASS_WORDS, class, word};

use crate::config::Line;
use crate::tls;
use crate::world::{ACCOUNTS, SPACES};

/// Gives free memory back to the kernel; 1 when anything went.
#[unsafe(no_mangle)]
extern "C" fn malloc_trim(_keep: usize) -> c_int {
    let Some(thread) = tls::get() else { return 0 };
    let Some(_inside) = thread.enter() else {
        return 0;
    };
    c_int::from(thread.heap().trim() > 0)
}

/// Accepts every option and changes nothing.
#[unsafe(no_mangle)]
extern "C" fn mallopt(_option: c_int, _value: c_int) -> c_int {
    1
}

struct Totals {
    arena: u64,
    in_use: u64,
    free: u64,
    singles: u64,
    single_bytes: u64,
}

fn totals() -> Totals {
    let read = |index| ACCOUNTS.word(index).load(Ordering::Relaxed);
    let at = |index, field| read(word::CLASSES + index * CLASS_WORDS + field);
    let carved: u64 = (0..CLASSES)
        .map(|index| match index {
            SINGLETON => at(index, class::CAPACITY),
            _ => at(index, class::CAPACITY) * slot_bytes(index) as u64,
        })
        .sum();
    let arena = read(word::HEAP_COMMITTED);
    let dirty = SPACES.first().dirty_bytes() as u64;
    Totals {
        arena,
        in_use: carved,
        free: dirty,
        singles: at(SINGLETON, class::PAGES),
        single_bytes: at(SINGLETON, class::CAPACITY),
    }
}

/// glibc's mallinfo2: sizes in bytes.
#[repr(C)]
struct Mallinfo2 {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

/// The same in ints, cut off.
#[repr(C)]
struct Mallinfo([c_int; 10]);

#[unsafe(no_mangle)]
extern "C" fn mallinfo2() -> Mallinfo2 {
    let totals = totals();
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Mallinfo2 {
        arena: size(totals.arena),
        ordblks: 1,
        smblks: 0,
        hblks: size(totals.singles),
        hblkhd: size(totals.single_bytes),
        usmblks: 0,
        fsmblks: 0,
        uordblks: size(totals.in_use),
        fordblks: size(totals.arena.saturating_sub(totals.in_use)),
        keepcost: size(totals.free),
    }
}

#[unsafe(no_mangle)]
extern "C" fn mallinfo() -> Mallinfo {
    let wide = mallinfo2();
    let words = [
        wide.arena,
        wide.ordblks,
        0,
        wide.hblks,
        wide.hblkhd,
        0,
        0,
        wide.uordblks,
        wide.fordblks,
        wide.keepcost,
    ];
    Mallinfo(words.map(|value| c_int::try_from(value).unwrap_or(c_int::MAX)))
}

/// Three lines on stderr.
#[unsafe(no_mangle)]
extern "C" fn malloc_stats() {
    let totals = totals();
    for (name, value) in [
        (&b"system bytes     = "[..], totals.arena),
        (b"in use bytes     = ", totals.in_use),
        (b"free, resident   = ", totals.free),
    ] {
        let mut line = Line::new();
        line.text(name);
        line.number(value);
        line.text(b"\n");
        let _ = sys::write(2, line.bytes());
    }
}

/// A well-formed document of glibc's kind, with our totals.
#[unsafe(no_mangle)]
extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 {
        return 22;
    }
    let totals = totals();
    // SAFETY: the caller's stream; the format matches its arguments.
    let written = unsafe {
        libc::fprintf(
            stream,
            c"<malloc version=\"1\">\n<system type=\"current\" size=\"%lu\"/>\n<total type=\"mmap\" count=\"%lu\" size=\"%lu\"/>\n</malloc>\n".as_ptr(),
            totals.arena,
            totals.singles,
            totals.single_bytes,
        )
    };
    if written < 0 { -1 } else { 0 }
}
