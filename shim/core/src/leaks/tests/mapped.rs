//! Roots in mapped files.

use std::fs::{File, remove_file};
use std::os::fd::AsRawFd;

use pageshim_wire::check::Class;

use super::super::{Backing, Plan, Walk, check};
use super::{Found, World, plan, put};
use crate::{OS_PAGE_BYTES, sys};

/// Bytes of the file, of which one page is written.
const BYTES: usize = 256 << 20;
/// Bytes of the block it leads to.
const BLOCK: usize = 64;

/// Bytes of it that are in memory.
fn in_memory(at: usize) -> u64 {
    let mut pages = std::vec![0; BYTES / OS_PAGE_BYTES];
    assert!(sys::in_core(at, BYTES, &mut pages));
    let held = pages.iter().filter(|page| *page & 1 != 0).count();
    (held * OS_PAGE_BYTES) as u64
}

// Goal: a check reads what was in memory of a mapped file when it began, not what the kernel reads
// ahead of it, and a check in a copy has the kernel read nothing. Method: a file that is a hole but for
// one pointer, checked again and again. It lies beside this program: memory file systems read nothing ahead.
#[test]
fn a_hole_in_a_mapped_file_is_not_read() {
    let mut path = std::env::current_exe().expect("our own path");
    path.set_extension("hole");
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&path).expect("writable");
    file.set_len(BYTES as u64).expect("room");
    remove_file(&path).expect("ours");
    // SAFETY: a new mapping, used by this test alone.
    let at = unsafe { sys::map_shared(file.as_raw_fd(), 0, BYTES, None) }.expect("mapped");
    let mut world = World::new(64 << 20);
    let block = world.make(BLOCK, 2);
    put(at + BYTES / 4, block);
    for copied in [false, true, true] {
        let mut found = Found::default();
        let plan = Plan { copied, ..plan(16) };
        let walk = |walk: &mut Walk<'_, '_>| walk.range((at, at + BYTES), Backing::Shared);
        let before = in_memory(at);
        let sums = check(world.spaces, plan, |_| false, walk, &mut found).expect("enough");
        assert_eq!(found.class[&block], Class::Reachable);
        let read = sums.root_bytes - BLOCK as u64;
        assert!(read <= before && before < BYTES as u64 / 2);
        assert!(!copied || in_memory(at) == before, "the kernel read more");
    }
    // SAFETY: nobody uses it any more.
    unsafe { sys::unmap(at, BYTES) }.expect("ours");
}
