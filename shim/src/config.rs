//! The environment, read once, from the stack the kernel left it on.
//!
//! `environ` may not be set up yet when the first malloc comes, and may be torn
//! later; the loader's `__libc_stack_end` leads to argc, argv and envp from the
//! very beginning. A bad value is one line on stderr and the default.
#![allow(unsafe_code)]

use core::ffi::CStr;

use pageshim_core::sys;
use pageshim_core::unwind::Memo;
use pageshim_wire::process::{Heap, Mode};
use pageshim_wire::sampled::{INTERVAL_DEFAULT, INTERVAL_MAX, INTERVAL_MIN};

/// A short text kept by value: programs such as nginx write their title over the
/// memory their environment came in.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    bytes: [u8; Self::ROOM],
    used: usize,
}

impl Text {
    const ROOM: usize = 100;

    fn copy_of(text: &[u8]) -> Option<Self> {
        let mut copy = Self {
            bytes: [0; Self::ROOM],
            used: text.len(),
        };
        copy.bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(copy)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or(&[])
    }
}

/// What the user asked for. `service` and `arguments` may be read while booting only.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    /// Mean bytes between samples in mode sampled.
    pub(crate) interval_bytes: u64,
    /// Where the draws of samples begin, when they shall be the same each time.
    pub(crate) seed: Option<u64>,
    /// Each capture is compared with a full unwind.
    pub(crate) verify: bool,
    /// Repeated cycles of frames are cut from stacks.
    pub(crate) fold: bool,
    /// Bill what the program maps itself.
    pub(crate) mappings: bool,
    /// Blocks are checked for leaks when the process ends.
    pub(crate) check: bool,
    /// Also when a signal is to end it.
    pub(crate) check_signals: bool,
    /// Only modules' data, stacks and threads' storage are roots of a check.
    pub(crate) strict: bool,
    /// Holds other threads meanwhile.
    pub(crate) signal: i32,
    pub(crate) heap: Heap,
    /// Size of the fixed heap.
    pub(crate) fixed_bytes: usize,
    pub(crate) socket: Option<Text>,
    pub(crate) runtime_dir: Option<Text>,
    pub(crate) service: &'static [u8],
    pub(crate) depth: usize,
    pub(crate) arguments: Arguments,
}

/// argv as the kernel passed it.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    first: *const *const i8,
    count: usize,
}

impl Arguments {
    /// All arguments, each ended by NUL, as far as they fit.
    pub(crate) fn join(&self, into: &mut [u8]) -> usize {
        let mut used = 0;
        for index in 0..self.count {
            // SAFETY: argv holds `count` C strings.
            let argument = unsafe { text(*self.first.add(index)) };
            for byte in argument.iter().chain(&[0]) {
                match into.get_mut(used) {
                    Some(room) => *room = *byte,
                    None => return used,
                }
                used += 1;
            }
        }
        used
    }
}

/// # Safety
/// Null or a C string that lives as long as the process.
unsafe fn text(pointer: *const i8) -> &'static [u8] {
    if pointer.is_null() {
        return &[];
    }
    // SAFETY: the caller's duty.
    unsafe { CStr::from_ptr(pointer.cast()) }.to_bytes()
}

/// Reads everything.
pub(crate) fn read() -> Config {
    unsafe extern "C" {
        static __libc_stack_end: *const usize;
    }
    // SAFETY: set by the loader; argc, argv, NULL, envp, NULL lie there on Linux.
    let (count, first) = unsafe {
        let at = __libc_stack_end;
        (at.read(), at.add(1).cast::<*const i8>())
    };
    let mut config = Config {
        mode: Mode::Exact,
        interval_bytes: INTERVAL_DEFAULT,
        seed: None,
        verify: false,
        fold: false,
        mappings: false,
        check: false,
        check_signals: false,
        strict: false,
        signal: 56,
        heap: Heap::Gpa,
        fixed_bytes: 0,
        socket: None,
        runtime_dir: None,
        service: &[],
        depth: Memo::CAPACITY,
        arguments: Arguments { first, count },
    };
    let mut wanted = true;
    // SAFETY: the argument vector ends with NULL; the environment follows.
    let mut variable = unsafe { first.add(count + 1) };
    loop {
        // SAFETY: the environment ends with NULL, which ends the loop.
        let pair = unsafe { text(*variable) };
        // SAFETY: as above.
        if unsafe { (*variable).is_null() } {
            break;
        }
        if let Some(split) = pair.iter().position(|byte| *byte == b'=') {
            config.set(&pair[..split], &pair[split + 1..], &mut wanted);
        }
        // SAFETY: not past the final NULL.
        variable = unsafe { variable.add(1) };
    }
    if !wanted {
        config.mode = Mode::Off;
    }
    config
}

