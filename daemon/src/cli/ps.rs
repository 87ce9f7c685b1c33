//! `pageshim ps`: the processes of a running daemon, a line each.

use std::fmt::Write;

use clap::Args;

use super::{SocketOption, client, places, print};
use crate::books::report::Process;
use crate::http::Processes;
use crate::web::{units, words};

/// Options of `ps`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  pageshim ps && pageshim report NAME")]
pub(crate) struct Options {
    #[command(flatten)]
    socket: SocketOption,
    /// Print the daemon's JSON instead
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub(crate) fn main(options: &Options) -> Result<(), String> {
    let socket = places::socket(options.socket.socket.as_deref());
    let url = client::url(&socket)?;
    if options.json {
        let body = client::get(&url, "processes.json")?;
        print::out(&String::from_utf8_lossy(&body));
        return Ok(());
    }
    let body = client::get(&url, "processes.json")?;
    let known: Processes = serde_json::from_slice(&body)
        .map_err(|error| format!("the daemon at {url} speaks another version: {error}"))?;
    print::out(&table(&known.processes));
    Ok(())
}

fn table(processes: &[Process]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:>8}  {:<20} {:<18} {:>10} {:>10} {:>6} {:>14}  ID",
        "PID", "NAME", "STATE", "LIVE", "PEAK", "WASTE", "AGE"
    );
    for process in processes {
        let waste = words::waste_bytes(&process.pages);
        let name: String = words::clean(&process.name).chars().take(20).collect();
        let _ = writeln!(
            out,
            "{:>8}  {name:<20} {:<18} {:>10} {:>10} {:>6} {:>14}  {}",
            process.pid,
            words::state(process),
            units::bytes(process.live.bytes),
            units::bytes(process.peak.bytes),
            units::percent(waste, process.pages.committed_bytes),
            units::seconds(process.seconds),
            words::clean(&process.id),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    // Goal: a line each, columns in line. Method: the fixture.
    #[test]
    fn one_line_a_process() {
        let table = super::table(&crate::web::fixture::report().processes);
        assert_eq!(table.lines().count(), 3);
        assert!(
            table.contains("    4711  zoo                  running"),
            "{table}"
        );
    }
}
