//! The fast paths of `malloc` and `free`, instruction by instruction.
//!
//! # Design
//! The release shim is disassembled. From an export's entry every way is
//! followed through jumps and both sides of each branch; a way that comes to
//! `ret` without a call and without leaving the function is a fast path. What
//! each costs is held in `tests/golden/fast-paths.txt`: a change for better or
//! worse fails and shows the difference; `PAGESHIM_BLESS=1` accepts it.
//!
//! Counts belong to a compiler: the file names the one it was made with. Under
//! another one paths may be up to a sixth longer, so that a new compiler fails
//! only when it loses something.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use pageshim_tests::places::{root, shim};

const EXPORTS: [&str; 2] = ["malloc", "free"];
/// More ways to the end than this, and it is no fast path.
const PATHS_MAX: usize = 8;

#[derive(Clone, Debug)]
struct Instruction {
    address: u64,
    mnemonic: String,
    operands: String,
}

impl Instruction {
    fn reads_or_writes(&self) -> bool {
        let touches = self.operands.contains('[') || self.operands.contains("fs:");
        touches && !matches!(self.mnemonic.as_str(), "lea" | "nop" | "nopw" | "nopl")
    }

    /// True when the first operand, the one Intel syntax writes to, is memory.
    fn targets_memory(&self) -> bool {
        let first = self.operands.split(',').next().unwrap_or("");
        self.reads_or_writes() && (first.contains('[') || first.contains("fs:"))
    }

    fn only_compares(&self) -> bool {
        matches!(
            self.mnemonic.as_str(),
            "cmp" | "test" | "bt" | "call" | "jmp"
        )
    }

    fn loads(&self) -> bool {
        let plain_store = self.targets_memory() && self.mnemonic.starts_with("mov");
        self.mnemonic == "pop" || (self.reads_or_writes() && !plain_store)
    }

    fn stores(&self) -> bool {
        self.mnemonic == "push" || (self.targets_memory() && !self.only_compares())
    }

    /// A jump to the middle of a function.
    fn is_within(&self) -> bool {
        self.operands.contains("+0x")
    }

    fn is_branch(&self) -> bool {
        self.mnemonic.starts_with('j') && self.mnemonic != "jmp"
    }

    /// Where a direct jump goes.
    fn target(&self) -> Option<u64> {
        let first = self.operands.split_whitespace().next()?;
        u64::from_str_radix(first.trim_start_matches("0x"), 16).ok()
    }

    /// Mnemonic and operands, without addresses that move with every change.
    fn text(&self) -> String {
        let operands = self.operands.split(" #").next().unwrap_or("");
        let mut shown = String::new();
        if self.mnemonic.starts_with('j') {
            shown.push_str("elsewhere");
        } else if operands.contains("rip") {
            let (before, after) = operands.split_once('[').unwrap_or((operands, ""));
            let rest = after.split_once(']').map_or("", |(_, rest)| rest);
            let _ = write!(shown, "{before}[rip+static]{rest}");
        } else {
            shown.push_str(operands);
        }
        format!("{} {shown}", self.mnemonic).trim_end().to_owned()
    }
}

/// All code of the shim: instructions by address, and the next address of each.
struct Code {
    at: HashMap<u64, (Instruction, u64)>,
    symbols: HashMap<String, u64>,
}

fn disassemble() -> Code {
    let output = Command::new("objdump")
        .args(["-d", "-M", "intel", "--no-show-raw-insn", "--wide"])
        .arg(shim())
        .output()
        .expect("objdump (Debian package binutils) can be started");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut list: Vec<Instruction> = Vec::new();
    let mut symbols = HashMap::new();
    for line in text.lines() {
        if let Some((address, name)) = line.strip_suffix(">:").and_then(|l| l.split_once(" <")) {
            let address = u64::from_str_radix(address, 16).expect("a symbol's address");
            symbols.insert(name.to_owned(), address);
        } else if let Some((address, code)) = line.split_once(":\t") {
            let (mnemonic, operands) = code.trim().split_once(' ').unwrap_or((code.trim(), ""));
            list.push(Instruction {
                address: u64::from_str_radix(address.trim(), 16).expect("an address"),
                mnemonic: mnemonic.to_owned(),
                operands: operands.trim().to_owned(),
            });
        }
    }
    let nexts: Vec<u64> = list.iter().skip(1).map(|next| next.address).collect();
    let at = list.into_iter().zip(nexts.into_iter().chain([0]));
    let at = at.map(|(instruction, next)| (instruction.address, (instruction, next)));
    Code {
        at: at.collect(),
        symbols,
    }
}

