//! The unwinder on real code, frame by frame against libgcc's.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "signals, contexts and hand-made frames"
)]

mod unwind_support;

use core::ffi::{c_int, c_void};
use core::hint::black_box;
use std::ptr;

use pageshim_core::unwind::{Bounds, Memo, Regs, find_module, full};
use pageshim_wire::stack::{EXACT_PC, End};
use unwind_support::*;

extern "C-unwind" fn check_complete(_: *mut c_void) {
    assert_eq!(probe().check(), End::Complete);
}

#[inline(never)]
fn recurse(depth: usize) -> usize {
    let frame = black_box([depth; 5]);
    if depth == 0 {
        check_complete(ptr::null_mut());
        return frame[1];
    }
    let deeper = recurse(depth - 1);
    black_box(deeper + frame[2])
}

// Goal: the same frames as libgcc at every depth, growing and shrinking.
#[test]
fn depths_agree_with_libgcc() {
    for depth in (0..120).chain((0..120).rev()) {
        recurse(depth);
    }
    assert!(probe().reused > 240, "the memo must have been of use");
}

// Goal: stacks that take turns are found again whole, and one whose leaf is the
// same but not its callers is not taken for the other. Method: two leaves under
// two callers in turn, each capture compared with a plain unwind and libgcc.
#[test]
fn stacks_in_turn_are_found_again() {
    #[inline(never)]
    fn under<const CALLER: usize>(leaf: fn()) {
        let frame = black_box([CALLER; 4]);
        leaf();
        black_box(frame);
    }
    fn leaf<const WORDS: usize>() {
        let frame = black_box([WORDS; WORDS]);
        check_complete(ptr::null_mut());
        black_box(frame);
    }
    for round in 0..8 {
        let before = probe().hits;
        for n in 0..black_box(6) {
            under::<1>(if n % 2 == 0 { leaf::<1> } else { leaf::<20> });
        }
        let hits = probe().hits - before;
        assert!(round == 0 || hits >= 2, "round {round}: {hits} of 6");
        under::<2>(leaf::<1>);
        under::<1>(leaf::<1>);
    }
    assert!(probe().recalled > 0, "a stack repeated is recalled");
}

extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    check_complete(ptr::null_mut());
    let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
    a.cmp(&b) as c_int
}

// Goal: frames of libc and hand-made frames in between. Method: qsort's
// callback, frames of run-time size, realigned frames, rbp used for anything.
#[test]
fn foreign_frames_agree_with_libgcc() {
    let mut numbers: Vec<i32> = (0..64).map(|i| i * 37 % 64).collect();
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 64, 4, Some(compare)) };
    extern "C-unwind" fn nested(kinds: *mut c_void) {
        let kinds = kinds.addr();
        let next = ptr::without_provenance_mut(kinds / 3);
        let callee = if kinds < 3 { check_complete } else { nested };
        match kinds % 3 {
            0 => unsafe { pst_call_dynamic(callee, next, 8 * kinds) },
            1 => unsafe { pst_call_realigned(callee, next) },
            _ => unsafe { pst_call_garbage_bp(callee, next) },
        }
        check_complete(next);
    }
    for kinds in 0..3usize.pow(6) {
        nested(ptr::without_provenance_mut(kinds));
    }
}

// Goal: threads start with an end.
#[test]
fn threads_are_complete() {
    let threads: Vec<_> = (0..8)
        .map(|n| std::thread::spawn(move || recurse(n * 5)))
        .collect();
    for thread in threads {
        thread.join().expect("no mismatch in the thread");
    }
}

fn on_signal(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    assert_eq!(
        unsafe { libc::sigaction(signal, &action, ptr::null_mut()) },
        0
    );
}

fn alternate_stack() {
    let size = 256 * 1024;
    let stack = libc::stack_t {
        ss_sp: zeroed(size).cast(),
        ss_flags: 0,
        ss_size: size,
    };
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
}

extern "C" fn handler(_: c_int) {
    check_complete(ptr::null_mut());
    recurse(3);
}

