//! From a program counter to its unwind table: the slow path of a row miss.
//!
//! `_dl_find_object` (glibc 2.35) answers without lock or allocation and knows of
//! every module, however it was loaded; `dl_iterate_phdr` takes the loader's lock
//! and would deadlock inside malloc.
//!
//! # Invariants
//! T1: tables are read only inside the file-backed part of the loaded segment
//! that holds them, as the program headers at the start of the module state it.
//!
//! # Safety
//! A module stays mapped while its code is on the stack of a thread, which is
//! why its address was looked up.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::ptr;

use gimli::{BaseAddresses, EhFrame, EndianSlice, NativeEndian, UnwindSection};

use super::cfi::{self, Fde};
use super::row::{Kind, Row};
use pageshim_wire::stack::EXACT_PC;

/// glibc's `struct dl_find_object` on x86-64.
#[repr(C)]
struct Found {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

unsafe extern "C" {
    fn _dl_find_object(address: *mut c_void, result: *mut Found) -> c_int;
}

/// A loaded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// First address of its mapping (page of the first segment).
    pub start: u64,
    /// End of its last segment.
    pub end: u64,
    /// What is added to the file's addresses (`l_addr`).
    pub bias: u64,
    /// The loader's `struct link_map`.
    pub link_map: u64,
    /// Its `.eh_frame_hdr`, or 0.
    pub eh_frame_hdr: u64,
}

/// The module that holds an address. Takes no lock, allocates nothing.
pub fn find_module(address: u64) -> Option<Module> {
    let found = find(address)?;
    // SAFETY: `l_addr` is the first member of every link map (link.h), and the
    // loader keeps the map as long as the module.
    let bias = unsafe { found.link_map.cast::<u64>().read() };
    Some(Module {
        start: found.map_start.expose_provenance() as u64,
        end: found.map_end.expose_provenance() as u64,
        bias,
        link_map: found.link_map.addr() as u64,
        eh_frame_hdr: found.eh_frame.addr() as u64,
    })
}

/// Where the module begins that holds an address; nothing of the module is read.
pub fn module_start(address: u64) -> Option<u64> {
    Some(find(address)?.map_start.addr() as u64)
}

/// The same as glibc says it, nothing of the module itself read.
fn find(address: u64) -> Option<Found> {
    let mut found = Found {
        flags: 0,
        map_start: ptr::null_mut(),
        map_end: ptr::null_mut(),
        link_map: ptr::null_mut(),
        eh_frame: ptr::null_mut(),
        reserved: [0; 7],
    };
    let address = ptr::without_provenance_mut(address as usize);
    // SAFETY: the address is only compared; `found` has glibc's layout.
    if unsafe { _dl_find_object(address, &raw mut found) } != 0 || found.link_map.is_null() {
        return None;
    }
    Some(found)
}

impl Module {
    /// The bytes from `address` to the end of the segment that holds it (T1).
    fn bytes(&self, address: u64) -> Option<&'static [u8]> {
        if !(self.start..self.end).contains(&address) {
            return None;
        }
        let end = self.segment_end(address)?.min(self.end);
        let len = end.checked_sub(address)?;
        let from = ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: T1. Tables are never written while the module is mapped.
        Some(unsafe { core::slice::from_raw_parts(from, len as usize) })
    }

    /// End of the file-backed part of the segment that holds `address`.
    fn segment_end(&self, address: u64) -> Option<u64> {
        const HEADERS_MAX: usize = 4096;
        if self.end.checked_sub(self.start)? < HEADERS_MAX as u64 {
            return None;
        }
        let from = ptr::with_exposed_provenance::<u8>(self.start as usize);
        // SAFETY: the first segment starts at `start` and fills its page.
        let page = unsafe { core::slice::from_raw_parts(from, HEADERS_MAX) };
        segment_end_of(page, self.bias, address)
    }
}

/// Reads program headers in an ELF file's first page.
fn segment_end_of(page: &[u8], bias: u64, address: u64) -> Option<u64> {
    const LOAD: u32 = 1;
    const HEADER_BYTES: usize = 56;
    let word = |at: usize| Some(u64::from_le_bytes(*page.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*page.get(at..)?.first_chunk()?));
    if page.get(..4)? != b"\x7fELF" || usize::from(half(54)?) != HEADER_BYTES {
        return None;
    }
    let table = usize::try_from(word(32)?).ok()?;
    for index in 0..usize::from(half(56)?) {
        let at = table.checked_add(index * HEADER_BYTES)?;
        let kind = u32::from_le_bytes(*page.get(at..)?.first_chunk()?);
        let start = bias.wrapping_add(word(at.checked_add(16)?)?);
        let end = start.checked_add(word(at.checked_add(32)?)?)?;
        if kind == LOAD && (start..end).contains(&address) {
            return Some(end);
        }
    }
    None
}

/// The row of a program counter and where its module starts (0: in none).
#[inline(never)]
pub(crate) fn row_of(pc: u64) -> (Row, u64) {
    let (pc, lookup) = looked_up(pc);
    let Some(module) = find_module(lookup) else {
        return (Row::of(Kind::NoTable), 0);
    };
    let row = module.row(pc, lookup).unwrap_or(Row::of(Kind::NoTable));
    (row, module.start)
}

