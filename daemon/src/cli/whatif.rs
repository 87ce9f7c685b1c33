//! `pageshim whatif`: what the same requests cost on other layers, and what to do.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::{SocketOption, client, places, print};
use crate::capture::{self, CaptureError};
use crate::web::whatif_text;
use crate::whatif::entry;
use crate::whatif::report::WhatIf;

const EXAMPLES: &str = "\
Examples:
  pageshim whatif pageshim.app.4711.pgs
  pageshim whatif 4711 --format json        a live process of the daemon";

/// Options of `whatif`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// A capture file, or pid, name or id of a process of the daemon
    #[arg(value_name = "CAPTURE|PROCESS")]
    source: String,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    socket: SocketOption,
}

/// Formats it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs; the schema of /whatif.json
    Json,
}

/// Prints it.
pub(crate) fn main(options: &Options) -> Result<(), String> {
    let path = Path::new(&options.source);
    let whatif = if path.is_file() {
        match from_file(path) {
            Ok(whatif) => whatif,
            // A file that happens to be called like a process, as its own binary is.
            Err(CaptureError::NotACapture { .. }) if !options.source.contains('/') => {
                let other = format!("{} is not a capture, and", path.display());
                from_daemon(options).map_err(|why| format!("{other} {why}"))?
            }
            Err(error) => return Err(error.to_string()),
        }
    } else {
        from_daemon(options)?
    };
    print::out(&match options.format {
        Format::Text => whatif_text::render(&whatif),
        Format::Json => serde_json::to_string_pretty(&whatif).unwrap_or_default() + "\n",
    });
    Ok(())
}

fn from_file(path: &Path) -> Result<WhatIf, CaptureError> {
    let opened = capture::open(path)?;
    if let Some(note) = opened.note {
        print::say(&format!("note: {}: {note}", path.display()));
    }
    Ok(entry::of_capture(opened.report, opened.sites))
}

fn from_daemon(options: &Options) -> Result<WhatIf, String> {
    let source = &options.source;
    if source.contains('/') || source.ends_with(".pgs") {
        return Err(format!("{source}: no such file"));
    }
    let socket = places::socket(options.socket.socket.as_deref());
    let url = client::url(&socket).map_err(|why| format!("{source} is no file, and {why}"))?;
    let path = format!("whatif.json?process={}", client::encode(source));
    let body = client::get(&url, &path)?;
    let whatif: WhatIf = serde_json::from_slice(&body)
        .map_err(|error| format!("the daemon at {url} speaks another version: {error}"))?;
    if whatif.processes.is_empty() {
        return Err(format!(
            "{source} is neither a capture nor a process of the daemon at {url}; `pageshim ps` lists those"
        ));
    }
    Ok(whatif)
}
