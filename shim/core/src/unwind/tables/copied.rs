//! A row from tables that may vanish while they are read: everything by copies.
//!
//! For the moments when another thread unloads a module ([`super::super::closing`]).
//! Twenty system calls a row, so not for every day.
//!
//! # Allocation
//! One KiB of stack: an entry and its common part.

use gimli::{BaseAddresses, EhFrame, EndianSlice, NativeEndian, UnwindSection};

use super::super::cfi;
use super::super::row::{Kind, Row};
use super::{Found, data_relative, eh_frame_encoding_known, find};
use crate::sys;

/// Room for a common part and an entry; what is longer has no row for the moment.
const ROOM: usize = 1024;
const HEAD: usize = 12;

/// As [`super::row_of`]; `Bad` when the tables cannot be read just now.
#[cold]
#[inline(never)]
pub(crate) fn row_of(pc: u64, lookup: u64) -> Row {
    let Some(found) = find(lookup) else {
        return Row::of(Kind::NoTable);
    };
    row(&found, pc, lookup).unwrap_or(Row::of(Kind::Bad))
}

fn row(found: &Found, pc: u64, lookup: u64) -> Option<Row> {
    let header_at = found.eh_frame.addr() as u64;
    let head: [u8; HEAD] = copy(header_at)?;
    if !eh_frame_encoding_known(&head) {
        return None;
    }
    let count = u32::from_le_bytes(*head.get(8..)?.first_chunk()?);
    let entry_at = search(header_at, u64::from(count), lookup)?;
    let mut room = [0; ROOM];
    let (used, own) = entry(entry_at, &mut room)?;
    let section = EhFrame::from(EndianSlice::new(room.get(..used)?, NativeEndian));
    // Addresses in an entry are relative to where it really lies.
    let bases = BaseAddresses::default().set_eh_frame(entry_at.checked_sub(own as u64)?);
    let fde = section
        .fde_from_offset(&bases, gimli::EhFrameOffset(own), EhFrame::cie_from_offset)
        .ok()?;
    fde.contains(lookup)
        .then(|| cfi::row_of(&section, &bases, &fde, pc, lookup))
}

/// Where the entry lies that may cover `lookup`.
fn search(header_at: u64, count: u64, lookup: u64) -> Option<u64> {
    let at = |index: u64| copy::<8>(header_at.checked_add(HEAD as u64 + index * 8)?);
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if data_relative(header_at, at(middle)?.first_chunk()?) <= lookup {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let found = at(low.checked_sub(1)?)?;
    Some(data_relative(header_at, found.last_chunk()?))
}

/// Copies an entry behind its common part; answers the bytes used and where it begins.
fn entry(entry_at: u64, room: &mut [u8; ROOM]) -> Option<(usize, usize)> {
    let [length, back] = words(copy(entry_at)?);
    let common_at = (entry_at + 4).checked_sub(u64::from(back))?;
    let [common_length, _] = words(copy(common_at)?);
    let own = (common_length as usize).checked_add(4)?;
    let used = own.checked_add(length as usize)?.checked_add(4)?;
    copy_whole(common_at, room.get_mut(..own)?)?;
    copy_whole(entry_at, room.get_mut(own..used)?)?;
    let back = u32::try_from(own).ok()?.checked_add(4)?;
    room.get_mut(own + 4..own + 8)?
        .copy_from_slice(&back.to_le_bytes());
    Some((used, own))
}

fn words(bytes: [u8; 8]) -> [u32; 2] {
    let word = u64::from_le_bytes(bytes);
    [(word & 0xffff_ffff) as u32, (word >> 32) as u32]
}

fn copy<const N: usize>(address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    copy_whole(address, &mut bytes)?;
    Some(bytes)
}

fn copy_whole(address: u64, into: &mut [u8]) -> Option<()> {
    (sys::copy_own(address, into)? == into.len()).then_some(())
}
