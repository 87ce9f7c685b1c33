//! The environment that puts a program under the shim.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::ValueEnum;

use crate::shimlib::NAME;
use crate::web::words::shell_word;

/// Whose syntax `pageshim env` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// bash, dash, zsh: anything of Bourne's family.
    Bash,
    /// fish.
    Fish,
}

/// Variables for the child, in the order they are set.
pub(crate) fn variables(
    library: &Path,
    socket: &Path,
    mode: Option<&str>,
    heap: Option<&str>,
) -> Vec<(&'static str, OsString)> {
    let mut all = vec![
        (
            "LD_PRELOAD",
            preload(library, std::env::var_os("LD_PRELOAD").as_deref()),
        ),
        ("PAGESHIM_SOCKET", socket.as_os_str().to_owned()),
    ];
    all.extend(mode.map(|mode| ("PAGESHIM_MODE", OsString::from(mode))));
    all.extend(heap.map(|heap| ("PAGESHIM_HEAP", OsString::from(heap))));
    if std::env::var_os("PAGESHIM_CHECK").is_none() {
        all.push(("PAGESHIM_CHECK", OsString::from("exit")));
    }
    all
}

/// Ours first, then what was there; a shim that was there already is left out.
pub(crate) fn preload(library: &Path, existing: Option<&OsStr>) -> OsString {
    let mut value = library.as_os_str().as_bytes().to_vec();
    let existing = existing.map(OsStr::as_bytes).unwrap_or_default();
    let entries = existing.split(|byte| *byte == b':' || byte.is_ascii_whitespace());
    for entry in entries.filter(|entry| !entry.is_empty()) {
        if entry.rsplit(|byte| *byte == b'/').next() != Some(NAME.as_bytes()) {
            value.push(b':');
            value.extend_from_slice(entry);
        }
    }
    OsString::from_vec(value)
}

/// Lines to paste or `eval`.
pub(crate) fn exports(shell: Shell, library: &Path, socket: &Path) -> String {
    let mut lines = String::new();
    let preload = preload(library, std::env::var_os("LD_PRELOAD").as_deref());
    for (name, value) in [("LD_PRELOAD", preload), ("PAGESHIM_SOCKET", socket.into())] {
        let value = quote(shell, &value.to_string_lossy());
        match shell {
            Shell::Bash => lines.push_str(&format!("export {name}={value}\n")),
            Shell::Fish => lines.push_str(&format!("set -gx {name} {value}\n")),
        }
    }
    lines
}

fn quote(shell: Shell, word: &str) -> String {
    match (shell, shell_word(word)) {
        (Shell::Fish, Cow::Owned(_)) => {
            format!("'{}'", word.replace('\\', r"\\").replace('\'', r"\'"))
        }
        (_, word) => word.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: what was preloaded stays, behind us, and we are there once. Method: examples.
    #[test]
    fn existing_preloads_are_kept_behind_ours() {
        let library = Path::new("/c/libpageshim.so");
        let joined = |existing: &str| preload(library, Some(OsStr::new(existing)));
        assert_eq!(preload(library, None), "/c/libpageshim.so");
        assert_eq!(joined("a.so b.so:c.so"), "/c/libpageshim.so:a.so:b.so:c.so");
        assert_eq!(joined("/old/libpageshim.so:a.so"), "/c/libpageshim.so:a.so");
    }

    // Goal: lines survive a shell. Method: a socket with a quote and a space.
    #[test]
    fn exports_are_quoted_for_the_shell() {
        let socket = Path::new("/tmp/it's here/s");
        let bash = exports(Shell::Bash, Path::new("/l/libpageshim.so"), socket);
        assert!(
            bash.contains(r"export PAGESHIM_SOCKET='/tmp/it'\''s here/s'"),
            "{bash}"
        );
        let fish = exports(Shell::Fish, Path::new("/l/libpageshim.so"), socket);
        assert!(
            fish.contains(r"set -gx PAGESHIM_SOCKET '/tmp/it\'s here/s'"),
            "{fish}"
        );
    }
}
