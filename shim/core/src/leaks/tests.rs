//! The marker against a naive one: random graphs of blocks on a real heap.

#![allow(unsafe_code)]

mod mapped;
mod why;

use std::boxed::Box;
use std::collections::{BTreeMap, HashSet};
use std::vec::Vec;
use std::{eprintln, vec};

use core::sync::atomic::Ordering;

use pageshim_wire::check::Class;

use super::{Backing, Live, Plan, Sink, Sums, check};
use crate::heap::accounts::Accounts;
use crate::heap::gpa::classes::SLOT_MAX;
use crate::heap::gpa::{Block, Heap, Page, Spaces};
use crate::heap::page::Pages;
use crate::records::Record;

const WORD: usize = 8;

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

/// A heap with records, and the blocks made there.
struct World {
    spaces: &'static Spaces,
    heap: &'static Heap,
    blocks: BTreeMap<usize, usize>,
}

impl World {
    fn new(span: usize) -> Self {
        let accounts: &'static Accounts = Box::leak(Box::new(Accounts::new()));
        let spaces: &'static Spaces = Box::leak(Box::new(Spaces::new(Pages::new(accounts))));
        assert!(spaces.reserve(span), "address space for a test");
        let place = Box::leak(Box::new(core::mem::MaybeUninit::<Heap>::uninit()));
        // SAFETY: leaked memory of the right size and alignment.
        let heap = unsafe { Heap::place(place.as_mut_ptr(), spaces, accounts, true) };
        Self {
            spaces,
            heap,
            blocks: BTreeMap::new(),
        }
    }

    fn page(&self, address: usize) -> &'static Page {
        let page = self.spaces.page_of(address).expect("ours");
        self.spaces.head_of(page, address)
    }

    fn make(&mut self, requested: usize, site: u32) -> usize {
        let taken = if requested > SLOT_MAX {
            self.heap.take_single(requested, 16).expect("room").0
        } else {
            let class = crate::heap::gpa::classes::class_of(requested);
            self.heap.take_class(class).expect("room").0
        };
        let address = taken.address();
        let page = self.page(address);
        let slot = page.slot_at(address).expect("a slot");
        let record = Record {
            site,
            birth: 1,
            slack: page.usable() - requested,
        };
        let word = page.record(slot).expect("recorded");
        word.store(record.pack(), Ordering::Relaxed);
        for at in (0..page.usable() / WORD).take(SLOT_MAX) {
            put(address + at * WORD, 0);
        }
        self.blocks.insert(address, requested);
        address
    }

    fn free(&mut self, address: usize) {
        let page = self.page(address);
        let slot = page.slot_at(address).expect("a slot");
        page.record(slot)
            .expect("recorded")
            .store(0, Ordering::Relaxed);
        let block = Block::from_address(address).expect("not null");
        self.heap.give(page, block);
        self.blocks.remove(&address);
    }
}

fn put(address: usize, value: usize) {
    // SAFETY: callers write within live blocks of their own.
    unsafe { core::ptr::with_exposed_provenance_mut::<usize>(address).write(value) };
}

fn get(address: usize) -> usize {
    // SAFETY: as in put().
    unsafe { core::ptr::with_exposed_provenance::<usize>(address).read() }
}

#[derive(Default)]
struct Found {
    class: BTreeMap<usize, Class>,
    held: u64,
}

impl Sink for Found {
    fn block(&mut self, class: Class, block: &Live) {
        let before = self.class.insert(block.address, class);
        assert_eq!(before, None, "{:#x} was judged twice", block.address);
    }

    fn held(&mut self, _leader: &Live, block: &Live) {
        self.held += block.requested as u64;
    }
}

/// The block around a word and whether the word is its start.
fn target(blocks: &BTreeMap<usize, usize>, word: usize) -> Option<(usize, bool)> {
    let (start, requested) = blocks.range(..=word).next_back()?;
    (word == *start || word - start < *requested).then_some((*start, word == *start))
}

