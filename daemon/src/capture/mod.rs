//! Stand-in for capture files: a report as JSON.

use std::path::{Path, PathBuf};

use crate::books::report::Report;

/// A capture that was read.
pub struct Opened {
    /// What it says.
    pub report: Report,
    /// What to know about it.
    pub note: Option<String>,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file system says no.
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// Something else.
    #[error("{0} is not a pageshim capture: {1}")]
    NotOurs(PathBuf, serde_json::Error),
}

/// Reads a capture.
pub fn open(path: &Path) -> Result<Opened, CaptureError> {
    let bytes = std::fs::read(path).map_err(|error| CaptureError::Io(path.to_owned(), error))?;
    let report = serde_json::from_slice(&bytes)
        .map_err(|error| CaptureError::NotOurs(path.to_owned(), error))?;
    Ok(Opened { report, note: None })
}
