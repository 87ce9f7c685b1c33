//! Where the built files are, and building them when they are not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The workspace's root directory.
///
/// # Panics
/// Never: the tests package lies one level below it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
}

/// Cargo's target directory: the one this very test was built into.
///
/// # Panics
/// When the test does not run from a target directory.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("our own path");
    // target/debug/deps/case-0123
    exe.ancestors()
        .nth(3)
        .expect("tests run from target/PROFILE/deps")
        .to_owned()
}

/// The `pageshim` binary, release build.
pub fn pageshim() -> PathBuf {
    built().join("pageshim")
}

/// The shim. `PAGESHIM_TESTS_STANDIN` names another preload library, to try
/// the cases' mechanics without it.
pub fn shim() -> PathBuf {
    match std::env::var_os("PAGESHIM_TESTS_STANDIN") {
        Some(other) => PathBuf::from(other),
        None => built().join("libpageshim.so"),
    }
}

/// The release directory, after making sure that both files in it are current.
fn built() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = target().join("release");
        if !is_current(&dir) {
            build();
        }
        dir
    })
}

/// True when binary and shim exist and no source is newer than either.
fn is_current(dir: &Path) -> bool {
    let newest = ["wire", "shim", "daemon"]
        .iter()
        .map(|part| newest_under(&root().join(part)))
        .max();
    ["pageshim", "libpageshim.so"].iter().all(|name| {
        let made = fs::metadata(dir.join(name)).and_then(|meta| meta.modified());
        made.is_ok_and(|made| Some(made) >= newest)
    })
}

fn newest_under(path: &Path) -> SystemTime {
    let Ok(entries) = fs::read_dir(path) else {
        return fs::metadata(path)
            .and_then(|meta| meta.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH);
    };
    entries
        .flatten()
        .map(|entry| newest_under(&entry.path()))
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn build() {
    eprintln!("harness: building the release binary and shim (cargo build --release)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "-p",
            "pageshim",
            "-p",
            "pageshim-shim",
        ])
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target())
        .status()
        .expect("cargo can be started");
    assert!(
        status.success(),
        "the cases need target/release/pageshim and libpageshim.so, and \
         `cargo build --release -p pageshim -p pageshim-shim` failed: see its messages above"
    );
}
