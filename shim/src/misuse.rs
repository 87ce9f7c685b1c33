//! Misuse by the host: reported with the stacks we know, then survived.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};

use pageshim_core::sys;
use pageshim_wire::frame::Kind;
use pageshim_wire::process::{MISUSE_NAMES, Misuse};

use crate::serve::{self, Call};
use crate::thread::Thread;
use crate::world::STATE;
use crate::{config, link};

const LINES_MAX: u32 = 10;
static LINES: [AtomicU32; MISUSE_NAMES.len()] = [const { AtomicU32::new(0) }; MISUSE_NAMES.len()];

/// Counts, streams and (a few times) prints one misuse; `born` is the site of the
/// block's allocation, 0 when it is not known.
#[cold]
pub(crate) fn report(
    thread: &'static Thread,
    kind: Misuse,
    address: usize,
    born: u32,
    call: &Call,
) {
    report_past(thread, kind, address, (born, 0), call);
}

/// The same with the sites of the allocation and of the first free.
#[cold]
pub(crate) fn report_past(
    thread: &'static Thread,
    kind: Misuse,
    address: usize,
    (born, freed): (u32, u32),
    call: &Call,
) {
    let here = serve::site_of(thread, call);
    tell(kind, address, [born, freed, here], call.regs.pc);
}

/// The same with all three sites; `pc` is 0 for what no call of the host showed.
#[cold]
pub(crate) fn tell(kind: Misuse, address: usize, sites: [u32; 3], pc: u64) {
    STATE.count_misuse(kind);
    let [born, freed, here] = sites.map(u64::from);
    let words = [kind as u64, address as u64, born, freed, here];
    link::send_words(Kind::Misuse, &words);
    // Counted here too: without a state (mode off) nothing else does.
    if LINES[kind as usize].fetch_add(1, Ordering::Relaxed) >= LINES_MAX {
        return;
    }
    let mut line = config::Line::new();
    line.text(b"pageshim: ");
    line.text(MISUSE_NAMES[kind as usize].replace_underscore().as_slice());
    line.text(b" of 0x");
    line.hex(address as u64);
    if pc == 0 {
        line.text(b" found at exit\n");
    } else {
        let (before, after) = around(kind);
        line.text(before);
        line.hex(pc);
        line.text(after);
    }
    let _ = sys::write(2, line.bytes());
}

/// What stands around the call's address: what it is to the misuse, and what became of it.
fn around(kind: Misuse) -> (&'static [u8], &'static [u8]) {
    match kind {
        Misuse::Overflow => (b" found by its free, called from 0x", b"\n"),
        Misuse::WriteAfterFree => (b" found by a call from 0x", b"\n"),
        Misuse::SizeMismatch | Misuse::AlignmentMismatch | Misuse::KindMismatch => {
            (b" called from 0x", b"; freed all the same\n")
        }
        _ => (b" called from 0x", b"; ignored\n"),
    }
}

struct Spaced([u8; 24], usize);

impl Spaced {
    fn as_slice(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or(&[])
    }
}

trait Words {
    fn replace_underscore(&self) -> Spaced;
}

impl Words for &str {
    fn replace_underscore(&self) -> Spaced {
        let mut spaced = Spaced([0; 24], self.len().min(24));
        for (to, from) in spaced.0.iter_mut().zip(self.bytes()) {
            *to = if from == b'_' { b' ' } else { from };
        }
        spaced
    }
}
