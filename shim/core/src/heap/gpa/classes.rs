//! Size classes: 16 bytes apart up to 256, then nine to a doubling, up to 64 KiB.
//!
//! The nine are the eighths, and half an eighth above each power of two: programs
//! ask for a power of two and a header more than for anything else. Rounding
//! costs 4 % on average and 10 % at worst above 256 bytes. All functions are pure
//! arithmetic.

/// Bytes of a slice, the unit of page runs.
pub const SLICE_BYTES: usize = 1 << SLICE_SHIFT;
/// log2 of [`SLICE_BYTES`].
pub const SLICE_SHIFT: u32 = pageshim_wire::heap::SLICE_SHIFT;
/// Classes with slots; the class of this number is "singleton".
pub const SLOT_CLASSES: usize = 88;
/// The class of blocks that have a page run to themselves.
pub const SINGLETON: usize = SLOT_CLASSES;
/// All classes.
pub const CLASSES: usize = SLOT_CLASSES + 1;
/// Largest request served from a slot.
pub const SLOT_MAX: usize = 64 * 1024;
/// Largest slot in a one-slice page.
pub const SMALL_MAX: usize = 8 * 1024;
/// Slots a page of larger slots has at least.
const MEDIUM_SLOTS: usize = 5;
/// Requests up to this size find their page by table.
pub const DIRECT_MAX: usize = 1024;
/// Every block's alignment.
pub const ALIGN: usize = 16;

/// Largest slot of the classes 16 bytes apart, and their number.
const EVEN_MAX: usize = 256;
const EVEN: usize = EVEN_MAX / 16;
/// Classes of a doubling above.
const STEPS: usize = 9;

/// The class that serves `requested` bytes (at most [`SLOT_MAX`]).
#[inline]
pub const fn class_of(requested: usize) -> usize {
    if requested <= EVEN_MAX {
        return if requested == 0 {
            0
        } else {
            (requested - 1) / 16
        };
    }
    let last = requested - 1;
    let doubling = last.ilog2() as usize;
    let sixteenth = (last >> (doubling - 4)) & 15;
    let step = sixteenth / 2 + (sixteenth != 0) as usize;
    EVEN + (doubling - 8) * STEPS + step
}

/// Bytes of a slot of `class`.
pub const fn slot_bytes(class: usize) -> usize {
    if class < EVEN {
        return (class + 1) * 16;
    }
    let doubling = (class - EVEN) / STEPS + 8;
    match (class - EVEN) % STEPS {
        0 => (1 << doubling) + (1 << (doubling - 4)),
        step => (1 << doubling) + (step << (doubling - 3)),
    }
}

/// Slices of a page of `class`: few, because what a page does not use of memory
/// that was resident before is nobody's.
pub const fn page_slices(class: usize) -> usize {
    let slot = slot_bytes(class);
    if slot <= SMALL_MAX {
        return 1;
    }
    (slot * MEDIUM_SLOTS)
        .div_ceil(SLICE_BYTES)
        .next_power_of_two()
}

/// Slots of a page of `class`.
pub const fn page_slots(class: usize) -> usize {
    page_slices(class) * SLICE_BYTES / slot_bytes(class)
}

/// Multiplier that turns division by `slot` into [`divide`]: `2^64 / slot`, rounded up.
pub const fn magic(slot: usize) -> u64 {
    u64::MAX / slot as u64 + 1
}

/// `offset / slot` for offsets within a page run: the product's upper half.
#[inline]
pub const fn divide(offset: usize, magic: u64) -> usize {
    ((offset as u128 * magic as u128) >> 64) as usize
}

/// True when `slot` divides an offset within a page run: the product's lower half
/// is the remainder in units of `2^64 / slot`, so under one unit means none.
#[inline]
pub const fn divides(offset: usize, magic: u64) -> bool {
    (offset as u64).wrapping_mul(magic) < magic
}

/// [`divide`] where [`divides`] says so: both halves of one product.
#[inline(always)]
pub const fn divide_exact(offset: usize, magic: u64) -> Option<usize> {
    let product = offset as u128 * magic as u128;
    if product as u64 >= magic {
        return None;
    }
    Some((product >> 64) as usize)
}

/// The class whose slots are multiples of `align` (a power of two) and hold
/// `requested` bytes; `None` when that is a singleton's work.
pub const fn aligned_class(requested: usize, align: usize) -> Option<usize> {
    if requested > SLOT_MAX || align > SLOT_MAX {
        return None;
    }
    let mut class = class_of(if requested < align { align } else { requested });
    while class < SLOT_CLASSES {
        if slot_bytes(class).is_multiple_of(align) {
            return Some(class);
        }
        class += 1;
    }
    None
}

const _: () = assert!(class_of(SLOT_MAX) == SLOT_CLASSES - 1);
const _: () = assert!(slot_bytes(SLOT_CLASSES - 1) == SLOT_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: every request gets the smallest slot that holds it. Method: all sizes.
    #[test]
    fn each_size_gets_the_smallest_slot_that_holds_it() {
        for requested in 1..=SLOT_MAX {
            let class = class_of(requested);
            assert!(slot_bytes(class) >= requested, "{requested}");
            assert!(
                class == 0 || slot_bytes(class - 1) < requested,
                "{requested}"
            );
        }
        assert_eq!(class_of(0), 0);
    }

    // Goal: multiplication divides exactly. Method: each class, each slot's first, last and middle byte.
    #[test]
    fn magic_divides_every_offset_of_a_page() {
        for class in 0..SLOT_CLASSES {
            let slot = slot_bytes(class);
            let multiplier = magic(slot);
            for index in 0..page_slots(class) {
                for within in [0, 1, slot / 2, slot - 1] {
                    let offset = index * slot + within;
                    assert_eq!(divide(offset, multiplier), index, "class {class}");
                    assert_eq!(divides(offset, multiplier), within == 0, "class {class}");
                    let exact = (within == 0).then_some(index);
                    assert_eq!(divide_exact(offset, multiplier), exact, "class {class}");
                }
            }
        }
    }

    // Goal: aligned classes are aligned and fit. Method: all powers of two with odd sizes.
    #[test]
    fn aligned_classes_hold_and_align() {
        for shift in 4..=16 {
            let align = 1 << shift;
            for requested in [1, 17, 100, 1000, 5000, 40_000, 65_536] {
                let class = aligned_class(requested, align).expect("within slots");
                assert!(slot_bytes(class) >= requested);
                assert_eq!(slot_bytes(class) % align, 0);
            }
        }
        assert_eq!(aligned_class(1, 1 << 17), None);
    }
}
