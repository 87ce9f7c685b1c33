//! The module table: loaded files, as first seen on a stack.
//!
//! A module is written when an unwind row is first made for an address in it
//! (so without listening to dlopen), and marked unloaded when a look after
//! dlclose no longer finds it, or when another file is found in its place. The same
//! file at the same place again is the same slot. Addresses then resolve by file and build id, also
//! when the process is gone.
//!
//! # Concurrency
//! One lock; a slot's state word is written last.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::Ordering;

use pageshim_wire::layout::MODULES_MAX;
use pageshim_wire::process::{Drop, module, word};

use crate::state::State;
use crate::sync::Lock;
use crate::sys;
use crate::unwind::{Module, find_module, module_start};

const KNOWN: usize = MODULES_MAX as usize;

/// A file at a place, as far as it matters for what addresses mean.
#[derive(Clone, Copy, Debug)]
struct Known {
    start: u64,
    end: u64,
    /// Of build id, path, load bias and unwind index.
    identity: u64,
    loaded: bool,
}

#[derive(Debug)]
struct Table {
    known: [Known; KNOWN],
    count: usize,
}

/// What [`Modules::note`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is in the table, or there is no room for it.
    Nothing,
    /// It is now in this slot.
    New(u64),
    /// It is now in this slot, and lies where another file lay: stacks with the same
    /// addresses are not the same.
    Instead(u64),
}

/// Which modules have been written.
#[derive(Debug)]
pub struct Modules(Lock<Table>);

impl Default for Modules {
    fn default() -> Self {
        Self::new()
    }
}

impl Modules {
    /// None yet.
    pub const fn new() -> Self {
        let none = Known {
            start: 0,
            end: 0,
            identity: 0,
            loaded: false,
        };
        Self(Lock::new(Table {
            known: [none; KNOWN],
            count: 0,
        }))
    }

    /// Writes the module that starts at `start` when it is new. Not while another
    /// thread may be unloading it.
    pub fn note(&self, state: &State, start: u64) -> Noted {
        let mut table = self.0.lock();
        let Some(found) = find_module(start) else {
            return Noted::Nothing;
        };
        let facts = Facts::of(&found);
        let (start, end, identity) = (found.start, found.end, facts.identity(&found));
        let overlaps = |known: &Known| known.start < end && start < known.end;
        let count = table.count;
        let mut before = table.known[..count].iter_mut().enumerate().rev();
        let last = before.find(|(_, known)| overlaps(known));
        let instead = last.is_some();
        if let Some((slot, known)) = last {
            let same = known.start == start && known.identity == identity;
            if same && !known.loaded {
                known.loaded = true;
                mark(state, slot, 1);
            }
            if same {
                return Noted::Nothing;
            }
            if known.loaded {
                known.loaded = false; // it went without a word
                mark(state, slot, 2);
            }
        }
        let Some(room) = table.known.get_mut(count) else {
            state.count_drop(Drop::Modules);
            return Noted::Nothing;
        };
        *room = Known {
            start,
            end,
            identity,
            loaded: true,
        };
        table.count += 1;
        if instead {
            state.part();
        }
        let slot = count as u64;
        if write_slot(state, slot, &found, &facts).is_none() {
            return Noted::Nothing;
        }
        state.set(word::MODULE_COUNT, table.count as u64);
        if instead {
            Noted::Instead(slot)
        } else {
            Noted::New(slot)
        }
    }

    /// Marks modules that are gone.
    pub fn sweep(&self, state: &State) {
        let mut table = self.0.lock();
        let count = table.count;
        for (slot, known) in table.known[..count].iter_mut().enumerate() {
            let here = |known: &Known| module_start(known.start) == Some(known.start);
            if known.loaded && !here(known) {
                known.loaded = false;
                mark(state, slot, 2);
            }
        }
    }

    /// Takes the lock for the time of a fork.
    pub fn hold(&self) {
        self.0.hold();
    }

    /// Opens it again.
    ///
    /// # Safety
    /// See [`Lock::release`].
    pub unsafe fn release(&self) {
        // SAFETY: caller's duty.
        unsafe { self.0.release() };
    }
}

/// What a module's own memory says of it.
struct Facts {
    id: [u8; 32],
    id_len: usize,
    path: [u8; module::PATH_MAX],
    path_len: usize,
}

impl Facts {
    fn of(found: &Module) -> Self {
        let (mut id, mut path) = ([0; 32], [0; module::PATH_MAX]);
        let (id_len, path_len) = (build_id(found, &mut id), path_of(found, &mut path));
        Self {
            id,
            id_len,
            path,
            path_len,
        }
    }

