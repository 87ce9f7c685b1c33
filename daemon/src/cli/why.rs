//! `pageshim why PROCESS SITE|0xADDRESS`: the chain of pointers that keeps a block alive.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::{SocketOption, client, places, print};
use crate::books::why::{Entry, Question};
use crate::web::why_text;
use pageshim_wire::check::CLASS_NAMES;

const EXAMPLES: &str = "\
Examples:
  pageshim why 4711 0x7f31c2a04040
  pageshim why app 53f8a1c09be2d417
  pageshim why app 53f8a1c09be2d417 --class indirect --format json

Prints the shortest chain of pointers from a root (a variable, a stack, a
register, thread-local storage) to the block at the address, or to any live
block of the site. Ids of sites are in `pageshim leaks`, on /leaks and in
/leaks.json. The process is checked for it and stands still for a moment.
Of chains as short, one from a variable wins; any word that looks like
a pointer counts, so a stale word on a stack may be what is found.";

/// Options of `why`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// Pid, name or id of a process of the daemon
    process: String,
    /// A site's id, or an address in a block: 0x7f31c2a04040
    #[arg(value_name = "SITE|0xADDRESS")]
    what: String,
    /// Which blocks of the site [default: those held best]
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(CLASS_NAMES))]
    class: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    socket: SocketOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Asks, waits, prints. No such block is a failure.
pub(crate) fn main(options: &Options) -> Result<(), String> {
    let question = Question::guess(&options.what, options.class.as_deref())?;
    let socket = places::socket(options.socket.socket.as_deref());
    let url = client::url(&socket)?;
    let process = client::encode(&options.process);
    let path = format!("api/v1/processes/{process}/why?{}", query(&question));
    let body = client::post(&url, &path)?;
    let entry: Entry = serde_json::from_slice(&body)
        .map_err(|error| format!("the daemon at {url} speaks another version: {error}"))?;
    let why = entry.answers.first().ok_or("the daemon gave no answer")?;
    print::out(&match options.format {
        Format::Text => why_text::report(&entry, why),
        Format::Json => serde_json::to_string_pretty(&entry).unwrap_or_default() + "\n",
    });
    match why.links.is_empty() {
        true => Err(format!("{} has no chain to show", options.what)),
        false => Ok(()),
    }
}

fn query(question: &Question) -> String {
    match question {
        Question::Address(address) => format!("address=0x{address:x}"),
        Question::Site(site, None) => format!("site={}", client::encode(site)),
        Question::Site(site, Some(class)) => {
            let class = CLASS_NAMES[*class as usize];
            format!("site={}&class={class}", client::encode(site))
        }
    }
}
