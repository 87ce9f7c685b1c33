//! Writes the carried shim to a file of its own name, once, and checks it each time.
//!
//! # Design
//! `<base>/pageshim/lib/<hash>/libpageshim.so`, in the first base directory
//! that is writable, ours, and not mounted noexec: the user's cache, the user's
//! run-time directory, a private directory in /tmp.
//!
//! # Invariants
//! I1. Whoever can write the file runs code as the user. So the directories we
//!     make are 0700, directory and file must belong to us and be writable by
//!     nobody else, and the content must hash right, at every use.
//! I2. The file appears whole (temporary name, fsync, rename) or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{NAME, expressible, hash};

/// Base directories in the order they are tried.
pub(crate) fn candidates() -> Vec<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let uid = rustix::process::geteuid().as_raw();
    let private = std::env::temp_dir().join(format!("pageshim-{uid}"));
    let bases = [cache, variable("XDG_RUNTIME_DIR"), Some(private)];
    bases
        .into_iter()
        .flatten()
        .filter(|base| base.is_absolute())
        .collect()
}

/// Path of a checked copy of `bytes`; on failure, what each directory said.
pub(super) fn extract(bytes: &[u8], name: &str) -> Result<PathBuf, String> {
    let mut refusals = Vec::new();
    for base in candidates() {
        match extract_under(&base, bytes, name) {
            Ok(path) => return Ok(path),
            Err(why) => refusals.push(format!("{}: {why}", base.display())),
        }
    }
    Err(refusals.join("; "))
}

/// The same in one base directory.
pub(super) fn extract_under(base: &Path, bytes: &[u8], name: &str) -> Result<PathBuf, String> {
    let dir = base.join("pageshim/lib").join(name);
    if !expressible(&dir) {
        return Err("its path holds a colon, white space or '$'".to_owned());
    }
    // A home directory that does not exist is not ours to make.
    if !base.parent().is_some_and(Path::is_dir) {
        return Err("its parent is no directory".to_owned());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&dir).map_err(|error| error.to_string())?;
    for made in [
        base.join("pageshim"),
        base.join("pageshim/lib"),
        dir.clone(),
    ] {
        ours(
            &fs::symlink_metadata(&made).map_err(|error| error.to_string())?,
            true,
        )?;
    }
    allows_execution(&dir)?;
    let path = dir.join(NAME);
    if check(&path, name).is_err() {
        write_whole(&dir, &path, bytes).map_err(|error| error.to_string())?;
        check(&path, name)?;
    }
    Ok(path)
}

/// I1 for one file or directory.
fn ours(metadata: &fs::Metadata, directory: bool) -> Result<(), String> {
    let kind = if directory {
        metadata.is_dir()
    } else {
        metadata.is_file()
    };
    if !kind {
        return Err("something else has the name".to_owned());
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".to_owned());
    }
    if metadata.mode() & 0o022 != 0 {
        return Err("others may write to it".to_owned());
    }
    Ok(())
}

fn allows_execution(dir: &Path) -> Result<(), String> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| error.to_string())?;
    if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Err("it is mounted noexec".to_owned());
    }
    Ok(())
}

/// I1 for the file: owner, mode, content.
fn check(path: &Path, name: &str) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    ours(&metadata, false)?;
    let content = fs::read(path).map_err(|error| error.to_string())?;
    if hash(&content) != name {
        return Err("its content is not the shim's".to_owned());
    }
    Ok(())
}

/// I2.
fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{NAME}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(0o555))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("pageshim-extract-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("temp dir");
        dir
    }

    // Goal: the copy is 0555 in 0700, reused, and repaired when altered. Method: alter it.
    #[test]
    fn a_copy_is_made_reused_and_repaired() {
        let base = scratch("repair");
        let name = hash(b"shim");
        let path = extract_under(&base, b"shim", &name).expect("extracts");
        let mode = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(path.parent().expect("dir"))),
            (0o555, 0o700)
        );
        let first = fs::metadata(&path).expect("exists").ino();
        extract_under(&base, b"shim", &name).expect("reuses");
        assert_eq!(fs::metadata(&path).expect("exists").ino(), first);
        fs::remove_file(&path).expect("ours");
        fs::write(&path, b"evil").expect("ours");
        extract_under(&base, b"shim", &name).expect("repairs");
        assert_eq!(fs::read(&path).expect("exists"), b"shim");
        let _ = fs::remove_dir_all(base);
    }

    // Goal: a home that does not exist stays so. Method: a base two levels below nothing.
    #[test]
    fn a_missing_home_is_not_made() {
        let home = scratch("home").join("missing");
        let refused = extract_under(&home.join(".cache"), b"shim", &hash(b"shim"));
        assert!(refused.is_err() && !home.exists());
    }

    // Goal: a directory or file others may write to is refused or replaced. Method: chmod.
    #[test]
    fn what_others_may_write_is_not_trusted() {
        let base = scratch("trust");
        let name = hash(b"shim");
        let path = extract_under(&base, b"shim", &name).expect("extracts");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("ours");
        extract_under(&base, b"shim", &name).expect("replaces");
        assert_eq!(fs::metadata(&path).expect("exists").mode() & 0o022, 0);
        fs::set_permissions(base.join("pageshim"), fs::Permissions::from_mode(0o777))
            .expect("ours");
        let refused = extract_under(&base, b"shim", &name);
        assert!(refused.is_err_and(|why| why.contains("others may write")));
        let _ = fs::remove_dir_all(base);
    }
}
