//! What an executable file says about itself, as far as preloading cares.
//!
//! Only headers, the dynamic section and symbol tables are read, through a
//! cache, so a browser of 300 MB costs a few reads.

use std::fs::File;
use std::path::{Path, PathBuf};

use object::elf::{
    DT_NEEDED, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_DYNAMIC, PT_INTERP, SHN_UNDEF,
    STB_LOCAL,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{LittleEndian, ReadCache, ReadRef};

type Header = FileHeader64<LittleEndian>;

/// Facts about an x86-64 ELF executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elf {
    /// Path of the loader; `None` for a static program.
    pub(crate) interpreter: Option<String>,
    /// Libraries it names.
    pub(crate) needed: Vec<String>,
    /// Which sanitizer it is built with.
    pub(crate) sanitizer: Option<&'static str>,
    /// It defines `malloc` itself.
    pub(crate) own_malloc: bool,
    /// It has a symbol table beyond the dynamic one.
    pub(crate) symbols: bool,
    /// It has line tables itself.
    pub(crate) lines: bool,
    /// Where its distribution would put a file with its line tables.
    pub(crate) debug_file: Option<PathBuf>,
}

/// What a file is, if not an [`Elf`] we can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An x86-64 executable.
    Elf(Elf),
    /// `#!`: the interpreter and its one argument.
    Script(String, Option<String>),
    /// No `#!`, but text: execvp and shells hand it to /bin/sh.
    Text,
    /// Built for another machine or word size.
    Machine(&'static str),
    /// Nothing the kernel can run.
    Unknown,
}

/// Looks at `path`.
pub(crate) fn inspect(path: &Path) -> std::io::Result<Kind> {
    let cache = ReadCache::new(File::open(path)?);
    let length = (&cache).len().unwrap_or(0).min(256);
    let start = (&cache).read_bytes_at(0, length).unwrap_or_default();
    if let Some(line) = start.strip_prefix(b"#!") {
        return Ok(script(line));
    }
    if !start.starts_with(b"\x7fELF") {
        let text = !start.is_empty() && !start.contains(&0);
        return Ok(if text { Kind::Text } else { Kind::Unknown });
    }
    Ok(match (start.get(4), start.get(5), start.get(18..20)) {
        (Some(1), _, _) => Kind::Machine("a 32-bit program"),
        (Some(2), Some(1), Some(machine)) if machine == EM_X86_64.to_le_bytes() => {
            elf(&cache).map_or(Kind::Unknown, Kind::Elf)
        }
        _ => Kind::Machine("built for another processor"),
    })
}

