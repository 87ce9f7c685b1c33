//! Chains to blocks of a real heap.

use std::collections::{BTreeMap, HashSet};
use std::vec;
use std::vec::Vec;

use pageshim_wire::check::{CHAIN_MAX, Chain, Class, Root, Wanted};

use super::super::aim::Watch;
use super::super::chain::{Answer, Link};
use super::super::roots::{Still, Takes};
use super::super::why::{Search, why};
use super::super::{Backing, Over, check};
use super::{Found, Random, WORD, World, get, graph, plan, put, target};

/// What a test's roots are: words of variables, of a stack, of another mapping.
#[derive(Default)]
struct Roots {
    global: Vec<usize>,
    stack: Vec<usize>,
    mapping: Vec<usize>,
    registers: [usize; 15],
}

impl Roots {
    fn give(&self, to: &mut impl Takes) -> Result<(), Over> {
        // As in memory: in no order of their worth.
        for (words, kind) in [
            (&self.stack, Root::Stack),
            (&self.mapping, Root::Mapping),
            (&self.global, Root::Global),
        ] {
            let from = words.as_ptr().expose_provenance();
            to.range((from, from + words.len() * WORD), Backing::Private, kind)?;
        }
        for (register, word) in self.registers.iter().enumerate() {
            to.register(0, register, *word)?;
        }
        Ok(())
    }
}

/// The class of what was wanted, and the chain to it.
fn ask(world: &World, wanted: Wanted, roots: &Roots, careful: bool) -> (Option<Class>, Answer) {
    let mut found = Found::default();
    let mut watch = Watch::new(&mut found, wanted);
    let mut plan = plan(1 << 10);
    plan.careful = careful;
    let keeps = |site| site == KEPT;
    let give = |walk: &mut super::super::Walk<'_, '_>| roots.give(walk);
    check(world.spaces, plan, keeps, give, &mut watch).expect("enough");
    let Some(aim) = watch.aim() else {
        return (None, Answer::none(Chain::Nothing));
    };
    let threads = [Still {
        low: roots.stack.as_ptr().expose_provenance(),
        registers: roots.registers,
        tid: 77,
        control: 0,
    }];
    let give = |search: &mut Search<'_>| roots.give(search);
    let answer = why(world.spaces, plan, &threads, &aim, keeps, give);
    (Some(aim.class), answer)
}

const KEPT: u32 = 4000;

fn links(answer: &Answer) -> &[Link] {
    &answer.links[..answer.count]
}

fn addresses(answer: &Answer) -> Vec<usize> {
    links(answer).iter().map(|link| link.address).collect()
}

fn at(block: usize) -> Wanted {
    Wanted::Address(block as u64)
}

/// Blocks, each pointed to by the one before, at its third word.
fn chain(world: &mut World, sites: &[u32]) -> Vec<usize> {
    let blocks: Vec<usize> = sites.iter().map(|site| world.make(64, *site)).collect();
    for pair in blocks.windows(2) {
        put(pair[0] + 16, pair[1]);
    }
    blocks
}

// Goal: a chain over three blocks, from a variable: each link with its bytes, site and offsets.
// Method: ask by start, by a word inside, by site; careful or not.
#[test]
fn a_variable_leads_over_three_blocks() {
    let mut world = World::new(16 << 20);
    let blocks = chain(&mut world, &[11, 12, 13]);
    let roots = Roots {
        global: vec![1, blocks[0]],
        ..Roots::default()
    };
    let word = roots.global.as_ptr().expose_provenance() + WORD;
    for (wanted, careful) in [
        (at(blocks[2]), false),
        (Wanted::Address(blocks[2] as u64 + 63), false),
        (Wanted::Site(13, None), true),
        (Wanted::Site(13, Some(Class::Reachable)), false),
    ] {
        let (class, answer) = ask(&world, wanted, &roots, careful);
        assert_eq!(
            (class, answer.state),
            (Some(Class::Reachable), Chain::Reached)
        );
        assert_eq!(addresses(&answer), [word, blocks[0], blocks[1], blocks[2]]);
        let all = links(&answer);
        assert_eq!(all[0].kind, Root::Global);
        assert_eq!(all[1].kind, Root::Block);
        let facts = |link: &Link| (link.bytes, link.site, link.offset, link.into);
        assert_eq!(facts(&all[1]), (64, 11, 16, 0));
        assert_eq!(facts(&all[2]), (64, 12, 16, 0));
        assert_eq!(facts(&all[3]), (64, 13, 0, 0));
    }
    for nothing in [
        Wanted::Address(8),
        Wanted::Address(blocks[2] as u64 + 64),
        Wanted::Site(14, None),
        Wanted::Site(13, Some(Class::Definite)),
    ] {
        let (class, answer) = ask(&world, nothing, &roots, false);
        assert_eq!(
            (class, answer.state, answer.count),
            (None, Chain::Nothing, 0)
        );
    }
}

