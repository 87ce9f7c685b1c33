//! A shared state built by hand, for tests.

use pageshim_wire::layout::{Layout, MAGIC, word as layout_word};
use pageshim_wire::process::{CLASS_WORDS, SITE_FIRST, module, word};
use pageshim_wire::stack::{End, Record};
use pageshim_wire::thread::{CLASS_COUNTER_WORDS, word as thread_word};

use super::header::Header;
use super::threads::ThreadSums;
use super::view::Bytes;

/// A state of 256 sites, a 64 KiB log and 4 thread slots.
#[derive(Clone)]
pub struct State {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its layout.
    pub layout: Layout,
}

impl State {
    /// An empty, sound state.
    pub fn new() -> Self {
        let layout = Layout::new(256, 64 * 1024, 4).expect("valid");
        let bytes = vec![0; layout.total_bytes() as usize];
        let mut state = Self { bytes, layout };
        state.set(layout_word::MAGIC, MAGIC);
        state.set(layout_word::VERSION, u64::from(pageshim_wire::VERSION));
        state.set(layout_word::SITE_CAPACITY, 256);
        state.set(layout_word::LOG_BYTES, 64 * 1024);
        state.set(layout_word::THREAD_CAPACITY, 4);
        state.set(word::TOKEN, 0xfeed);
        state.set(word::PID, 4711);
        state.set(word::SITE_COUNT, u64::from(SITE_FIRST));
        state.set(word::MODE, 3);
        state
    }

    /// The bytes as a view.
    pub fn view(&self) -> Bytes {
        Bytes(self.bytes.clone())
    }

    /// The header decoded.
    pub fn header(&self) -> Header {
        Header::read(&self.view(), &self.layout).expect("long enough")
    }

    /// The thread sums decoded.
    pub fn threads(&self) -> ThreadSums {
        let count = self.header().thread_count();
        ThreadSums::read(&self.view(), &self.layout, count)
    }

    /// Writes a word at a byte offset.
    pub fn put(&mut self, offset: u64, value: u64) {
        let at = offset as usize;
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn get(&self, offset: u64) -> u64 {
        pageshim_wire::word_at(&self.bytes[offset as usize..], 0)
    }

    /// Sets a header word.
    pub fn set(&mut self, index: usize, value: u64) -> &mut Self {
        self.put(index as u64 * 8, value);
        self
    }

    /// Sets a header text.
    pub fn text(&mut self, (offset, _): (u64, usize), len: usize, text: &[u8]) -> &mut Self {
        let at = offset as usize;
        self.bytes[at..at + text.len()].copy_from_slice(text);
        self.set(len, text.len() as u64)
    }

    /// Takes a thread slot: 1 in use, 2 ended.
    pub fn thread(&mut self, slot: u64, status: u64, name: &str) -> &mut Self {
        self.thread_word(slot, thread_word::STATE, status);
        self.thread_word(slot, thread_word::GENERATION, 1);
        let at = (self.layout.thread(slot) + thread_word::NAME as u64 * 8) as usize;
        self.bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        let count = self.get(word::THREAD_COUNT as u64 * 8).max(slot + 1);
        self.set(word::THREAD_COUNT, count)
    }

    /// Sets a word of a thread header.
    pub fn thread_word(&mut self, slot: u64, index: usize, value: u64) -> &mut Self {
        self.put(self.layout.thread(slot) + index as u64 * 8, value);
        self
    }

    /// Sets a class's counters in a thread: blocks, bytes, blocks freed, bytes freed.
    pub fn class(&mut self, slot: u64, class: usize, counters: [u64; 4]) -> &mut Self {
        for (index, value) in counters.into_iter().enumerate() {
            let at = thread_word::CLASSES + class * CLASS_COUNTER_WORDS + index;
            self.thread_word(slot, at, value);
        }
        self
    }

    /// Describes a class: slot bytes, page bytes, capacity.
    pub fn class_table(&mut self, classes: &[[u64; 3]]) -> &mut Self {
        for (class, words) in classes.iter().enumerate() {
            for (index, value) in words.iter().enumerate() {
                self.set(word::CLASSES + class * CLASS_WORDS + index, *value);
            }
        }
        self.set(word::CLASS_COUNT, classes.len() as u64)
    }

    /// Sets a site's counters in a thread: blocks, bytes, blocks freed, bytes freed, temporary.
    pub fn site_counters(&mut self, slot: u64, site: u64, counters: [u64; 5]) -> &mut Self {
        for (index, value) in counters.into_iter().enumerate() {
            self.put(self.layout.counters(slot, site) + index as u64 * 8, value);
        }
        self
    }

    /// Publishes a site: hash and log offset.
    pub fn site_entry(&mut self, site: u32, hash: u64, offset: u64) -> &mut Self {
        let at = self.layout.site(u64::from(site));
        self.put(at, hash);
        self.put(at + 8, offset);
        let count = self
            .get(word::SITE_COUNT as u64 * 8)
            .max(u64::from(site) + 1);
        self.set(word::SITE_COUNT, count)
    }

    /// Appends a stack of `frames` and `shared.1` outer frames of site `shared.0`.
    pub fn stack(&mut self, site: u32, frames: &[u64], shared: (u32, u16)) -> &mut Self {
        let offset = self.get(word::LOG_USED as u64 * 8);
        let record = Record {
            site,
            new_frames: frames.len() as u16,
            shared_frames: shared.1,
            prefix: shared.0,
            thread: 0,
            end: End::Complete,
            tick: 250,
            frames_at: 0,
        };
        let mut at = self.layout.log() + offset;
        for value in record.words().iter().chain(frames) {
            self.put(at, *value);
            at += 8;
        }
        self.set(word::LOG_USED, at - self.layout.log());
        self.site_entry(site, 0x1000 + u64::from(site), offset)
    }

    /// Loads a module: address range, bias, build id, path.
    pub fn module(&mut self, slot: u64, range: (u64, u64), build_id: &[u8], path: &str) {
        let base = self.layout.module(slot);
        let words = [
            (module::STATE, 1),
            (module::START, range.0),
            (module::END, range.1),
            (module::BIAS, range.0),
            (module::BUILD_ID_LEN, build_id.len() as u64),
            (module::PATH_LEN, path.len() as u64),
        ];
        for (index, value) in words {
            self.put(base + index as u64 * 8, value);
        }
        let texts = [
            (module::BUILD_ID_AT, build_id),
            (module::PATH_AT, path.as_bytes()),
        ];
        for (offset, text) in texts {
            let at = base as usize + offset;
            self.bytes[at..at + text.len()].copy_from_slice(text);
        }
        let count = self.get(word::MODULE_COUNT as u64 * 8).max(slot + 1);
        self.set(word::MODULE_COUNT, count);
    }
}
