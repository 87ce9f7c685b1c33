//! Captures: a report in a file of our own, readable also when cut short.
//!
//! # Design
//! ```text
//! "pageshim capture 1\n"
//! frame: tag u32 | len u32 | crc32 u32 | payload        little-endian; payload is deflated JSON
//!   HEAD       version of the writer, how many of each follow
//!   PROCESSES  list of processes
//!   LEAKS      list of leaks, 200 at most, most bytes first
//!   SITES      the same for sites without live blocks that allocated most
//!   END        nothing: the file is whole
//! ```
//! The checksum covers tag, length and payload. A reader uses every whole frame
//! before the first that is not; tags it does not know are passed over.
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

mod frame;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::books::report::{Leak, Report};

pub use reader::open;
pub use writer::{Counts, Writer};

/// First line of a capture.
const MAGIC: &[u8] = b"pageshim capture 1\n";
/// What it begins with in any version.
const MAGIC_ANY: &[u8] = b"pageshim capture ";

/// A capture as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// What it holds.
    pub report: Report,
    /// Sites without live blocks that allocated most.
    pub sites: Vec<Leak>,
    /// What is missing, in words; `None` for a whole file.
    pub note: Option<String>,
}

/// Why a capture cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file system said no.
    #[error("cannot {what} capture {path}: {error}")]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// Another kind of file.
    #[error(
        "{path} is not a pageshim capture but {what}; captures are written by `pageshim run -o FILE` and `pageshim daemon --data DIR`"
    )]
    NotACapture {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Another version of the format.
    #[error("{path} is a capture of format {theirs:?}, this pageshim ({ours}) reads format 1: open it with the version that wrote it", ours = env!("CARGO_PKG_VERSION"))]
    Version {
        /// Which file.
        path: PathBuf,
        /// The format it names.
        theirs: String,
    },
}