// Goal: stacks and registers are named with their thread; what the loader keeps is a root itself.
// Method: one of each.
#[test]
fn other_roots_are_named() {
    let mut world = World::new(16 << 20);
    let blocks = chain(&mut world, &[1, 2]);
    let stack = Roots {
        stack: vec![0, blocks[0]],
        ..Roots::default()
    };
    let (_, answer) = ask(&world, at(blocks[1]), &stack, false);
    assert_eq!(
        (links(&answer)[0].kind, links(&answer)[0].bytes),
        (Root::Stack, 77)
    );
    let mut registers = Roots::default();
    registers.registers[9] = blocks[0] + 8;
    let (class, answer) = ask(&world, at(blocks[0]), &registers, false);
    assert_eq!(class, Some(Class::Possible));
    let all = links(&answer);
    assert_eq!(
        (all[0].kind, all[0].address, all[0].bytes),
        (Root::Register, 9, 77)
    );
    assert_eq!((all[1].address, all[1].into), (blocks[0], 8));
    let kept = chain(&mut world, &[KEPT, 3]);
    let (_, answer) = ask(&world, at(kept[1]), &Roots::default(), false);
    assert_eq!(addresses(&answer), kept);
    assert_eq!(
        (links(&answer)[0].kind, links(&answer)[0].site),
        (Root::Runtime, KEPT)
    );
    // It says more than a word on a stack, and is no step further.
    let stack = Roots {
        stack: vec![kept[1]],
        ..Roots::default()
    };
    let (_, answer) = ask(&world, at(kept[1]), &stack, false);
    assert_eq!(addresses(&answer), kept);
    let (_, answer) = ask(&world, at(kept[0]), &Roots::default(), false);
    assert_eq!(addresses(&answer), kept[..1]);
}

// Goal: of two chains the shorter one, of two as long the one from a variable. Method: both.
#[test]
fn the_shortest_chain_wins_then_the_plainest() {
    let mut world = World::new(16 << 20);
    let long = chain(&mut world, &[1, 1, 1, 9]);
    let short = chain(&mut world, &[2]);
    put(short[0], long[3]);
    let roots = Roots {
        global: vec![long[0]],
        stack: vec![short[0]],
        ..Roots::default()
    };
    let (_, answer) = ask(&world, at(long[3]), &roots, false);
    assert_eq!(addresses(&answer)[1..], [short[0], long[3]]);
    assert_eq!(links(&answer)[0].kind, Root::Stack);
    let both = Roots {
        global: vec![long[3]],
        stack: vec![long[3]],
        mapping: vec![long[3]],
        ..Roots::default()
    };
    let (_, answer) = ask(&world, Wanted::Site(9, None), &both, false);
    assert_eq!((links(&answer)[0].kind, answer.count), (Root::Global, 2));
}

// Goal: rings end, of blocks that are held and of lost ones. Method: a ring with a way in, without,
// and a block that hangs on it.
#[test]
fn rings_end() {
    let mut world = World::new(16 << 20);
    let ring = chain(&mut world, &[1, 2, 3, 4]);
    put(ring[2], ring[0]);
    let roots = Roots {
        global: vec![ring[1]],
        ..Roots::default()
    };
    let (_, answer) = ask(&world, at(ring[0]), &roots, false);
    assert_eq!(addresses(&answer)[1..], [ring[1], ring[2], ring[0]]);
    let (class, answer) = ask(&world, at(ring[3]), &Roots::default(), false);
    assert_eq!((class, answer.state), (Some(Class::Indirect), Chain::Lost));
    let first = ring[..3].iter().min().expect("three");
    assert_eq!(
        links(&answer)[0].address,
        *first,
        "the ring's definite block"
    );
    assert_eq!(*addresses(&answer).last().expect("some"), ring[3]);
    let (class, answer) = ask(&world, at(*first), &Roots::default(), false);
    assert_eq!(
        (class, addresses(&answer)),
        (Some(Class::Definite), vec![*first])
    );
}

// Goal: a lost block's chain begins at its leader; of a site with lost and held blocks the held ones
// are told unless the class is named. Method: both.
#[test]
fn lost_blocks_have_a_leader() {
    let mut world = World::new(16 << 20);
    let lost = chain(&mut world, &[1, 2, 3]);
    let held = chain(&mut world, &[3]);
    let roots = Roots {
        global: vec![held[0]],
        ..Roots::default()
    };
    let (class, answer) = ask(&world, at(lost[2]), &roots, false);
    assert_eq!((class, answer.state), (Some(Class::Indirect), Chain::Lost));
    assert_eq!(addresses(&answer), lost);
    assert_eq!(links(&answer)[0].kind, Root::Block);
    let (_, answer) = ask(&world, Wanted::Site(3, None), &roots, false);
    assert_eq!(addresses(&answer)[1..], held);
    let lost_ones = Wanted::Site(3, Some(Class::Indirect));
    let (_, answer) = ask(&world, lost_ones, &roots, false);
    assert_eq!(addresses(&answer), lost);
}

