//! One round of look-ups.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use pageshim_wire::stack::EXACT_PC;

use super::Symbols;
use super::cache::{Named, Names};
use super::elf::{self, Starts};
use super::perf_map::PerfMap;
use super::seeded::Numbers;
use super::written::Texts;
use crate::books::header::printable;
use crate::books::modules::{File, Modules};
use crate::books::report::Frame;

/// A stack to resolve: leaf first, with the tick it was seen at.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Program counters.
    pub frames: &'a [u64],
    /// When.
    pub tick: u64,
}

/// Where a program counter lies.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) address: u64,
    pub(super) at: Option<(u32, u64, Arc<File>)>,
}

/// A file opened in this session.
struct Opened {
    path: Option<PathBuf>,
    starts: Option<Starts>,
}

/// See [`Symbols::session`].
pub struct Session<'a> {
    symbols: &'a Symbols,
    blazesym: Option<Symbolizer>,
    opened: HashMap<u32, Opened>,
    maps: HashMap<u32, PerfMap>,
    found: Numbers<(u32, u64), Names>,
    pub(super) texts: Texts,
}

impl<'a> Session<'a> {
    pub(super) fn new(symbols: &'a Symbols) -> Self {
        Self {
            symbols,
            blazesym: None,
            opened: HashMap::new(),
            maps: HashMap::new(),
            found: Numbers::default(),
            texts: Texts::default(),
        }
    }

