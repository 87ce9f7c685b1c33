//! A report with everything a page must cope with. For tests only.

mod costs;
mod heap;
mod process;
mod report;
mod stack;

pub(crate) use costs::{syscalls, whatif};
pub(crate) use heap::{chart, sizes, waste};
pub(crate) use report::{checks, report};

/// A function name as an attacker would choose it.
pub(crate) const HOSTILE: &str = "evil<script>alert(1)</script>\"'&\u{1b}[31m=cmd";

/// Site with most bytes.
pub(crate) const FIRST_SITE: &str = "a1b2c3d4e5f60718";

/// What `python3` prints of a script that reads `input`.
pub(crate) fn python(script: &str, input: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("read");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "python3 refused\n{input}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
