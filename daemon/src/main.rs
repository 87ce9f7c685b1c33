//! pageshim: the daemon and the command line.

mod books;

fn main() {}
