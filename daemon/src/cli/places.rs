//! Where sockets and private files are.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const SYSTEM_SOCKET: &str = "/run/pageshim/pageshim.sock";

/// The socket to use: the given one, the user's, the system's.
pub(crate) fn socket(given: Option<&Path>) -> PathBuf {
    if let Some(path) = given {
        return path.to_owned();
    }
    let [user, system] = [user_socket(), Some(PathBuf::from(SYSTEM_SOCKET))];
    let all = || user.iter().chain(system.iter());
    let listening = all().find(|path| listens(path));
    let first = listening.or_else(|| all().next());
    first
        .cloned()
        .unwrap_or_else(|| PathBuf::from(SYSTEM_SOCKET))
}

fn user_socket() -> Option<PathBuf> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?;
    Some(Path::new(&dir).join("pageshim.sock"))
}

/// Does somebody accept connections there?
pub(crate) fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Who accepts connections there, for a message.
pub(crate) fn holder(socket: &Path) -> Option<String> {
    let stream = UnixStream::connect(socket).ok()?;
    let pid = rustix::net::sockopt::socket_peercred(&stream)
        .ok()?
        .pid
        .as_raw_nonzero();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

/// The file beside a socket that holds the URL of its daemon.
pub(crate) fn url_file(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".url");
    PathBuf::from(name)
}

/// A directory of our own for one private daemon; removed when dropped.
#[derive(Debug)]
pub(crate) struct PrivateDir(PathBuf);

impl PrivateDir {
    /// In the run-time directory when there is one, else in the temporary one.
    pub(crate) fn new() -> Result<Self, String> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from);
        let mut last = String::new();
        for base in runtime
            .into_iter()
            .chain([std::env::temp_dir(), PathBuf::from("/tmp")])
        {
            for attempt in 0..16 {
                let dir = base.join(format!("pageshim-run-{}-{attempt}", std::process::id()));
                match DirBuilder::new().mode(0o700).create(&dir) {
                    Ok(()) => return Ok(Self(dir)),
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => {
                        last = format!("{}: {error}", base.display());
                        break;
                    }
                }
            }
        }
        Err(format!(
            "no directory for a private socket ({last}); set XDG_RUNTIME_DIR or TMPDIR to a writable one"
        ))
    }

    /// The socket in it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("pageshim.sock")
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `pageshim.NAME.PID.pgs` in the current directory, numbered when it exists.
pub(crate) fn capture(name: &str, pid: u32) -> PathBuf {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "._-+".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let stem = format!("pageshim.{safe}.{pid}");
    let numbered = (1..10_000).map(|n| PathBuf::from(format!("{stem}.{n}.pgs")));
    let mut names = std::iter::once(PathBuf::from(format!("{stem}.pgs"))).chain(numbered);
    names
        .find(|path| fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| PathBuf::from(format!("{stem}.pgs")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    // Goal: private means private, and gone afterwards. Method: mode, drop.
    #[test]
    fn a_private_directory_is_0700_and_removed() {
        let dir = PrivateDir::new().expect("temp dir is writable");
        let mode = fs::metadata(&dir.0).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = dir.0.clone();
        drop(dir);
        assert!(!path.exists());
    }

    // Goal: names are plain and the URL file is beside the socket. Method: examples.
    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(capture("a/b c", 1), Path::new("pageshim.a_b_c.1.pgs"));
        assert_eq!(url_file(Path::new("/x/s.sock")), Path::new("/x/s.sock.url"));
        assert_eq!(socket(Some(Path::new("/given"))), Path::new("/given"));
    }
}
