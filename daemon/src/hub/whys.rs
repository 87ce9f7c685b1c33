//! Why a block is alive: has a process checked for it, and puts names to what was found.
//!
//! The shim finds addresses (`shim/core/src/leaks/why.rs`). Sites become functions here, words in a
//! module variables, others threads and mappings, by what the kernel says of the process now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use pageshim_wire::check::{CHAIN_MAX, CLASS_NAMES, Chain, ROOT_NAMES, Root, Wanted};
use pageshim_wire::process::word;

use super::checks::{NoCheck, Roots, check_for};
use super::leads::{Seen, resolve};
use super::procfs;
use super::record::Record;
use crate::books::chain::{self, Found, Step};
use crate::books::header::printable;
use crate::books::leaks::Lead;
use crate::books::modules::{Module, Modules};
use crate::books::report::Leak;
use crate::books::sites::SiteSums;
use crate::books::why::{Link, Question, Why};
use crate::symbols::variables::{self, Variable};
use crate::symbols::{Session, storage};
use crate::target::memory::{Memory, Peek};
use crate::web::{findings, why_text};

/// Answers kept with a process.
const KEPT: usize = 8;
/// Frames told of each block's stack.
const FRAMES: usize = 8;
/// In the order of `pageshim_wire::check::saved`.
const REGISTERS: [&str; 15] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// What is kept with a record.
#[derive(Debug, Default)]
pub struct Whys(Mutex<VecDeque<Why>>);

impl Whys {
    /// Keeps an answer; an older one to the same question goes.
    pub fn keep(&self, why: Why) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|old| old.asked != why.asked || old.asked_class != why.asked_class);
        all.push_front(why);
        all.truncate(KEPT);
    }

    /// All that are kept.
    pub fn newest_first(&self) -> Vec<Why> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().cloned().collect()
    }
}

/// Has the process checked, and looks for the chain.
pub fn find(record: &Arc<Record>, question: &Question) -> Result<Found, NoCheck> {
    let failed = |why: &str| NoCheck::Failed(why.to_owned());
    let wanted = match question {
        Question::Address(address) => Wanted::Address(*address),
        Question::Site(id, class) => {
            let state = record.state().ok_or_else(|| {
                failed("it has ended; only what a running process holds can be followed")
            })?;
            let sites = state.header(word::SITE_COUNT);
            let site = chain::site_of(&*state, state.layout(), sites, id);
            let unknown = || {
                NoCheck::NoSite(format!(
                    "there is no site {id}; /leaks and /leaks.json have the ids of sites"
                ))
            };
            Wanted::Site(site.ok_or_else(unknown)?, *class)
        }
    };
    let take = |state: &_| read(state, wanted);
    let found = check_for(record, Roots::Own, Some(wanted), take).map_err(NoCheck::Failed)?;
    found.ok_or_else(|| {
        failed("the check left no chain: another check came between, or its library is of another version")
    })
}

fn read(state: &crate::ingest::SharedState, wanted: Wanted) -> Option<Found> {
    chain::read(state, state.layout(), wanted)
}

/// Puts names to what was found.
pub fn tell(session: &mut Session<'_>, seen: &Seen, question: &Question, found: &Found) -> Why {
    let (asked, class) = match question {
        Question::Address(address) => (format!("0x{address:x}"), None),
        Question::Site(id, class) => (id.clone(), class.map(|class| CLASS_NAMES[class as usize])),
    };
    let address = matches!(question, Question::Address(_));
    let mut why = Why {
        asked,
        asked_kind: if address { "address" } else { "site" }.to_owned(),
        asked_class: class.map(str::to_owned),
        state: state_name(found.state).to_owned(),
        class: found.class.map(str::to_owned),
        check: found.number,
        at_seconds: found.at_ms as f64 / 1000.0,
        links: links(session, seen, &found.links),
        left_out: found.left_out,
        left_out_after: if found.left_out > 0 {
            CHAIN_MAX as u64 / 2
        } else {
            0
        },
        ..Why::default()
    };
    why_text::fill(&mut why);
    why
}

const fn state_name(state: Chain) -> &'static str {
    match state {
        Chain::Reached => "reached",
        Chain::Lost => "lost",
        Chain::None | Chain::Nothing => "nothing",
        Chain::Memory => "memory",
        Chain::TooLong => "too_long",
        Chain::Moved => "moved",
    }
}

