//! The door: where the shim says a lent thread enters, and what is written there for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace;
use pageshim_wire::check::{Method, Trigger, saved, stopped};

use crate::hold::order::{Door, Order};
use crate::hold::resume::{resumed, saved_words};
use crate::hold::threads::{Held, Stopped, hears};
use crate::target::directory::directory;

/// The process's memory, to write where its shim said.
pub(super) struct Memory {
    file: File,
    door: Door,
}

impl Memory {
    /// Opens it.
    pub(super) fn open(order: &Order) -> Result<Self, Errno> {
        let path = directory(order.pid).join("mem");
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file =
            file.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Self {
            file,
            door: order.door,
        })
    }

    fn write(&self, address: u64, words: &[u64]) -> Result<(), Errno> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.file
            .write_all_at(&bytes, address)
            .map_err(|_| Errno::EFAULT)
    }

    /// Tells the shim of the threads that stand still; those without room are missed.
    pub(super) fn write_threads(&self, held: &Held) -> Result<(), Errno> {
        let room = usize::try_from(self.door.threads_max.saturating_sub(1)).unwrap_or(0);
        let threads = &held.threads;
        let kept = threads.get(..threads.len().min(room)).unwrap_or(&[]);
        let missed = held.late.len() + threads.len() - kept.len();
        let mut words = Vec::with_capacity((kept.len() + 1) * stopped::WORDS);
        for thread in kept {
            let registers = saved_words(&thread.registers);
            words.push(thread.tid.as_raw().cast_unsigned().into());
            words.push(registers[saved::SP]);
            words.extend_from_slice(&registers[..15]);
            words.push(thread.registers.fs_base);
        }
        let mut end = [0; stopped::WORDS];
        end[stopped::MISSED] = missed as u64;
        words.extend_from_slice(&end);
        self.write(self.door.threads, &words)
    }

    /// What the entry wrote when it was done, 0 before.
    pub(super) fn answer(&self) -> i64 {
        let mut bytes = [0; 8];
        let at = self.door.saved + saved::CHILD as u64 * 8;
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_or(-1, |()| i64::from_le_bytes(bytes))
    }

    /// Sends the lent thread through the door.
    pub(super) fn send(
        &self,
        order: &Order,
        thread: &Stopped,
        method: Method,
    ) -> Result<(), Errno> {
        let goes_on_with = resumed(&thread.registers, hears(order.pid, thread.tid));
        self.write(self.door.saved, &saved_words(&goes_on_with))?;
        ptrace::setregs(thread.tid, through(order, &thread.registers, method))?;
        ptrace::cont(thread.tid, None)
    }
}

/// Registers at the door.
fn through(order: &Order, registers: &user_regs_struct, method: Method) -> user_regs_struct {
    const DIRECTION_AND_TRAP: u64 = 0x400 | 0x100;
    let mut at_door = *registers;
    at_door.rip = order.door.entry;
    at_door.rsp = order.door.stack & !15;
    at_door.rdi = method as u64;
    at_door.rsi = match order.at_exit {
        true => Trigger::Exit,
        false => Trigger::Request,
    } as u64;
    at_door.orig_rax = u64::MAX;
    at_door.eflags &= !DIRECTION_AND_TRAP;
    at_door
}

/// True for a thread behind the door, or on its stack.
pub(super) fn is_behind(door: &Door, thread: &Stopped) -> bool {
    const CODE_BYTES: u64 = 1024;
    const STACK_BYTES: u64 = 256 * 1024;
    let inside = |at: u64, from: u64, bytes: u64| at.wrapping_sub(from) < bytes;
    inside(thread.registers.rip, door.entry, CODE_BYTES)
        || inside(
            thread.registers.rsp,
            door.stack.wrapping_sub(STACK_BYTES),
            STACK_BYTES,
        )
}