// Goal: through a signal's frame to the interrupted code, on the same and on an
// alternate stack, with the interrupted pc marked exact.
#[test]
fn signals_are_crossed() {
    alternate_stack();
    on_signal(libc::SIGUSR1, handler, 0);
    on_signal(libc::SIGUSR2, handler, libc::SA_ONSTACK);
    for depth in [0, 1, 2, 3, 2, 3, 9] {
        #[inline(never)]
        fn raise(depth: usize, signal: c_int) -> usize {
            if depth == 0 {
                unsafe { libc::raise(signal) };
                let exact = (0..64)
                    .filter(|&i| probe().memo.pc(i) & EXACT_PC != 0)
                    .count();
                check_complete(ptr::null_mut());
                return exact;
            }
            black_box(raise(depth - 1, signal))
        }
        assert_eq!(raise(depth, libc::SIGUSR1), 1);
        assert_eq!(raise(depth, libc::SIGUSR2), 1);
    }
}

extern "C" fn fault(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    check_complete(ptr::null_mut());
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_RIP as usize] += 2; // over the ud2
}

// Goal: the interrupted pc is taken exactly, not as a return address. Method: a
// trap on the very first instruction of a function, where pc - 1 is another's.
#[test]
fn an_interrupted_first_instruction_is_exact() {
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    assert_eq!(
        unsafe { libc::sigaction(libc::SIGILL, &action, ptr::null_mut()) },
        0
    );
    unsafe { pst_traps() };
    let exact = (0..64)
        .map(|i| probe().memo.pc(i))
        .find(|pc| pc & EXACT_PC != 0);
    assert_eq!(exact, Some(pst_traps as *const () as u64 | EXACT_PC));
}

struct Coroutine {
    own: libc::ucontext_t,
    back: libc::ucontext_t,
}

extern "C" fn coroutine(low: u32, high: u32) {
    let at = low as usize | (high as usize) << 32;
    let this = ptr::with_exposed_provenance_mut::<Coroutine>(at);
    for depth in 0..6 {
        recurse(depth);
        unsafe { libc::swapcontext(&raw mut (*this).own, &raw const (*this).back) };
    }
}

// Goal: coroutines end at their start, switching between many of them, on stacks
// that come and go at the same addresses with other sizes.
#[test]
fn coroutines_have_their_own_bounds() {
    for round in 0..4 {
        let bytes = (64 * 1024) << (round % 2);
        let stacks: Vec<_> = (0..5).map(|_| zeroed(bytes)).collect();
        let mut all: Vec<Box<Coroutine>> = Vec::new();
        for &stack in &stacks {
            let mut this: Box<Coroutine> = Box::new(unsafe { core::mem::zeroed() });
            unsafe { libc::getcontext(&raw mut this.own) };
            this.own.uc_stack.ss_sp = stack.cast();
            this.own.uc_stack.ss_size = bytes;
            this.own.uc_link = &raw mut this.back;
            let at = (&raw mut *this).expose_provenance();
            let entry = unsafe {
                core::mem::transmute::<*const (), extern "C" fn()>(coroutine as *const ())
            };
            let (low, high) = (at as u32, (at >> 32) as u32);
            unsafe { libc::makecontext(&raw mut this.own, entry, 2, low, high) };
            all.push(this);
        }
        for _ in 0..7 {
            for this in &mut all {
                let this: *mut Coroutine = &raw mut **this;
                unsafe { libc::swapcontext(&raw mut (*this).back, &raw const (*this).own) };
                check_complete(ptr::null_mut());
            }
            all.reverse();
        }
        for stack in stacks {
            unsafe { libc::munmap(stack.cast(), bytes) };
        }
    }
}

