//! `pageshim leaks PROCESS`: has a running process checked, and prints what was found.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::suppressions::SuppressionsOption;
use super::{SocketOption, client, places, print, report};
use crate::books::report::{Leak, Process};
use crate::books::suppress::is_lost;
use crate::hub::Filter;
use crate::web::text;
use crate::web::view::CLASSES;

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
    let checked: Process = serde_json::from_slice(&body)
        .map_err(|error| format!("the daemon at {url} speaks another version: {error}"))?;
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
