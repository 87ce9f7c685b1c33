//! What the rules say of a process's last check, and the checks before it.
//!
//! Done once for each check, when somebody looks first: all lost stacks are named for that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::leads::{Seen, resolve};
use crate::books::history::{CHECKS_ENDED, Checks, History, LostSite, SITES_MAX};
use crate::books::leaks::Lead;
use crate::books::report::{Leak, Process, SCHEMA_VERSION};
use crate::books::suppress::{Rules, Verdict, is_lost};
use crate::symbols::Session;
use crate::web::findings;

/// Lost sites whose stacks are held against rules, most bytes first; smaller ones are not
/// suppressed.
const JUDGED_MAX: usize = 20_000;
/// Changes told with a check; all that are kept are in `/api/v1/processes/{id}/checks`.
const CHANGES_MAX: usize = 10;
/// Sites named at once.
const CHUNK: usize = 200;

/// What is kept with a record.
#[derive(Debug, Default)]
pub struct Judged(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    history: History,
    /// The process has ended: fewer checks are kept, also when the last is judged only now.
    ended: bool,
    verdict: Arc<Verdict>,
}

impl Judged {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the newest checks of a process that ended.
    pub fn end(&self) {
        let mut inside = self.lock();
        inside.ended = true;
        inside.history.keep(CHECKS_ENDED);
    }

    /// `/api/v1/processes/{id}/checks`.
    pub fn checks(&self, process: &Process) -> Checks {
        let inside = self.lock();
        Checks {
            schema_version: SCHEMA_VERSION,
            process: process.id.clone(),
            pid: process.pid,
            name: process.name.clone(),
            checks: inside.history.newest_first(),
            since: inside.history.since(),
        }
    }
}

/// Judges the check in `seen` if it is new, and notes there what is suppressed.
pub fn judge(session: &mut Session<'_>, seen: &mut Seen, rules: &Rules) {
    let record = Arc::clone(&seen.record);
    let Some(check) = seen.observed.process.check.clone() else {
        return;
    };
    let mut inside = record.judged.lock();
    if inside.history.number() != check.number {
        let mut rules = rules.clone();
        rules.extend(record.rules());
        let (leaks, total) = lost(session, seen, &rules);
        let verdict = rules.judge(&check, leaks.iter());
        let mut noted = check;
        verdict.note(&mut noted);
        let sites = leaks.iter().map(|leak| site(leak, &verdict)).collect();
        inside.history.note(noted, sites, total);
        if inside.ended {
            inside.history.keep(CHECKS_ENDED);
        }
        inside.verdict = Arc::new(verdict);
    }
    seen.verdict = Arc::clone(&inside.verdict);
    let since = inside.history.since();
    drop(inside);
    if let Some(check) = &mut seen.observed.process.check {
        seen.verdict.note(check);
        check.since = since;
        check
            .since
            .iter_mut()
            .for_each(|all| all.truncate(CHANGES_MAX));
    }
}

/// The lost blocks by site and class, and how many there are: all that rules may match, or
/// without rules those that are kept.
fn lost(session: &mut Session<'_>, seen: &Seen, rules: &Rules) -> (Vec<Leak>, u64) {
    let record = &seen.record;
    let mut leads: Vec<Lead> = record.by_class(record.live(0, usize::MAX));
    leads.retain(|lead| is_lost(lead.class_name()));
    leads.sort_by_key(|lead| std::cmp::Reverse((lead.amount().bytes, lead.amount().blocks)));
    let total = leads.len() as u64;
    leads.truncate(if rules.is_empty() {
        SITES_MAX
    } else {
        JUDGED_MAX
    });
    let name = |chunk| resolve(session, seen, chunk, usize::MAX);
    (leads.chunks(CHUNK).flat_map(name).collect(), total)
}

fn site(leak: &Leak, verdict: &Verdict) -> LostSite {
    let mut leak = leak.clone();
    verdict.mark(&mut leak);
    LostSite {
        function: findings::function(&leak),
        site: leak.site,
        class: leak.class,
        blocks: leak.blocks,
        bytes: leak.bytes,
        suppressed: leak.suppressed,
    }
}
