//! `pageshim run`: check the command, then exec under a daemon that is there, or host a private one.
//!
//! Exit codes: the command's own; 127 not found, 126 not executable, 125 it
//! cannot be profiled or we failed; `--error-exitcode` when `--fail-on` finds
//! something; a signal ends us as it ended the command.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use super::failon::FailOn;
use super::preflight::{self, Program};
use super::suppressions::SuppressionsOption;
use super::{LibOption, SocketOption, client, host, launch, places, print};
use crate::books::suppress::Rules;
use crate::shimlib;

/// Exit code for our own failures.
pub(crate) const FAILED: u8 = 125;

const EXAMPLES: &str = "\
Examples:
  pageshim run -- python3 script.py
  pageshim run -o before.pgs -- ./app --its-flag
  pageshim run -q --fail-on 'live>1MiB,peak>200MiB,misuse>0' -- ./tests
  pageshim run -q --fail-on 'definite>0' --suppressions known.txt --junit lost.xml -- ./tests";

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    /// Write the capture here [default: pageshim.NAME.PID.pgs, numbered if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[arg(long, value_name = "MODE", value_parser = mode, help = MODES.listed())]
    pub(crate) mode: Option<String>,
    #[arg(long, value_name = "HEAP", value_parser = heap, help = HEAPS.listed())]
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
    /// Findings that fail the run: live>1MiB,peak>200MiB,misuse>0
    #[arg(long, value_name = "EXPR")]
    pub(crate) fail_on: Option<FailOn>,
    /// Exit code when --fail-on finds something
    #[arg(long, value_name = "N", default_value_t = 23)]
    pub(crate) error_exitcode: u8,
    #[command(flatten)]
    pub(crate) suppressions: SuppressionsOption,
    /// Write lost sites as JUnit test cases
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Write lost sites as SARIF 2.1.0
    #[arg(long, value_name = "FILE")]
    pub(crate) sarif: Option<PathBuf>,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<OsString>,
}

/// What an option may be in this version, and what in a later one.
struct Choices {
    known: &'static [&'static str],
    later: &'static [&'static str],
}

const MODES: Choices = Choices {
    known: &["exact", "sampled", "sampled:BYTES", "count", "trace", "off"],
    later: &[],
};
const HEAPS: Choices = Choices {
    known: &["gpa", "debug", "page", "arena", "fixed:SIZE"],
    later: &[],
};

impl Choices {
    /// `exact, count, trace or off`.
    fn listed(&self) -> String {
        match self.known {
            [head @ .., last] if !head.is_empty() => format!("{} or {last}", head.join(", ")),
            known => known.join(", "),
        }
    }

    fn check(&self, text: &str) -> Result<String, String> {
        if self.known.contains(&text) {
            return Ok(text.to_owned());
        }
        let word = text.split(':').next().unwrap_or_default();
        let planned = self.later.contains(&word);
        let why = if planned {
            "not in this version"
        } else {
            "not known"
        };
        Err(format!("{why}; choose {}", self.listed()))
    }
}

fn mode(text: &str) -> Result<String, String> {
    match text.strip_prefix("sampled:") {
        Some(size) if size.starts_with(|first: char| first.is_ascii_digit()) => Ok(text.to_owned()),
        _ if text == "sampled:BYTES" => {
            Err("BYTES is the mean distance of samples, as in sampled:512KiB".into())
        }
        _ => MODES.check(text),
    }
}

fn heap(text: &str) -> Result<String, String> {
    match text.strip_prefix("fixed:") {
        Some(size) if size.starts_with(|first: char| first.is_ascii_digit()) => Ok(text.to_owned()),
        _ if text == "fixed:SIZE" => Err("SIZE is a number of bytes, as in fixed:64MiB".into()),
        _ => HEAPS.check(text),
    }
}

/// What to run, ready to be given an environment.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The options.
    pub(crate) options: &'a Options,
    /// Lost blocks that are known.
    pub(crate) suppressions: Rules,
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

    /// Why nothing will be recorded, as far as option and environment say so.
    pub(crate) fn why_silent(&self) -> Option<&'static str> {
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        let disabled = variable("PAGESHIM_DISABLED");
        silence(
            self.options.mode.as_deref(),
            &variable("PAGESHIM_MODE"),
            !disabled.is_empty() && disabled != "0",
        )
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

/// `mode` was typed, `inherited` is the environment's.
fn silence(mode: Option<&str>, inherited: &OsStr, disabled: bool) -> Option<&'static str> {
    if disabled {
        return Some("PAGESHIM_DISABLED is set, so nothing was recorded");
    }
    let off = mode.map_or(inherited == "off", |mode| mode == "off");
    off.then_some("mode off records nothing; leave it out, or use --mode count or exact")
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
    let suppressions = match options.suppressions.load() {
        Ok(rules) => rules,
        Err(why) => return failed(&why),
    };
    let plan = Plan {
        options,
        suppressions,
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
    options.output.is_some()
        || options.fail_on.is_some()
        || options.listen.is_some()
        || options.junit.is_some()
        || options.sarif.is_some()
        || !options.suppressions.suppressions.is_empty()
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

    // Goal: what this version cannot do is a usage error that says so, and help lists only
    // what it can. Method: each kind of value.
    #[test]
    fn modes_and_heaps_are_checked() {
        for text in ["exact", "sampled", "sampled:64k", "count", "trace", "off"] {
            assert_eq!(mode(text).as_deref(), Ok(text));
        }
        for text in ["gpa", "debug", "page", "arena", "fixed:1MiB", "fixed:512k"] {
            assert_eq!(heap(text).as_deref(), Ok(text));
        }
        assert!(mode("sampled:BYTES").is_err() && mode("sampled:").is_err());
        assert!(heap("fixed:SIZE").is_err() && heap("fixed:").is_err());
        for error in [mode("fast"), heap("glibc"), heap("")] {
            let why = error.expect_err("never");
            assert!(why.contains("not known; choose"), "{why}");
        }
        assert_eq!(
            MODES.listed(),
            "exact, sampled, sampled:BYTES, count, trace or off"
        );
        assert_eq!(HEAPS.listed(), "gpa, debug, page, arena or fixed:SIZE");
    }

    // Goal: silence that was asked for is explained. Method: option, variable, both.
    #[test]
    fn asked_for_silence_is_explained() {
        let none = OsStr::new("");
        assert_eq!(silence(None, none, false), None);
        assert_eq!(silence(Some("exact"), OsStr::new("off"), false), None);
        for why in [
            silence(Some("off"), none, false),
            silence(None, OsStr::new("off"), false),
        ] {
            assert!(why.is_some_and(|why| why.contains("mode off records nothing")));
        }
        let disabled = silence(Some("exact"), none, true);
        assert!(disabled.is_some_and(|why| why.contains("PAGESHIM_DISABLED")));
    }
}