fn script(line: &[u8]) -> Kind {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let (interpreter, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = argument.trim();
    let argument = (!argument.is_empty()).then(|| argument.to_owned());
    Kind::Script(interpreter.to_owned(), argument)
}

fn elf<'data, R: ReadRef<'data>>(data: R) -> Option<Elf> {
    let header = Header::parse(data).ok()?;
    let endian = header.endian().ok()?;
    if ![ET_EXEC, ET_DYN].contains(&header.e_type(endian)) {
        return None;
    }
    let mut facts = Elf::default();
    for segment in header.program_headers(endian, data).ok()? {
        match segment.p_type(endian) {
            PT_INTERP => {
                let text = segment.interpreter(endian, data).ok()??;
                facts.interpreter = Some(String::from_utf8_lossy(text).into_owned());
            }
            PT_DYNAMIC => facts.needed = needed(header, segment, data).unwrap_or_default(),
            _ => {}
        }
    }
    facts.sanitizer = facts
        .needed
        .iter()
        .find_map(|library| sanitizer_library(library));
    sections(header, data, &mut facts);
    Some(facts)
}

/// Names in DT_NEEDED, read by section when there are sections, else not at all.
fn needed<'data, R: ReadRef<'data>>(
    header: &'data Header,
    segment: &'data <Header as FileHeader>::ProgramHeader,
    data: R,
) -> Option<Vec<String>> {
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let (_, strings) = sections.dynamic(endian, data).ok()??;
    let strings = sections.strings(endian, data, strings).ok()?;
    let entries = segment.dynamic(endian, data).ok()??;
    let names = entries
        .iter()
        .filter(|entry| entry.tag(endian) == DT_NEEDED)
        .filter_map(|entry| entry.string(endian, strings).ok());
    Some(
        names
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
    )
}

fn sections<'data, R: ReadRef<'data>>(header: &'data Header, data: R, facts: &mut Elf) {
    let Ok(endian) = header.endian() else { return };
    let Ok(sections) = header.sections(endian, data) else {
        return;
    };
    let has = |name: &[u8]| sections.section_by_name(endian, name).is_some();
    facts.lines = has(b".debug_line") || has(b".zdebug_line");
    let note = sections.section_by_name(endian, b".note.gnu.build-id");
    let note = note.and_then(|(_, section)| section.data(endian, data).ok());
    facts.debug_file = note.and_then(debug_file);
    for kind in [object::elf::SHT_DYNSYM, object::elf::SHT_SYMTAB] {
        let Ok(table) = sections.symbols(endian, data, kind) else {
            continue;
        };
        facts.symbols |= kind == object::elf::SHT_SYMTAB && !table.is_empty();
        // The string table at once: a look-up per symbol costs seconds in a debug build.
        let strings = sections.section(table.string_section());
        let strings = strings.and_then(|section| section.data(endian, data));
        let strings = strings.unwrap_or_default();
        for symbol in table.iter() {
            let defined = symbol.st_shndx(endian) != SHN_UNDEF && symbol.st_bind() != STB_LOCAL;
            let name = name_at(strings, symbol.st_name(endian));
            facts.own_malloc |= defined && name == b"malloc";
            facts.sanitizer = facts.sanitizer.or_else(|| sanitizer_symbol(name));
        }
    }
}

/// The first bytes of a name, enough to tell the names we look for.
fn name_at(strings: &[u8], offset: u32) -> &[u8] {
    const LONGEST: usize = 16;
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| strings.get(offset..));
    let rest = rest.unwrap_or_default();
    let rest = &rest[..rest.len().min(LONGEST)];
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// `/usr/lib/debug/.build-id/ab/cdef….debug` of a note: three sizes, "GNU\0", the id.
fn debug_file(note: &[u8]) -> Option<PathBuf> {
    const HEAD: usize = 16;
    let id: String = note
        .get(HEAD..)?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (start, rest) = id.split_at_checked(2)?;
    Some(PathBuf::from(format!(
        "/usr/lib/debug/.build-id/{start}/{rest}.debug"
    )))
}

fn sanitizer_library(library: &str) -> Option<&'static str> {
    let known = [
        ("libasan.", "AddressSanitizer"),
        ("libhwasan.", "HWAddressSanitizer"),
        ("libtsan.", "ThreadSanitizer"),
        ("liblsan.", "LeakSanitizer"),
        ("libclang_rt.asan", "AddressSanitizer"),
        ("libclang_rt.hwasan", "HWAddressSanitizer"),
        ("libclang_rt.tsan", "ThreadSanitizer"),
        ("libclang_rt.msan", "MemorySanitizer"),
        ("libclang_rt.lsan", "LeakSanitizer"),
    ];
    let file = library.rsplit('/').next().unwrap_or(library);
    known
        .iter()
        .find(|(start, _)| file.starts_with(start))
        .map(|(_, name)| *name)
}

fn sanitizer_symbol(symbol: &[u8]) -> Option<&'static str> {
    Some(match symbol {
        b"__asan_init" => "AddressSanitizer",
        b"__hwasan_init" => "HWAddressSanitizer",
        b"__tsan_init" => "ThreadSanitizer",
        b"__msan_init" => "MemorySanitizer",
        b"__lsan_init" => "LeakSanitizer",
        _ => return None,
    })
}
