//! pageshim: the daemon and the command line.

mod bill;
mod books;
mod capture;
mod cli;
mod heatmap;
mod hold;
mod http;
mod hub;
mod ingest;
mod metrics;
mod shimlib;
mod symbols;
mod target;
mod web;
mod whatif;

fn main() -> std::process::ExitCode {
    cli::main()
}
