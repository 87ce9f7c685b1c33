//! The first call, and the constructor.
//!
//! # Design
//! The first malloc comes from the loader, before constructors, environ and
//! other threads. It reads the environment, reserves the heap and makes the
//! shared state; nothing that may allocate, no descriptor but the memfd. The
//! constructor, later, registers for forks, thread ends and exit, and connects.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pageshim_core::state::Identity;
use pageshim_core::symbols::Symbol;
use pageshim_core::sys;
use pageshim_core::unwind::find_module;
use pageshim_wire::process::{Heap, Mode};

use crate::config::{self, Config};
use crate::world::{ACCOUNTS, SPACES, STATE};
use crate::{
    check, fold, fork, held, life, link, mappings, sampled, signals, suppressions, thread, tls,
    upkeep, verify, whole, world,
};

const SPAN: u64 = 512 << 30;
const SPAN_MIN: u64 = 4 << 20;

static STAGE: AtomicU32 = AtomicU32::new(NEW);
static BOOTER: AtomicUsize = AtomicUsize::new(0);
const NEW: u32 = 0;
const BUSY: u32 = 1;
const DONE: u32 = 2;

struct Shelf(UnsafeCell<MaybeUninit<Config>>);
// SAFETY: written once, by the booting thread, before STAGE says DONE.
unsafe impl Sync for Shelf {}
static CONFIG: Shelf = Shelf(UnsafeCell::new(MaybeUninit::uninit()));

/// The configuration.
pub(crate) fn config() -> Option<&'static Config> {
    if STAGE.load(Ordering::Acquire) != DONE {
        return None;
    }
    // SAFETY: DONE is stored after the configuration was written.
    Some(unsafe { (*CONFIG.0.get()).assume_init_ref() })
}

/// Boots on the first call. False while this very thread is booting.
pub(crate) fn ready() -> bool {
    loop {
        match STAGE.compare_exchange(NEW, BUSY, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                BOOTER.store(tls::control_block(), Ordering::Relaxed);
                boot();
                STAGE.store(DONE, Ordering::Release);
                return true;
            }
            Err(DONE) => return true,
            Err(_) if BOOTER.load(Ordering::Relaxed) == tls::control_block() => return false,
            Err(_) => sys::yield_now(),
        }
    }
}

fn boot() {
    let mut config = config::read();
    SPACES.reserve(span());
    config.heap = whole::start(config.heap, config.fixed_bytes);
    if config.heap != Heap::Gpa && config.mode == Mode::Sampled {
        config.mode = Mode::Exact;
        let _ = sys::write(
            2,
            b"pageshim: PAGESHIM_MODE=sampled needs PAGESHIM_HEAP=gpa; using exact\n",
        );
    }
    if config.heap == Heap::Gpa {
        SPACES.first().commit_ahead();
    }
    // SAFETY: only the booting thread is here, and nobody reads before DONE.
    unsafe { (*CONFIG.0.get()).write(config) };
    if config.mode == Mode::Off {
        return;
    }
    if !make_state(&config, 0) {
        let _ = sys::write(
            2,
            b"pageshim: this process's limits (RLIMIT_FSIZE, RLIMIT_AS) or system call filter leave no room for shared state; it runs unprofiled\n",
        );
        return;
    }
    let (base, bytes) = whole::range().unwrap_or(SPACES.first().range());
    STATE.set(pageshim_wire::process::word::HEAP_BASE, base as u64);
    STATE.set(pageshim_wire::process::word::HEAP_RESERVED, bytes as u64);
    if whole::range().is_none() {
        let (structs, records) = SPACES.first().books();
        STATE.set(pageshim_wire::process::word::HEAP_STRUCTS, structs as u64);
        STATE.set(pageshim_wire::process::word::HEAP_RECORDS, records as u64);
    }
    upkeep::set_depth_limit(config.depth);
    let stacks = config.mode as u8 >= Mode::Sampled as u8;
    if stacks && !world::make_rows() {
        return;
    }
    if config.fold && stacks {
        fold::begin();
    }
    if config.verify && stacks {
        verify::begin();
    }
    if matches!(config.mode, Mode::Exact | Mode::Trace) {
        ACCOUNTS.billing().ask(&thread::WHO);
        if config.mappings {
            mappings::begin();
        }
    }
    check::map();
    fork::plant_canary();
    sampled::set_interval(config.interval(), config.seed);
    held::publish();
    world::set_mode(config.mode);
}

/// Makes this process's own state.
fn make_state(config: &Config, parent: u64) -> bool {
    let mut exe = [0; 1024];
    let exe_len = sys::read_link(b"/proc/self/exe\0", &mut exe).unwrap_or(0);
    let mut command = [0; 2048];
    let command_len = config.arguments.join(&mut command);
    let identity = Identity {
        mode: config.mode,
        heap: config.heap,
        parent,
        exe: exe.get(..exe_len).unwrap_or(&[]),
        command: command.get(..command_len).unwrap_or(&[]),
        service: config.service,
        depth: config.depth as u64,
        interval: config.interval(),
    };
    STATE.create(&identity, &ACCOUNTS)
}

/// Slices to reserve first: plenty, or an eighth of what the process may map.
fn span() -> usize {
    let limit = sys::soft_limit(sys::LIMIT_ADDRESS_SPACE);
    let span = if limit == u64::MAX {
        SPAN
    } else {
        1 << (limit / 8).clamp(SPAN_MIN, SPAN).ilog2()
    };
    usize::try_from(span).unwrap_or(usize::MAX)
}

extern "C" fn constructor() {
    if tls::get().or_else(thread::attach).is_none() {
        return;
    }
    life::register();
    warn_when_shadowed();
    suppressions::ask();
    tls::learn();
    mappings::learn();
    signals::watch();
    link::connect_now();
}

fn warn_when_shadowed() {
    if is_shadowed() {
        let _ = sys::write(
            2,
            b"pageshim: this program brings its own malloc, so its heap cannot be seen; it runs as without pageshim\n",
        );
    }
}

/// An executable with a malloc of its own comes before us in every look-up. The
/// address alone does not tell: in an executable that is not position independent
/// it is that of a jump slot, whose symbol is undefined there. Not while a lock is held.
pub(crate) fn is_shadowed() -> bool {
    const SYMBOL: c_int = 1;
    let mut place = MaybeUninit::<libc::Dl_info>::uninit();
    let mut symbol: *const Symbol = ptr::null();
    // SAFETY: C strings and our own variables; asked outside our own paths.
    let known = unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr());
        dladdr1(found, place.as_mut_ptr(), &raw mut symbol, SYMBOL) != 0
    };
    // SAFETY: dladdr1 answered with null or a symbol of a loaded file.
    let Some(symbol) = (unsafe { symbol.as_ref() }) else {
        return false;
    };
    let start = |address: u64| find_module(address).map(|module| module.start);
    let at = ptr::from_ref(symbol).addr() as u64;
    let elsewhere = start(at) != start(constructor as *const () as u64);
    known && elsewhere && symbol.section != 0
}

unsafe extern "C" {
    fn dladdr1(
        address: *const c_void,
        place: *mut libc::Dl_info,
        extra: *mut *const Symbol,
        kind: c_int,
    ) -> c_int;
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
