//! Where a thread's own storage lies: to tell its variables from what is on its stack.
//!
//! # Design
//! ```text
//! | variables of the last module … of the first | control block, thread-specific values |
//! ^ least address in the thread's vector        ^ fs
//! ```
//! The control block's second word leads to the vector of the thread's modules. What does not look
//! like one is not believed: a name would be wrong, nothing else.
#![allow(unsafe_code)]

use crate::sys;

const WORD: usize = size_of::<usize>();
/// Bytes of glibc's control block, which has the first thread-specific values in it.
const CONTROL_BYTES: usize = 2304;
/// No thread has more variables of its own, within reach of its control block.
const STATIC_MAX: usize = 1 << 20;
/// Entries of the vector that are read.
const MODULES: usize = 64;

/// Reads a word that may not be there.
pub(super) fn word(at: usize) -> Option<usize> {
    let mut value = 0_usize;
    let into = (&raw mut value).expose_provenance();
    (sys::copy_range(at, into, WORD) == Ok(WORD)).then(|| {
        // SAFETY: our own variable, which the kernel wrote.
        unsafe { (&raw const value).read_volatile() }
    })
}

/// The storage of the thread with this control block; empty where it is not known.
pub(super) fn of(control: usize) -> (usize, usize) {
    let plausible = control != 0 && control.is_multiple_of(WORD) && word(control) == Some(control);
    if !plausible {
        return (0, 0);
    }
    let end = control.saturating_add(CONTROL_BYTES);
    let Some(vector) = word(control + WORD).filter(|at| at.is_multiple_of(WORD) && *at != 0) else {
        return (control, end);
    };
    let mut first = control;
    for module in 1..=MODULES {
        let Some(at) = word(vector.wrapping_add(module * 2 * WORD)) else {
            break;
        };
        if at < first && control - at < STATIC_MAX {
            first = at;
        }
    }
    (first.next_multiple_of(WORD), end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::arch::asm;
    use core::cell::Cell;

    std::thread_local! {
        static VARIABLE: Cell<u64> = const { Cell::new(7) };
    }

    // Goal: a variable of a thread lies in its storage, a local one does not, and noise has none.
    // Method: this thread, and one that is started.
    #[test]
    fn variables_lie_in_their_threads_storage() {
        let look = || {
            let control: usize;
            // SAFETY: fs:0 holds the control block's own address on x86-64.
            unsafe { asm!("mov {}, qword ptr fs:[0]", out(reg) control) };
            let (from, to) = of(control);
            let variable = VARIABLE.with(|variable| (&raw const *variable).addr());
            assert!(
                (from..to).contains(&variable),
                "{from:x} {variable:x} {to:x}"
            );
            let local = 0_u64;
            assert!(!(from..to).contains(&(&raw const local).addr()));
        };
        look();
        std::thread::spawn(look).join().expect("no panic");
        assert_eq!((of(0), of(8), of(usize::MAX)), ((0, 0), (0, 0), (0, 0)));
    }
}
