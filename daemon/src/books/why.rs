//! Why a block is alive, as it is told.

use pageshim_wire::check::{CLASS_NAMES, Class};
use serde::{Deserialize, Serialize};

use super::report::Frame;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The block that an address lies in.
    Address(u64),
    /// Blocks of a site, of a class or of any.
    Site(String, Option<Class>),
}

impl Question {
    /// One of an address and a site, as people write them.
    pub fn new(
        address: Option<&str>,
        site: Option<&str>,
        class: Option<&str>,
    ) -> Result<Self, String> {
        let class = match class {
            None | Some("live") => None,
            Some(name) => Some(class_named(name)?),
        };
        match (address, site) {
            (Some(text), None) if class.is_none() => {
                let digits = text.strip_prefix("0x").or(text.strip_prefix("0X"));
                let address = u64::from_str_radix(digits.unwrap_or(text), 16);
                let user = address.ok().filter(|at| (1..1 << 47).contains(at));
                let wrong =
                    || format!("{text} is no address of a program; write it as 0x7f0012345678");
                Ok(Self::Address(user.ok_or_else(wrong)?))
            }
            (Some(_), None) => Err("a class goes with a site: an address has one block".to_owned()),
            (None, Some(site)) => Ok(Self::Site(site.to_owned(), class)),
            _ => {
                Err("name one of address=0x… (of a block) and site=… (an id of /leaks)".to_owned())
            }
        }
    }

    /// Whether this is the answer to it.
    pub fn is_of(&self, why: &Why) -> bool {
        match self {
            Self::Address(address) => why.asked == format!("0x{address:x}"),
            Self::Site(site, class) => {
                let class = class.map(|class| CLASS_NAMES[class as usize]);
                why.asked == *site && why.asked_class.as_deref() == class
            }
        }
    }

    /// An address when it begins as one, else a site.
    pub fn guess(text: &str, class: Option<&str>) -> Result<Self, String> {
        match text.get(..2) {
            Some("0x" | "0X") => Self::new(Some(text), None, class),
            _ => Self::new(None, Some(text), class),
        }
    }
}

fn class_named(name: &str) -> Result<Class, String> {
    let all = [
        Class::Definite,
        Class::Indirect,
        Class::Possible,
        Class::Reachable,
    ];
    let found = all
        .into_iter()
        .find(|class| CLASS_NAMES[*class as usize] == name);
    found.ok_or_else(|| format!("class={name}: choose from {}", CLASS_NAMES.join(", ")))
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// What was asked for: an address, or the id of a site.
    pub asked: String,
    /// `address` or `site`.
    pub asked_kind: String,
    /// Which blocks of the site; null for any.
    pub asked_class: Option<String>,
    /// `reached` (a chain from a root), `lost` (nothing reaches it), `nothing` (no such
    /// live block), or why the search did not end: `memory`, `too_long`, `moved`.
    pub state: String,
    /// Class of the block; null without one.
    pub class: Option<String>,
    /// Number of the check it was found by.
    pub check: u64,
    /// Seconds after the start of the process.
    pub at_seconds: f64,
    /// What it means, a sentence.
    pub answer: String,
    /// What is not known, a sentence; null when there is nothing to say.
    pub caution: Option<String>,
    /// The chain in one line.
    pub chain: String,
    /// Root first, the block itself last.
    pub links: Vec<Link>,
    /// Links that are not listed.
    pub left_out: u64,
    /// After how many links they would come.
    pub left_out_after: u64,
}

/// A root, or a block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// `block`, `global`, `stack`, `register`, `tls`, `mapping`, `runtime` (a block that the loader
    /// keeps) or `unrecorded`.
    pub kind: String,
    /// In words.
    pub text: String,
    /// Of the block, or of the word in a root; empty for a register.
    pub address: String,
    /// Requested bytes of a block.
    pub bytes: Option<u64>,
    /// Where in the block the pointer to the next one lies; null in the last link and in roots.
    pub points_from: Option<u64>,
    /// Where in the block the pointer to it points: 0 is its start.
    pub points_into: Option<u64>,
    /// Id of a block's site.
    pub site: Option<String>,
    /// Who asked for a block; the innermost frames.
    pub stack: Vec<Frame>,
    /// Function that asked for a block.
    pub function: Option<String>,
    /// Name of a variable.
    pub variable: Option<String>,
    /// Bytes from its start.
    pub variable_offset: Option<u64>,
    /// File it belongs to, or that is mapped there.
    pub module: Option<String>,
    /// Id of a thread.
    pub thread: Option<u64>,
    /// Its name; `main` for the first.
    pub thread_name: Option<String>,
    /// Name of a register.
    pub register: Option<String>,
}

/// `/why.json` and `/api/v1/processes/{id}/why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Whys {
    /// As in the report.
    pub schema_version: u32,
    /// Processes with answers, or the one asked for.
    pub processes: Vec<Entry>,
}

/// The last answers of a process, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Id of the process.
    pub process: String,
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// `running`, `exited`, `killed`.
    pub state: String,
    /// The answers.
    pub answers: Vec<Why>,
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: questions are read as people write them, others are told. Method: both kinds, and noise.
    #[test]
    fn questions_are_read() {
        let guess = |text| Question::guess(text, None);
        assert_eq!(guess("0x7f0012"), Ok(Question::Address(0x7f_0012)));
        assert_eq!(guess("ab12"), Ok(Question::Site("ab12".to_owned(), None)));
        let lost = Question::new(None, Some("ab12"), Some("definite"));
        assert_eq!(
            lost,
            Ok(Question::Site("ab12".to_owned(), Some(Class::Definite)))
        );
        let any = Question::new(None, Some("ab12"), Some("live"));
        assert_eq!(any, Ok(Question::Site("ab12".to_owned(), None)));
        for (address, site, class, said) in [
            (None, None, None, "name one of"),
            (Some("0x10"), Some("ab"), None, "name one of"),
            (Some("0x0"), None, None, "no address"),
            (Some("0x"), None, None, "no address"),
            (Some("0xffffffff80000000"), None, None, "no address"),
            (Some("main"), None, None, "no address"),
            (Some("0x10"), None, Some("definite"), "goes with a site"),
            (None, Some("ab"), Some("dead"), "choose from definite"),
        ] {
            let why = Question::new(address, site, class).expect_err("refused");
            assert!(why.contains(said), "{why}");
        }
    }
}
