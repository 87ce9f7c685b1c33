//! pageshim: the daemon and the command line.

mod books;
mod capture;
mod hub;
mod ingest;
mod metrics;
mod symbols;

fn main() {}