// Goal: code without tables is crossed by its frame pointers, and a stack that
// cannot be finished says so. Method: a page of hand-assembled code.
#[test]
fn generated_code_is_crossed_by_frame_pointers() {
    let code = zeroed(4096);
    // push rbp; mov rbp, rsp; mov rax, rdi; mov rdi, rsi; call rax; pop rbp; ret
    let framed = [
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3,
    ];
    // push rbp; xor ebp, ebp; ... the same: no frame pointer to follow
    let bare = [
        0x55, 0x31, 0xed, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3, 0xcc,
    ];
    // push rbp; or rbp, -1; ...
    let wild = [
        0x55, 0x48, 0x83, 0xcd, 0xff, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3,
    ];
    unsafe {
        code.copy_from(framed.as_ptr(), framed.len());
        code.add(64).copy_from(bare.as_ptr(), bare.len());
        code.add(128).copy_from(wild.as_ptr(), wild.len());
        libc::mprotect(code.cast(), 4096, libc::PROT_READ | libc::PROT_EXEC);
    }
    type Entry = extern "C" fn(Callee, *mut c_void);
    let entry = |at: usize| unsafe { core::mem::transmute::<*mut u8, Entry>(code.add(at)) };
    extern "C-unwind" fn through(end: *mut c_void) {
        let end = End::from_number(end.addr() as u16);
        assert_eq!(probe().check(), end);
    }
    probe().oracle_every = usize::MAX;
    let expected = |end: End| ptr::without_provenance_mut::<c_void>(end as usize);
    // The framed one's caller must keep a frame pointer chain: it is saved below
    // a frame that has one.
    extern "C-unwind" fn with_frame(entry: *mut c_void) {
        let entry = unsafe { core::mem::transmute::<*mut c_void, Entry>(entry) };
        entry(through, ptr::without_provenance_mut(End::Complete as usize));
    }
    for _ in 0..3 {
        unsafe { pst_call_dynamic(with_frame, code.cast(), 64) };
    }
    let depth = probe().memo.depth();
    assert!(depth > 6, "through the page to the thread's start: {depth}");
    entry(64)(through, expected(End::NoTable));
    assert_eq!(
        probe().memo.depth(),
        3,
        "rbp 0 does not say that nobody called: this test did"
    );
    entry(128)(through, expected(End::NoTable));
}

// Goal: deeper than the limit is cut at the outer side and says so, at any
// depth, memo and plain alike.
#[test]
fn deep_stacks_are_cut() {
    #[inline(never)]
    fn deep(depth: usize, from: usize) -> usize {
        let frame = black_box([depth; 3]);
        if depth == 0 || depth <= from && depth.is_multiple_of(7) {
            let end = probe().check();
            assert!(matches!(end, End::DepthLimit | End::Complete));
        }
        if depth == 0 {
            return frame[0];
        }
        black_box(deep(depth - 1, from)) + frame[1]
    }
    probe().oracle_every = 50;
    for limit in [1, 2, 64, 1024] {
        probe().limit = limit;
        for depth in [10, 40, 70, 60, 1010, 1100] {
            deep(depth, 100);
            deep(depth, 0);
        }
    }
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(|| deep(100_000, 100))
        .expect("a thread")
        .join()
        .expect("no mismatch");
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}

