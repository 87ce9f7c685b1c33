//! `pageshim leaks PROCESS`: has a running process checked, and prints what was found.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::suppressions::SuppressionsOption;
use super::{SocketOption, client, places, print, report};
use crate::books::report::{Leak, Process, State};
use crate::books::suppress::is_lost;
use crate::http::Processes;
use crate::hub::Filter;
use crate::web::view::CLASSES;
use crate::web::{text, words};

const EXAMPLES: &str = "\
Examples:
  pageshim leaks 4711
  pageshim leaks app --class definite
  pageshim leaks app --format json > leaks.json

Lost blocks are those no pointer leads to: definite (nothing points to them),
indirect (only lost blocks do), possible (only pointers into their middle).
Without --class those three are listed, suppressed ones left out. The process stands still for a moment.";

/// Sites in a text report unless `--limit` says otherwise.
const TEXT_SITES: usize = 20;

/// Options of `leaks`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// Pid, name or id of a process of the daemon
    process: String,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Only sites of this class
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(CLASSES))]
    class: Option<String>,
    /// Most sites [default: 20 as text, all as json; 0 is all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Other writable mappings than modules' data, stacks and threads' storage are no roots, as for LeakSanitizer
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    suppressions: SuppressionsOption,
    #[command(flatten)]
    socket: SocketOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs; the schema of /leaks.json
    Json,
}

/// Asks, waits, prints.
pub(crate) fn main(options: &Options) -> Result<(), String> {
    let rules = options.suppressions.load()?;
    let socket = places::socket(options.socket.socket.as_deref());
    let url = client::url(&socket)?;
    let path = format!(
        "api/v1/processes/{}/check?roots={}",
        client::encode(&options.process),
        if options.strict { "strict" } else { "all" }
    );
    let body = client::post(&url, &path)?;
    let other = |error| format!("the daemon at {url} speaks another version: {error}");
    let checked: Process = serde_json::from_slice(&body).map_err(other)?;
    let known = client::get(&url, "processes.json")?;
    let known: Processes = serde_json::from_slice(&known).map_err(other)?;
    if let Some(said) = one_of_several(&known.processes, &options.process, &checked) {
        print::say(&said);
    }
    let filter = Filter {
        class: options.class.clone(),
        ..Filter::default()
    };
    let mut report = report::of_process(&url, &checked.id, &filter, &rules)?;
    if options.class.is_none() {
        let listed = |leak: &Leak| is_lost(&leak.class) && leak.suppressed.is_none();
        report.leaks.retain(listed);
    }
    let usual = if options.format == Format::Text {
        TEXT_SITES
    } else {
        0
    };
    let limit = options.limit.unwrap_or(usual);
    if limit > 0 {
        report.leaks.truncate(limit);
    }
    print::out(&match options.format {
        Format::Text => text::report(&report),
        Format::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
    });
    Ok(())
}

/// Which process was taken, where a name stands for several that run.
fn one_of_several(known: &[Process], name: &str, taken: &Process) -> Option<String> {
    let called = |process: &&Process| process.name == name && process.state == State::Running;
    let count = known.iter().filter(called).count();
    (count > 1 && taken.name == name).then(|| {
        let (name, pid) = (words::clean(name), taken.pid);
        format!("{count} processes are called {name}; checked the newest, pid {pid}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: a name that stands for several processes is told with the one that was taken, a pid and
    // a name of one are not. Method: the fixture's running process, once and twice, and an ended one.
    #[test]
    fn one_of_several_is_told() {
        let report = fixture::report();
        let (ended, taken) = (&report.processes[0], &report.processes[1]);
        let one = [ended.clone(), taken.clone()];
        assert_eq!(one_of_several(&one, "zoo", taken), None);
        let two = [taken.clone(), ended.clone(), taken.clone()];
        assert_eq!(one_of_several(&two, "4711", taken), None);
        let said = one_of_several(&two, "zoo", taken).expect("told");
        assert_eq!(
            said,
            "2 processes are called zoo; checked the newest, pid 4711"
        );
    }
}