type Edges = BTreeMap<usize, Vec<(usize, bool)>>;

fn close(
    edges: &Edges,
    from: impl IntoIterator<Item = usize>,
    starts_only: bool,
) -> HashSet<usize> {
    let mut seen: HashSet<usize> = HashSet::new();
    let mut open: Vec<usize> = from.into_iter().collect();
    while let Some(block) = open.pop() {
        if seen.insert(block) {
            let next = edges[&block].iter().filter(|edge| edge.1 || !starts_only);
            open.extend(next.map(|edge| edge.0));
        }
    }
    seen
}

/// The classes by their definitions.
fn naive(world: &World, roots: &[usize]) -> BTreeMap<usize, Class> {
    let blocks = &world.blocks;
    let edges: Edges = blocks
        .iter()
        .map(|(start, requested)| {
            let words = (0..requested / WORD).map(|index| get(start + index * WORD));
            (
                *start,
                words.filter_map(|word| target(blocks, word)).collect(),
            )
        })
        .collect();
    let hits: Vec<_> = roots
        .iter()
        .filter_map(|word| target(blocks, *word))
        .collect();
    let starts = hits.iter().filter(|hit| hit.1).map(|hit| hit.0);
    let reached = close(&edges, starts, true);
    let all = hits.iter().map(|hit| hit.0);
    let any = close(&edges, all.chain(reached.iter().copied()), false);
    let lost: Vec<usize> = blocks
        .keys()
        .filter(|at| !any.contains(at))
        .copied()
        .collect();
    let leads: BTreeMap<usize, HashSet<usize>> = lost
        .iter()
        .map(|at| (*at, close(&edges, [*at], false)))
        .collect();
    let class = |at: &usize| {
        if reached.contains(at) {
            return Class::Reachable;
        }
        if any.contains(at) {
            return Class::Possible;
        }
        // Definite: whoever leads here is in the same ring, and this is the ring's first.
        let leaders = lost.iter().filter(|other| leads[other].contains(at));
        let mut ring = leaders.clone().filter(|other| leads[at].contains(other));
        let alone = leaders.clone().all(|other| leads[at].contains(other));
        if alone && ring.next() == Some(at) {
            Class::Definite
        } else {
            Class::Indirect
        }
    };
    blocks.keys().map(|at| (*at, class(at))).collect()
}

fn run(world: &World, roots: &[usize], plan: Plan) -> (Found, Sums) {
    let mut found = Found::default();
    let sums = check(
        world.spaces,
        plan,
        |_| false,
        |walk| {
            let (in_range, words) = roots.split_at(roots.len() / 2);
            let from = in_range.as_ptr().expose_provenance();
            let to = from + in_range.len() * WORD;
            words.iter().for_each(|word| walk.word(*word));
            walk.range((from, to), Backing::Private)
        },
        &mut found,
    );
    (found, sums.expect("time and memory enough"))
}

fn plan(stack: usize) -> Plan {
    Plan {
        stack_least: stack,
        heap_per_word: usize::MAX,
        ..Plan::within_ns(60_000_000_000)
    }
}

/// A pointer of a kind to a random block.
fn pointer(random: &mut Random, world: &World, starts: &[usize]) -> usize {
    let at = starts[random.next(starts.len())];
    let requested = world.blocks.get(&at).copied().unwrap_or(16);
    match random.next(12) {
        0 => at + random.next(requested.max(1)),
        1 => at + requested,
        2 => at.wrapping_sub(1 + random.next(64)),
        3 => random.next(usize::MAX),
        _ => at,
    }
}

