//! The plain fast paths, instruction by instruction: this thread's heap has a slot
//! for the size, or owns the block's page, and nothing is recorded.
//!
//! # Design
//! A pair of malloc and free is bound by the way of a block's address through the
//! page's free list and back, and by the instructions around it. Compiled code
//! moved the caller's stack and frame pointer about first, which only the slow
//! paths need, combined branches into flags, and was at the mercy of alignment:
//! 79 instructions and 24 to 26 cycles for a measured pair, against 65 and 21.
//!
//! `naked_take!` and `naked_give!` are the bodies of naked functions. What follows
//! the brackets' instructions runs on every way that is not plain, with the
//! argument registers, `rbx`, `rbp`, `rsp` and `r12` to `r15` as the caller left
//! them. They do what [`Heap::take_fast`] and [`Heap::give_fast`] do, whose tests
//! say what that is.
//!
//! `naked_give!` finds a block's place in its page in the low bits of its address: a
//! page's first slice begins at a multiple of slices, and a block of a later slice
//! finds a struct that no heap owns.
#![allow(unsafe_code)]

use pageshim_core::heap::gpa::{Heap, Page};

use crate::thread::Thread;

/// Where the code above looks.
pub(crate) mod at {
    use pageshim_core::heap::gpa::classes::SLICE_SHIFT;
    pub(crate) use pageshim_core::heap::gpa::layout::*;

    /// The gate in a thread.
    pub(crate) const GATE: usize = super::Thread::GATE_AT;
    /// Bytes to the thread's next sample.
    pub(crate) const LEFT: usize = super::Thread::LEFT_AT;
    /// What keeps a free from being plain.
    pub(crate) const NOT_PLAIN: u8 = !crate::thread::SAMPLING;
    // `movzx r10d, di` takes 16 bits; the struct of a slice is 128 bytes long.
    const _: () = assert!(SLICE_SHIFT == 16 && PAGE_BYTES == 128);
    const _: () = assert!(super::Thread::HEAP_AT == 0);
}

/// A naked function's body: takes a slot for `rdi` bytes and returns it in `rax`, or
/// goes on with the given instructions. Uses `rax`, `r8` to `r10`; the sampled path is
/// [`Thread::take_unsampled`].
macro_rules! naked_take {
    ([$($rest:literal),* $(,)?] $($operand:tt)*) => {
        core::arch::naked_asm!(
            ".p2align 6",
            "mov rax, qword ptr [rip + pageshim_thread_slot@GOTTPOFF]",
            "mov rax, qword ptr fs:[rax]",
            "lea r8, [rdi + 15]",
            "cmp rdi, {direct_max}",
            "ja 20f",
            "test rax, rax",
            "jz 20f",
            "cmp byte ptr [rax + {gate}], 0",
            "jne 30f",
            "shr r8, 4",
            "mov r8, qword ptr [rax + r8 * 8 + {direct}]",
            "mov rax, qword ptr [r8 + {free}]",
            // A list is sound whose first block bears its page's mark.
            "test rax, rax",
            "jz 20f",
            "cmp qword ptr [rax + 8], r8",
            "jne 20f",
            "mov r9, qword ptr [rax]",
            "mov qword ptr [r8 + {free}], r9",
            "mov qword ptr [rax + 8], 0",
            "inc dword ptr [r8 + {used}]",
            "ret",
            // The same where samples are drawn: plain unless one falls on this block.
            "30:",
            "cmp byte ptr [rax + {gate}], {sampling}",
            "jne 20f",
            "mov r9, qword ptr [rax + {left}]",
            "cmp r9, rdi",
            "jbe 20f",
            "shr r8, 4",
            "mov r8, qword ptr [rax + r8 * 8 + {direct}]",
            "mov r10, qword ptr [r8 + {free}]",
            "test r10, r10",
            "jz 20f",
            "cmp qword ptr [r10 + 8], r8",
            "jne 20f",
            // Its bytes, and one for the block itself.
            "not rdi",
            "add r9, rdi",
            "mov qword ptr [rax + {left}], r9",
            "mov r9, qword ptr [r10]",
            "mov qword ptr [r8 + {free}], r9",
            "mov qword ptr [r10 + 8], 0",
            "inc dword ptr [r8 + {used}]",
            "mov rax, r10",
            "ret",
            "20:",
            $($rest,)*
            sampling = const $crate::thread::SAMPLING,
            left = const $crate::plain::at::LEFT,
            direct_max = const pageshim_core::heap::gpa::classes::DIRECT_MAX,
            gate = const $crate::plain::at::GATE,
            direct = const $crate::plain::at::DIRECT,
            free = const $crate::plain::at::FREE,
            used = const $crate::plain::at::USED,
            $($operand)*
        )
    };
}