impl Config {
    /// Mean bytes between samples; 0 when every block is looked at.
    pub(crate) fn interval(&self) -> u64 {
        match self.mode {
            Mode::Sampled => self.interval_bytes,
            _ => 0,
        }
    }

    fn set(&mut self, name: &'static [u8], value: &'static [u8], wanted: &mut bool) {
        match name {
            b"PAGESHIM_MODE" => match mode(value) {
                Some((mode, interval)) => (self.mode, self.interval_bytes) = (mode, interval),
                None => complain(
                    name,
                    value,
                    b"exact, sampled or sampled:BYTES (from 1KiB to 4GiB, as sampled:512KiB), count, trace or off; using exact",
                ),
            },
            b"PAGESHIM_VERIFY" => self.verify = !value.is_empty() && value != b"0",
            b"PAGESHIM_FOLD" => self.fold = !value.is_empty() && value != b"0",
            b"PAGESHIM_MMAP" => self.mappings = !value.is_empty() && value != b"0",
            b"PAGESHIM_SEED" if !value.is_empty() => match number(value) {
                Some(seed) => self.seed = Some(seed as u64),
                None => complain(name, value, b"a number; using a random one"),
            },
            b"PAGESHIM_CHECK" => match check(value) {
                Some(wanted) => (self.check, self.check_signals, self.strict) = wanted,
                None => complain(
                    name,
                    value,
                    b"exit, strict, nosignal with commas between, or off; using off",
                ),
            },
            b"PAGESHIM_SIGNAL" if !value.is_empty() => match number(value) {
                Some(signal) if (34..=64).contains(&signal) => self.signal = signal as i32,
                _ => complain(name, value, b"a real-time signal, from 34 to 64; using 56"),
            },
            b"PAGESHIM_HEAP" => match heap(value) {
                Some((heap, bytes)) => (self.heap, self.fixed_bytes) = (heap, bytes),
                None => complain(
                    name,
                    value,
                    b"gpa, debug, page, arena or fixed:SIZE (as fixed:64MiB); using gpa",
                ),
            },
            b"PAGESHIM_DEPTH" if !value.is_empty() => match number(value) {
                Some(depth) if (1..=Memo::CAPACITY).contains(&depth) => self.depth = depth,
                _ => complain(name, value, b"a number from 1 to 1024; using 1024"),
            },
            b"PAGESHIM_SOCKET" if !value.is_empty() => {
                self.socket = Text::copy_of(value);
                if self.socket.is_none() {
                    complain(
                        name,
                        value,
                        b"a path of at most 100 bytes; using the default",
                    );
                }
            }
            b"XDG_RUNTIME_DIR" if !value.is_empty() => self.runtime_dir = Text::copy_of(value),
            b"PAGESHIM_SERVICE" => self.service = value,
            b"PAGESHIM_DISABLED" => *wanted &= value.is_empty() || value == b"0",
            b"PAGESHIM_INCLUDE" => *wanted &= executable_matches(value),
            b"PAGESHIM_EXCLUDE" => *wanted &= !executable_matches(value),
            _ => {}
        }
    }
}

/// A mode and, of the sampled one, its interval.
fn mode(value: &[u8]) -> Option<(Mode, u64)> {
    let mode = match value {
        b"exact" | b"" => Mode::Exact,
        b"count" => Mode::Count,
        b"trace" => Mode::Trace,
        b"off" => Mode::Off,
        b"sampled" => Mode::Sampled,
        _ => {
            let interval = size(value.strip_prefix(b"sampled:")?)? as u64;
            let range = INTERVAL_MIN..=INTERVAL_MAX;
            return range
                .contains(&interval)
                .then_some((Mode::Sampled, interval));
        }
    };
    Some((mode, INTERVAL_DEFAULT))
}