/// As [`row_of`] while another thread unloads modules, which may be this one.
pub(crate) fn row_of_copied(pc: u64) -> Row {
    let (pc, lookup) = looked_up(pc);
    copied::row_of(pc, lookup)
}

/// A program counter, and the address whose rules hold.
const fn looked_up(pc: u64) -> (u64, u64) {
    let exact = pc & EXACT_PC != 0;
    let pc = pc & !EXACT_PC;
    (pc, if exact { pc } else { pc.wrapping_sub(1) })
}

impl Module {
    fn tables(&self) -> Option<Tables<'static>> {
        if self.eh_frame_hdr == 0 {
            return None;
        }
        let header = self.bytes(self.eh_frame_hdr)?;
        let frames_at = eh_frame_address(header, self.eh_frame_hdr)?;
        Some(Tables {
            header,
            header_at: self.eh_frame_hdr,
            frames: self.bytes(frames_at)?,
            frames_at,
        })
    }

    fn row(&self, pc: u64, lookup: u64) -> Option<Row> {
        let tables = self.tables()?;
        // An interrupted stub or assembly routine beside code with tables: its
        // rbp is its caller's, following it would skip that caller.
        let unknown = || (pc == lookup).then_some(Row::NO_GUESS);
        tables.row(pc, lookup).or_else(unknown)
    }
}

/// Where `.eh_frame` is, as its header says.
fn eh_frame_address(header: &[u8], header_at: u64) -> Option<u64> {
    const PC_RELATIVE_INT: u8 = 0x1b;
    let [1, PC_RELATIVE_INT, _, _] = *header.first_chunk::<4>()? else {
        return None;
    };
    let relative = i32::from_le_bytes(*header.get(4..)?.first_chunk()?);
    (header_at + 4).checked_add_signed(i64::from(relative))
}

/// Whether the header's search table is of the kind that linkers write.
fn eh_frame_encoding_known(header: &[u8]) -> bool {
    const DATA_RELATIVE_INT: u8 = 0x3b;
    const UNSIGNED_INT: u8 = 3;
    matches!(
        header.first_chunk::<4>(),
        Some([1, _, UNSIGNED_INT, DATA_RELATIVE_INT])
    )
}

/// An address of the search table.
const fn data_relative(header_at: u64, bytes: &[u8; 4]) -> u64 {
    header_at.wrapping_add_signed(i32::from_le_bytes(*bytes) as i64)
}

/// A module's unwind tables as bytes; hostile bytes do no more than answer wrong.
pub(crate) struct Tables<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) header_at: u64,
    pub(crate) frames: &'a [u8],
    pub(crate) frames_at: u64,
}

impl Tables<'_> {
    /// The row of `pc`; `None` when no entry covers it.
    pub(crate) fn row(&self, pc: u64, lookup: u64) -> Option<Row> {
        let section = EhFrame::from(EndianSlice::new(self.frames, NativeEndian));
        let bases = BaseAddresses::default()
            .set_eh_frame_hdr(self.header_at)
            .set_eh_frame(self.frames_at);
        if let Some(fde) = self.fde(&section, &bases, lookup) {
            return Some(cfi::row_of(&section, &bases, &fde, pc, lookup));
        }
        // A made-up return address at a function's first byte (makecontext's
        // `__start_context`): nobody called from there, the stack is whole.
        let begins = self.fde(&section, &bases, pc)?.initial_address() == pc;
        (begins && lookup != pc).then_some(Row::of(Kind::End))
    }

    fn fde<'s>(
        &self,
        section: &EhFrame<EndianSlice<'s, NativeEndian>>,
        bases: &BaseAddresses,
        lookup: u64,
    ) -> Option<Fde<'s>> {
        let at = self.search(lookup)?.checked_sub(self.frames_at)?;
        let offset = gimli::EhFrameOffset(usize::try_from(at).ok()?);
        let fde = section
            .fde_from_offset(bases, offset, EhFrame::cie_from_offset)
            .ok()?;
        fde.contains(lookup).then_some(fde)
    }

    /// Address of the entry that may cover `lookup`, by the header's sorted table.
    fn search(&self, lookup: u64) -> Option<u64> {
        if !eh_frame_encoding_known(self.header) {
            return None;
        }
        let count = u32::from_le_bytes(*self.header.get(8..)?.first_chunk()?);
        let (entries, _) = self.header.get(12..)?.as_chunks::<8>();
        let entries = entries.get(..count as usize)?;
        let absolute = |bytes: [u8; 4]| data_relative(self.header_at, &bytes);
        let start = |e: &[u8; 8]| absolute([e[0], e[1], e[2], e[3]]);
        let after = entries.partition_point(|entry| start(entry) <= lookup);
        let e = entries.get(after.checked_sub(1)?)?;
        Some(absolute([e[4], e[5], e[6], e[7]]))
    }
}

mod copied;
#[cfg(test)]
mod tests;
