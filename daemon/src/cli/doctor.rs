//! `pageshim doctor`: each thing a profile needs, checked, with what to do about it.

use std::ffi::OsString;
use std::fmt::Write;
use std::process::{Command, ExitCode};

use clap::Args;

use super::{LibOption, SocketOption, client, places, preflight, print};
use crate::shimlib;

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  pageshim doctor ./app")]
pub(crate) struct Options {
    #[command(flatten)]
    socket: SocketOption,
    #[command(flatten)]
    lib: LibOption,
    /// A program to check as well
    #[arg(value_name = "CMD")]
    command: Option<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

type Finding = (Level, String);

/// Prints the findings; exit code 1 when one is a failure.
pub(crate) fn main(options: &Options) -> ExitCode {
    let mut findings = vec![
        shim(options),
        loads(options),
        directories(),
        socket(options),
        preload(),
    ];
    if let Some(command) = &options.command {
        findings.extend(program(command));
    }
    let mut out = String::new();
    for (level, text) in &findings {
        let mark = match level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        let _ = writeln!(out, "{mark}  {text}");
    }
    print::out(&out);
    ExitCode::from(u8::from(
        findings.iter().any(|(level, _)| *level == Level::Fail),
    ))
}

fn shim(options: &Options) -> Finding {
    match shimlib::locate(options.lib.lib.as_deref()) {
        Ok(library) if library.same_build => {
            let version = env!("CARGO_PKG_VERSION");
            (
                Level::Ok,
                format!(
                    "shim: {} ({}), version {version}, build {}",
                    library.path.display(),
                    library.origin,
                    library.hash
                ),
            )
        }
        Ok(library) => (
            Level::Warn,
            format!(
                "shim: {} ({}) is another build, {}; leave --lib and PAGESHIM_LIB out to use the one made for this pageshim",
                library.path.display(),
                library.origin,
                library.hash
            ),
        ),
        Err(error) => (Level::Fail, format!("shim: {error}")),
    }
}

/// The proof of the pudding: the loader says on standard error when it cannot preload.
fn loads(options: &Options) -> Finding {
    let Ok(library) = shimlib::locate(options.lib.lib.as_deref()) else {
        return (
            Level::Fail,
            "loading: not tried, there is no shim".to_owned(),
        );
    };
    let tried = Command::new("/bin/true")
        .env("LD_PRELOAD", &library.path)
        .env("PAGESHIM_MODE", "off")
        .env("PAGESHIM_SOCKET", "/nonexistent")
        .output();
    match tried {
        Ok(done) if done.status.success() && done.stderr.is_empty() => (
            Level::Ok,
            "loading: /bin/true runs under the shim".to_owned(),
        ),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            (
                Level::Fail,
                format!("loading: /bin/true under the shim: {}; {said}", done.status),
            )
        }
        Err(error) => (
            Level::Warn,
            format!("loading: /bin/true cannot be run: {error}"),
        ),
    }
}

fn directories() -> Finding {
    for base in shimlib::candidates() {
        let existing = base.ancestors().find(|dir| dir.is_dir()).unwrap_or(&base);
        let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok();
        let noexec = rustix::fs::statvfs(existing)
            .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC));
        if writable && !noexec {
            return (
                Level::Ok,
                format!(
                    "cache: {} is writable and allows executable files",
                    base.display()
                ),
            );
        }
    }
    (
        Level::Fail,
        "cache: no directory is writable and allows executable files; set XDG_CACHE_HOME to one"
            .to_owned(),
    )
}

fn socket(options: &Options) -> Finding {
    let path = places::socket(options.socket.socket.as_deref());
    match client::url(&path) {
        Ok(url) => (
            Level::Ok,
            format!("daemon: listens on {}, pages at {url}", path.display()),
        ),
        Err(_) if places::listens(&path) => (
            Level::Warn,
            format!(
                "daemon: listens on {}, but its URL file is missing; restart it",
                path.display()
            ),
        ),
        Err(_) if path.exists() => (
            Level::Warn,
            format!(
                "daemon: nobody listens on {}, though the file is there; `pageshim daemon` replaces it",
                path.display()
            ),
        ),
        Err(_) => (
            Level::Ok,
            format!(
                "daemon: none on {}; `pageshim run` brings its own",
                path.display()
            ),
        ),
    }
}

fn preload() -> Finding {
    match std::env::var("LD_PRELOAD") {
        Ok(value) if !value.trim().is_empty() => {
            let known = ["jemalloc", "tcmalloc", "mimalloc", "asan"];
            match known.iter().find(|name| value.contains(**name)) {
                Some(name) => (
                    Level::Warn,
                    format!(
                        "LD_PRELOAD: {value} holds {name}, another allocator; pageshim goes first, and takes its place"
                    ),
                ),
                None => (
                    Level::Ok,
                    format!("LD_PRELOAD: {value} is kept, behind the shim"),
                ),
            }
        }
        _ => (Level::Ok, "LD_PRELOAD: not set".to_owned()),
    }
}

fn program(command: &std::ffi::OsStr) -> Vec<Finding> {
    let shown = command.to_string_lossy();
    let program = match preflight::check(command) {
        Ok(program) => program,
        Err(refusal) => return vec![(Level::Fail, format!("program: {}", refusal.message))],
    };
    let mut findings = vec![match &program.warning {
        Some(warning) => (Level::Warn, format!("program: {warning}")),
        None => (
            Level::Ok,
            format!(
                "program: {shown} is {}, a dynamic glibc program",
                program.binary.display()
            ),
        ),
    }];
    let elf = &program.elf;
    let debug_file = elf.debug_file.as_ref().is_some_and(|path| path.exists());
    findings.push(match (elf.lines || debug_file, elf.symbols) {
        (true, _) => (
            Level::Ok,
            "symbols: its line tables are there: reports name file and line".to_owned(),
        ),
        (false, true) => (
            Level::Warn,
            "symbols: functions are named, lines are not; build with -g for lines".to_owned(),
        ),
        (false, false) => (
            Level::Warn,
            "symbols: it is stripped; install its debug symbols (-dbgsym package) or build with -g"
                .to_owned(),
        ),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a missing program fails, a plain one passes. Method: both.
    #[test]
    fn programs_are_judged() {
        let missing = program(std::ffi::OsStr::new("/no/such"));
        assert_eq!(missing[0].0, Level::Fail);
        let plain = program(std::ffi::OsStr::new("true"));
        assert_eq!(plain[0].0, Level::Ok, "{plain:?}");
    }
}
