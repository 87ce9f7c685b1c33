//! `pageshim run`: check the command, then exec under a daemon that is there, or host a private one.
//!
//! Exit codes: the command's own; 127 not found, 126 not executable, 125 it
//! cannot be profiled or we failed; `--error-exitcode` when `--fail-on` finds
//! something; a signal ends us as it ended the command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use super::failon::FailOn;
use super::preflight::{self, Program};
use super::{LibOption, SocketOption, client, host, launch, places, print};
use crate::shimlib;

/// Exit code for our own failures.
pub(crate) const FAILED: u8 = 125;

const EXAMPLES: &str = "\
Examples:
  pageshim run -- python3 script.py
  pageshim run -o before.pgs -- ./app --its-flag
  pageshim run -q --fail-on 'definite>0,live>1MiB,waste>40%' -- ./tests";

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// Write the capture here [default: pageshim.NAME.PID.pgs, numbered if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// exact, count, trace, off or sampled[:BYTES]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) mode: Option<String>,
    /// gpa, debug, page, arena or fixed:SIZE
    #[arg(long, value_name = "HEAP", value_parser = heap)]
    pub(crate) heap: Option<String>,
    #[command(flatten)]
    pub(crate) socket: SocketOption,
    #[command(flatten)]
    pub(crate) lib: LibOption,
    /// Address of the pages while the command runs
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Say nothing but errors and findings
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Findings that fail the run: live>1MiB,definite>0,waste>40%
    #[arg(long, value_name = "EXPR")]
    pub(crate) fail_on: Option<FailOn>,
    /// Exit code when --fail-on finds something
    #[arg(long, value_name = "N", default_value_t = 23)]
    pub(crate) error_exitcode: u8,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<OsString>,
}

fn mode(text: &str) -> Result<String, String> {
    let size = text
        .strip_prefix("sampled:")
        .and_then(crate::web::units::parse_bytes);
    let known = ["exact", "count", "trace", "off", "sampled"].contains(&text) || size.is_some();
    known
        .then(|| text.to_owned())
        .ok_or_else(|| "choose exact, count, trace, off or sampled[:BYTES]".to_owned())
}

fn heap(text: &str) -> Result<String, String> {
    let size = text
        .strip_prefix("fixed:")
        .and_then(crate::web::units::parse_bytes);
    let known = ["gpa", "debug", "page", "arena"].contains(&text) || size.is_some();
    known
        .then(|| text.to_owned())
        .ok_or_else(|| "choose gpa, debug, page, arena or fixed:SIZE".to_owned())
}

/// What to run, ready to be given an environment.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The options.
    pub(crate) options: &'a Options,
    /// The checked program.
    pub(crate) program: Program,
    /// The shim.
    pub(crate) library: PathBuf,
}

impl Plan<'_> {
    /// The command with the shim in its environment.
    pub(crate) fn command(&self, socket: &Path) -> Command {
        let typed = &self.options.command;
        let mut command = if self.program.by_shell {
            let mut shell = Command::new("/bin/sh");
            shell.arg(&self.program.path);
            shell
        } else {
            let mut command = Command::new(&self.program.path);
            command.arg0(&typed[0]);
            command
        };
        command.args(&typed[1..]);
        let (mode, heap) = (self.options.mode.as_deref(), self.options.heap.as_deref());
        command.envs(launch::variables(&self.library, socket, mode, heap));
        command
    }

    /// The command's file name, for people.
    pub(crate) fn name(&self) -> String {
        let typed = Path::new(&self.options.command[0]);
        typed
            .file_name()
            .unwrap_or(typed.as_os_str())
            .to_string_lossy()
            .into_owned()
    }
}

/// Runs it.
pub(crate) fn main(options: &Options) -> ExitCode {
    let program = match preflight::check(&options.command[0]) {
        Ok(program) => program,
        Err(refusal) => {
            print::complain(&refusal.message);
            return ExitCode::from(refusal.code);
        }
    };
    if let Some(warning) = &program.warning {
        print::say(&format!("warning: {warning}"));
    }
    let library = match shimlib::locate(options.lib.lib.as_deref()) {
        Ok(library) => library.path,
        Err(error) => return failed(&error.to_string()),
    };
    let plan = Plan {
        options,
        program,
        library,
    };
    let socket = places::socket(options.socket.socket.as_deref());
    if !must_stay(options) && places::listens(&socket) {
        return exec(&plan, &socket);
    }
    host::main(&plan, private_socket(options))
}

/// Options only a `run` that outlives the command can honour.
fn must_stay(options: &Options) -> bool {
    options.output.is_some() || options.fail_on.is_some() || options.listen.is_some()
}

/// The socket the user typed, when nobody has it; else one in a directory of our own.
/// One from the environment was meant for a daemon that is not there.
fn private_socket(options: &Options) -> Option<PathBuf> {
    let named = options.socket.socket.clone()?;
    let typed = std::env::var_os("PAGESHIM_SOCKET").is_none_or(|value| value != named.as_os_str());
    (typed && !places::listens(&named)).then_some(named)
}

fn exec(plan: &Plan<'_>, socket: &Path) -> ExitCode {
    if !plan.options.quiet {
        let url =
            client::url(socket).unwrap_or_else(|_| format!("the daemon at {}", socket.display()));
        print::say(&format!(
            "profiling {} (pid {}), {url}",
            plan.name(),
            std::process::id()
        ));
    }
    let error = plan.command(socket).exec();
    failed(&format!(
        "{} could not be started: {error}",
        plan.program.path.display()
    ))
}

/// Our own failure, in one line.
pub(crate) fn failed(why: &str) -> ExitCode {
    print::complain(why);
    ExitCode::from(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: bad modes and heaps are usage errors, not surprises in the child. Method: both kinds.
    #[test]
    fn modes_and_heaps_are_checked() {
        assert!(mode("exact").is_ok() && mode("sampled:512k").is_ok());
        assert!(mode("sampled:x").is_err() && mode("fast").is_err());
        assert!(heap("fixed:1MiB").is_ok() && heap("gpa").is_ok());
        assert!(heap("fixed").is_err() && heap("glibc").is_err());
    }
}
