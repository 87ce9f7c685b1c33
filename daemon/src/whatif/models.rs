//! What other allocators' size classes would make of the requests. Models, not measurements:
//! they know rounding and headers, not fragmentation.
//!
//! # Design
//! A class of ours holds requests of at most 16 different sizes up to 256 bytes, and of an
//! eighth of a doubling above. jemalloc's classes are unions of ours from 16 bytes on, so that
//! its rounding follows exactly; glibc's chunks cut ours in two, and how many requests fall on
//! which side follows from their mean when sizes are multiples of 8.

use super::report::{Basis, Cost};
use super::requests::{Class, OS_PAGE, Requests};
use crate::books::report::{Amount, Process};

/// glibc gets more from the kernel in such steps, and gives back what lies beyond at the end.
const GLIBC_STEP: u64 = 132 << 10;
/// jemalloc's blocks from this size on are runs of their own.
const JEMALLOC_LARGE: u64 = 16 << 10;
/// It gets address space in such steps at least.
const JEMALLOC_STEP: u64 = 2 << 20;

const GLIBC_NOTE: &str = "model: 8 bytes of header, multiples of 16, at least 32; sizes are multiples of 8; \
     128 KiB and more are mapped apart until the first is freed; one arena, no fragmentation";
const JEMALLOC_NOTE: &str = "model: four classes to a doubling, slabs without remainder, half a slab of each \
     class in use unused; one arena, nothing kept after its free";

/// Bytes of the chunk glibc's malloc cuts for a request.
pub const fn glibc_chunk(requested: u64) -> u64 {
    let chunk = (requested.saturating_add(8 + 15)) & !15;
    if chunk < 32 { 32 } else { chunk }
}

/// Bytes of the class jemalloc serves a request from.
pub const fn jemalloc_class(requested: u64) -> u64 {
    match requested {
        0..=8 => 8,
        9..=128 => (requested + 15) & !15,
        _ => {
            let step = 1 << ((requested - 1).ilog2() - 2);
            (requested - 1).saturating_add(step) & !(step - 1)
        }
    }
}

/// Bytes of a slab of a class: the fewest OS pages without a remainder.
const fn jemalloc_slab(class: u64) -> u64 {
    let mut bytes = OS_PAGE;
    while !bytes.is_multiple_of(class) && bytes < 1 << 20 {
        bytes += OS_PAGE;
    }
    bytes
}

/// Bytes of chunks for blocks of one class of ours.
fn glibc_bytes(slot: u64, amount: Amount) -> u64 {
    let Amount { bytes, blocks } = amount;
    match slot {
        0 => bytes.saturating_add(blocks.saturating_mul(OS_PAGE / 2 + 16)),
        1..=16 => blocks.saturating_mul(32),
        // Sizes of slot - 8 and less share a chunk with their slot; those above need 16 more.
        17..=256 => {
            let below = blocks.saturating_mul(slot - 8);
            let above = (bytes.saturating_sub(below) / 8).min(blocks);
            let chunks = blocks.saturating_mul(slot);
            chunks.saturating_add(above.saturating_mul(16))
        }
        // Half of them get 8 bytes of padding.
        _ => bytes.saturating_add(blocks.saturating_mul(8 + 4)),
    }
}

fn jemalloc_bytes(slot: u64, amount: Amount) -> u64 {
    let Amount { bytes, blocks } = amount;
    match (slot, bytes.checked_div(blocks)) {
        (_, None) => 0,
        (0, Some(mean)) => {
            let class = jemalloc_class(mean).max(bytes / blocks);
            class.saturating_mul(blocks)
        }
        (16, Some(mean)) => jemalloc_class(mean.min(16)).saturating_mul(blocks),
        (slot, _) => jemalloc_class(slot).saturating_mul(blocks),
    }
}

fn sum(classes: &[Class], of: impl Fn(&Class) -> u64) -> u64 {
    classes.iter().map(of).fold(0, u64::saturating_add)
}

/// A row each model; none where sizes are not known.
pub fn costs(requests: &Requests, process: &Process) -> Vec<Cost> {
    if process.heap != "gpa" || requests.classes.is_empty() {
        return Vec::new();
    }
    vec![glibc(requests, process), jemalloc(requests, process)]
}

/// The peak by what an average block costs beyond its bytes.
fn peak(classes: &[Class], process: &Process, model: fn(u64, Amount) -> u64) -> u64 {
    let all = sum(classes, |class| model(class.slot_bytes, class.allocated));
    let bytes = sum(classes, |class| class.allocated.bytes);
    let blocks = process.total.blocks.max(1);
    let more = all.saturating_sub(bytes) as f64 / blocks as f64;
    let more = (more * process.peak.blocks as f64) as u64;
    process.peak.bytes.saturating_add(more)
}

fn row(layer: &str, note: &str, held: u64, peak: u64, process: &Process) -> Cost {
    let pages = held.div_ceil(OS_PAGE);
    let bytes = pages.saturating_mul(OS_PAGE);
    Cost {
        layer: layer.to_owned(),
        basis: Basis::Model,
        pages: Some(pages),
        peak_bytes: Some(peak.max(bytes)),
        waste_bytes: Some(bytes.saturating_sub(process.live.bytes)),
        syscalls: None,
        note: note.to_owned(),
    }
}

