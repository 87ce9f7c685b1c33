//! A Rust program: threads, a caught panic, growing vectors, a leaked box.

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;

#[inline(never)]
fn leak_box(value: u8) -> &'static [u8; 4096] {
    Box::leak(Box::new([value; 4096])) // site: leak_box
}

fn words(count: usize) -> HashMap<String, Vec<usize>> {
    let mut map: HashMap<String, Vec<usize>> = HashMap::new();
    for i in 0..count {
        map.entry(format!("word {}", i % 97)).or_default().push(i);
    }
    map
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let (sender, receiver) = mpsc::channel::<Vec<u64>>();
    let threads: Vec<_> = (0..4u64)
        .map(|id| {
            let sender = sender.clone();
            thread::Builder::new()
                .name(format!("worker {id}"))
                .spawn(move || {
                    for round in 0..200 {
                        sender.send((0..round).map(|n| n * id).collect()).unwrap();
                    }
                    words(5000).len()
                })
                .unwrap()
        })
        .collect();
    drop(sender);
    let sum: u64 = receiver.iter().flatten().sum();
    let keys: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    let caught = (0..50)
        .filter(|i| {
            let text = format!("planned panic {i}");
            std::panic::catch_unwind(move || panic!("{text}")).is_err()
        })
        .count();
    let mut grown = Vec::new();
    for i in 0..300_000u32 {
        grown.push(i);
    }
    let leaked: u64 = (0..10).map(|i| u64::from(leak_box(i)[7])).sum();
    println!("rust: {sum} {keys} {caught} {} {leaked}", grown.len());
}
