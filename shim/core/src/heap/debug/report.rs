//! What the debug layer finds, and where it says so.

use core::fmt;

use pageshim_wire::process::Misuse;

use crate::heap::layer::{Caller, Shape};

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A live block when leaks were asked for.
    Leak,
    /// A block freed (or resized) again after its free.
    DoubleFree,
    /// An address no block of this layer begins at, or one of another instance.
    InvalidFree,
    /// A block given back with other requested bytes.
    SizeMismatch,
    /// A block given back with another alignment.
    AlignmentMismatch,
    /// Bytes right behind a block were written.
    Overflow,
    /// A bucket's own books were written: the canary of this instance is gone.
    BooksOverwritten,
    /// A freed block was written.
    WriteAfterFree,
    /// Not a fault: a block was handed out ([`super::Config::verbose`]).
    Allocated,
    /// Not a fault: a block was resized or moved.
    Resized,
    /// Not a fault: a block was taken back.
    Freed,
}

impl Finding {
    /// The shim's word for this misuse, if it is one.
    pub const fn misuse(self) -> Option<Misuse> {
        Some(match self {
            Self::DoubleFree => Misuse::DoubleFree,
            Self::InvalidFree => Misuse::InvalidFree,
            Self::SizeMismatch => Misuse::SizeMismatch,
            Self::AlignmentMismatch => Misuse::AlignmentMismatch,
            Self::Overflow | Self::BooksOverwritten => Misuse::Overflow,
            Self::WriteAfterFree => Misuse::WriteAfterFree,
            Self::Leak | Self::Allocated | Self::Resized | Self::Freed => return None,
        })
    }
}

/// One finding. Traces are code addresses, innermost first, and may be empty.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What it is.
    pub finding: Finding,
    /// Address of the block, or the wild one.
    pub block: usize,
    /// What the block was allocated (or last resized) as; zero bytes when unknown.
    pub held: Shape,
    /// What the caller now says it is.
    pub given: Shape,
    /// First overwritten byte, counted from the block's start.
    pub offset: usize,
    /// Where the block was allocated.
    pub allocated: &'a [usize],
    /// Where it was freed (before).
    pub freed: &'a [usize],
    /// Where the call that showed it came from.
    pub now: &'a [usize],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (block, held, given) = (self.block, self.held, self.given);
        let bytes = held.requested;
        match self.finding {
            Finding::Leak => write!(out, "block {block:#x} of {bytes} bytes was never freed"),
            Finding::DoubleFree => {
                write!(out, "block {block:#x} of {bytes} bytes was freed already")
            }
            Finding::InvalidFree => write!(
                out,
                "no block of this layer begins at {block:#x}: free what allocate answered, once"
            ),
            Finding::SizeMismatch => write!(
                out,
                "block {block:#x} of {bytes} bytes was given back as {}",
                given.requested
            ),
            Finding::AlignmentMismatch => write!(
                out,
                "block {block:#x} aligned to {} was given back as aligned to {}",
                held.align.bytes(),
                given.align.bytes()
            ),
            Finding::Overflow => write!(
                out,
                "byte {} of block {block:#x} was written, it has {bytes}",
                self.offset
            ),
            Finding::BooksOverwritten => write!(
                out,
                "the books of the bucket around {block:#x} were overwritten: look for writes past a block near it"
            ),
            Finding::WriteAfterFree => write!(
                out,
                "byte {} of block {block:#x} of {bytes} bytes was written after its free",
                self.offset
            ),
            Finding::Allocated => write!(out, "allocated {block:#x}, {bytes} bytes"),
            Finding::Resized => write!(
                out,
                "resized {block:#x}, {} to {bytes} bytes",
                given.requested
            ),
            Finding::Freed => write!(out, "freed {block:#x}, {bytes} bytes"),
        }?;
        let traces = [
            ("allocated", self.allocated),
            ("freed", self.freed),
            ("now", self.now),
        ];
        for (name, trace) in traces {
            if !trace.is_empty() {
                write!(out, "; {name} at")?;
            }
            for frame in trace {
                write!(out, " {frame:#x}")?;
            }
        }
        Ok(())
    }
}

/// Where reports go. Called without the layer's lock: it may use the layer.
pub trait Sink: Sync {
    /// Told of everything the layer survives.
    fn report(&self, report: &Report<'_>);

    /// Told of what cannot be put right: an invalid free, overwritten books.
    /// The default panics with the report, where Zig does. When it returns, the
    /// layer leaves the block alone and goes on.
    fn stop(&self, report: &Report<'_>) {
        panic!("{report}");
    }
}

/// Says nothing and goes on: for those who only want the counts.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Sink for Silent {
    fn report(&self, _: &Report<'_>) {}
    fn stop(&self, _: &Report<'_>) {}
}

/// Fills `frames` with return addresses, innermost first; answers how many.
pub type Capture = fn(caller: Caller, frames: &mut [usize]) -> usize;

/// The capture that needs no unwinder: the caller alone.
pub fn caller_only(caller: Caller, frames: &mut [usize]) -> usize {
    let known = caller != Caller::NONE;
    match frames.first_mut() {
        Some(first) if known => {
            *first = caller.address();
            1
        }
        _ => 0,
    }
}