/// Instructions of an export's stub, its jump included.
const STUB_MAX: usize = 4;

impl Code {
    /// Every way from `address` to a `ret` without a call, shortest first.
    fn fast_paths(&self, address: u64) -> Vec<Vec<Instruction>> {
        let mut found = Vec::new();
        self.follow(address, &mut Vec::new(), &mut found);
        found.sort_by_key(Vec::len);
        found
    }

    fn follow(&self, from: u64, path: &mut Vec<Instruction>, found: &mut Vec<Vec<Instruction>>) {
        let length = path.len();
        let mut address = from;
        // Loops and long ways end here: they are no fast path.
        while path.len() < 200 && found.len() <= PATHS_MAX {
            let Some((instruction, next)) = self.at.get(&address) else {
                break;
            };
            if path.iter().any(|seen| seen.address == address) {
                break;
            }
            path.push(instruction.clone());
            match instruction.mnemonic.as_str() {
                "ret" => {
                    found.push(path.clone());
                    break;
                }
                "call" | "ud2" | "int3" | "hlt" | "notrack" => break,
                // The stub's own jump leads to the function; a later one to the start of
                // another function is a call in tail position: the slow way out.
                "jmp" => match instruction.target() {
                    Some(target) if path.len() <= STUB_MAX || instruction.is_within() => {
                        address = target;
                    }
                    _ => break,
                },
                _ => {
                    let branches = instruction.is_branch() && instruction.is_within();
                    if let Some(target) = instruction.target().filter(|_| branches) {
                        self.follow(target, path, found);
                    }
                    address = *next;
                }
            }
        }
        path.truncate(length);
    }
}

fn count(path: &[Instruction], what: impl Fn(&Instruction) -> bool) -> usize {
    path.iter().filter(|instruction| what(instruction)).count()
}

/// The line that is compared.
fn cost(name: &str, number: usize, path: &[Instruction]) -> String {
    format!(
        "{name} path {number}: {} instructions, {} loads, {} stores, {} branches",
        path.len(),
        count(path, Instruction::loads),
        count(path, Instruction::stores),
        count(path, Instruction::is_branch),
    )
}

fn numbers(line: &str) -> Vec<usize> {
    line.split(": ").nth(1).map_or_else(Vec::new, |counts| {
        let words = counts.split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    })
}

/// The compiler that made the shim, from its own notes.
fn compiler() -> String {
    let bytes = fs::read(shim()).expect("the shim");
    let text = String::from_utf8_lossy(&bytes);
    let start = text
        .find("rustc version ")
        .expect("a rustc note in .comment");
    text[start..]
        .chars()
        .take_while(|c| !c.is_control())
        .collect()
}

/// The cost lines of a golden text, by path.
fn costs(text: &str) -> HashMap<&str, Vec<usize>> {
    let lines = text.lines().filter(|line| line.contains(" path "));
    lines
        .map(|line| (line.split(':').next().unwrap_or(""), numbers(line)))
        .collect()
}

/// Old lines with `-`, new ones with `+`, equal ones as they are.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let mut longest = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i][j] = if old[i] == new[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut shown) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        let both = i < old.len() && j < new.len();
        let (mark, line) = if both && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            (' ', new[j - 1])
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            i += 1;
            ('-', old[i - 1])
        } else {
            j += 1;
            ('+', new[j - 1])
        };
        let _ = writeln!(shown, "{mark} {line}");
    }
    shown
}

