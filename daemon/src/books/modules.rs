//! The module table: which file an address belonged to, and when.

use std::sync::Arc;

use pageshim_wire::layout::{Layout, MODULE_BYTES};
use pageshim_wire::process::module;
use pageshim_wire::word_at;

use super::view::View;

/// One file that was mapped for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// First mapped address.
    pub start: u64,
    /// One past the last mapped address.
    pub end: u64,
    /// Address in process minus address in file.
    pub bias: u64,
    /// Ticks from when to when; the second is `u64::MAX` while it is loaded.
    pub ticks: (u64, u64),
    /// Which file.
    pub file: Arc<File>,
}

/// A file by path and build id: what symbols are cached under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    /// Path as the process saw it, `[vdso]` for the kernel's.
    pub path: String,
    /// Build id; empty when it has none.
    pub build_id: Vec<u8>,
}

impl File {
    /// The file's name without its directory.
    pub fn name(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        if name.is_empty() { "?" } else { name }
    }
}

/// The modules of one process.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    list: Vec<Module>,
}

impl Modules {
    /// Reads the first `count` slots anew; files that are known keep their allocation.
    pub fn read(view: &dyn View, layout: &Layout, count: u64, before: &Self) -> Self {
        let mut bytes = vec![0; (count * MODULE_BYTES) as usize];
        if !view.read(layout.module(0), &mut bytes) {
            return before.clone();
        }
        let slots = bytes.chunks_exact(MODULE_BYTES as usize);
        let mut list: Vec<Module> = slots.filter_map(decode).collect();
        for module in &mut list {
            let known = before.list.iter().find(|old| old.file == module.file);
            if let Some(old) = known {
                module.file = Arc::clone(&old.file);
            }
        }
        list.sort_by_key(|module| module.start);
        Self { list }
    }

    /// The module that held `address` at `tick`: one loaded then, else any that
    /// ever held it (a stack may be older than the module scan that found it).
    pub fn find(&self, address: u64, tick: u64) -> Option<&Module> {
        let below = self.list.partition_point(|module| module.start <= address);
        let holds = |module: &&Module| address < module.end;
        let then =
            |module: &&Module| module.ticks.0 <= tick.saturating_add(1) && tick <= module.ticks.1;
        // The nearest start below is nearly always the one; the rest is for reused addresses.
        let nearest = self.list[..below].last();
        nearest
            .filter(holds)
            .filter(then)
            .or_else(|| self.list[..below].iter().rev().filter(holds).find(then))
            .or_else(|| self.list[..below].iter().rev().find(holds))
    }

    /// The module of a file by its path.
    pub fn of_path(&self, path: &str) -> Option<&Module> {
        self.list.iter().find(|module| module.file.path == path)
    }

    /// Those that are loaded now.
    pub fn loaded(&self) -> impl Iterator<Item = &Module> {
        self.list.iter().filter(|module| module.ticks.1 == u64::MAX)
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

fn decode(slot: &[u8]) -> Option<Module> {
    let at = |index| word_at(slot, index);
    let state = at(module::STATE);
    let (start, end) = (at(module::START), at(module::END));
    if state == 0 || start >= end {
        return None;
    }
    let text = |offset: usize, len: usize, room: usize| {
        let len = usize::try_from(at(len)).unwrap_or(room).min(room);
        slot.get(offset..offset + len).unwrap_or_default()
    };
    let path = text(module::PATH_AT, module::PATH_LEN, module::PATH_MAX);
    let build_id = text(module::BUILD_ID_AT, module::BUILD_ID_LEN, 32);
    let unloaded = if state == 2 {
        at(module::UNLOADED)
    } else {
        u64::MAX
    };
    Some(Module {
        start,
        end,
        bias: at(module::BIAS),
        ticks: (at(module::LOADED), unloaded),
        file: Arc::new(File {
            path: super::header::printable(&String::from_utf8_lossy(path)),
            build_id: build_id.to_vec(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;

    fn read(state: &State) -> Modules {
        let count = state.header().module_count();
        Modules::read(&state.view(), &state.layout, count, &Modules::default())
    }

    // Goal: an address reused after dlclose belongs to the module of its time.
    // Method: two modules at one address, one unloaded at tick 100.
    #[test]
    fn addresses_belong_to_their_time() {
        let mut state = State::new();
        state.module(0, (0x1000, 0x3000), b"id", "/lib/old.so");
        state.module(1, (0x1000, 0x2000), b"id2", "/lib/new.so");
        let base = state.layout.module(0);
        state.put(base + module::STATE as u64 * 8, 2);
        state.put(base + module::UNLOADED as u64 * 8, 100);
        let base = state.layout.module(1);
        state.put(base + module::LOADED as u64 * 8, 120);
        let modules = read(&state);
        let name = |address, tick| modules.find(address, tick).map(|found| found.file.name());
        assert_eq!(name(0x1800, 50), Some("old.so"));
        assert_eq!(name(0x1800, 200), Some("new.so"));
        assert_eq!(
            name(0x2800, 200),
            Some("old.so"),
            "nothing else was ever there"
        );
        assert_eq!((name(0x3000, 50), name(0, 0)), (None, None));
    }

    // Goal: hostile slots are left out or cut. Method: inverted range, lengths past their room.
    #[test]
    fn hostile_slots_are_cut() {
        let mut state = State::new();
        state.module(0, (0x3000, 0x1000), b"", "/inverted");
        state.module(1, (1, u64::MAX), b"x", "/lib/x");
        let base = state.layout.module(1);
        state.put(base + module::PATH_LEN as u64 * 8, u64::MAX);
        state.put(base + module::BUILD_ID_LEN as u64 * 8, u64::MAX);
        let modules = read(&state);
        assert_eq!(modules.len(), 1);
        let file = &modules.find(5, u64::MAX - 1).expect("there").file;
        assert_eq!(
            (file.path.chars().count(), file.build_id.len()),
            (module::PATH_MAX, 32)
        );
    }
}
