//! How much a heap may reserve, and how many mappings it may make.

use pageshim_core::sys;

const PAGE_SPAN: u64 = 64 << 30;
const ARENA_SPAN: u64 = 1 << 40;
const DEBUG_SPAN: u64 = 1 << 42;
const SPAN_MIN: u64 = 4 << 20;
/// What the kernel allows when it cannot be asked.
const MAPPINGS_USUAL: usize = 65_530;

/// `most`, or a quarter of what the process may map.
fn span(most: u64) -> usize {
    let limit = sys::soft_limit(sys::LIMIT_ADDRESS_SPACE);
    let span = if limit == u64::MAX {
        most
    } else {
        1 << (limit / 4).clamp(SPAN_MIN, most).ilog2()
    };
    usize::try_from(span).unwrap_or(usize::MAX)
}

/// Addresses for the page heap.
pub(super) fn page_span() -> usize {
    span(PAGE_SPAN)
}

/// Addresses for the arena.
pub(super) fn arena_span() -> usize {
    span(ARENA_SPAN)
}

/// Addresses for the debug heap.
pub(super) fn debug_span() -> usize {
    span(DEBUG_SPAN)
}

/// Mappings that blocks may be: four fifths of what the kernel allows.
pub(super) fn mappings_max() -> usize {
    let mut text = [0; 32];
    let mut used = 0;
    if let Ok(fd) = sys::open_read(b"/proc/sys/vm/max_map_count\0") {
        used = sys::read(fd, &mut text).unwrap_or(0);
        sys::close(fd);
    }
    let digits = text.get(..used).unwrap_or(&[]);
    let end = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let digits = digits.get(..end.count()).unwrap_or(&[]);
    let number = core::str::from_utf8(digits).ok();
    let most = number.and_then(|digits| digits.parse().ok());
    most.unwrap_or(MAPPINGS_USUAL) / 5 * 4
}