    /// The frames of each stack, leaf first, inlined calls spelled out. `pid`
    /// is the process's own idea of its id: JITs name their maps by it.
    pub fn resolve(
        &mut self,
        pid: u32,
        modules: &Modules,
        stacks: &[Wanted<'_>],
    ) -> Vec<Vec<Frame>> {
        let places = self.all_places(modules, stacks);
        let resolved = self.resolved(pid, &places).into_iter();
        resolved
            .map(|stack| stack.into_iter().flatten().collect())
            .collect()
    }

    pub(super) fn all_places(&self, modules: &Modules, stacks: &[Wanted<'_>]) -> Vec<Vec<Place>> {
        let mut numbers = Numbers::default();
        let stacks = stacks.iter();
        stacks
            .map(|stack| self.places(modules, stack, &mut numbers))
            .collect()
    }

    /// The frames of each place of each stack.
    pub(super) fn resolved(&mut self, pid: u32, places: &[Vec<Place>]) -> Vec<Vec<Vec<Frame>>> {
        self.look_up(places);
        if places.iter().flatten().any(|place| place.at.is_none()) {
            self.maps.entry(pid).or_insert_with(|| PerfMap::of(pid));
        }
        let frames = |place: &Place| self.frames(pid, place);
        let resolved = places
            .iter()
            .map(|stack| stack.iter().map(frames).collect())
            .collect();
        self.found.clear();
        resolved
    }

    /// `numbers` are those of files by their place in memory, which `modules` holds: to
    /// hash a path for every frame costs more than all else here.
    fn places(
        &self,
        modules: &Modules,
        stack: &Wanted<'_>,
        numbers: &mut Numbers<u64, u32>,
    ) -> Vec<Place> {
        let mut cache = self.symbols.cache();
        let place = |counter: &u64| {
            let address = counter & !EXACT_PC;
            // A return address may be the first byte of the next function.
            let inside = if counter & EXACT_PC == 0 {
                address.saturating_sub(1)
            } else {
                address
            };
            let at = modules.find(inside, stack.tick).map(|module| {
                let offset = inside.wrapping_sub(module.bias);
                let at = Arc::as_ptr(&module.file).addr() as u64;
                let number = numbers.entry(at);
                let number = *number.or_insert_with(|| cache.file(&module.file));
                (number, offset, Arc::clone(&module.file))
            });
            Place { address, at }
        };
        stack.frames.iter().map(place).collect()
    }

    /// Makes `found` hold a name for every place with a module.
    fn look_up(&mut self, places: &[Vec<Place>]) {
        let mut missing: HashMap<u32, (Arc<File>, BTreeSet<u64>)> = HashMap::new();
        {
            let cache = self.symbols.cache();
            for (file, offset, module) in places
                .iter()
                .flatten()
                .filter_map(|place| place.at.as_ref())
            {
                if self.found.contains_key(&(*file, *offset)) {
                    continue;
                }
                if let Some(names) = cache.get(*file, *offset) {
                    self.found.insert((*file, *offset), Arc::clone(names));
                    continue;
                }
                let entry = missing.entry(*file);
                let entry = entry.or_insert_with(|| (Arc::clone(module), BTreeSet::new()));
                entry.1.insert(*offset);
            }
        }
        for (file, (module, offsets)) in missing {
            let offsets: Vec<u64> = offsets.into_iter().collect();
            let names = self.ask(file, &module, &offsets);
            let mut cache = self.symbols.cache();
            for (offset, names) in offsets.into_iter().zip(names) {
                cache.put(file, offset, &names);
                self.found.insert((file, offset), names);
            }
        }
    }

    /// Names for offsets of one file, one each.
    fn ask(&mut self, file: u32, module: &File, offsets: &[u64]) -> Vec<Names> {
        let opened = self.opened.entry(file).or_insert_with(|| Opened {
            path: elf::source(module),
            starts: None,
        });
        let Some(path) = &opened.path else {
            let plain = offsets.iter().map(|offset| unnamed(None, *offset, module));
            return plain.collect();
        };
        let blazesym = self.blazesym.get_or_insert_with(Symbolizer::new);
        let source = Source::Elf(Elf::new(path));
        let answers = blazesym
            .symbolize(&source, Input::VirtOffset(offsets))
            .unwrap_or_else(|error| {
                tracing::debug!(path = %path.display(), %error, "no symbols");
                Vec::new()
            });
        let mut answers = answers.into_iter();
        let mut name = |offset: &u64| match answers.next() {
            Some(Symbolized::Sym(symbol)) => named(&symbol),
            _ => {
                let starts = opened.starts.get_or_insert_with(|| Starts::read(path));
                unnamed(starts.before(*offset), *offset, module)
            }
        };
        offsets.iter().map(&mut name).collect()
    }

    fn frames(&self, pid: u32, place: &Place) -> Vec<Frame> {
        let address = format!("0x{:x}", place.address);
        let Some((file, offset, module)) = &place.at else {
            let map = self.maps.get(&pid);
            let name = map.and_then(|map| map.name(place.address));
            return vec![Frame {
                function: name.map_or_else(|| format!("{address}@?"), str::to_owned),
                module: if name.is_some() { "[jit]" } else { "?" }.to_owned(),
                address,
                ..Frame::default()
            }];
        };
        let names = self.found.get(&(*file, *offset));
        let names = names.map_or(&[][..], |names| names);
        let frame = |named: &Named| Frame {
            function: named.function.to_string(),
            file: named.file.as_deref().map(str::to_owned),
            line: named.line,
            module: module.name().to_owned(),
            module_path: module.path.clone(),
            address: address.clone(),
            inlined: named.inlined,
        };
        names.iter().map(frame).collect()
    }
}

/// What blazesym knows, innermost first.
fn named(symbol: &Sym<'_>) -> Names {
    let one = |name: &str, code: Option<&CodeInfo<'_>>, inlined| Named {
        function: printable(name).into(),
        file: code.map(|code| printable(&code.to_path().to_string_lossy()).into()),
        line: code.and_then(|code| code.line),
        inlined,
    };
    let inlined = symbol.inlined.iter().rev();
    inlined
        .map(|inner| one(&inner.name, inner.code_info.as_ref(), true))
        .chain([one(&symbol.name, symbol.code_info.as_deref(), false)])
        .collect()
}

/// A stable stand-in for a name.
fn unnamed(start: Option<u64>, offset: u64, module: &File) -> Names {
    let function = match start {
        Some(start) => format!("fun_{start:x}@{}", module.name()),
        None => format!("0x{offset:x}@{}", module.name()),
    };
    Arc::from([Named {
        function: function.into(),
        file: None,
        line: None,
        inlined: false,
    }])
}
