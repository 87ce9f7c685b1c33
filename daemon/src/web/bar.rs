//! A stacked bar as SVG geometry, made here so that pages need no script.
//!
//! Widths are in thousandths of the bar. A part that exists is at least
//! [`LEAST`] wide, so that one byte of waste is not invisible; the widest part
//! pays for it, so widths always sum to [`FULL`].

/// Width of the whole bar.
pub(crate) const FULL: u64 = 1000;
const LEAST: u64 = 4;

/// One part of a bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Style class, label, and what it is.
    pub(crate) key: &'static str,
    /// Name for people.
    pub(crate) label: &'static str,
    /// One line that explains it.
    pub(crate) meaning: &'static str,
    /// Exact bytes.
    pub(crate) bytes: u64,
    /// Left edge.
    pub(crate) x: u64,
    /// Width; zero only when `bytes` is.
    pub(crate) width: u64,
}

/// Lays the parts side by side.
pub(crate) fn stacked(parts: &[(&'static str, &'static str, &'static str, u64)]) -> Vec<Part> {
    let sum: u128 = parts.iter().map(|part| u128::from(part.3)).sum();
    let mut laid: Vec<Part> = parts
        .iter()
        .map(|&(key, label, meaning, bytes)| Part {
            key,
            label,
            meaning,
            bytes,
            x: 0,
            width: width(bytes, sum),
        })
        .collect();
    let used: u64 = laid.iter().map(|part| part.width).sum();
    if let Some(widest) = laid.iter_mut().max_by_key(|part| part.width)
        && sum > 0
    {
        widest.width = (widest.width + FULL).saturating_sub(used);
    }
    let mut x = 0;
    for part in &mut laid {
        part.x = x;
        x += part.width;
    }
    laid
}

fn width(bytes: u64, sum: u128) -> u64 {
    if bytes == 0 || sum == 0 {
        return 0;
    }
    let width = u128::from(bytes) * u128::from(FULL) / sum;
    u64::try_from(width).unwrap_or(FULL).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(bytes: &[u64]) -> Vec<u64> {
        let parts: Vec<_> = bytes.iter().map(|n| ("k", "l", "m", *n)).collect();
        stacked(&parts).iter().map(|part| part.width).collect()
    }

    // Goal: widths sum to the bar, small parts stay visible, nothing draws nothing. Method: extremes.
    #[test]
    fn widths_sum_to_the_bar() {
        assert_eq!(widths(&[0, 0]), [0, 0]);
        assert_eq!(widths(&[1, 1]), [500, 500]);
        assert_eq!(widths(&[1, u64::MAX]), [LEAST, FULL - LEAST]);
        for bytes in [&[1, 1, 1][..], &[5, 0, 900_000, 3, 3, 1], &[u64::MAX; 6]] {
            assert_eq!(widths(bytes).iter().sum::<u64>(), FULL);
        }
    }

    // Goal: parts touch and do not overlap. Method: each x is the sum of widths before it.
    #[test]
    fn parts_lie_side_by_side() {
        let parts = stacked(&[("a", "", "", 3), ("b", "", "", 0), ("c", "", "", 7)]);
        assert_eq!([parts[0].x, parts[1].x, parts[2].x], [0, 300, 300]);
    }
}