fn graph(seed: usize) -> (World, Vec<usize>) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed as u64) << 8 | 1);
    let mut world = World::new(64 << 20);
    let count = 1 + random.next(160);
    let uniform = random.next(3) == 0;
    let mut starts = vec![];
    for _ in 0..count {
        let requested = match random.next(if uniform { 1 } else { 20 }) {
            0 => 64,
            1 => random.next(300_000),
            2 => 0,
            _ => random.next(400),
        };
        starts.push(world.make(requested, 2));
    }
    // Freed blocks keep their words, and pointers to them mean nothing.
    for index in (0..starts.len()).step_by(7) {
        world.free(starts[index]);
    }
    let density = 1 + random.next(3);
    for (at, requested) in world.blocks.clone() {
        let words = requested / WORD;
        for _ in 0..random.next(density + 1).min(words) {
            put(
                at + random.next(words) * WORD,
                pointer(&mut random, &world, &starts),
            );
        }
        if requested % WORD != 0 && words > 0 {
            // What lies behind the last whole word is no pointer.
            put(at + words * WORD, starts[0]);
        }
    }
    let roots = (0..random.next(6)).map(|_| pointer(&mut random, &world, &starts));
    let roots = roots.collect();
    (world, roots)
}

// Goal: each block of any graph gets the class its definition says. Method: random graphs, all
// kinds of words, with stacks of every small size, so that what does not fit is found again.
#[test]
fn classes_are_those_of_a_naive_marker() {
    let mut seen = HashSet::new();
    for seed in 0..400 {
        let (world, roots) = graph(seed);
        let expected = naive(&world, &roots);
        for stack in [1 << 13, 2, 3, 7] {
            let (found, sums) = run(&world, &roots, plan(stack));
            assert_eq!(found.class, expected, "seed {seed}, stack of {stack}");
            let of = |class: Class| {
                let blocks = expected.iter().filter(|(_, its)| **its == class);
                let bytes = blocks.clone().map(|(at, _)| world.blocks[at] as u64);
                (blocks.count() as u64, bytes.sum::<u64>())
            };
            for class in [
                Class::Definite,
                Class::Indirect,
                Class::Possible,
                Class::Reachable,
            ] {
                assert_eq!(sums.classes[class as usize], of(class), "seed {seed}");
                if of(class).0 > 0 {
                    seen.insert(class);
                }
            }
            assert_eq!(found.held, of(Class::Indirect).1, "seed {seed}");
        }
    }
    assert_eq!(seen.len(), 4, "the graphs have all classes");
}

// Goal: a wide table of blocks and a long list are followed whole in a small stack. Method: 40,000
// of each, a stack of 300 words.
#[test]
fn wide_and_deep_graphs_fit_a_small_stack() {
    let mut world = World::new(256 << 20);
    let count = 40_000;
    let table = world.make(count * WORD, 2);
    let mut last = 0;
    for index in 0..count {
        let block = world.make(24, 2);
        put(table + index * WORD, block);
        let node = world.make(40, 2);
        put(node + 8, last);
        put(node + 16, table);
        last = node;
    }
    let (_, sums) = run(&world, &[table, last], plan(300));
    assert_eq!(
        sums.classes[Class::Reachable as usize].0,
        2 * count as u64 + 1
    );
    let (_, sums) = run(&world, &[], plan(300));
    assert_eq!(
        sums.classes[Class::Definite as usize].0,
        1,
        "the list's head"
    );
    assert_eq!(sums.classes[Class::Indirect as usize].0, 2 * count as u64);
}

// Goal: sites the caller keeps are roots, with all they lead to. Method: two chains of two.
#[test]
fn kept_sites_are_roots() {
    let mut world = World::new(16 << 20);
    let ends = [2, 3].map(|site| {
        let first = world.make(32, site);
        put(first, world.make(48, 9));
        first
    });
    let mut found = Found::default();
    let plan = plan(64);
    check(world.spaces, plan, |site| site == 3, |_| Ok(()), &mut found).expect("enough");
    assert_eq!(found.class[&ends[0]], Class::Definite);
    assert_eq!(found.class[&get(ends[0])], Class::Indirect);
    assert_eq!(found.class[&ends[1]], Class::Reachable);
    assert_eq!(found.class[&get(ends[1])], Class::Reachable);
}

