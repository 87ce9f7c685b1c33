//! Programs a test starts: finding and ending them, their files, waiting for what they say.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pageshim_tests::Patience;

/// How long a condition may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` until it answers, at most for `limit`; its last error is the message.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    let mut patience = Patience::new(limit);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(error) if patience.is_over() => {
                panic!("{what}: not within {} s: {error}", limit.as_secs())
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The program called `name` on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// `name` of the Debian package prometheus; says what a test leaves out without it.
pub(crate) fn tool(name: &str, left_out: &str) -> Option<PathBuf> {
    let found = on_path(name);
    if found.is_none() {
        eprintln!("{name} is not on PATH: {left_out} not checked (apt-get install prometheus)");
    }
    found
}

/// A directory of its own for one test; gone afterwards.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pageshim-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn create(&self, name: &str) -> Stdio {
        File::create(self.file(name))
            .expect("the scratch directory is writable")
            .into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that ends with the test, and where it writes its errors.
pub(crate) struct Kept {
    pub(crate) child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Kept {
    pub(crate) fn start(name: &'static str, scratch: &Scratch, command: &mut Command) -> Self {
        let log = format!("{name}.log");
        let child = command
            .stdin(Stdio::null())
            .stderr(scratch.create(&log))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            child,
            name,
            log: scratch.file(&log),
        }
    }

    /// Panics with the end of its log when it has ended.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be asked") {
            panic!("{} ended early, {status}:\n{}", self.name, self.log_end());
        }
    }

    pub(crate) fn log_end(&self) -> String {
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// GET over loopback: the body of a 200, else what came instead.
pub(crate) fn get(address: &str, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address}{path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        return Ok(body.to_string());
    }
    Err(format!(
        "{}: {body}",
        head.lines().next().unwrap_or("no answer")
    ))
}
