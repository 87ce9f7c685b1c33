//! What lost sites are to a tool that reads findings: shared by SARIF and JUnit.

use crate::books::report::{Frame, Leak, Process, Report, State};
use crate::books::suppress::is_lost;
use crate::web::{headline, lost, names, units, words};

/// A class of lost blocks: its name, what it means, in one word how bad it is.
pub(crate) const RULES: [(&str, &str, &str); 3] = [
    (
        "definite",
        "Nothing points to these blocks any more.",
        "error",
    ),
    (
        "indirect",
        "Only lost blocks point to these blocks: free them with the block they hang on.",
        "warning",
    ),
    (
        "possible",
        "Only pointers into the middle of these blocks, or to blocks that such pointers lead to, are left.",
        "warning",
    ),
];

/// The lost sites of a process, suppressed ones among them.
pub(crate) fn lost<'a>(report: &'a Report, process: &'a Process) -> impl Iterator<Item = &'a Leak> {
    let own = move |leak: &&Leak| leak.process == process.id && is_lost(&leak.class);
    report.leaks.iter().filter(own)
}

/// One line: `zoo lost 32 B in 2 blocks of node_new (definite)`, with what they hold.
pub(crate) fn sentence(process: &Process, leak: &Leak) -> String {
    let held = leak.held.filter(|held| held.blocks > 0).map(|held| {
        let (bytes, blocks) = (
            units::bytes(held.bytes),
            units::counted(held.blocks, "block"),
        );
        format!(", which hold {bytes} in {blocks} more")
    });
    format!(
        "{} lost {} in {} of {} ({}){}",
        words::clean(&process.name),
        units::bytes(leak.bytes),
        units::counted(leak.blocks, "block"),
        function(leak),
        leak.class,
        held.unwrap_or_default(),
    )
}

/// The function a person would name.
pub(crate) fn function(leak: &Leak) -> String {
    let name = |frame: &Frame| names::short(&words::clean(&frame.function));
    let headline = headline::of(&leak.stack);
    headline.map_or_else(
        || "a stack not known".to_owned(),
        |headline| name(headline.frame),
    )
}

/// Why nothing can be said of a process; `None` when it was checked.
pub(crate) fn unjudged(process: &Process) -> Option<String> {
    match &process.check {
        None if process.state == State::Killed => {
            Some(format!("it was not checked: {}", lost::killed(process)))
        }
        None => Some(
            "it was not checked at its end (PAGESHIM_CHECK=exit, mode exact, trace or count)"
                .to_owned(),
        ),
        Some(check) => {
            let trouble = check.trouble.as_deref()?;
            Some(format!(
                "its check has no result: {}",
                words::clean(trouble)
            ))
        }
    }
}
