//! Writing a capture.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::frame::{self, tag};
use super::{CaptureError, MAGIC};
#[cfg(test)]
use crate::books::report::Leak;
use crate::books::report::Process;

/// How many of each a capture will hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Processes.
    pub processes: usize,
    /// Leaks.
    pub leaks: usize,
    /// Other sites.
    pub sites: usize,
}

/// The first frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Version of the program that wrote it.
    pub version: String,
    /// What follows.
    pub counts: Counts,
}

/// A capture being written. It appears under its name when it is whole; a
/// target that is no plain file (a pipe, `/dev/stdout`) is written directly.
pub struct Writer {
    to: BufWriter<File>,
    path: PathBuf,
    unfinished: Option<PathBuf>,
}

impl Writer {
    /// Starts a capture that will be at `path`.
    pub fn create(path: &Path, counts: Counts) -> Result<Self, CaptureError> {
        let special = fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir());
        let unfinished = (!special).then(|| beside(path));
        let target = unfinished.as_deref().unwrap_or(path);
        let file = File::create(target).map_err(|error| failed(path, error))?;
        let mut writer = Self {
            to: BufWriter::new(file),
            path: path.to_owned(),
            unfinished,
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let magic = writer.to.write_all(MAGIC);
        magic.map_err(|error| failed(path, error))?;
        writer.frame(tag::HEAD, &Head { version, counts })?;
        Ok(writer)
    }

    /// Adds processes.
    pub fn processes(&mut self, processes: &[Process]) -> Result<(), CaptureError> {
        let mut chunks = processes.chunks(200);
        chunks.try_for_each(|chunk| self.frame(tag::PROCESSES, &chunk))
    }

    /// Adds leaks.
    #[cfg(test)]
    pub fn leaks(&mut self, leaks: &[Leak]) -> Result<(), CaptureError> {
        self.frame(tag::LEAKS, &leaks)
    }

    /// Adds sites without live blocks.
    #[cfg(test)]
    pub fn sites(&mut self, sites: &[Leak]) -> Result<(), CaptureError> {
        self.frame(tag::SITES, &sites)
    }

    /// Adds leaks that are JSON already.
    pub fn leaks_written(&mut self, leaks: &[Vec<u8>]) -> Result<(), CaptureError> {
        self.list(tag::LEAKS, leaks)
    }

    /// The same for sites without live blocks.
    pub fn sites_written(&mut self, sites: &[Vec<u8>]) -> Result<(), CaptureError> {
        self.list(tag::SITES, sites)
    }

    /// Ends the file and gives it its name.
    pub fn finish(mut self) -> Result<(), CaptureError> {
        self.frame(tag::END, &())?;
        self.to.flush().map_err(|error| failed(&self.path, error))?;
        if let Some(unfinished) = self.unfinished.take() {
            fs::rename(&unfinished, &self.path).map_err(|error| {
                let _ = fs::remove_file(&unfinished);
                failed(&self.path, error)
            })?;
        }
        Ok(())
    }

    fn list(&mut self, tag: u32, entries: &[Vec<u8>]) -> Result<(), CaptureError> {
        frame::write_list(&mut self.to, tag, entries).map_err(|error| failed(&self.path, error))
    }

    fn frame(&mut self, tag: u32, value: &impl Serialize) -> Result<(), CaptureError> {
        frame::write(&mut self.to, tag, value).map_err(|error| failed(&self.path, error))
    }
}

impl Drop for Writer {
    /// A capture that was given up leaves nothing behind.
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let _ = fs::remove_file(unfinished);
        }
    }
}

/// A name in the same directory, so that the rename is one step.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

fn failed(path: &Path, error: io::Error) -> CaptureError {
    CaptureError::Io {
        what: "write",
        path: path.to_owned(),
        error,
    }
}
