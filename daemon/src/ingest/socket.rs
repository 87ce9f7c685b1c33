//! The socket in the file system.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A daemon already answers there.
    #[error(
        "a daemon already listens on {0}: use it, stop it, or choose another place with --socket"
    )]
    InUse(PathBuf),
    /// Something else is there.
    #[error(
        "{0} exists and is not a socket: it is left alone; remove it or choose another place with --socket"
    )]
    NotASocket(PathBuf),
    /// The kernel's limit on socket paths.
    #[error(
        "{0} is longer than the 107 bytes a socket path may have: choose a shorter one with --socket"
    )]
    TooLong(PathBuf),
    /// The directory cannot be made.
    #[error(
        "cannot create the directory of the socket {path}: {error}; create it or choose another place with --socket"
    )]
    Directory {
        /// Of the socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Anything else.
    #[error(
        "cannot listen on {path}: {error}; check that you may write there or choose another place with --socket"
    )]
    Bind {
        /// Of the socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A bound socket that removes its own file, and only its own.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    identity: Option<Identity>,
}

impl Socket {
    /// Binds `path`: makes its directory (0700) when only that is missing, removes a socket
    /// that nobody listens on. Root's socket is open to all users, whose
    /// processes are then told apart by credentials; others' to themselves.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), HubError> {
        if path.as_os_str().len() > 107 {
            return Err(HubError::TooLong(path.to_owned()));
        }
        make_directory(path)?;
        remove_stale(path)?;
        let failed = |error| HubError::Bind {
            path: path.to_owned(),
            error,
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mode = if rustix::process::geteuid().is_root() {
            0o666
        } else {
            0o600
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        let socket = Self {
            path: path.to_owned(),
            identity: identity(path),
        };
        Ok((socket, listener))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless it is another's by now.
    pub fn unlink(&self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device, inode and time of birth: inode numbers are soon used again.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> Option<Identity> {
    let facts = fs::symlink_metadata(path).ok()?;
    Some((facts.dev(), facts.ino(), facts.mtime(), facts.mtime_nsec()))
}

fn make_directory(path: &Path) -> Result<(), HubError> {
    let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    if parent.is_dir() {
        return Ok(());
    }
    // One level, as /run/pageshim is: more is more likely a typing error, and
    // nobody wants a directory of ours beside /usr.
    let made = if parent.parent() == Some(Path::new("/")) {
        let why = "it does not exist, and none is made under /";
        Err(io::Error::new(io::ErrorKind::NotFound, why))
    } else {
        fs::DirBuilder::new().mode(0o700).create(parent)
    };
    made.map_err(|error| HubError::Directory {
        path: path.to_owned(),
        error,
    })
}

fn remove_stale(path: &Path) -> Result<(), HubError> {
    let Ok(facts) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !facts.file_type().is_socket() {
        return Err(HubError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(HubError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let failed = |error| HubError::Bind {
                path: path.to_owned(),
                error,
            };
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(HubError::Bind {
            path: path.to_owned(),
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: stale sockets go, live ones and other files stay. Method: each in a directory of its own.
    #[tokio::test]
    async fn only_stale_sockets_are_removed() {
        let dir = std::env::temp_dir().join(format!("pageshim-socket-{}", std::process::id()));
        fs::create_dir(&dir).expect("temp dir is writable");
        let path = dir.join("a/b.sock");
        let (first, listener) = Socket::bind(&path).expect("made with its directory");
        let mode = fs::metadata(dir.join("a"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(matches!(Socket::bind(&path), Err(HubError::InUse(_))));
        drop(listener);
        let (second, _listener) = Socket::bind(&path).expect("stale");
        first.unlink();
        assert!(path.exists(), "the second one's file");
        second.unlink();
        assert!(!path.exists());
        fs::write(&path, "x").expect("writable");
        assert!(matches!(Socket::bind(&path), Err(HubError::NotASocket(_))));
        let long = dir.join("x".repeat(120));
        assert!(matches!(Socket::bind(&long), Err(HubError::TooLong(_))));
        let blocked = Socket::bind(&path.join("under/a.sock"));
        assert!(matches!(blocked, Err(HubError::Directory { .. })));
        for missing in [dir.join("b/c/d.sock"), "/pageshim-never/b.sock".into()] {
            let refused = Socket::bind(&missing);
            assert!(matches!(refused, Err(HubError::Directory { .. })));
        }
        assert!(!dir.join("b").exists() && !Path::new("/pageshim-never").exists());
        fs::remove_dir_all(&dir).expect("ours");
    }
}
