//! pageshim: the daemon and the command line.

mod books;
mod symbols;

fn main() {}
