//! Preflight on small programs made here with the system's compiler.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("pageshim-preflight-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("temp dir");
        Self(dir)
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path
    }

    /// Compiles `source` to `name` with `flags`.
    fn gcc(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let code = self.file(&format!("{name}.c"), source, 0o644);
        let path = self.0.join(name);
        let done = Command::new("gcc")
            .arg(&code)
            .arg("-o")
            .arg(&path)
            .args(flags)
            .output();
        let done = done.expect("gcc is there");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const MAIN: &str = "int main(void) { return 0; }";

fn refusal(path: &Path) -> Refusal {
    check(path.as_os_str()).expect_err("must be refused")
}

// Goal: each kind of program that cannot be preloaded is refused with its reason. Method: build one of each.
#[test]
fn programs_that_cannot_be_preloaded_are_refused() {
    let scratch = Scratch::new("refused");
    let library = scratch.gcc(
        "libasan.so.8",
        "void __asan_dummy(void) {}",
        &["-shared", "-fPIC"],
    );
    let needs = "void __asan_dummy(void); int main(void) { __asan_dummy(); return 0; }";
    for (path, reason) in [
        (
            scratch.gcc("static", MAIN, &["-static"]),
            "statically linked",
        ),
        (
            scratch.gcc("static-pie", MAIN, &["-static-pie"]),
            "statically linked",
        ),
        (
            scratch.gcc(
                "musl",
                MAIN,
                &["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"],
            ),
            "musl",
        ),
        (
            scratch.gcc("odd", MAIN, &["-Wl,--dynamic-linker=/lib/ld-odd.so"]),
            "unknown loader",
        ),
        (
            scratch.gcc("asan", needs, &[library.to_str().expect("plain")]),
            "AddressSanitizer",
        ),
        (
            scratch.gcc(
                "tsan",
                "void __tsan_init(void) {} int main(void) { return 0; }",
                &[],
            ),
            "ThreadSanitizer",
        ),
    ] {
        let refusal = refusal(&path);
        assert_eq!(refusal.code, 125, "{refusal}");
        assert!(refusal.message.contains(reason), "{refusal}");
    }
}

// Goal: plain programs pass; their own malloc is warned of. Method: build both, and a shell.
#[test]
fn programs_that_can_be_preloaded_pass() {
    let scratch = Scratch::new("passed");
    let plain = check(scratch.gcc("plain", MAIN, &["-g"]).as_os_str()).expect("passes");
    assert!(plain.warning.is_none() && plain.elf.symbols && plain.elf.lines);
    assert!(plain.elf.needed.iter().any(|name| name == "libc.so.6"));
    let source = "void *malloc(unsigned long n) { return (void *)n; } int main(void) { return 0; }";
    let own = check(scratch.gcc("own", source, &["-fno-builtin"]).as_os_str()).expect("passes");
    assert!(
        own.warning
            .is_some_and(|warning| warning.contains("invisible"))
    );
    assert_eq!(
        check(OsStr::new("true")).expect("in PATH").path.file_name(),
        Some(OsStr::new("true"))
    );
}

// Goal: another word size is told, not called static. Method: a header of 32 bits, and one of another machine.
#[test]
fn other_machines_are_told() {
    let scratch = Scratch::new("machines");
    let plain = scratch.gcc("plain", MAIN, &[]);
    let whole = fs::read(&plain).expect("built");
    for (at, value, reason) in [(4, 1, "32-bit"), (18, 183, "another processor")] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        fs::write(&plain, bytes).expect("ours");
        let refusal = refusal(&plain);
        assert!(
            refusal.code == 125 && refusal.message.contains(reason),
            "{refusal}"
        );
    }
}

// Goal: scripts are judged by their interpreter. Method: sh, a static interpreter, a missing one, none.
#[test]
fn scripts_are_followed_to_their_interpreter() {
    let scratch = Scratch::new("scripts");
    let good = check(scratch.file("good", "#!/bin/sh -e\n", 0o755).as_os_str()).expect("passes");
    assert_eq!(good.binary, Path::new("/bin/sh"));
    let interpreter = scratch.gcc("interpreter", MAIN, &["-static"]);
    let line = format!("#! {}\n", interpreter.display());
    assert_eq!(refusal(&scratch.file("static", &line, 0o755)).code, 125);
    let missing = refusal(&scratch.file("missing", "#!/no/such\n", 0o755));
    assert!(
        missing.code == 126 && missing.message.contains("bad interpreter"),
        "{missing}"
    );
    let bare = check(scratch.file("bare", "echo hello\n", 0o755).as_os_str()).expect("passes");
    assert!(bare.by_shell);
    assert_eq!(refusal(&scratch.file("noise", "\0\0\0", 0o755)).code, 126);
}

// Goal: 127 and 126 as shells have them. Method: missing, directory, no x bit, PATH with each.
#[test]
fn missing_and_forbidden_are_told_apart() {
    let scratch = Scratch::new("codes");
    assert_eq!(refusal(&scratch.0.join("none")).code, 127);
    assert_eq!(refusal(&scratch.0).code, 126);
    scratch.file("plain", "x", 0o644);
    assert_eq!(refusal(&scratch.0.join("plain")).code, 126);
    let search = |name: &str| {
        find(OsStr::new(name), Some(scratch.0.as_os_str()))
            .expect_err("refused")
            .code
    };
    assert_eq!(
        (search("plain"), search("none"), search("")),
        (126, 127, 127)
    );
}

// Goal: set-uid programs of others are refused, our own are not. Method: mode bits on a file we own.
#[test]
fn set_uid_counts_only_when_it_changes_the_user() {
    let scratch = Scratch::new("setuid");
    let path = scratch.gcc("program", MAIN, &[]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("ours");
    assert!(
        check(path.as_os_str()).is_ok(),
        "owner and user are the same"
    );
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).expect("root may");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("root may");
        assert!(refusal(&path).message.contains("set-uid"));
    }
}
