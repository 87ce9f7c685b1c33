//! The module table: loaded files, as first seen on a stack.
//!
//! A module is written when an unwind row is first made for an address in it
//! (so without listening to dlopen), and marked unloaded when a look after
//! dlclose no longer finds it. Addresses then resolve by file and build id, also
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
use crate::unwind::{Module, find_module};

const KNOWN: usize = MODULES_MAX as usize;

#[derive(Debug)]
struct Known {
    start: [u64; KNOWN],
    count: usize,
}

/// Which modules have been written.
#[derive(Debug)]
pub struct Modules(Lock<Known>);

impl Default for Modules {
    fn default() -> Self {
        Self::new()
    }
}

impl Modules {
    /// None yet.
    pub const fn new() -> Self {
        Self(Lock::new(Known {
            start: [0; KNOWN],
            count: 0,
        }))
    }

    /// Writes the module that starts at `start` when it is new; answers its slot then.
    pub fn note(&self, state: &State, start: u64) -> Option<u64> {
        let mut known = self.0.lock();
        let count = known.count;
        if known.start[..count].contains(&start) {
            return None;
        }
        let found = find_module(start)?;
        let Some(room) = known.start.get_mut(count) else {
            state.count_drop(Drop::Modules);
            return None;
        };
        *room = start;
        known.count += 1;
        write_slot(state, count as u64, &found)?;
        state.set(word::MODULE_COUNT, known.count as u64);
        Some(count as u64)
    }

    /// Marks modules that are gone; true when any is.
    pub fn sweep(&self, state: &State) -> bool {
        let mut known = self.0.lock();
        let mut gone = false;
        for index in 0..known.count {
            let start = known.start[index];
            if start == 0 || find_module(start).is_some_and(|found| found.start == start) {
                continue;
            }
            known.start[index] = 0;
            gone = true;
            if let Some(layout) = state.layout() {
                let at = layout.module(index as u64);
                state.put(
                    at + module::UNLOADED as u64 * 8,
                    state.tick(),
                    Ordering::Relaxed,
                );
                state.put(at, 2, Ordering::Release);
            }
        }
        gone
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

fn write_slot(state: &State, slot: u64, found: &Module) -> Option<()> {
    let at = state.layout()?.module(slot);
    let set = |index: usize, value| state.put(at + index as u64 * 8, value, Ordering::Relaxed);
    set(module::START, found.start);
    set(module::END, found.end);
    set(module::BIAS, found.bias);
    set(module::LOADED, state.tick());
    let mut id = [0; 32];
    let id_len = build_id(found, &mut id);
    state.put_bytes(at + module::BUILD_ID_AT as u64, &id[..id_len]);
    set(module::BUILD_ID_LEN, id_len as u64);
    let mut path = [0; module::PATH_MAX];
    let path_len = path_of(found, &mut path);
    state.put_bytes(at + module::PATH_AT as u64, &path[..path_len]);
    set(module::PATH_LEN, path_len as u64);
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
    let image = Image {
        start: found.start,
        end: found.end,
    };
    (|| {
        // The ELF header sits at the start of the first mapping of every usual file.
        (image.u32(0)? == 0x464c_457f).then_some(())?;
        let (table, size, count) = (image.u64(32)?, image.u16(54)?, image.u16(56)?);
        for index in 0..u64::from(count.min(64)) {
            let entry = table + index * u64::from(size);
            if image.u32(entry)? != 4 {
                continue;
            }
            // p_vaddr relative to the first mapping, whose file offset is 0.
            let mut at = (image.u64(entry + 16)? + found.bias).checked_sub(found.start)?;
            let end = at + image.u64(entry + 40)?;
            while at + 12 <= end {
                let (name, desc) = (image.u32(at)?, image.u32(at + 4)?);
                let desc_at = at + 12 + u64::from(name.next_multiple_of(4));
                if image.u32(at + 8)? == 3 && name == 4 && image.u32(at + 12)? == 0x0055_4e47 {
                    return image.copy(desc_at, into.get_mut(..desc as usize)?);
                }
                at = desc_at + u64::from(desc.next_multiple_of(4));
            }
        }
        None
    })()
    .unwrap_or(0)
}

struct Image {
    start: u64,
    end: u64,
}

impl Image {
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