/// What the golden file should say of this shim, after the rules that hold for any.
fn describe() -> String {
    let code = disassemble();
    let mut text = format!("{}\n", compiler());
    for name in EXPORTS {
        let entry = code.symbols.get(name);
        let entry = entry.unwrap_or_else(|| panic!("the shim has no {name}"));
        let paths = code.fast_paths(*entry);
        assert!(
            !paths.is_empty(),
            "{name} has no way to its end without a call"
        );
        assert!(
            paths.len() <= PATHS_MAX,
            "{name} has too many ways to its end"
        );
        for (number, path) in paths.iter().enumerate() {
            let _ = writeln!(text, "\n{}", cost(name, number + 1, path));
            for instruction in path {
                let line = instruction.text();
                assert!(
                    !line.starts_with("lock"),
                    "{name}: a lock on the fast path: {line}"
                );
                let waits = instruction.mnemonic == "xchg" && instruction.reads_or_writes();
                assert!(!waits, "{name}: an implied lock on the fast path: {line}");
                assert!(!line.contains("tls_get_addr"), "{name}: {line}");
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}

// Goal: the fast paths cost what they did, take no lock and call nothing.
// Method: count along every call-free way in the release library's code.
#[test]
fn fast_paths_cost_what_they_did() {
    let file = root().join("tests/golden/fast-paths.txt");
    let now = describe();
    if std::env::var_os("PAGESHIM_BLESS").is_some() {
        fs::write(&file, &now).expect("the golden file can be written");
        return;
    }
    let held = fs::read_to_string(&file).unwrap_or_default();
    let same_compiler = held.lines().next() == now.lines().next();
    let (old, new) = (costs(&held), costs(&now));
    let fits = |path: &str, counts: &Vec<usize>| {
        let Some(golden) = old.get(path) else {
            return false;
        };
        if same_compiler {
            return counts == golden;
        }
        let mut sides = counts.iter().zip(golden);
        sides.all(|(count, golden)| *count <= golden + golden.div_ceil(6))
    };
    let kept = old.len() == new.len() && new.iter().all(|(path, counts)| fits(path, counts));
    assert!(
        kept,
        "a fast path of malloc or free has changed:\n{}\n\
         If that is meant (say why in the commit), accept it with\n    \
         PAGESHIM_BLESS=1 cargo test -p pageshim-tests --test golden",
        difference(&held, &now)
    );
}

// Goal: the walk finds branches' both sides, counts loads and stores, and stops at calls.
// Method: a made-up function.
#[test]
fn paths_are_counted_as_they_run() {
    let rows = [
        (1, "mov", "rax,QWORD PTR fs:[rdi]"),
        (2, "test", "rax,rax"),
        (3, "je", "7 <f+0x6>"),
        (4, "inc", "DWORD PTR [rcx+0x10]"),
        (5, "mov", "QWORD PTR [rax],rdx"),
        (6, "ret", ""),
        (7, "call", "9 <g>"),
        (8, "ret", ""),
    ];
    let instruction = |(address, mnemonic, operands): (u64, &str, &str)| Instruction {
        address,
        mnemonic: mnemonic.to_owned(),
        operands: operands.to_owned(),
    };
    let at = rows.map(|row| (row.0, (instruction(row), row.0 + 1)));
    let code = Code {
        at: HashMap::from(at),
        symbols: HashMap::new(),
    };
    let paths = code.fast_paths(1);
    assert_eq!(paths.len(), 1, "{paths:?}");
    let line = cost("f", 1, &paths[0]);
    assert_eq!(
        line,
        "f path 1: 6 instructions, 2 loads, 2 stores, 1 branches"
    );
    assert_eq!(numbers(&line), [6, 2, 2, 1]);
    assert_eq!(difference("a\nb", "a\nc"), "  a\n- b\n+ c\n");
}
