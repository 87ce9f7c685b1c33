//! Builds the shim and puts it into `OUT_DIR`, where the binary embeds it.
//!
//! Cargo cannot make a binary depend on a cdylib, so this runs a second cargo
//! for the shim, in a target directory of its own: the outer cargo holds the
//! lock of the usual one until this script ends.
//!
//! `PAGESHIM_SHIM_LIB=/path/libpageshim.so` embeds that file instead;
//! `/dev/null` embeds nothing, which makes `cargo check` quick.
//!
//! The plain `target/release/libpageshim.so` is cargo's own work (the shim is
//! among the workspace's default members). This script does not write it: two
//! writers of one file would race.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

const LIBRARY: &str = "libpageshim.so";

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    for watched in ["shim", "wire", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PAGESHIM_SHIM_LIB");
    let library = match env::var_os("PAGESHIM_SHIM_LIB") {
        Some(given) => {
            println!("cargo::rerun-if-changed={}", Path::new(&given).display());
            PathBuf::from(given)
        }
        None => build_shim(&root, &out.join("shim")),
    };
    let bytes = fs::read(&library)
        .unwrap_or_else(|error| panic!("cannot read the shim {}: {error}", library.display()));
    fs::write(out.join(LIBRARY), bytes).expect("OUT_DIR is writable");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}

/// Builds without the network first: what the outer build fetched is there.
fn build_shim(root: &Path, target_dir: &Path) -> PathBuf {
    let offline = cargo(root, target_dir, true);
    if !offline.status.success() {
        let online = cargo(root, target_dir, false);
        assert!(
            online.status.success(),
            "the shim does not build; offline cargo said:\n{}\nand online:\n{}\n\
             PAGESHIM_SHIM_LIB=/path/libpageshim.so embeds a shim built elsewhere",
            String::from_utf8_lossy(&offline.stderr),
            String::from_utf8_lossy(&online.stderr),
        );
    }
    target_dir
        .join(variable("TARGET"))
        .join("release")
        .join(LIBRARY)
}

fn cargo(root: &Path, target_dir: &Path, offline: bool) -> Output {
    let mut command = Command::new(variable("CARGO"));
    command
        .args(["rustc", "--release", "--package", "pageshim-shim", "--lib"])
        // Line tables of the shim would only make every binary larger.
        .args(["--config", "profile.release.strip='debuginfo'"])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("--target-dir")
        .arg(target_dir)
        .args(offline.then_some("--offline"));
    // clippy and the like wrap rustc for the workspace; a shim that was only
    // checked is no library. The other two would move the target directory or
    // name a target of their own.
    for name in [
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
    ] {
        command.env_remove(name);
    }
    // What cargo says of the package being built would make the shim's own
    // fingerprint change with the daemon's.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_CFG_")
            || text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_FEATURE_")
        {
            command.env_remove(&name);
        }
    }
    command
        .output()
        .expect("the cargo that runs this script can be run")
}
