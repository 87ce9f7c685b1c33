//! The process header, copied and checked.

use pageshim_wire::process::{self, CLASS_WORDS, CLASSES_MAX, Heap, Mode, class, word};
use pageshim_wire::{layout::HEADER_BYTES, layout::Layout, word_at};

use super::report::Amount;
use super::sampled;
use super::view::View;

/// One size class as the header describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Bytes of a slot; 0 for singletons.
    pub slot_bytes: u64,
    /// Bytes of the page runs that serve the class.
    pub page_bytes: u64,
    /// Slots carved; singletons: bytes of their slots.
    pub capacity: u64,
}

/// All of the header, read at once.
#[derive(Clone, Debug)]
pub struct Header {
    words: Vec<u8>,
    layout: Layout,
}

impl Header {
    /// Copies the header; `None` when the state is too short for one.
    pub fn read(view: &dyn View, layout: &Layout) -> Option<Self> {
        let mut words = vec![0; HEADER_BYTES as usize];
        view.read(0, &mut words).then_some(Self {
            words,
            layout: *layout,
        })
    }

    /// Word `index` (a name from [`word`]).
    pub fn word(&self, index: usize) -> u64 {
        word_at(&self.words, index)
    }

    /// A word that counts towards a capacity of the layout, cut to it.
    fn bounded(&self, index: usize, most: u64) -> u64 {
        self.word(index).min(most)
    }

    /// Site ids in use are below this.
    pub fn site_count(&self) -> u64 {
        self.bounded(word::SITE_COUNT, self.layout.site_capacity)
    }

    /// Thread slots in use are below this.
    pub fn thread_count(&self) -> u64 {
        self.bounded(word::THREAD_COUNT, self.layout.thread_capacity)
    }

    /// Module slots in use are below this.
    pub fn module_count(&self) -> u64 {
        self.bounded(word::MODULE_COUNT, pageshim_wire::layout::MODULES_MAX)
    }

    /// The size classes, singletons last.
    pub fn classes(&self) -> Vec<Class> {
        let count = self.bounded(word::CLASS_COUNT, CLASSES_MAX as u64) as usize;
        let at = |index: usize, what| self.word(word::CLASSES + index * CLASS_WORDS + what);
        (0..count)
            .map(|index| Class {
                slot_bytes: at(index, class::SLOT_BYTES),
                page_bytes: at(index, class::PAGE_BYTES),
                capacity: at(index, class::CAPACITY),
            })
            .collect()
    }

    /// Peak as published by the threads.
    pub fn peak(&self) -> Amount {
        self.in_whole(Amount {
            bytes: self.word(word::PEAK_BYTES),
            blocks: self.word(word::PEAK_BLOCKS),
        })
    }

    /// An amount of this process's counters in whole blocks and bytes.
    pub fn in_whole(&self, amount: Amount) -> Amount {
        match self.interval() {
            Some(_) => sampled::whole(amount),
            None => amount,
        }
    }

    /// Mean bytes between samples; `None` when every block was looked at.
    pub fn interval(&self) -> Option<u64> {
        let mode = Mode::from_word(self.word(word::MODE));
        (mode == Some(Mode::Sampled)).then(|| sampled::interval(self.word(word::SAMPLE_INTERVAL)))
    }

    /// Name of the mode, `unknown` for a number of no mode.
    pub fn mode(&self) -> &'static str {
        Mode::from_word(self.word(word::MODE)).map_or("unknown", Mode::name)
    }

    /// Name of the heap, `unknown` for a number of no heap.
    pub fn heap(&self) -> &'static str {
        Heap::from_word(self.word(word::HEAP)).map_or("unknown", Heap::name)
    }

    /// The executable's path.
    pub fn executable(&self) -> String {
        self.text(process::EXE_TEXT, word::EXE_LEN)
    }

    /// The arguments.
    pub fn command(&self) -> Vec<String> {
        let text = self.text(process::COMMAND_TEXT, word::COMMAND_LEN);
        let text = text.strip_suffix('\0').unwrap_or(&text);
        if text.is_empty() {
            return Vec::new();
        }
        text.split('\0').map(str::to_owned).collect()
    }

    /// The name reports and metrics use: service name, else what the program
    /// was called by (`redis-server`, though its file is `redis-check-rdb`),
    /// else the executable's file name.
    pub fn name(&self) -> String {
        let service = self.text(process::SERVICE_TEXT, word::SERVICE_LEN);
        let executable = self.executable();
        let command = self.command();
        let called = command.first().map_or("", |word| called(word));
        let chosen = [service.as_str(), called, file_name(&executable)]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or("unnamed");
        printable(chosen)
    }

    /// A text of the header, cut to its room.
    fn text(&self, (offset, room): (u64, usize), len: usize) -> String {
        let start = offset as usize;
        let len = usize::try_from(self.word(len)).unwrap_or(room).min(room);
        let bytes = self.words.get(start..start + len).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The file name of a command word, without the `-` of a login shell; empty
/// where it says nothing (`/proc/self/exe` of a program that starts itself).
fn called(word: &str) -> &str {
    if word.starts_with("/proc/") {
        return "";
    }
    let name = file_name(word);
    name.strip_prefix('-').unwrap_or(name)
}

/// `text` with control characters made visible, for labels and one-line output.
pub fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::State;
    use super::*;

    // Goal: names fall back and hostile lengths stay inside their text. Method: set words by hand.
    #[test]
    fn texts_are_bounded_and_names_fall_back() {
        let mut state = State::new();
        state.text(process::EXE_TEXT, word::EXE_LEN, b"/usr/bin/z\noo");
        assert_eq!(state.header().name(), "z\u{fffd}oo");
        state.text(process::COMMAND_TEXT, word::COMMAND_LEN, b"zoo\0-v\0\0");
        let header = state.header();
        assert_eq!(header.name(), "zoo");
        assert_eq!(header.command(), ["zoo", "-v", ""]);
        state.text(process::SERVICE_TEXT, word::SERVICE_LEN, b"shop");
        state.set(word::COMMAND_LEN, u64::MAX);
        assert_eq!(state.header().name(), "shop", "the service name wins");
        assert!(state.header().command().len() > 1);
        state.set(word::SITE_COUNT, u64::MAX);
        state.set(word::CLASS_COUNT, u64::MAX);
        assert_eq!(state.header().site_count(), state.layout.site_capacity);
        assert_eq!(state.header().classes().len(), CLASSES_MAX);
    }

    // Goal: a program goes by what it was called, not by the file behind a link.
    // Method: command words as shells, links and programs that start themselves give them.
    #[test]
    fn programs_go_by_what_they_are_called() {
        let mut state = State::new();
        state.text(
            process::EXE_TEXT,
            word::EXE_LEN,
            b"/usr/bin/redis-check-rdb",
        );
        for (command, name) in [
            (&b"redis-server\0--version\0"[..], "redis-server"),
            (b"/usr/bin/g++\0", "g++"),
            (b"-bash\0", "bash"),
            (b"/bin/-sh\0", "sh"),
            (b"/proc/self/exe\0", "redis-check-rdb"),
            (b"-\0", "redis-check-rdb"),
            (b"/\0", "redis-check-rdb"),
            (b"\0", "redis-check-rdb"),
        ] {
            state.text(process::COMMAND_TEXT, word::COMMAND_LEN, command);
            assert_eq!(state.header().name(), name);
        }
    }
}
