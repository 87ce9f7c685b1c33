//! Where a thread's variables of a library lie, as words of the library say that the loader wrote.
//!
//! Code that uses a library's thread-local variables reads its module's number, for the vector at the
//! thread's control block, or a variable's distance from that block; one such word tells where all are. A library
//! that asks in another way (by descriptors) stays without names.

use std::fs;

use object::elf::{R_X86_64_DTPMOD64, R_X86_64_TPOFF64};
use object::read::elf::ElfFile64;
use object::read::{
    Object, ObjectSymbol, ObjectSymbolTable, ReadCache, RelocationFlags, RelocationTarget,
};

use super::elf;
use crate::books::modules::File;

/// Where the thread with this control block has its variables of a library that is loaded with this bias;
/// `read` reads a word of the process.
pub fn of_library(
    file: &File,
    bias: u64,
    control: u64,
    read: impl Fn(u64) -> Option<u64>,
) -> Option<u64> {
    let cache = ReadCache::new(fs::File::open(elf::source(file)?).ok()?);
    let elf = ElfFile64::<object::Endianness, _>::parse(&cache).ok()?;
    let symbols = elf.dynamic_symbol_table()?;
    elf.dynamic_relocations()?.find_map(|(place, relocation)| {
        let RelocationFlags::Elf { r_type } = relocation.flags() else {
            return None;
        };
        // Before its value is known to matter no word is read: there are many.
        if !matches!(r_type, R_X86_64_DTPMOD64 | R_X86_64_TPOFF64) {
            return None;
        }
        let offset = match relocation.target() {
            RelocationTarget::Symbol(index) => {
                let symbol = symbols.symbol_by_index(index).ok()?;
                // One of another module's.
                (!symbol.is_undefined()).then(|| symbol.address())?
            }
            _ => 0,
        };
        let word = read(bias.wrapping_add(place))?;
        match r_type {
            R_X86_64_DTPMOD64 => {
                let vector = read(control.wrapping_add(8))?;
                read(vector.wrapping_add(word.wrapping_mul(16)))
            }
            _ => {
                let variable = offset.wrapping_add_signed(relocation.addend());
                Some(control.wrapping_add(word).wrapping_sub(variable))
            }
        }
    })
}
