//! What the unwinder's tests share: a probe that stands where `malloc` would,
//! frames of every shape, and libgcc's unwinder as the oracle.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "test support, each test file uses a part"
)]

use core::arch::{global_asm, naked_asm};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use std::collections::HashMap;
use std::sync::OnceLock;

use pageshim_core::unwind::{Bounds, Memo, Regs, Rows, full};
use pageshim_wire::stack::{EXACT_PC, End};

/// The state a stub of `malloc` would hand over, of the function that calls this.
#[unsafe(naked)]
pub extern "C" fn caller_regs(_out: *mut Regs) {
    naked_asm!(
        "mov rax, [rsp]",
        "mov [rdi], rax",
        "lea rax, [rsp + 8]",
        "mov [rdi + 8], rax",
        "mov [rdi + 16], rbp",
        "ret"
    )
}

global_asm!(
    // call_dynamic(f, arg, bytes): a frame of a size known at run time only.
    ".globl pst_call_dynamic",
    ".type pst_call_dynamic,@function",
    "pst_call_dynamic:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "sub rsp, rdx",
    "and rsp, -16",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "leave",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    // call_realigned(f, arg): gcc's realigned frame, CFA = *(rbp - 8), rbp at *rbp.
    ".globl pst_call_realigned",
    ".type pst_call_realigned,@function",
    "pst_call_realigned:",
    ".cfi_startproc",
    "lea r10, [rsp + 8]",
    ".cfi_def_cfa r10, 0",
    "and rsp, -64",
    "push qword ptr [r10 - 8]",
    "push rbp",
    "mov rbp, rsp",
    ".cfi_escape 0x10, 0x6, 0x2, 0x76, 0x0",
    "push r10",
    ".cfi_escape 0xf, 0x3, 0x76, 0x78, 0x6",
    "sub rsp, 40",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "add rsp, 40",
    "pop r10",
    ".cfi_def_cfa r10, 0",
    "pop rbp",
    "lea rsp, [r10 - 8]",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    // call_garbage_bp(f, arg): rbp saved, then used for anything.
    ".globl pst_call_garbage_bp",
    ".type pst_call_garbage_bp,@function",
    "pst_call_garbage_bp:",
    ".cfi_startproc",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "push rbp",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset rbp, -24",
    "sub rsp, 8",
    ".cfi_def_cfa_offset 32",
    "lea rbp, [rsp + 4096]",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "add rsp, 8",
    ".cfi_def_cfa_offset 24",
    "pop rbp",
    ".cfi_restore rbp",
    ".cfi_def_cfa_offset 16",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    "ret",
    ".cfi_endproc",
    // traps(): a fault on the very first instruction.
    ".globl pst_traps",
    ".type pst_traps,@function",
    "pst_traps:",
    ".cfi_startproc",
    "ud2",
    "ret",
    ".cfi_endproc",
    // call_catching(f, arg, jump) and leave_to(jump): what longjmp does.
    ".globl pst_call_catching",
    ".type pst_call_catching,@function",
    "pst_call_catching:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "push rbx",
    ".cfi_def_cfa_offset 24",
    "push r12",
    ".cfi_def_cfa_offset 32",
    "push r13",
    ".cfi_def_cfa_offset 40",
    "push r14",
    ".cfi_def_cfa_offset 48",
    "push r15",
    ".cfi_def_cfa_offset 56",
    "push rdx",
    ".cfi_def_cfa_offset 64",
    "sub rsp, 8",
    ".cfi_def_cfa_offset 72",
    "push [rdx]",
    ".cfi_def_cfa_offset 80",
    "mov [rdx], rsp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "pst_caught:",
    "pop rcx",
    ".cfi_def_cfa_offset 72",
    "add rsp, 8",
    ".cfi_def_cfa_offset 64",
    "pop rdx",
    ".cfi_def_cfa_offset 56",
    "mov [rdx], rcx",
    "pop r15",
    ".cfi_def_cfa_offset 48",
    "pop r14",
    ".cfi_def_cfa_offset 40",
    "pop r13",
    ".cfi_def_cfa_offset 32",
    "pop r12",
    ".cfi_def_cfa_offset 24",
    "pop rbx",
    ".cfi_def_cfa_offset 16",
    "pop rbp",
    ".cfi_def_cfa_offset 8",
    "ret",
    ".cfi_endproc",
    ".globl pst_leave_to",
    ".type pst_leave_to,@function",
    "pst_leave_to:",
    ".cfi_startproc",
    "mov rsp, [rdi]",
    "jmp pst_caught",
    ".cfi_endproc",
);

pub type Callee = extern "C-unwind" fn(*mut c_void);

unsafe extern "C-unwind" {
    pub fn pst_call_dynamic(callee: Callee, argument: *mut c_void, bytes: usize);
    pub fn pst_call_realigned(callee: Callee, argument: *mut c_void);
    pub fn pst_call_garbage_bp(callee: Callee, argument: *mut c_void);
    pub fn pst_call_catching(callee: Callee, argument: *mut c_void, jump: *mut u64);
    pub fn pst_leave_to(jump: *mut u64) -> !;
    pub fn pst_traps();
    fn _Unwind_Backtrace(
        trace: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        pcs: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut c_void, before: *mut c_int) -> u64;
}

