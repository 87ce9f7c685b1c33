//! What is read from ELF files without blazesym: build ids and unwind entries.

use std::fs;
use std::path::{Path, PathBuf};

use object::read::{Object, ObjectSection, ReadCache};

use crate::books::modules::File;

/// Where separate debug files lie by build id.
const DEBUG_DIR: &str = "/usr/lib/debug/.build-id";
/// Largest unwind index that is read.
const INDEX_MAX: u64 = 32 << 20;

/// The file to take symbols from: the module's own if it is still the same
/// one, else the separate debug file of its build id.
pub fn source(file: &File) -> Option<PathBuf> {
    let own = Path::new(&file.path);
    if own.is_absolute() && same(own, &file.build_id) {
        return Some(own.to_owned());
    }
    // What the kernel says of a replaced file; the new one may be the same build.
    let replaced = file.path.strip_suffix(" (deleted)").map(Path::new);
    if let Some(path) = replaced
        && !file.build_id.is_empty()
        && path.is_absolute()
        && same(path, &file.build_id)
    {
        return Some(path.to_owned());
    }
    debug_file(file)
}

/// The separate debug file of its build id, where it is installed.
pub fn debug_file(file: &File) -> Option<PathBuf> {
    let (first, rest) = file.build_id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let debug = PathBuf::from(format!("{DEBUG_DIR}/{first:02x}/{rest}.debug"));
    same(&debug, &file.build_id).then_some(debug)
}

/// Whether `path` is a readable ELF file that does not have another build id.
fn same(path: &Path, build_id: &[u8]) -> bool {
    // A path comes from another process: a pipe or device must not be opened.
    if !fs::metadata(path).is_ok_and(|facts| facts.is_file()) {
        return false;
    }
    let Ok(opened) = fs::File::open(path) else {
        return false;
    };
    let cache = ReadCache::new(opened);
    let Ok(elf) = object::File::parse(&cache) else {
        return false;
    };
    match elf.build_id() {
        Ok(Some(found)) => build_id.is_empty() || found == build_id,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The build id of a file; `None` when it has none or is no ELF file.
#[cfg(test)]
pub fn build_id(path: &Path) -> Option<Vec<u8>> {
    let cache = ReadCache::new(fs::File::open(path).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    elf.build_id().ok()?.map(<[u8]>::to_vec)
}

/// Starts of functions by unwind entry, from `.eh_frame_hdr`.
#[derive(Debug, Default)]
pub struct Starts {
    sorted: Vec<u64>,
}

impl Starts {
    /// Reads them; empty when the file has none or another encoding.
    pub fn read(path: &Path) -> Self {
        let sorted = index(path).unwrap_or_default();
        Self { sorted }
    }

    /// The last start at or below `offset`.
    pub fn before(&self, offset: u64) -> Option<u64> {
        let above = self.sorted.partition_point(|start| *start <= offset);
        self.sorted[..above].last().copied()
    }
}

/// The table's first column, as offsets in the file's address space.
fn index(path: &Path) -> Option<Vec<u64>> {
    /// Version 1, count as udata4, table as sdata4 relative to the section.
    const KNOWN: (u8, u8, u8) = (1, 0x03, 0x3b);
    let cache = ReadCache::new(fs::File::open(path).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    let section = elf.section_by_name(".eh_frame_hdr")?;
    if section.size() > INDEX_MAX {
        return None;
    }
    let data = section.data().ok()?;
    let head = data.first_chunk::<12>()?;
    if (head[0], head[2], head[3]) != KNOWN {
        return None;
    }
    let base = section.address();
    let mut sorted: Vec<u64> = data[12..]
        .chunks_exact(8)
        .filter_map(|entry| entry.first_chunk::<4>())
        .map(|start| base.wrapping_add_signed(i64::from(i32::from_le_bytes(*start))))
        .collect();
    sorted.sort_unstable();
    Some(sorted)
}
