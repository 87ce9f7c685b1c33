//! Where pointers begin: what the program can write, but its heap and our own memory.
//!
//! # Design
//! Every readable and writable mapping is a root, less the ranges the caller excludes. In a
//! thread's own stack, as the C library or the kernel made it, what lies below the stack pointer
//! is dead and left out. Where a thread runs on another stack (a coroutine's, a handler's), all of
//! its own counts, and all of the mapping the other lies in: there may be more of them. Thread-local
//! storage and thread-specific values lie above the stack or in mappings of their own.
//!
//! With [`Sources::strict`], only modules' data, stacks and threads' storage count, as in
//! LeakSanitizer. The kernel makes one mapping of neighbours, so storage and zeroed data are
//! cut to what they are.

use pageshim_wire::check::Root;

use super::{Backing, Over};
use crate::sys::{self, Mapping};
use crate::unwind::find_module;

/// Below the stack pointer a leaf function may keep this much.
pub const RED_ZONE: usize = 128;

/// A thread that stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Still {
    /// The lowest address of its stack that counts: its stack pointer, and for one that was
    /// stopped anywhere [`RED_ZONE`] less.
    pub low: usize,
    /// Its other general registers, in the order of `pageshim_wire::check::saved`.
    pub registers: [usize; 15],
    /// Its id, 0 where it is not known.
    pub tid: u32,
    /// Its control block, behind its thread-local storage, in the mapping of its stack but for the
    /// first thread's; 0 where it is not known.
    pub control: usize,
}

/// Who takes roots.
pub trait Takes {
    /// Readable memory that is a root.
    fn range(&mut self, range: (usize, usize), backing: Backing, kind: Root) -> Result<(), Over>;
    /// What a register of a thread holds; both by their places.
    fn register(&mut self, thread: usize, register: usize, word: usize) -> Result<(), Over>;
}

/// What the walk over the roots goes by.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Threads that stand still.
    pub threads: &'a [Still],
    /// The threads' storage, which counts also when `strict`, wherever it lies.
    pub storage: &'a [(usize, usize)],
    /// The first thread's control block, which is not in the mapping of its stack; 0 where it is not known.
    pub first: usize,
    /// Ranges that are no roots; sorted by this module.
    pub excluded: &'a mut [(usize, usize)],
    /// Only modules' data, stacks and threads' storage.
    pub strict: bool,
    /// There are threads beside those: what may be a stack of theirs counts as well.
    pub missed: bool,
}

/// Why the roots could not be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The kernel does not tell which mappings there are.
    NoMaps,
}

/// What the mapping before was.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    end: usize,
    closed: bool,
    module: bool,
}

/// Gives all roots to `walk`.
pub fn walk(sources: &mut Sources<'_>, walk: &mut impl Takes) -> Result<Option<Trouble>, Over> {
    sources.excluded.sort_unstable();
    for (thread, still) in sources.threads.iter().enumerate() {
        for (register, word) in still.registers.iter().enumerate() {
            walk.register(thread, register, *word)?;
        }
    }
    let mut before = Before::default();
    let mut result = Ok(());
    let whole = sys::each_mapping(|mapping| {
        let adjacent = before.end == mapping.start;
        let named = mapping.path.first() == Some(&b'/') && !is_device(mapping.path);
        // A module's zeroed data lies behind it, without a name.
        let module =
            (named && !mapping.shared) || (adjacent && before.module && mapping.path.is_empty());
        if mapping.readable && mapping.writable && !is_device(mapping.path) {
            let own = sources.own_stack(mapping, adjacent && before.closed);
            if let Some(part) = sources.part_of(mapping, &own, module) {
                let kind = sources.kind_of(mapping, &own, module);
                result = sources.give(walk, part, mapping.shared, kind);
            }
        }
        before = Before {
            end: mapping.end,
            closed: !mapping.readable && !mapping.writable,
            module,
        };
        result.is_ok()
    });
    result?;
    Ok((!whole).then_some(Trouble::NoMaps))
}

/// Memory of a device may be slow or dangerous to read, and holds no pointers.
fn is_device(path: &[u8]) -> bool {
    let harmless = path.starts_with(b"/dev/zero") || path.starts_with(b"/dev/shm/");
    path.starts_with(b"/dev/") && !harmless || path.starts_with(b"/memfd:pageshim")
}