extern "C" fn note(context: *mut c_void, pcs: *mut c_void) -> c_int {
    let mut before = 0;
    let pc = unsafe { _Unwind_GetIPInfo(context, &raw mut before) };
    let pcs = unsafe { &mut *pcs.cast::<Vec<u64>>() };
    if pc != 0 {
        pcs.push(if before != 0 { pc | EXACT_PC } else { pc });
    }
    0
}

/// The stack as libgcc sees it, from the function that calls this outwards
/// (whose own program counter is that of this call).
#[inline(always)]
pub fn oracle() -> Vec<u64> {
    let mut pcs = Vec::with_capacity(8192);
    unsafe { _Unwind_Backtrace(note, (&raw mut pcs).cast()) };
    pcs
}

/// The process's row table.
pub fn rows() -> &'static Rows {
    static ROWS: OnceLock<usize> = OnceLock::new();
    let at = *ROWS.get_or_init(|| zeroed(Rows::BYTES).expose_provenance());
    unsafe { Rows::at(core::ptr::with_exposed_provenance_mut(at)) }
}

/// Fresh zeroed pages.
pub fn zeroed(bytes: usize) -> *mut u8 {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    let at = unsafe { libc::mmap(core::ptr::null_mut(), bytes, access, kind, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

/// A thread's unwinder and what it must keep to: checked at every capture.
pub struct Probe {
    pub memo: &'static mut Memo,
    pub bounds: Bounds,
    pub limit: usize,
    pub oracle_every: usize,
    pub captures: usize,
    pub hits: usize,
    /// Captures that [`Memo::recall`] would have spared.
    pub recalled: usize,
    recall_limit: usize,
    pub reused: usize,
    pub shared: usize,
    sites: HashMap<(Vec<u64>, u16), (u64, u32)>,
    stacks: Vec<Vec<u64>>,
    hashes: HashMap<u64, u32>,
}

impl Probe {
    pub fn new() -> Self {
        Self {
            memo: unsafe { Memo::at(zeroed(Memo::BYTES)) },
            bounds: Bounds::default(),
            limit: Memo::CAPACITY,
            oracle_every: 1,
            captures: 0,
            hits: 0,
            recalled: 0,
            recall_limit: 0,
            reused: 0,
            shared: 0,
            sites: HashMap::new(),
            stacks: vec![Vec::new()],
            hashes: HashMap::new(),
        }
    }

    /// Captures, and compares with a plain unwind and the oracle.
    #[inline(never)]
    pub fn check(&mut self) -> End {
        let mut regs = Regs {
            pc: 0,
            sp: 0,
            bp: 0,
        };
        caller_regs(&raw mut regs);
        // Only stacks of the limit they were captured with are recalled.
        let recalled = match self.recall_limit == self.limit {
            true => self.memo.recall(rows(), &regs, &self.bounds),
            false => 0,
        };
        self.recall_limit = self.limit;
        let captured = self
            .memo
            .capture(rows(), &regs, &mut self.bounds, self.limit);
        let mut plain = [0; Memo::CAPACITY];
        let mut fresh = Bounds::default();
        let (depth, end) = full(rows(), regs, &mut fresh, &mut plain[..self.limit]);
        let memo: Vec<u64> = (0..captured.depth).map(|i| self.memo.pc(i)).collect();
        assert_eq!(memo, plain[..depth], "memo and plain unwind");
        assert_eq!(captured.end, end);
        assert_eq!(self.memo.pc(depth), 0);
        assert!(captured.new_frames <= depth);
        if recalled != 0 {
            self.recalled += 1;
            assert_eq!(
                memo, self.stacks[recalled as usize],
                "recalled and plain unwind"
            );
        }
        self.captures += 1;
        self.reused += depth - captured.new_frames;
        self.identity(memo, captured.hash, end);
        if self.captures.is_multiple_of(self.oracle_every) && end == End::Complete {
            let expected = oracle();
            assert_eq!(plain[1..depth], expected[1..], "plain unwind and libgcc");
        }
        end
    }

    /// Equal stacks have equal hashes and keep their site; shared frames are shared.
    fn identity(&mut self, stack: Vec<u64>, hash: u64, end: End) {
        let key = (stack, end as u16);
        let (prefix, shared) = self.memo.shared();
        let outer = |pcs: &[u64], n: usize| pcs[pcs.len() - n..].to_vec();
        if self.memo.site() == 0 && prefix != 0 {
            self.shared += shared;
            let before = &self.stacks[prefix as usize];
            assert_eq!(
                outer(before, shared),
                outer(&key.0, shared),
                "shared frames"
            );
        }
        match self.sites.get(&key) {
            Some(&(known, site)) => {
                assert_eq!(known, hash, "equal stacks, equal hashes");
                if self.memo.site() != 0 {
                    self.hits += 1;
                    assert_eq!(self.memo.site(), site);
                }
                self.memo.set_site(site);
            }
            None => {
                assert_eq!(self.memo.site(), 0, "a new stack has no site");
                let site = self.stacks.len() as u32;
                assert_eq!(self.hashes.insert(hash, site), None, "hashes collide");
                self.memo.set_site(site);
                self.stacks.push(key.0.clone());
                self.sites.insert(key, (hash, site));
            }
        }
    }
}

thread_local! {
    static PROBE: UnsafeCell<Probe> = UnsafeCell::new(Probe::new());
}

/// The calling thread's probe. Its users never hold it over a call that uses it again.
#[inline(always)]
pub fn probe() -> &'static mut Probe {
    PROBE.with(|probe| unsafe { &mut *probe.get() })
}
