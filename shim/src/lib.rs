//! libpageshim.so: the malloc family for a whole process, from our own layers.
//!
//! `exports` hands each call with its caller's registers to `serve`, which takes
//! a block from the thread's heap and, unless the mode is off, writes its record
//! and counts it. Everything else is the life of a process: `boot`, `thread`,
//! `fork`, `life`, and the `link` to the daemon.
//!
//! No std: nothing here may allocate through the very functions it provides.
#![no_std]

mod boot;
mod check;
mod config;
mod deepbind;
mod emergency;
mod exports;
mod fold;
mod foreign;
mod fork;
mod held;
mod life;
mod link;
mod mappings;
mod misuse;
mod operators;
#[macro_use]
mod plain;
mod quick;
mod sampled;
mod serve;
mod signals;
mod stats;
mod suppressions;
mod thread;
mod tls;
mod trace;
mod unload;
mod upkeep;
mod verify;
mod whole;
mod world;

/// A bug of ours must not take the host down with an exception through C code;
/// it stops the process, as any failed assertion in an allocator does.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = pageshim_core::sys::write(2, b"pageshim: internal error, please report it\n");
    life::abort()
}
