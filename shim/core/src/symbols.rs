//! Names a loaded module defines, found as the loader finds them: by its GNU hash table.
//!
//! No lock is taken and nothing allocated; tables that contradict themselves find nothing.
#![allow(unsafe_code)]

use core::ffi::CStr;
use core::mem::offset_of;
use core::ptr::{self, NonNull};

use crate::unwind::Module;

/// An ELF symbol, as it lies in memory.
#[derive(Debug)]
#[repr(C)]
pub struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    /// Number of its section; 0 where the module uses the name and another defines it.
    pub section: u16,
    value: u64,
    size: u64,
}

/// `struct link_map` (link.h), as far as it is public.
#[repr(C)]
struct LinkMap {
    bias: u64,
    name: *const u8,
    dynamic: *const [u64; 2],
}

/// What is before the tables of a GNU hash section.
#[repr(C)]
struct Header {
    buckets: u32,
    first: u32,
    filters: u32,
    shift: u32,
}

const STRTAB: u64 = 5;
const SYMTAB: u64 = 6;
const GNU_HASH: u64 = 0x6fff_fef5;
/// More tags and longer chains than these no linker makes.
const TAGS_MAX: usize = 256;
const CHAIN_MAX: u32 = 1 << 20;

/// The defined symbols of a module.
#[derive(Clone, Copy, Debug)]
pub struct Symbols {
    bias: u64,
    symbols: *const Symbol,
    names: *const u8,
    hash: *const Header,
}

impl Symbols {
    /// Those of `module`; `None` without a GNU hash table.
    ///
    /// # Safety
    /// The module stays loaded while they are used.
    pub unsafe fn of(module: &Module) -> Option<Self> {
        let map = ptr::with_exposed_provenance::<LinkMap>(usize::try_from(module.link_map).ok()?);
        // SAFETY: the loader's list entry of a loaded module.
        let (bias, dynamic) = unsafe { ((*map).bias, (*map).dynamic) };
        let (mut symbols, mut names, mut hash) = (None, None, None);
        for index in 0..TAGS_MAX {
            // SAFETY: tag 0 ends the array.
            let [tag, value] = unsafe { dynamic.add(index).read() };
            // The loader adds the bias in place, but where it may not write.
            let value = if value < bias { value + bias } else { value };
            let place = usize::try_from(value).ok();
            match tag {
                0 => break,
                STRTAB => names = place,
                SYMTAB => symbols = place,
                GNU_HASH => hash = place,
                _ => {}
            }
        }
        Some(Self {
            bias,
            symbols: ptr::with_exposed_provenance(symbols?),
            names: ptr::with_exposed_provenance(names?),
            hash: ptr::with_exposed_provenance(hash?),
        })
    }

    /// The symbol `name`, where the module defines it.
    pub fn find(&self, name: &CStr) -> Option<NonNull<Symbol>> {
        // SAFETY: of() found a table of this shape; indices are the table's own.
        unsafe {
            let header = &*self.hash;
            let filters = self.hash.add(1).cast::<u64>();
            let buckets = filters.add(header.filters as usize).cast::<u32>();
            let chains = buckets.add(header.buckets as usize);
            let wanted = hash_of(name);
            let first = *buckets.add(wanted.checked_rem(header.buckets)? as usize);
            let chain = first.checked_sub(header.first)?;
            for step in 0..CHAIN_MAX {
                let at = (chain + step) as usize;
                let hash = *chains.add(at);
                let symbol = self.symbols.add(at + header.first as usize);
                if hash | 1 == wanted | 1 && self.name(&*symbol) == name && (*symbol).section != 0 {
                    return NonNull::new(symbol.cast_mut());
                }
                if hash & 1 != 0 {
                    break;
                }
            }
        }
        None
    }

    unsafe fn name(&self, symbol: &Symbol) -> &CStr {
        // SAFETY: the caller's symbol is the module's, whose names end in a NUL.
        unsafe { CStr::from_ptr(self.names.add(symbol.name as usize).cast()) }
    }

    /// Where what a symbol of this module names lies.
    pub fn address(&self, symbol: &Symbol) -> u64 {
        self.bias.wrapping_add(symbol.value)
    }

    /// The word that makes a symbol of this module name `address`, and what to write there.
    pub fn redirection(&self, symbol: NonNull<Symbol>, address: u64) -> (NonNull<u64>, u64) {
        // SAFETY: a field of the symbol.
        let word = unsafe { symbol.byte_add(offset_of!(Symbol, value)) };
        (word.cast(), address.wrapping_sub(self.bias))
    }
}

fn hash_of(name: &CStr) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(33).wrapping_add(u32::from(*byte));
    name.to_bytes().iter().fold(5381, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::find_module;

    // Goal: names are found where the loader finds them, others not at all. Method: libc's own.
    #[test]
    fn names_are_found_as_the_loader_does() {
        let inside = libc::gnu_get_libc_version as *const () as u64;
        let module = find_module(inside).expect("libc is loaded");
        // SAFETY: libc stays.
        let symbols = unsafe { Symbols::of(&module) }.expect("has a table");
        for name in [c"malloc", c"free", c"gnu_get_libc_version", c"qsort"] {
            let found = symbols.find(name).expect("defined");
            // SAFETY: a C string and libc's symbol.
            let (loaders, ours) = unsafe {
                let at = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
                (at.addr() as u64, symbols.address(found.as_ref()))
            };
            assert_eq!(ours, loaders, "{name:?}");
            let (word, value) = symbols.redirection(found, 64);
            // SAFETY: a word of the symbol.
            let held = unsafe { word.read() };
            assert_eq!(held.wrapping_add(module.bias), ours);
            assert_eq!(value.wrapping_add(module.bias), 64);
        }
        assert!(symbols.find(c"no such name in libc").is_none());
        assert!(
            symbols.find(c"__tls_get_addr").is_none(),
            "ld.so defines it"
        );
    }
}
