//! Where `libpageshim.so` is: beside the binary, or carried inside it.
//!
//! # Design
//! A file that `--lib` or `PAGESHIM_LIB` names is used as it is. Otherwise a
//! `libpageshim.so` beside the binary counts only when it is byte for byte the
//! one this binary carries: after a rebuild of one of the two, the other would
//! be a shim of another version. Otherwise the carried copy is extracted.
//!
//! # Invariants
//! I1. A path that is answered holds neither ':' nor white space nor '$': the
//!     loader splits and expands `LD_PRELOAD` there.

mod extract;

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub(crate) use extract::candidates;

static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libpageshim.so"));

/// File name of the shim.
pub(crate) const NAME: &str = "libpageshim.so";

/// A shim that can be preloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Library {
    /// Absolute path.
    pub(crate) path: PathBuf,
    /// Where it comes from, for people.
    pub(crate) origin: &'static str,
    /// First 16 hex digits of its SHA-256.
    pub(crate) hash: String,
    /// True when it is the build this binary carries.
    pub(crate) same_build: bool,
}

/// Why there is no shim to preload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    /// The user's file.
    #[error("the shim {path}, named by --lib or PAGESHIM_LIB, cannot be read: {error}")]
    Named {
        path: PathBuf,
        error: std::io::Error,
    },
    /// The user's file is something else.
    #[error(
        "{0}, named by --lib or PAGESHIM_LIB, is not a shared library; leave the option out to use the built-in shim"
    )]
    NotElf(PathBuf),
    /// The loader would split the path.
    #[error(
        "the path of the shim, {0}, holds a colon, white space or '$', which LD_PRELOAD cannot express; copy it elsewhere and name it with --lib"
    )]
    Inexpressible(PathBuf),
    /// Built with PAGESHIM_SHIM_LIB=/dev/null.
    #[error("this pageshim was built without a shim; name one with --lib or PAGESHIM_LIB")]
    NoneCarried,
    /// No directory would have it.
    #[error(
        "the built-in shim could not be extracted: {0}; name a directory by XDG_CACHE_HOME that allows executable files, or a shim by --lib"
    )]
    Extract(String),
}

/// Finds, or makes, the shim to preload.
pub(crate) fn locate(named: Option<&Path>) -> Result<Library, LibraryError> {
    if let Some(path) = named {
        return explicit(path);
    }
    if let Some(library) = beside_binary() {
        return Ok(library);
    }
    if EMBEDDED.is_empty() {
        return Err(LibraryError::NoneCarried);
    }
    let hash = hash(EMBEDDED);
    let path = extract::extract(EMBEDDED, &hash).map_err(LibraryError::Extract)?;
    Ok(Library {
        path,
        origin: "built in, extracted",
        hash,
        same_build: true,
    })
}

fn explicit(path: &Path) -> Result<Library, LibraryError> {
    let named = |error| LibraryError::Named {
        path: path.to_owned(),
        error,
    };
    let path = fs::canonicalize(path).map_err(named)?;
    let bytes = fs::read(&path).map_err(named)?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(LibraryError::NotElf(path));
    }
    if !expressible(&path) {
        return Err(LibraryError::Inexpressible(path));
    }
    let same_build = bytes == EMBEDDED;
    Ok(Library {
        path,
        origin: "named by --lib or PAGESHIM_LIB",
        hash: hash(&bytes),
        same_build,
    })
}

fn beside_binary() -> Option<Library> {
    let path = std::env::current_exe().ok()?.parent()?.join(NAME);
    let bytes = fs::read(&path).ok()?;
    let same_build = bytes == EMBEDDED;
    let usable = same_build || (EMBEDDED.is_empty() && bytes.starts_with(b"\x7fELF"));
    (usable && expressible(&path)).then(|| Library {
        hash: hash(&bytes),
        path,
        origin: "beside the binary",
        same_build,
    })
}

/// I1.
fn expressible(path: &Path) -> bool {
    path.to_str().is_some_and(|text| {
        path.is_absolute() && !text.contains(|c: char| c == ':' || c == '$' || c.is_whitespace())
    })
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: paths the loader would split or expand are refused. Method: one of each.
    #[test]
    fn only_paths_the_loader_takes_whole() {
        assert!(expressible(Path::new("/usr/lib/libpageshim.so")));
        for bad in ["/a b/x.so", "/a:b/x.so", "/$LIB/x.so", "x.so"] {
            assert!(!expressible(Path::new(bad)), "{bad}");
        }
    }

    // Goal: a named file that is no library is told apart from one that is missing. Method: both.
    #[test]
    fn a_named_file_is_checked() {
        let missing = locate(Some(Path::new("/nonexistent/x.so")));
        assert!(matches!(missing, Err(LibraryError::Named { .. })));
        let text = locate(Some(Path::new("/etc/passwd")));
        assert!(matches!(text, Err(LibraryError::NotElf(_))));
    }
}
