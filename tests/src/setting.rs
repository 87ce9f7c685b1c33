//! Settings of the whole system that a case changes for a moment.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A setting with another value until dropped.
///
/// A child puts the old value back when its input ends, so that it comes back even
/// when the case is killed.
#[derive(Debug)]
pub struct Setting {
    keeper: Child,
}

impl Setting {
    /// Writes `value`; `None` when it cannot be read or written, or does not take.
    pub fn change(path: &Path, value: &str) -> Option<Self> {
        let old = chosen(&fs::read_to_string(path).ok()?);
        let script = "trap '' INT TERM HUP; echo set; cat >/dev/null; printf %s \"$1\" >\"$2\"";
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", script, "sh", &old])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut ready = [0; 4];
        let heard = std::io::Read::read_exact(keeper.stdout.as_mut()?, &mut ready);
        let setting = Self { keeper };
        heard.ok()?;
        fs::write(path, value).ok()?;
        let now = fs::read_to_string(path).ok()?;
        (chosen(&now) == value).then_some(setting)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The value of a setting's text: all of it, or the word in brackets.
fn chosen(text: &str) -> String {
    let inside = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text.trim(), |(word, _)| word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Temp;

    // Goal: the old value comes back. Method: a file of our own in a setting's place.
    #[test]
    fn a_setting_comes_back() {
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        let temp = Temp::new();
        let file = temp.file("setting", "0\n");
        let setting = Setting::change(&file, "2").expect("writable");
        assert_eq!(fs::read_to_string(&file).expect("there"), "2");
        drop(setting);
        assert_eq!(fs::read_to_string(&file).expect("there"), "0");
        assert!(Setting::change(&temp.join("none"), "1").is_none());
    }
}
