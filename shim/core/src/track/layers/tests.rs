//! The counters for other layers, against what those layers do.
#![allow(unsafe_code)]

use super::*;
use pageshim_wire::layout::THREAD_HEADER_BYTES;
use std::vec;
use std::vec::Vec;

fn entry(requested: usize) -> Entry {
    let class = if requested <= crate::heap::gpa::classes::SLOT_MAX {
        class_of(requested)
    } else {
        SINGLETON
    };
    Entry {
        class,
        site: 0,
        requested,
        slack: 0,
    }
}

/// Calls `with` with a thread that counts and has no sites.
fn counting(with: impl Fn(&Track)) {
    // Site 0 is counted when a block is temporary.
    let mut words = vec![0u64; (THREAD_HEADER_BYTES / 8) as usize + 8];
    let track = Track::new();
    // SAFETY: the header and site 0, which alone are touched.
    unsafe { track.set_region(words.as_mut_ptr().cast()) };
    with(&track);
}

fn came(track: &Track, requested: usize, address: usize) {
    track.counters().expect("set").came(&entry(requested));
    track.single_came(&entry(requested));
    track.note_last(address);
}

fn went(track: &Track, requested: usize, address: usize) {
    let temporary = track.is_last(address);
    track
        .counters()
        .expect("set")
        .went(&entry(requested), temporary);
    track.single_went(&entry(requested), temporary);
}

// Goal: all blocks of a class have equally many OS pages, which the counters of classes rest on.
// Method: each class's smallest and largest request.
#[test]
fn blocks_of_a_class_have_equally_many_pages() {
    for class in 1..SLOT_CLASSES {
        let smallest = slot_bytes(class - 1) + 1;
        let largest = slot_bytes(class);
        assert_eq!(further(smallest as u64), further(largest as u64), "{class}");
    }
    assert_eq!(further(slot_bytes(FIRST_FURTHER - 1) as u64), 0);
    assert_eq!(further(slot_bytes(FIRST_FURTHER) as u64), 1);
}

// Goal: further pages are those of all live blocks. Method: sizes on both sides of each border.
#[test]
fn further_pages_are_summed_over_live_blocks() {
    counting(|track| {
        let mut sum = 0;
        for pages in 0..40 {
            for requested in [pages * 4096 + 1, (pages + 1) * 4096] {
                came(track, requested, 0);
                sum += pages as i64;
                assert_eq!(track.further_pages(), sum, "{requested}");
            }
            went(track, pages * 4096 + 7, 1);
            sum -= pages as i64;
            assert_eq!(track.further_pages(), sum, "{pages}");
        }
        track.copying(100 * 4096);
        assert_eq!(track.further_pages(), sum - 99);
        track.copied(100 * 4096);
        assert_eq!(track.further_pages(), sum);
    });
}

// Goal: what an arena is filled to is what an arena of one thread would be. Method: random
// actions against a bump pointer that takes its last block back and grows it in place.
#[test]
fn an_arena_is_filled_as_a_bump_pointer_is() {
    counting(|track| {
        let (mut next, mut last, mut random) = (0u64, 0usize, 1u64);
        let mut live: Vec<(usize, usize)> = Vec::new();
        for address in 1..20_000usize {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let requested = (random >> 40) as usize % 3000 + 1;
            let packed = packed_bytes(requested as u64);
            let newest = live.len().wrapping_sub(1);
            let chosen = match random >> 33 & 1 {
                0 => newest,
                _ => (random >> 34) as usize % live.len().max(1),
            };
            match random >> 60 & 3 {
                0 | 1 => {
                    came(track, requested, address);
                    live.push((address, requested));
                    next += packed;
                    last = address;
                }
                2 if chosen < live.len() => {
                    let (at, old) = live.remove(chosen);
                    went(track, old, at);
                    if at == last {
                        next -= packed_bytes(old as u64);
                        last = 0;
                    }
                }
                _ if chosen < live.len() => {
                    // As the general purpose heap resizes in place.
                    let (at, old) = live[chosen];
                    let is_last = track.is_last(at);
                    let newest = track.resized(old, requested, false, is_last);
                    went(track, old, at);
                    came(track, requested, at);
                    if let Some(newest) = newest {
                        track.note_last(newest);
                    }
                    live[chosen].1 = requested;
                    let old = packed_bytes(old as u64);
                    if at == last {
                        next = next - old + packed;
                    } else if packed > old {
                        next += packed;
                        last = at;
                    } else {
                        // It keeps its place in the arena, and its room.
                        live[chosen].1 = requested;
                    }
                }
                _ => {}
            }
            assert_eq!(track.filled(), next, "at {address}");
        }
    });
}

// Goal: calls of a reallocation are those of the page heap. Method: one of each kind.
#[test]
fn reallocations_cost_what_the_page_heap_does() {
    counting(|track| {
        let calls = |old, new| {
            let before = track.get_signed(word::PAGE_CALLS);
            let _ = track.resized(old, new, false, false);
            track.get_signed(word::PAGE_CALLS) - before + 2
        };
        assert_eq!(calls(100, 4000), 0, "the same pages");
        assert_eq!(calls(9000, 100), 1, "a shrink");
        assert_eq!(calls(100, 9000), 2, "a copy");
        assert_eq!(calls(16 * 4096, 20 * 4096), 3, "moved by the kernel");
    });
}
