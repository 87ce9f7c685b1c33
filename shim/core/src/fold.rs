//! Recursion folded: a stack with repeated cycles of frames cut to one of each.
//!
//! # Design
//! Frames are taken from the root on. When the last `n` frames kept equal the `n`
//! before them, they are dropped, for cycles of up to [`CYCLE_MAX`] frames. So
//! `main f f f g` is kept as `main f g`, and `main a b a b c` as `main a b c`: a
//! recursive descent has a few stacks instead of one for each depth. What is lost is
//! how deep it was.
//!
//! # Allocation
//! None: into room of the caller's.

/// Longest cycle that is recognised, in frames.
pub const CYCLE_MAX: usize = 16;

/// Folds `depth` frames of `frame`, which counts from the leaf, into `room`, root
/// first; answers how many are left. Frames past the room are left out, on the
/// leaf's side.
pub fn fold(depth: usize, frame: impl Fn(usize) -> u64, room: &mut [u64]) -> usize {
    let mut kept = 0;
    for index in (0..depth).rev() {
        let Some(place) = room.get_mut(kept) else {
            break;
        };
        *place = frame(index);
        kept += 1;
        kept -= repeated(room.get(..kept).unwrap_or(&[]));
    }
    kept
}

/// Length of the shortest cycle that ends the frames twice in a row; 0 for none.
fn repeated(frames: &[u64]) -> usize {
    let Some((last, before)) = frames.split_last() else {
        return 0;
    };
    (1..=CYCLE_MAX.min(frames.len() / 2))
        .find(|&cycle| {
            let (outer, inner) = frames.split_at(frames.len() - cycle);
            // The cheap test first: most frames repeat nothing.
            before[before.len() - cycle] == *last && outer.ends_with(inner)
        })
        .unwrap_or(0)
}

/// A hash of folded frames and of why their stack ended; never 0, and no hash of
/// an unfolded stack but by chance.
pub fn hash(frames: &[u64], end: u16, replaced: u64) -> u64 {
    let seed = 0x452_821e_638d_0137 ^ u64::from(end) ^ replaced << 16;
    let mixed = frames.iter().fold(seed, |hash, pc| {
        let product = u128::from(hash ^ pc) * 0x9e37_79b9_7f4a_7c15_u128;
        (product ^ product >> 64) as u64 ^ pc.rotate_left(32)
    });
    mixed.max(1)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Folds a stack given root first.
    fn folded(stack: &[u64]) -> Vec<u64> {
        let mut room = [0; 64];
        let kept = fold(
            stack.len(),
            |index| stack[stack.len() - 1 - index],
            &mut room,
        );
        room[..kept].to_vec()
    }

    // Goal: cycles fold, other repetitions stay. Method: literal stacks, root first.
    #[test]
    fn cycles_are_cut_to_one() {
        assert_eq!(folded(&[1, 2, 2, 2, 3]), [1, 2, 3]);
        assert_eq!(folded(&[1, 2, 3, 2, 3, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(folded(&[1, 2, 3, 2, 4]), [1, 2, 3, 2, 4]);
        assert_eq!(folded(&[1, 2, 2, 3, 1, 2, 2, 3]), [1, 2, 3]);
        assert_eq!(folded(&[]), []);
        let long: Vec<u64> = (0..17).chain(0..17).collect();
        assert_eq!(folded(&long), long, "too long a cycle");
    }

    // Goal: depth does not change what a recursion folds to. Method: 3 to 60 rounds of a cycle of 7.
    #[test]
    fn depth_does_not_matter() {
        let of = |rounds: usize| {
            let cycle = (10..17).cycle().take(7 * rounds);
            [1, 2]
                .into_iter()
                .chain(cycle)
                .chain([99])
                .collect::<Vec<u64>>()
        };
        for rounds in 3..60 {
            assert_eq!(folded(&of(rounds)), folded(&of(1)), "{rounds}");
        }
    }

    // Goal: a stack deeper than the room loses its leaf's side, not its root. Method: 100 frames.
    #[test]
    fn room_may_end() {
        let long: Vec<u64> = (0..100).collect();
        assert_eq!(folded(&long), long[..64]);
    }

    // Goal: equal stacks hash alike, others not, order and end included. Method: a few.
    #[test]
    fn hashes_tell_stacks_apart() {
        assert_eq!(hash(&[1, 2], 0, 0), hash(&[1, 2], 0, 0));
        assert_ne!(hash(&[1, 2], 0, 0), hash(&[2, 1], 0, 0));
        assert_ne!(hash(&[1, 2], 0, 0), hash(&[1, 2], 1, 0));
        assert_ne!(hash(&[1, 2], 0, 0), hash(&[1, 2], 0, 1), "other code there");
        assert_ne!(hash(&[], 0, 0), 0);
    }
}
