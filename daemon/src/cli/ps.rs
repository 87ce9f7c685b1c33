//! `pageshim ps`: the processes of a running daemon, a line each.

use std::fmt::Write;

use clap::Args;

use super::{SocketOption, client, places, print};
use crate::books::report::{Process, State};
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
        "{:>8}  {:<20} {:<18} {:>10} {:>10} {:>10} {:>14}  ID",
        "PID", "NAME", "STATE", "LIVE", "PEAK", "RESIDENT", "AGE"
    );
    for process in processes {
        // RAM is held now or not at all: an ended process has none to show.
        let resident = match process.state {
            State::Running => units::bytes(process.pages.resident_bytes),
            _ => "-".to_owned(),
        };
        let name: String = words::clean(&process.name).chars().take(20).collect();
        let _ = writeln!(
            out,
            "{:>8}  {name:<20} {:<18} {:>10} {:>10} {:>10} {:>14}  {}",
            process.pid,
            words::state(process),
            words::about(process).replace(' ', "") + &units::bytes(process.live.bytes),
            words::about(process).replace(' ', "") + &units::bytes(process.peak.bytes),
            resident,
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
        let end = table.find("RESIDENT").map_or(0, |at| at + "RESIDENT".len());
        let column = |line: usize| {
            table
                .lines()
                .nth(line)
                .and_then(|line| line.get(end - 10..end))
        };
        assert_eq!(column(1).map(str::trim), Some("-"), "{table}");
        assert_eq!(column(2).map(str::trim), Some("5.0 MiB"), "{table}");
    }
}
