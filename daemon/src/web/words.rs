//! Words for parts of a report, shared by the text and the pages.

mod account;
mod check;
mod misuse;
mod process;
mod safe;
mod site;
mod stack;

pub(crate) use account::{SPARE, page_parts, resident, waste_bytes};
pub(crate) use check::{change, class, found};
pub(crate) use misuse::{misuse, misuse_call, misuse_stacks};
pub(crate) use process::{
    about, incomplete_stacks, lost, mode, sampled, signal_name, state, temporary, verified,
};
pub(crate) use safe::{clean, shell_word};
pub(crate) use site::{amount, first_seen, growth, no_sites, process_of, site_amount};
pub(crate) use stack::{full_place, incomplete, place};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: states and places read as said above. Method: the fixture's processes and frames.
    #[test]
    fn states_places_and_classes_read_well() {
        let report = fixture::report();
        assert_eq!(state(&report.processes[0]), "killed by SIGKILL");
        assert_eq!(state(&report.processes[1]), "running");
        assert_eq!(
            place(&report.leaks[0].stack[0]).as_deref(),
            Some("zoo.c:12")
        );
        assert_eq!(full_place(&report.leaks[0].stack[3]), "libc.so.6");
        assert_eq!(class(&report.processes[0], "definite"), Some((4096, 1)));
        assert_eq!(class(&report.processes[1], "definite"), None);
    }

    // Goal: what was seen before an end is not called "ago"; RAM of an ended process is not 0.
    // Method: the fixture's dead and running process.
    #[test]
    fn ended_processes_are_spoken_of_as_ended() {
        let mut report = fixture::report();
        let (dead, zoo) = (&report.processes[0], &report.processes[1]);
        assert_eq!(
            first_seen(&report.leaks[3], Some(dead)),
            "1 min 23 s before the end"
        );
        assert_eq!(first_seen(&report.leaks[0], Some(zoo)), "1 min 23 s ago");
        assert_eq!(resident(zoo), "5.0 MiB now, 5.5 MiB at the highest sample");
        assert_eq!(
            resident(dead),
            "not known: it ended before it could be looked at"
        );
        report.processes[0].pages.resident_peak_bytes = 65_536;
        assert_eq!(
            resident(&report.processes[0]),
            "64.0 KiB at the highest sample, 0 B at the last"
        );
    }
}
