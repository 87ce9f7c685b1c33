//! Names of variables: which one lies at an offset of a module.
//!
//! blazesym knows functions only, so the symbol tables are read here: the file's own, and
//! those of its separate debug file. Asked for a handful of addresses at a time.

use std::fs;
use std::path::{Path, PathBuf};

use object::elf::PT_TLS;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::read::{Object, ObjectSymbol, ReadCache, SymbolKind};

use super::elf;
use crate::books::header::printable;
use crate::books::modules::File;

/// A variable, and where in it an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Demangled.
    pub name: String,
    /// Bytes from its start.
    pub offset: u64,
}

/// The variable at an offset of a file's address space.
pub fn global(file: &File, offset: u64) -> Option<Variable> {
    files(file).find_map(|path| find(&path, offset, |kind| kind != SymbolKind::Tls))
}

/// The thread-local variable of an executable that lies `below` bytes before the thread's
/// control block: the executable's storage is next to it.
pub fn of_thread(file: &File, below: u64) -> Option<Variable> {
    let source = elf::source(file)?;
    in_storage(file, storage(&source)?.checked_sub(below)?)
}

/// The thread-local variable at an offset of a module's storage.
pub fn in_storage(file: &File, offset: u64) -> Option<Variable> {
    files(file).find_map(|path| find(&path, offset, |kind| kind == SymbolKind::Tls))
}

fn files(file: &File) -> impl Iterator<Item = PathBuf> {
    let debug = elf::debug_file(file);
    let own = elf::source(file).filter(|own| debug.as_ref() != Some(own));
    own.into_iter().chain(debug)
}

/// Bytes from the start of an executable's thread-local storage to the control block.
fn storage(path: &Path) -> Option<u64> {
    let cache = ReadCache::new(fs::File::open(path).ok()?);
    let elf = ElfFile64::<object::Endianness, _>::parse(&cache).ok()?;
    let order = elf.endian();
    let headers = elf.elf_program_headers().iter();
    let mut storage = headers.filter(|header| header.p_type(order) == PT_TLS);
    let header = storage.next()?;
    let align = header.p_align(order).max(1);
    header.p_memsz(order).checked_next_multiple_of(align)
}

fn find(path: &Path, offset: u64, fits: impl Fn(SymbolKind) -> bool) -> Option<Variable> {
    let cache = ReadCache::new(fs::File::open(path).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    let holds = |symbol: &object::read::Symbol<'_, '_, _>| {
        let data = matches!(
            symbol.kind(),
            SymbolKind::Data | SymbolKind::Unknown | SymbolKind::Tls
        );
        let at = offset.wrapping_sub(symbol.address());
        data && fits(symbol.kind()) && !symbol.is_undefined() && at < symbol.size()
    };
    let all = elf.symbols().chain(elf.dynamic_symbols());
    // Of several names for a place the smallest variable is the most exact.
    let found = all.filter(holds).min_by_key(ObjectSymbol::size)?;
    let name = found.name().ok().filter(|name| !name.is_empty())?;
    Some(Variable {
        name: printable(&demangled(name)),
        offset: offset - found.address(),
    })
}

fn demangled(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    let cpp = cpp_demangle::Symbol::new(name).ok();
    cpp.and_then(|symbol| symbol.demangle().ok())
        .unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const SOURCE: &str = "
        static int kept[10];
        namespace here { long counter = 7; }
        thread_local int before;
        thread_local char buffer[100];
        int main() { kept[3] = 1; before = 2; buffer[5] = 3; return (int)here::counter; }";

    fn symbol(path: &Path, name: &str) -> u64 {
        let cache = ReadCache::new(fs::File::open(path).expect("built"));
        let elf = object::File::parse(&cache).expect("an ELF file");
        let mut all = elf.symbols();
        let found = all.find(|symbol| symbol.name().is_ok_and(|its| its.contains(name)));
        found.expect("there").address()
    }

    // Goal: variables are named, with the place in them, those of threads too; code and gaps are
    // not. Method: a program of known variables.
    #[test]
    fn variables_are_named() {
        let dir = std::env::temp_dir().join(format!("pageshim-variables-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let (source, path) = (dir.join("v.cpp"), dir.join("v"));
        fs::write(&source, SOURCE).expect("written");
        let built = Command::new("g++")
            .args(["-O0", "-o"])
            .args([&path, &source])
            .status();
        assert!(built.expect("g++ is there").success());
        let file = File {
            path: path.to_string_lossy().into_owned(),
            build_id: Vec::new(),
        };
        let named = |variable: Option<Variable>| variable.map(|found| (found.name, found.offset));
        let kept = symbol(&path, "kept");
        assert_eq!(
            named(global(&file, kept + 12)),
            Some(("kept".to_owned(), 12))
        );
        assert_eq!(
            named(global(&file, symbol(&path, "counter"))),
            Some(("here::counter".to_owned(), 0))
        );
        assert_eq!(global(&file, symbol(&path, "main")), None);
        let storage = storage(&path).expect("it has some");
        let below = storage - symbol(&path, "buffer");
        assert_eq!(
            named(of_thread(&file, below - 5)),
            Some(("buffer".to_owned(), 5))
        );
        assert_eq!(of_thread(&file, storage + 1), None);
        fs::remove_dir_all(&dir).expect("ours");
    }
}
