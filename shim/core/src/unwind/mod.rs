//! Who called: registers in, return addresses out, from inside `malloc`.
//!
//! Full stacks of unmodified programs have no frame pointers to follow, only
//! `.eh_frame`. Evaluating it costs a microsecond a frame; so each program
//! counter's rule is kept as one word in a [`Rows`] table shared by all threads
//! (5 ns a frame), and each thread keeps its last stack in a [`Memo`], re-reads
//! the slots it came from (0.3 ns a frame) and unwinds only what changed. Patching
//! return addresses would save even that read and was not taken: exceptions,
//! longjmp, coroutines and shadow stacks break it.
//!
//! # Design
//! ```text
//! kernel   may this word be read?        cfi     one FDE, one address -> row
//! bounds   which stack memory may be     tables  pc -> module -> FDE
//! row      one word: how to step         rows    pc -> row, racing writers
//! closing  modules that go meanwhile
//! step     one step; `full` unwind       memo    the last stack; walk: a capture
//! ```
//! # Allocation
//! None, and no locks: `_dl_find_object` is the only call out.
//! Deepest use of the caller's stack: two KiB, on a row miss (it may be a small
//! coroutine's or signal's).
//! # Failure
//! A stack that cannot be finished says why ([`pageshim_wire::stack::End`]).
//! Known to end early: lazy binding (`_dl_runtime_resolve` keeps its CFA in rbx),
//! and code interrupted by a signal while its CFA is in a scratch register.

mod bounds;
mod cfi;
mod closing;
mod kernel;
mod memo;
mod recent;
mod row;
mod rows;
mod step;
mod tables;
mod walk;

pub use bounds::Bounds;
pub use memo::{Captured, Memo};
pub use rows::Rows;
pub use step::{Regs, full};
pub use tables::{Module, find_module, module_start};
