//! Names by (file, offset), bounded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::seeded::Numbers;
use crate::books::modules::File;

/// When names take more than this, all are forgotten and looked up anew.
const BYTES_MAX: usize = 24 << 20;
/// What an entry costs beside its strings, roughly.
const ENTRY_BYTES: usize = 160;

/// One function at an address; several when calls were inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Demangled name.
    pub function: Arc<str>,
    /// Source file.
    pub file: Option<Arc<str>>,
    /// Line.
    pub line: Option<u32>,
    /// Inlined into the next.
    pub inlined: bool,
}

/// Functions at an address, innermost first.
pub type Names = Arc<[Named]>;

/// The cache.
#[derive(Debug, Default)]
pub struct Cache {
    files: HashMap<Arc<File>, u32>,
    names: Numbers<(u32, u64), Names>,
    strings: HashSet<Arc<str>>,
    bytes: usize,
    next: u32,
}

impl Cache {
    /// The number of a file, given out at first sight and never reused.
    pub fn file(&mut self, file: &Arc<File>) -> u32 {
        if let Some(number) = self.files.get(file) {
            return *number;
        }
        self.next += 1;
        self.bytes += ENTRY_BYTES + file.path.len();
        self.files.insert(Arc::clone(file), self.next);
        self.next
    }

    /// The names at `offset` of a file.
    pub fn get(&self, file: u32, offset: u64) -> Option<&Names> {
        self.names.get(&(file, offset))
    }

    /// Remembers names. When the cache is full it is emptied first.
    pub fn put(&mut self, file: u32, offset: u64, names: &Names) {
        if self.bytes > BYTES_MAX {
            *self = Self {
                next: self.next,
                ..Self::default()
            };
        }
        let names = names.iter().map(|named| self.intern(named)).collect();
        self.names.insert((file, offset), names);
        self.bytes += ENTRY_BYTES;
    }

    fn intern(&mut self, named: &Named) -> Named {
        Named {
            function: self.string(&named.function),
            file: named.file.as_ref().map(|file| self.string(file)),
            ..*named
        }
    }

    fn string(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return Arc::clone(known);
        }
        self.bytes += text.len() + 48;
        self.strings.insert(Arc::clone(text));
        Arc::clone(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the cache stays inside its budget and file numbers are never reused.
    // Method: more distinct long names than fit.
    #[test]
    fn the_budget_holds() {
        let mut cache = Cache::default();
        let file = Arc::new(File {
            path: "/x".into(),
            build_id: vec![1],
        });
        let first = cache.file(&file);
        for offset in 0..40_000u64 {
            let named = Named {
                function: format!("{offset:01000}").into(),
                file: None,
                line: None,
                inlined: false,
            };
            cache.put(first, offset, &Arc::from([named]));
            assert!(cache.bytes <= BYTES_MAX + 4096);
        }
        assert!(cache.get(first, 39_999).is_some());
        assert!(cache.get(first, 0).is_none());
        assert!(cache.file(&file) > first);
    }
}