/// Whose stack a mapping is, as the C library or the kernel made it.
enum Own<'a> {
    Nobody,
    /// The first thread's.
    First,
    Thread(&'a Still),
    /// Of a thread that did not stop, perhaps.
    Missed,
}

impl Own<'_> {
    fn is(&self, thread: &Still) -> bool {
        match self {
            Self::Nobody | Self::Missed => false,
            Self::First => true,
            Self::Thread(own) => own.control == thread.control,
        }
    }
}

impl Sources<'_> {
    /// The C library's stacks lie behind inaccessible memory and end with the control block.
    fn own_stack(&self, mapping: &Mapping<'_>, guarded: bool) -> Own<'_> {
        if mapping.path == b"[stack]" {
            // A child that another thread forked has none.
            let is_here = |thread: &Still| thread.control == self.first;
            return match self.first == 0 || self.threads.iter().any(is_here) {
                true => Own::First,
                false if self.missed => Own::Missed,
                false => Own::Nobody,
            };
        }
        let range = mapping.start..mapping.end;
        let its = |thread: &&Still| range.contains(&thread.control) && thread.control != self.first;
        let own = self.threads.iter().find(its).filter(|_| guarded);
        match own {
            Some(own) => Own::Thread(own),
            None if guarded && self.missed => Own::Missed,
            None => Own::Nobody,
        }
    }

    /// The part of a mapping that counts; `None` when none of it does.
    fn part_of(
        &self,
        mapping: &Mapping<'_>,
        own: &Own<'_>,
        module: bool,
    ) -> Option<(usize, usize)> {
        let range = mapping.start..mapping.end;
        let mut stacks = self
            .threads
            .iter()
            .filter(|thread| range.contains(&thread.low));
        match (stacks.next(), stacks.next()) {
            (Some(only), None) if own.is(only) => Some((only.low, mapping.end)),
            (None, _) if self.strict && matches!(own, Own::Nobody) => {
                let data = module.then(|| end_of_data(mapping)).flatten();
                let data = data.map(|end| (mapping.start, end));
                let parts = data.into_iter().chain(self.storage_in(mapping));
                parts.reduce(hull)
            }
            _ => Some((mapping.start, mapping.end)),
        }
    }

    /// From the first to the last storage in a mapping.
    fn storage_in(&self, mapping: &Mapping<'_>) -> Option<(usize, usize)> {
        let clip = |(from, to): &(usize, usize)| (*from.max(&mapping.start), *to.min(&mapping.end));
        let parts = self.storage.iter().map(clip).filter(|part| part.0 < part.1);
        parts.reduce(hull)
    }

    fn kind_of(&self, mapping: &Mapping<'_>, own: &Own<'_>, module: bool) -> Root {
        let range = mapping.start..mapping.end;
        let stack = || self.threads.iter().any(|one| range.contains(&one.low));
        match module {
            true => Root::Global,
            false if stack() || !matches!(own, Own::Nobody) => Root::Stack,
            false => Root::Mapping,
        }
    }

    /// Gives what is not excluded of a part of a mapping.
    fn give(
        &self,
        walk: &mut impl Takes,
        (from, end): (usize, usize),
        shared: bool,
        kind: Root,
    ) -> Result<(), Over> {
        let backing = if shared {
            Backing::Shared
        } else {
            Backing::Private
        };
        let mut at = from;
        // Sorted by where they begin; those that end before are few.
        for (start, stop) in self.excluded.iter().copied() {
            if start >= end {
                break;
            }
            if stop <= at {
                continue;
            }
            if start > at {
                walk.range((at, start), backing, kind)?;
            }
            at = stop;
        }
        if at < end {
            walk.range((at, end), backing, kind)?;
        }
        Ok(())
    }
}

fn hull(one: (usize, usize), other: (usize, usize)) -> (usize, usize) {
    (one.0.min(other.0), one.1.max(other.1))
}

/// Where a module's data ends in a mapping; `None` when what lies behind a module is none of it.
fn end_of_data(mapping: &Mapping<'_>) -> Option<usize> {
    if !mapping.path.is_empty() {
        return Some(mapping.end);
    }
    let end = usize::try_from(find_module(mapping.start as u64)?.end).ok()?;
    Some(end.next_multiple_of(crate::OS_PAGE_BYTES).min(mapping.end))
}