fn glibc(requests: &Requests, process: &Process) -> Cost {
    let classes = &requests.classes;
    let live = sum(classes, |class| glibc_bytes(class.slot_bytes, class.live));
    let steps = |bytes: u64| bytes.div_ceil(GLIBC_STEP).max(1);
    let peak = peak(classes, process, glibc_bytes);
    let (large, freed) = requests.large;
    let apart = large.saturating_sub(freed).saturating_add(freed.min(2) * 2);
    Cost {
        syscalls: Some(steps(peak).saturating_add(apart)),
        ..row(
            "glibc",
            GLIBC_NOTE,
            steps(live).saturating_mul(GLIBC_STEP),
            peak,
            process,
        )
    }
}

fn jemalloc(requests: &Requests, process: &Process) -> Cost {
    let classes = &requests.classes;
    let live = sum(classes, |class| {
        jemalloc_bytes(class.slot_bytes, class.live)
    });
    let mut slabs: Vec<u64> = classes
        .iter()
        .filter(|class| class.slot_bytes > 0 && class.live.blocks > 0)
        .map(|class| jemalloc_class(class.slot_bytes))
        .filter(|class| *class < JEMALLOC_LARGE)
        .collect();
    slabs.dedup();
    let unused = slabs.iter().map(|class| jemalloc_slab(*class) / 2);
    let unused = unused.fold(0, u64::saturating_add);
    let peak = peak(classes, process, jemalloc_bytes).saturating_add(unused);
    Cost {
        syscalls: Some(peak.div_ceil(JEMALLOC_STEP).max(1)),
        ..row(
            "jemalloc",
            JEMALLOC_NOTE,
            live.saturating_add(unused),
            peak,
            process,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// `malloc_usable_size` of the sizes up to 64 KiB in steps, by the malloc of `preload`.
    fn usable(preload: Option<&str>) -> Vec<(u64, u64)> {
        let script = "import ctypes\n\
            c = ctypes.CDLL(None)\n\
            c.malloc.restype = ctypes.c_void_p\n\
            c.malloc.argtypes = [ctypes.c_size_t]\n\
            c.malloc_usable_size.argtypes = [ctypes.c_void_p]\n\
            c.malloc_usable_size.restype = ctypes.c_size_t\n\
            sizes = list(range(1, 2100)) + list(range(2100, 65536, 997))\n\
            print(' '.join(f'{n}:{c.malloc_usable_size(c.malloc(n))}' for n in sizes))";
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", script]).env_remove("LD_PRELOAD");
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let said = command.output().expect("python3 runs").stdout;
        let said = String::from_utf8(said).expect("digits");
        let pair = |pair: &str| {
            let (size, usable) = pair.split_once(':').expect("two");
            (
                size.parse().expect("a number"),
                usable.parse().expect("a number"),
            )
        };
        said.split_whitespace().map(pair).collect()
    }

    // Goal: a chunk is what the C library cuts. Method: what it says is usable, of each size.
    #[test]
    fn chunks_are_those_of_glibc() {
        let all = usable(None);
        assert!(all.len() > 2000);
        for (size, usable) in all {
            // A chunk may be 16 larger where a remainder would be too small to keep.
            let chunk = usable + 8;
            let model = glibc_chunk(size);
            assert!(chunk == model || chunk == model + 16, "{size}: {chunk}");
        }
    }

    // Goal: classes are those of jemalloc. Method: the library, where it is installed.
    #[test]
    fn classes_are_those_of_jemalloc() {
        let library = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
        if !std::path::Path::new(library).exists() {
            println!("skipped: {library} is not installed (Debian package libjemalloc2)");
            return;
        }
        for (size, usable) in usable(Some(library)) {
            assert_eq!(usable, jemalloc_class(size), "{size}");
        }
    }

    // Goal: sums over a class of ours equal the sum over its blocks. Method: all multiples of 8 of
    // each class up to 256 bytes, each so often.
    #[test]
    fn sums_of_a_class_are_those_of_its_blocks() {
        for slot in (16u64..=256).step_by(16) {
            for (small, large) in [(3, 5), (0, 4), (7, 0)] {
                let sizes = [(slot - 8, small), (slot, large)];
                let amount = Amount {
                    bytes: sizes.iter().map(|(size, count)| size * count).sum(),
                    blocks: small + large,
                };
                let each = |of: fn(u64) -> u64| -> u64 {
                    sizes.iter().map(|(size, count)| of(*size) * count).sum()
                };
                assert_eq!(glibc_bytes(slot, amount), each(glibc_chunk), "{slot}");
                if slot > 16 {
                    assert_eq!(jemalloc_bytes(slot, amount), each(jemalloc_class), "{slot}");
                }
            }
        }
    }

    // Goal: no number of a hostile process does harm. Method: the largest.
    #[test]
    fn hostile_numbers_do_no_harm() {
        let most = Amount {
            bytes: u64::MAX,
            blocks: u64::MAX,
        };
        let class = |slot_bytes| Class {
            slot_bytes,
            allocated: most,
            live: most,
        };
        let requests = Requests {
            classes: [0, 16, 48, 5120, u64::MAX].map(class).to_vec(),
            large: (u64::MAX, u64::MAX),
            ..Requests::default()
        };
        let process = Process {
            heap: "gpa".to_owned(),
            peak: most,
            total: most,
            ..Process::default()
        };
        assert_eq!(costs(&requests, &process).len(), 2);
    }
}