/// When to check: at the end, also at a signal; with strict roots.
fn check(value: &[u8]) -> Option<(bool, bool, bool)> {
    let (mut exit, mut signals, mut strict) = (false, true, false);
    for word in value.split(|byte| *byte == b',') {
        match word {
            b"exit" => exit = true,
            b"strict" => strict = true,
            b"nosignal" => signals = false,
            b"off" | b"" if value.len() == word.len() => {}
            _ => return None,
        }
    }
    Some((exit, exit && signals, strict))
}

/// A heap and, of a fixed one, its size.
fn heap(value: &[u8]) -> Option<(Heap, usize)> {
    Some(match value {
        b"" | b"gpa" => (Heap::Gpa, 0),
        b"page" => (Heap::Page, 0),
        b"arena" => (Heap::Arena, 0),
        b"debug" => (Heap::Debug, 0),
        _ => (Heap::Fixed, size(value.strip_prefix(b"fixed:")?)?),
    })
}

/// Bytes, or with a unit: `512k`, `1MiB`, `2G`. Units are powers of 1024.
fn size(value: &[u8]) -> Option<usize> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    let (digits, unit) = value.split_at_checked(digits.count())?;
    let shift = match unit {
        b"" | b"B" => 0,
        b"k" | b"K" | b"kB" | b"KB" | b"KiB" | b"kiB" => 10,
        b"m" | b"M" | b"MB" | b"MiB" => 20,
        b"g" | b"G" | b"GB" | b"GiB" => 30,
        _ => return None,
    };
    let bytes = number(digits)?.checked_mul(1 << shift)?;
    (bytes > 0).then_some(bytes)
}

fn number(value: &[u8]) -> Option<usize> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

/// True when one of the comma-separated globs matches the executable's path or
/// its file name.
fn executable_matches(globs: &[u8]) -> bool {
    let mut room = [0; 1024];
    let length = sys::read_link(b"/proc/self/exe\0", &mut room).unwrap_or(0);
    let path = room.get(..length).unwrap_or(&[]);
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let mut each = globs.split(|byte| *byte == b',');
    each.any(|glob| !glob.is_empty() && (matches(glob, path) || matches(glob, name)))
}

/// Shell globs with `*` and `?`, no classes.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star = None;
    while place < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(b'?') => (at, place) = (at + 1, place + 1),
            Some(byte) if *byte == text[place] => (at, place) = (at + 1, place + 1),
            _ => match star {
                Some((mark, from)) => {
                    star = Some((mark, from + 1));
                    (at, place) = (mark + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

fn complain(name: &[u8], value: &[u8], instead: &[u8]) {
    let mut line = Line::new();
    line.text(b"pageshim: ");
    line.text(name);
    line.text(b"=");
    line.text(value.get(..value.len().min(80)).unwrap_or(value));
    line.text(b" is not understood; it may be ");
    line.text(instead);
    line.text(b"\n");
    let _ = sys::write(2, line.bytes());
}

/// A short line of text in fixed memory; what does not fit is cut.
pub(crate) struct Line {
    bytes: [u8; 384],
    used: usize,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; 384],
            used: 0,
        }
    }

    pub(crate) fn text(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(room) = self.bytes.get_mut(self.used) {
                *room = *byte;
                self.used += 1;
            }
        }
    }

    fn digits(&mut self, value: u64, base: u64) {
        let mut room = [0; 20];
        let mut rest = value;
        for at in (0..room.len()).rev() {
            room[at] = b"0123456789abcdef"[usize::try_from(rest % base).unwrap_or(0)];
            rest /= base;
            if rest == 0 {
                self.text(&room[at..]);
                return;
            }
        }
    }

    pub(crate) fn hex(&mut self, value: u64) {
        self.digits(value, 16);
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.digits(value, 10);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or(&[])
    }
}