// Goal: what is reached is read once, what is lost twice (whom it points to, who leads), in any
// order. Method: a list of all sizes, its order at random, from a root and without one.
#[test]
fn each_block_is_read_once_and_each_lost_one_twice() {
    let mut world = World::new(256 << 20);
    let mut random = Random(88172645463325252);
    let size = |index: usize| {
        if index % 500 == 3 {
            100_000
        } else {
            16 + index % 300
        }
    };
    let mut blocks: Vec<usize> = (0..20_000)
        .map(|index| world.make(size(index), 2))
        .collect();
    for index in (1..blocks.len()).rev() {
        blocks.swap(index, random.next(index + 1));
    }
    for pair in blocks.windows(2) {
        let words = world.blocks[&pair[0]] / WORD;
        put(pair[0] + random.next(words) * WORD, pair[1]);
    }
    let words: usize = world
        .blocks
        .values()
        .map(|requested| requested / WORD)
        .sum();
    let (_, sums) = run(&world, &[blocks[0], 0], plan(16));
    assert_eq!(sums.classes[Class::Reachable as usize].0, 20_000);
    assert_eq!(
        sums.scanned_bytes as usize,
        (words + 1) * WORD,
        "and one root"
    );
    let (_, sums) = run(&world, &[], plan(16));
    assert_eq!(sums.classes[Class::Indirect as usize].0, 20_000 - 1);
    assert_eq!(sums.scanned_bytes as usize, 2 * words * WORD);
}

// Goal: how fast, and what memory it takes. Method: 64-byte nodes linked in random order, 64 MiB
// of them, or 1 GiB with PAGESHIM_TESTS_LARGE=1; a tree, and a net whose long ways overflow the stack.
#[test]
fn a_heap_of_small_nodes_is_marked_in_little_memory() {
    let large = std::env::var_os("PAGESHIM_TESTS_LARGE").is_some();
    let count: usize = if large { 1 << 24 } else { 1 << 20 };
    let mut world = World::new(4 << 30);
    let mut random = Random(88172645463325252);
    let mut nodes: Vec<usize> = (0..count).map(|_| world.make(64, 2)).collect();
    for index in (1..count).rev() {
        nodes.swap(index, random.next(index + 1));
    }
    for tree in [true, false] {
        let next = |index: usize| match index < count || !tree {
            true => nodes[index % count],
            false => 0,
        };
        for (index, node) in nodes.iter().enumerate() {
            put(*node, next(2 * index + 1));
            put(*node + 24, next(2 * index + 2));
        }
        mark_nodes(&world, nodes[0], count, if tree { "tree" } else { "net" });
    }
}

fn mark_nodes(world: &World, root: usize, count: usize, what: &str) {
    let roots = [root];
    let at = roots.as_ptr().expose_provenance();
    let walk = |walk: &mut super::Walk<'_, '_>| walk.range((at, at + WORD), Backing::Private);
    let plan = Plan::within_ns(60_000_000_000);
    let before = std::time::Instant::now();
    let sums = check(world.spaces, plan, |_| false, walk, &mut Quiet).expect("enough");
    let took = before.elapsed();
    eprintln!(
        "{what} of {count} nodes: {took:?}, {} KiB of its own, {} MiB read",
        sums.own_bytes >> 10,
        sums.scanned_bytes >> 20
    );
    assert_eq!(sums.classes[Class::Reachable as usize].0, count as u64);
    assert!(
        sums.own_bytes * 100 < count as u64 * 64 * 3,
        "{}",
        sums.own_bytes
    );
}

struct Quiet;

impl Sink for Quiet {
    fn block(&mut self, _class: Class, _block: &Live) {}
    fn held(&mut self, _leader: &Live, _block: &Live) {}
}