// Goal: no registers and no stack content crash, hang, or make memo and plain
// unwind differ. Method: a made-up stack of code addresses of this binary and
// libc, addresses of itself and noise; a few words change before each capture.
#[test]
fn garbage_stacks_end_the_same_with_and_without_memo() {
    const WORDS: usize = 2048;
    let mut random = Random(88_172_645_463_325_252);
    let stack = zeroed(WORDS * 8).cast::<u64>();
    let base = stack.expose_provenance() as u64;
    let here = find_module(garbage_stacks_end_the_same_with_and_without_memo as *const () as u64);
    let libc = find_module(libc::qsort as *const () as u64);
    let modules = [here.expect("this binary"), libc.expect("libc")];
    let word = |random: &mut Random| match random.below(16) {
        0..12 => {
            let module = modules[random.below(2)];
            module.start + random.next() % (module.end - module.start)
        }
        12..14 => (base + random.below(WORDS * 8) as u64) & !7,
        14 if random.below(2) == 0 => random.next() & 0x7fff_ffff_fff8,
        14 => 0,
        _ => random.next(),
    };
    let memo = unsafe { Memo::at(zeroed(Memo::BYTES)) };
    let mut bounds = Bounds::new(base, base + WORDS as u64 * 8);
    let (mut regs, mut reused, mut deepest) = (
        Regs {
            pc: 0,
            sp: 0,
            bp: 0,
        },
        0,
        0,
    );
    for round in 0..900_000 {
        let changes = if round % 5000 == 0 {
            WORDS
        } else {
            random.below(3)
        };
        for _ in 0..changes {
            let at = random.below(WORDS);
            unsafe { stack.add(at).write_volatile(word(&mut random)) };
        }
        if round % 7 == 0 {
            (regs.pc, regs.bp) = (word(&mut random), word(&mut random));
            regs.sp = (base + random.below(WORDS * 4) as u64) & !7;
        } else if round % 501 == 0 {
            regs.sp = random.next();
        }
        let captured = memo.capture(rows(), &regs, &mut bounds, 256);
        let mut plain = [0; 256];
        let mut own = Bounds::new(base, base + WORDS as u64 * 8);
        let (depth, end) = full(rows(), regs, &mut own, &mut plain);
        let pcs: Vec<u64> = (0..captured.depth).map(|i| memo.pc(i)).collect();
        assert_eq!(
            (captured.end, &pcs[..]),
            (end, &plain[..depth]),
            "{round} {regs:x?}"
        );
        reused += depth - captured.new_frames;
        deepest = deepest.max(depth);
    }
    assert!(
        reused > 100_000 && deepest > 8,
        "too tame: {reused} {deepest}"
    );
}

// Goal: no register value crashes on a real stack either.
#[test]
fn garbage_registers_end_somehow() {
    let mut random = Random(1_181_783_497_276_652_981);
    let mut regs = Regs {
        pc: 0,
        sp: 0,
        bp: 0,
    };
    caller_regs(&raw mut regs);
    let memo = unsafe { Memo::at(zeroed(Memo::BYTES)) };
    let mut bounds = Bounds::default();
    for _ in 0..100_000 {
        let mut wild = regs;
        for field in [&mut wild.pc, &mut wild.sp, &mut wild.bp] {
            match random.below(8) {
                0 => *field = random.next(),
                1 => *field = random.next() & 0x7fff_ffff_fff8,
                2 => *field = field.wrapping_add((random.next() % 8192) & !7),
                3 => *field = regs.sp.wrapping_sub(random.next() % 65536),
                4 => *field = u64::MAX - random.next() % 64,
                _ => {}
            }
        }
        let captured = memo.capture(rows(), &wild, &mut bounds, 256);
        assert!((1..=256).contains(&captured.depth));
    }
}

// Goal: a row miss names the module once, and `invalidate` makes memo and rows anew.
#[test]
fn misses_name_modules_and_invalidation_drops_all() {
    let table =
        unsafe { pageshim_core::unwind::Rows::at(zeroed(pageshim_core::unwind::Rows::BYTES)) };
    let memo = unsafe { Memo::at(zeroed(Memo::BYTES)) };
    let mut bounds = Bounds::default();
    let mut regs = Regs {
        pc: 0,
        sp: 0,
        bp: 0,
    };
    caller_regs(&raw mut regs);
    let mut seen = Vec::new();
    for round in 0..4 {
        if round == 2 {
            table.invalidate();
        }
        let captured = memo.capture(table, &regs, &mut bounds, 1024);
        assert_eq!(captured.missed, memo.missed().len());
        seen.push((
            captured.missed,
            captured.depth - captured.new_frames,
            captured.hash,
        ));
    }
    assert!(seen[0].0 >= 2, "this binary and libc: {seen:?}");
    assert_eq!((seen[1].0, seen[3].0), (0, 0));
    assert!(seen[2].0 >= 2 && seen[2].1 == 0, "dropped: {seen:?}");
    assert!(seen[1].1 > 0 && seen[0].2 == seen[3].2);
    let here = misses_name_modules_and_invalidation_drops_all as *const () as u64;
    let module = find_module(here).expect("this binary");
    assert!((module.start..module.end).contains(&here) && module.eh_frame_hdr != 0);
    assert_eq!(
        module.bias, module.start,
        "position independent, linked at 0"
    );
    assert_eq!(find_module(0), None);
}
