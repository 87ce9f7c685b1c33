//! Can CMD be preloaded? The reasons the loader would only show by silence.
//!
//! # Design
//! CMD is found as execvp finds it, scripts are followed to their interpreter,
//! and the file that will really be executed is looked at. A program behind
//! `env`, `nice` and the like is not looked for: those are programs too.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::elf::{self, Elf, Kind};

/// How deep scripts may name scripts; the kernel allows as many.
const SCRIPTS_MAX: usize = 4;

/// A program that may be run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The file to execute.
    pub(crate) path: PathBuf,
    /// True when it must be handed to /bin/sh, as execvp would.
    pub(crate) by_shell: bool,
    /// The binary that ends up in the process: `path`, or its interpreter.
    pub(crate) binary: PathBuf,
    /// What that binary says.
    pub(crate) elf: Elf,
    /// What to know before believing the numbers.
    pub(crate) warning: Option<String>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// Exit code: 127 not found, 126 not executable, 125 cannot be preloaded.
    pub(crate) code: u8,
    /// Who, what, and what to do.
    pub(crate) message: String,
}

fn refuse<T>(code: u8, message: String) -> Result<T, Refusal> {
    Err(Refusal { code, message })
}

/// Finds and checks `command`.
pub(crate) fn check(command: &OsStr) -> Result<Program, Refusal> {
    let path = find(command, env::var_os("PATH").as_deref())?;
    let mut binary = path.clone();
    for depth in 0..=SCRIPTS_MAX {
        let kind = match elf::inspect(&binary) {
            Ok(kind) => kind,
            // Executable but not readable: the kernel may run it, we cannot judge it.
            Err(_) => return Ok(unjudged(path, binary)),
        };
        match kind {
            Kind::Elf(elf) => return judge(path, binary, elf, false),
            Kind::Script(interpreter, _) => {
                if interpreter.is_empty() || depth == SCRIPTS_MAX {
                    return refuse(
                        126,
                        format!("{}: its #! line names no program", path.display()),
                    );
                }
                let found = executable(Path::new(&interpreter));
                if let Err(why) = found {
                    return refuse(
                        126,
                        format!("{}: bad interpreter {interpreter}: {why}", binary.display()),
                    );
                }
                binary = PathBuf::from(interpreter);
            }
            Kind::Text => return shell(path),
            Kind::Machine(what) => {
                return refuse(
                    125,
                    cannot(
                        &binary,
                        what,
                        "pageshim profiles x86-64 programs; nothing was run",
                    ),
                );
            }
            Kind::Unknown => {
                return refuse(
                    126,
                    format!("{}: not a program (exec format error)", binary.display()),
                );
            }
        }
    }
    refuse(126, format!("{}: too many interpreters", path.display()))
}

fn unjudged(path: PathBuf, binary: PathBuf) -> Program {
    let warning = Some(format!(
        "{} cannot be read, so it was not checked",
        binary.display()
    ));
    Program {
        path,
        by_shell: false,
        binary,
        elf: Elf::default(),
        warning,
    }
}

fn shell(path: PathBuf) -> Result<Program, Refusal> {
    let binary = PathBuf::from("/bin/sh");
    match elf::inspect(&binary) {
        Ok(Kind::Elf(elf)) => judge(path, binary, elf, true),
        _ => refuse(
            126,
            format!(
                "{}: it has no #! line and /bin/sh cannot run it",
                path.display()
            ),
        ),
    }
}

fn cannot(binary: &Path, what: &str, advice: &str) -> String {
    format!(
        "{} cannot be profiled: it is {what}; {advice}",
        binary.display()
    )
}

fn judge(path: PathBuf, binary: PathBuf, elf: Elf, by_shell: bool) -> Result<Program, Refusal> {
    if let Some((what, advice)) = obstacle(&binary, &elf) {
        return refuse(125, cannot(&binary, &what, advice));
    }
    let warning = elf.own_malloc.then(|| {
        format!(
            "{} brings its own malloc (static jemalloc, tcmalloc or the like), so its heap is invisible; \
             only its libraries' direct calls may be seen. A build with the system's malloc shows everything",
            binary.display()
        )
    });
    Ok(Program {
        path,
        by_shell,
        binary,
        elf,
        warning,
    })
}

/// What keeps the loader from preloading, and what the user can do.
fn obstacle(binary: &Path, elf: &Elf) -> Option<(String, &'static str)> {
    let Some(interpreter) = &elf.interpreter else {
        return Some((
            "statically linked".to_owned(),
            "the loader preloads into dynamic programs only: link it dynamically",
        ));
    };
    let loader = interpreter.rsplit('/').next().unwrap_or(interpreter);
    if loader.starts_with("ld-musl") {
        return Some((
            "linked with musl".to_owned(),
            "pageshim needs glibc: build it for a gnu target",
        ));
    }
    if loader != "ld-linux-x86-64.so.2" {
        return Some((
            format!("started by an unknown loader, {interpreter}"),
            "pageshim needs glibc's ld-linux-x86-64.so.2",
        ));
    }
    if let Some(sanitizer) = elf.sanitizer {
        return Some((
            format!("built with {sanitizer}"),
            "two allocators cannot share it: build it without the sanitizer",
        ));
    }
    privileged(binary)
}

/// Programs the kernel starts in secure mode, where the loader ignores LD_PRELOAD.
fn privileged(binary: &Path) -> Option<(String, &'static str)> {
    const ADVICE: &str =
        "the loader ignores LD_PRELOAD in programs that gain privileges: run a copy without them";
    let metadata = fs::metadata(binary).ok()?;
    let uid = rustix::process::getuid().as_raw();
    if metadata.mode() & 0o4000 != 0 && metadata.uid() != uid {
        return Some(("set-uid".to_owned(), ADVICE));
    }
    if metadata.mode() & 0o2010 == 0o2010 && metadata.gid() != rustix::process::getgid().as_raw() {
        return Some(("set-gid".to_owned(), ADVICE));
    }
    let mut value = [0; 64];
    let capabilities = rustix::fs::getxattr(binary, "security.capability", &mut value[..]);
    (uid != 0 && capabilities.is_ok()).then(|| ("given file capabilities".to_owned(), ADVICE))
}

/// As execvp looks: a name with a slash is a path, others are searched for.
pub(crate) fn find(command: &OsStr, search: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    let shown = command.to_string_lossy();
    if shown.contains('/') {
        let path = PathBuf::from(command);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(why) if !path.exists() => refuse(127, format!("{shown}: {why}")),
            Err(why) => refuse(126, format!("{shown}: {why}")),
        };
    }
    let mut denied = None;
    let search = search.map_or_else(|| OsString::from("/bin:/usr/bin"), OsStr::to_os_string);
    for dir in env::split_paths(&search) {
        let path = if dir.as_os_str().is_empty() {
            Path::new(".").join(command)
        } else {
            dir.join(command)
        };
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(_) if path.is_file() => denied = Some(path),
            Err(_) => {}
        }
    }
    match denied {
        Some(path) => refuse(
            126,
            format!(
                "{}: not executable; chmod +x, or name another",
                path.display()
            ),
        ),
        None if shown.is_empty() => refuse(127, "the command is empty".to_owned()),
        None => refuse(127, format!("{shown}: command not found (searched PATH)")),
    }
}

fn executable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if metadata.is_dir() {
        return Err("is a directory".to_owned());
    }
    let allowed = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if allowed {
        Ok(())
    } else {
        Err("not executable; chmod +x, or name another".to_owned())
    }
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