    /// Equal when addresses at this place mean the same.
    fn identity(&self, found: &Module) -> u64 {
        let places = [found.end, found.bias, found.eh_frame_hdr];
        let words = places.iter().flat_map(|word| word.to_le_bytes());
        let texts = self.id[..self.id_len].iter().chain([&0]);
        let texts = texts.chain(&self.path[..self.path_len]).copied();
        words.chain(texts).fold(0, |hash: u64, byte| {
            (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }
}

/// Says in the shared state that the module of a slot has come again (1) or gone (2).
fn mark(state: &State, slot: usize, now: u64) {
    let Some(layout) = state.layout() else { return };
    let at = layout.module(slot as u64);
    let unloaded = at + module::UNLOADED as u64 * 8;
    state.put(unloaded, state.moment(), Ordering::Relaxed);
    state.put(at, now, Ordering::Release);
}

fn write_slot(state: &State, slot: u64, found: &Module, facts: &Facts) -> Option<()> {
    let at = state.layout()?.module(slot);
    let set = |index: usize, value| state.put(at + index as u64 * 8, value, Ordering::Relaxed);
    set(module::START, found.start);
    set(module::END, found.end);
    set(module::BIAS, found.bias);
    set(module::LOADED, state.moment());
    state.put_bytes(at + module::BUILD_ID_AT as u64, &facts.id[..facts.id_len]);
    set(module::BUILD_ID_LEN, facts.id_len as u64);
    state.put_bytes(at + module::PATH_AT as u64, &facts.path[..facts.path_len]);
    set(module::PATH_LEN, facts.path_len as u64);
    state.put(at, 1, Ordering::Release);
    Some(())
}

/// The name in the loader's link map, made absolute; the main program's own is empty there.
fn path_of(found: &Module, into: &mut [u8]) -> usize {
    let map =
        ptr::with_exposed_provenance::<*const u8>(usize::try_from(found.link_map).unwrap_or(0));
    if map.is_null() {
        return 0;
    }
    // SAFETY: struct link_map begins with l_addr, l_name; the module is loaded, code of it is on a stack.
    let name = unsafe { map.add(1).read() };
    let mut length = 0;
    // SAFETY: l_name is null or a C string that lives as long as the link map.
    while !name.is_null() && unsafe { name.add(length).read() } != 0 && length < into.len() {
        // SAFETY: as above, before its end.
        into[length] = unsafe { name.add(length).read() };
        length += 1;
    }
    if length == 0 {
        return sys::read_link(b"/proc/self/exe\0", into).unwrap_or(0);
    }
    if into[0] != b'/' {
        // Relative to a directory the program may have left: only the kernel knows.
        return sys::mapped_file(found.start, into).unwrap_or(length);
    }
    length
}

/// The build id note of a mapped file; answers its length, 0 when it has none.
fn build_id(found: &Module, into: &mut [u8; 32]) -> usize {
    let image = Image::of(found);
    note(&image, found.bias, *b"GNU\0", 3)
        .and_then(|(at, bytes)| image.copy(at, into.get_mut(..bytes as usize)?))
        .unwrap_or(0)
}

/// True when a loaded file has a note of this kind by this owner.
pub fn has_note(module: &Module, owner: [u8; 4], kind: u32) -> bool {
    note(&Image::of(module), module.bias, owner, kind).is_some()
}

/// Where what a note says lies in an image, and its length.
fn note(image: &Image, bias: u64, owner: [u8; 4], kind: u32) -> Option<(u64, u32)> {
    let owner = u32::from_le_bytes(owner);
    // The ELF header sits at the start of the first mapping of every usual file.
    (image.u32(0)? == 0x464c_457f).then_some(())?;
    let (table, size, count) = (image.u64(32)?, image.u16(54)?, image.u16(56)?);
    for index in 0..u64::from(count.min(64)) {
        let entry = table + index * u64::from(size);
        if image.u32(entry)? != 4 {
            continue;
        }
        // p_vaddr relative to the first mapping, whose file offset is 0.
        let mut at = (image.u64(entry + 16)? + bias).checked_sub(image.start)?;
        let end = at + image.u64(entry + 40)?;
        while at + 12 <= end {
            let (name, desc) = (image.u32(at)?, image.u32(at + 4)?);
            let desc_at = at + 12 + u64::from(name.next_multiple_of(4));
            if image.u32(at + 8)? == kind && name == 4 && image.u32(at + 12)? == owner {
                return Some((desc_at, desc));
            }
            at = desc_at + u64::from(desc.next_multiple_of(4));
        }
    }
    None
}

struct Image {
    start: u64,
    end: u64,
}

impl Image {
    fn of(found: &Module) -> Self {
        Self {
            start: found.start,
            end: found.end,
        }
    }

    fn copy(&self, offset: u64, into: &mut [u8]) -> Option<usize> {
        // Notes and headers lie in the first, readable mapping, within 64 KiB.
        let last = offset.checked_add(into.len() as u64)?;
        (last <= (self.end - self.start).min(64 * 1024)).then_some(())?;
        let from = usize::try_from(self.start + offset).ok()?;
        let from = ptr::with_exposed_provenance::<u8>(from);
        // SAFETY: within the first bytes of a loaded module's mapping.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Some(into.len())
    }

    fn u16(&self, offset: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        self.copy(offset, &mut bytes)?;
        Some(u16::from_le_bytes(bytes))
    }

    fn u32(&self, offset: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.copy(offset, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    fn u64(&self, offset: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.copy(offset, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a note is known by owner and kind. Method: libc's own.
    #[test]
    fn a_note_is_known_by_owner_and_kind() {
        let inside = libc::gnu_get_libc_version as *const () as u64;
        let libc = find_module(inside).expect("loaded");
        assert!(has_note(&libc, *b"GNU\0", 3));
        assert!(!has_note(&libc, *b"GNU\0", 77) && !has_note(&libc, *b"Go\0\0", 4));
        let mut id = [0; 32];
        assert_eq!(build_id(&libc, &mut id), 20);
    }
}