/// A naked function's body: frees the block at `rdi`, or goes on with the given
/// instructions. Uses `rax`, `r8` to `r11`.
macro_rules! naked_give {
    ([$($rest:literal),* $(,)?] $($operand:tt)*) => {
        core::arch::naked_asm!(
            ".p2align 6",
            "mov rax, qword ptr [rip + pageshim_thread_slot@GOTTPOFF]",
            "mov rax, qword ptr fs:[rax]",
            "mov r8, rdi",
            "sub r8, qword ptr [rip + {spaces} + {base}]",
            "test rax, rax",
            "jz 20f",
            // Only blocks that a sample fell on are not freed plainly; their pages show it.
            "test byte ptr [rax + {gate}], {not_plain}",
            "jne 20f",
            "cmp r8, qword ptr [rip + {spaces} + {limit}]",
            "jae 20f",
            // The page's struct, without the detour over the base: this is the way the
            // address takes to the next malloc.
            "mov r8, rdi",
            "shr r8, 9",
            "and r8, -128",
            "add r8, qword ptr [rip + {spaces} + {bias}]",
            "movzx r10d, di",
            "cmp qword ptr [r8 + {owner}], rax",
            "jne 20f",
            // A slot begins here: the remainder in units of magic is under one.
            "mov r11, qword ptr [r8 + {magic}]",
            "imul r10, r11",
            "cmp r10, r11",
            "jae 20f",
            "mov r9, qword ptr [r8 + {free}]",
            "mov qword ptr [rdi], r9",
            "mov qword ptr [rdi + 8], r8",
            "mov qword ptr [r8 + {free}], rdi",
            // The next request of this size shall have it.
            "mov r10d, dword ptr [r8 + {aim}]",
            "mov qword ptr [rax + r10 * 8 + {direct}], r8",
            "dec dword ptr [r8 + {used}]",
            "jz 21f",
            "ret",
            "21:",
            // A class's only page stays: a loop of pairs must not leave the fast path.
            "mov r9, qword ptr [r8 + {next}]",
            "or r9, qword ptr [r8 + {prev}]",
            "jz 22f",
            "mov rdi, rax",
            "mov rsi, r8",
            "jmp {emptied}",
            "22:",
            "ret",
            "20:",
            $($rest,)*
            spaces = sym $crate::world::SPACES,
            emptied = sym $crate::plain::emptied,
            gate = const $crate::plain::at::GATE,
            not_plain = const $crate::plain::at::NOT_PLAIN,
            base = const $crate::plain::at::BASE,
            limit = const $crate::plain::at::LIMIT,
            bias = const $crate::plain::at::BIAS,
            owner = const $crate::plain::at::OWNER,
            magic = const $crate::plain::at::MAGIC,
            free = const $crate::plain::at::FREE,
            aim = const $crate::plain::at::AIM,
            direct = const $crate::plain::at::DIRECT,
            used = const $crate::plain::at::USED,
            next = const $crate::plain::at::NEXT,
            prev = const $crate::plain::at::PREV,
            $($operand)*
        )
    };
}

pub(crate) use {naked_give, naked_take};

/// A page of this thread's heap has no block left.
#[cold]
pub(crate) extern "C" fn emptied(heap: &'static Heap, page: &'static Page) {
    heap.retire_empty(page);
}