fn links(session: &mut Session<'_>, seen: &Seen, steps: &[Step]) -> Vec<Link> {
    let is_block = |step: &&Step| matches!(step.kind, Root::Block | Root::Runtime);
    let lead = |step: &Step| Lead {
        site: step.site,
        sums: SiteSums::default(),
        part: None,
    };
    let leads: Vec<Lead> = steps.iter().filter(is_block).map(lead).collect();
    let mut sites = resolve(session, seen, &leads, FRAMES).into_iter();
    let places = Places {
        seen,
        modules: seen.record.details(&[]).1,
        tick: seen.record.header(word::TICK).unwrap_or(u64::MAX),
    };
    let last = steps.len().saturating_sub(1);
    let told = |(index, step): (usize, &Step)| match is_block(&step) {
        true => block(step, index == last, sites.next().unwrap_or_default()),
        false => places.root(step),
    };
    steps.iter().enumerate().map(told).collect()
}

fn block(step: &Step, is_last: bool, site: Leak) -> Link {
    Link {
        kind: ROOT_NAMES[step.kind as usize].to_owned(),
        address: format!("0x{:x}", step.address),
        bytes: Some(step.bytes),
        points_from: (!is_last).then_some(step.offset),
        points_into: (step.kind == Root::Block).then_some(step.into),
        function: (!site.stack.is_empty()).then(|| findings::function(&site)),
        site: Some(site.site),
        stack: site.stack,
        ..Link::default()
    }
}

/// Where roots are looked up.
struct Places<'a> {
    seen: &'a Seen,
    modules: Modules,
    tick: u64,
}

impl Places<'_> {
    fn root(&self, step: &Step) -> Link {
        let mut link = Link {
            kind: ROOT_NAMES[step.kind as usize].to_owned(),
            address: format!("0x{:x}", step.address),
            ..Link::default()
        };
        if matches!(step.kind, Root::Stack | Root::Register | Root::Tls) && step.bytes != 0 {
            let pid = self.seen.record.peer_pid;
            link.thread = Some(step.bytes);
            // The first thread bears the program's name, which says nothing.
            link.thread_name = match step.bytes == u64::from(pid) {
                true => Some("main".to_owned()),
                false => procfs::thread_name(pid, step.bytes).map(|name| printable(&name)),
            };
        }
        match step.kind {
            Root::Register => {
                link.address.clear();
                let name = usize::try_from(step.address).ok();
                let name = name.and_then(|number| REGISTERS.get(number));
                link.register = name.map(|name| (*name).to_owned());
            }
            Root::Global => self.global(step.address, &mut link),
            Root::Tls => self.of_thread(step, &mut link),
            Root::Mapping => self.mapping(step.address, &mut link),
            _ => {}
        }
        link
    }

    fn global(&self, address: u64, link: &mut Link) {
        let Some(module) = self.modules.find(address, self.tick) else {
            // Memory right behind a module's zeroed data looks like more of it from inside.
            return self.mapping(address, link);
        };
        link.module = Some(module.file.name().to_owned());
        let offset = address.wrapping_sub(module.bias);
        if let Some(found) = variables::global(&module.file, offset) {
            link.variable = Some(found.name);
            link.variable_offset = Some(found.offset);
        }
    }

    fn mapping(&self, address: u64, link: &mut Link) {
        link.kind = ROOT_NAMES[Root::Mapping as usize].to_owned();
        let name = procfs::mapping(self.seen.record.peer_pid, address);
        link.module = name.map(|name| printable(&name));
    }

    fn of_thread(&self, step: &Step, link: &mut Link) {
        let executable = &self.seen.observed.process.executable;
        let module = self.modules.of_path(executable);
        let found = module.and_then(|module| variables::of_thread(&module.file, step.offset));
        let found = found.zip(module).or_else(|| self.of_library(step));
        if let Some((found, module)) = found {
            link.module = Some(module.file.name().to_owned());
            link.variable = Some(found.name);
            link.variable_offset = Some(found.offset);
        }
    }

    fn of_library(&self, step: &Step) -> Option<(Variable, &Module)> {
        let memory = Memory::open(self.seen.record.peer_pid).ok()?;
        let read = |address| {
            let mut bytes = [0; 8];
            let there = memory.peek(address, &mut bytes);
            there.then(|| u64::from_le_bytes(bytes))
        };
        let control = step.address.checked_add(step.offset)?;
        self.modules.loaded().find_map(|module| {
            let start = storage::of_library(&module.file, module.bias, control, read)?;
            let offset = step.address.checked_sub(start)?;
            let found = variables::in_storage(&module.file, offset)?;
            Some((found, module))
        })
    }
}