// Goal: a chain too long for its place keeps both ends. Method: a list of 100, one as long as there is
// place, one longer by one.
#[test]
fn long_chains_keep_both_ends() {
    let mut world = World::new(16 << 20);
    for length in [CHAIN_MAX - 1, CHAIN_MAX, 100] {
        let list = chain(&mut world, &vec![5; length]);
        let roots = Roots {
            global: vec![list[0]],
            ..Roots::default()
        };
        let (_, answer) = ask(&world, at(list[length - 1]), &roots, false);
        assert_eq!(answer.left_out, (length + 1).saturating_sub(CHAIN_MAX));
        assert_eq!(answer.count, CHAIN_MAX);
        let half = CHAIN_MAX / 2;
        let all = addresses(&answer);
        assert_eq!(all[1..half], list[..half - 1]);
        assert_eq!(all[half..], list[length - half..]);
    }
}

/// Steps of pointers from each root's blocks.
fn distances(
    world: &World,
    from: impl Iterator<Item = (usize, bool)>,
    starts_only: bool,
) -> BTreeMap<usize, usize> {
    let usable = |hit: &(usize, bool)| hit.1 || !starts_only;
    let mut level: HashSet<usize> = from.filter(usable).map(|hit| hit.0).collect();
    let mut found = BTreeMap::new();
    for steps in 1.. {
        let mut next = HashSet::new();
        for block in level {
            if found.contains_key(&block) {
                continue;
            }
            found.insert(block, steps);
            let words = 0..world.blocks[&block] / WORD;
            let hits = words.filter_map(|index| target(&world.blocks, get(block + index * WORD)));
            next.extend(hits.filter(usable).map(|hit| hit.0));
        }
        if next.is_empty() {
            return found;
        }
        level = next;
    }
    found
}

// Goal: each chain of any graph is one of its pointers, link by link, and none is shorter. Method: random
// graphs, every block, against a naive search.
#[test]
fn chains_are_shortest_in_any_graph() {
    let mut reached = 0;
    for seed in 1000..1090 {
        let (world, words) = graph(seed);
        let hits = || words.iter().filter_map(|word| target(&world.blocks, *word));
        let by_start = distances(&world, hits(), true);
        let by_any = distances(&world, hits(), false);
        let roots = Roots {
            global: words.clone(),
            ..Roots::default()
        };
        for block in world.blocks.keys().step_by(5) {
            let (class, answer) = ask(&world, at(*block), &roots, seed % 2 == 0);
            let all = links(&answer);
            assert_eq!(
                all.last().map(|link| link.address),
                Some(*block),
                "seed {seed}"
            );
            let steps = match class.expect("live") {
                Class::Reachable => by_start[block],
                Class::Possible => by_any[block],
                Class::Definite => 0,
                Class::Indirect => all.len() - 1,
            };
            assert_eq!(answer.count + answer.left_out, steps + 1, "seed {seed}");
            if answer.left_out > 0 {
                continue;
            }
            for pair in all.windows(2) {
                let word = get(pair[0].address + pair[0].offset);
                assert_eq!(word, pair[1].address + pair[1].into, "seed {seed}");
                reached += 1;
            }
        }
    }
    assert!(reached > 1000, "{reached} links");
}

// Goal: what a search costs. Method: a list of a million blocks, its last; PAGESHIM_TESTS_LARGE for 16.
#[test]
fn a_long_list_is_followed_to_its_end() {
    let large = std::env::var_os("PAGESHIM_TESTS_LARGE").is_some();
    let count = if large { 1 << 24 } else { 1 << 18 };
    let mut world = World::new(4 << 30);
    let mut random = Random(88172645463325252);
    let mut nodes: Vec<usize> = (0..count).map(|_| world.make(64, 2)).collect();
    for index in (1..count).rev() {
        nodes.swap(index, random.next(index + 1));
    }
    for (index, node) in nodes.iter().enumerate() {
        put(*node, nodes.get(2 * index + 1).copied().unwrap_or(0));
        put(*node + 24, nodes.get(2 * index + 2).copied().unwrap_or(0));
    }
    let last = world.make(64, 3);
    put(nodes[count - 1] + 8, last);
    let roots = Roots {
        global: vec![nodes[0]],
        ..Roots::default()
    };
    let timed = |wanted| {
        let before = std::time::Instant::now();
        let (_, answer) = ask(&world, wanted, &roots, false);
        (answer, before.elapsed())
    };
    let (_, check) = timed(Wanted::Address(8));
    let (answer, both) = timed(at(last));
    let more = both.saturating_sub(check);
    std::eprintln!("{count} nodes: the chain to the last one took {more:?} more than a check");
    assert_eq!(answer.count as u32, count.ilog2() + 3, "a tree's depth");
}
