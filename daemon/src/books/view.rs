//! A view of shared state that knows its holes.

use pageshim_wire::Memory;

/// Shared state as the books read it. Sparse files answer which parts of them
/// were ever written, so that a reader skips what must be zero.
pub trait View: Memory {
    /// The first populated range in `from..to`, or `None` when all of it is a hole.
    fn data(&self, from: u64, to: u64) -> Option<(u64, u64)>;
}

/// Plain bytes, for tests: no holes.
#[cfg(test)]
#[derive(Clone, Debug)]
pub struct Bytes(pub Vec<u8>);

#[cfg(test)]
impl Memory for Bytes {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        self.0.as_slice().read(offset, into)
    }
}

#[cfg(test)]
impl View for Bytes {
    fn data(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let to = to.min(self.0.len() as u64);
        (from < to).then_some((from, to))
    }
}

/// Calls `each` for every populated range of `from..to`, in order, cut to it.
pub fn each_range(view: &dyn View, from: u64, to: u64, mut each: impl FnMut(u64, u64)) {
    let mut at = from;
    while let Some((start, end)) = view.data(at, to) {
        let (start, end) = (start.clamp(at, to), end.min(to));
        if end <= start {
            return;
        }
        each(start, end);
        at = end;
    }
}
