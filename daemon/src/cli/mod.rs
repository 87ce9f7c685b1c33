//! The command line: what can be typed, and where it leads.
//!
//! # Invariants
//! I1. Standard output belongs to the child of `run` or to the report that was
//!     asked for; everything else of ours goes to standard error.
//! I2. Exit codes: 0 done, 1 it failed, 2 usage; `run` has its own (see [`run`]).

mod client;
mod daemon;
mod doctor;
mod elf;
mod failon;
mod hold;
mod host;
mod launch;
mod leaks;
mod places;
mod preflight;
mod print;
mod process;
mod ps;
mod report;
mod run;
mod signals;
mod summary;
mod suppressions;
mod whatif;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  pageshim run -- ./app --its-flag      profile a program, summary at the end
  pageshim run --fail-on 'live>1MiB' -- ./tests
  pageshim report pageshim.app.4711.pgs
  pageshim daemon &                     one daemon for many programs
  LD_PRELOAD=$(pageshim lib-path) ./app
  pageshim doctor ./app                 why does it not work?";

/// Memory-allocation profiler for Linux: who holds the pages, and what is lost.
#[derive(Debug, Parser)]
#[command(name = "pageshim", version, after_long_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a program under the shim; summary and capture at its end
    Run(run::Options),
    /// Collect from many programs: Unix socket in, HTTP out
    Daemon(daemon::Options),
    /// Print a capture file, or a process of a running daemon
    Report(report::Options),
    /// What the same requests cost on other layers, and what to do about it
    Whatif(whatif::Options),
    /// Check a running process for lost blocks now
    Leaks(leaks::Options),
    /// Which pointers keep a block of a running process alive
    Why(why::Options),
    /// List the processes of a running daemon
    Ps(ps::Options),
    /// Check whether (and why not) a program can be profiled
    Doctor(doctor::Options),
    /// Print the path of libpageshim.so
    LibPath(LibPath),
    /// Print the exports that put programs of a shell under the shim
    Env(EnvOptions),
    /// Hold a process still for a check: the daemon's helper
    #[command(hide = true)]
    Hold(hold::Options),
}

/// Which daemon.
#[derive(Clone, Debug, Args)]
pub(crate) struct SocketOption {
    /// Socket of the daemon [default: $XDG_RUNTIME_DIR/pageshim.sock, /run/pageshim/pageshim.sock]
    #[arg(
        long,
        env = "PAGESHIM_SOCKET",
        value_name = "PATH",
        hide_env_values = true
    )]
    pub(crate) socket: Option<PathBuf>,
}

/// Which shim.
#[derive(Clone, Debug, Args)]
pub(crate) struct LibOption {
    /// Use this libpageshim.so instead of the built-in one
    #[arg(
        long,
        env = "PAGESHIM_LIB",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) lib: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LibPath {
    #[command(flatten)]
    lib: LibOption,
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  eval \"$(pageshim env)\"\n  pageshim env --shell fish | source"
)]
struct EnvOptions {
    #[command(flatten)]
    socket: SocketOption,
    #[command(flatten)]
    lib: LibOption,
    /// Whose syntax
    #[arg(long, value_enum, default_value = "bash")]
    shell: launch::Shell,
}

/// Parses and does it.
pub(crate) fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => return run::main(&options),
        Command::Daemon(options) => daemon::main(&options),
        Command::Report(options) => report::main(&options),
        Command::Whatif(options) => whatif::main(&options),
        Command::Leaks(options) => leaks::main(&options),
        Command::Why(options) => why::main(&options),
        Command::Ps(options) => ps::main(&options),
        Command::Doctor(options) => return doctor::main(&options),
        Command::LibPath(options) => lib_path(&options),
        Command::Env(options) => environment(&options),
        Command::Hold(options) => hold::main(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            print::complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn lib_path(options: &LibPath) -> Result<(), String> {
    let library = crate::shimlib::locate(options.lib.lib.as_deref()).map_err(|e| e.to_string())?;
    print::out(&format!("{}\n", library.path.display()));
    Ok(())
}

fn environment(options: &EnvOptions) -> Result<(), String> {
    let library = crate::shimlib::locate(options.lib.lib.as_deref()).map_err(|e| e.to_string())?;
    let socket = places::socket(options.socket.socket.as_deref());
    print::out(&launch::exports(options.shell, &library.path, &socket));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the definitions are sound and -h fits one screen. Method: clap's own check, a line count.
    #[test]
    fn the_command_line_is_sound_and_short() {
        use clap::CommandFactory;
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        for sub in command.get_subcommands_mut() {
            let lines = sub.render_help().to_string().lines().count();
            assert!(lines <= 40, "{} -h has {lines} lines", sub.get_name());
        }
    }

    // Goal: the child's flags stay the child's, with and without "--". Method: parse both.
    #[test]
    fn flags_after_the_command_are_the_childs() {
        for line in [
            &["pageshim", "run", "-q", "--", "ls", "-l"][..],
            &["pageshim", "run", "-q", "ls", "-l"],
        ] {
            let cli = Cli::try_parse_from(line).expect("parses");
            let Command::Run(options) = cli.command else {
                panic!("run")
            };
            assert_eq!(options.command, ["ls", "-l"]);
        }
    }
}
