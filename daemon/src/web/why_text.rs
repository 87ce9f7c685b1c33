//! Why a block is alive, in words.

use std::fmt::Write;

use crate::books::why::{Entry, Link, Why};
use crate::web::{units, words};

/// What any word that looks like a pointer may be.
const STALE: &str = "A word on a stack or in a register may be left over from a call that has returned; whether the program still uses it is not known";
const CHANCE: &str =
    "Any word there that looks like a pointer counts, whatever the program takes it for";

/// Writes the sentences of an answer.
pub(crate) fn fill(why: &mut Why) {
    for link in &mut why.links {
        link.text = text(link);
    }
    why.answer = answer(why);
    why.caution = caution(why);
    why.chain = chain(why);
}

fn text(link: &Link) -> String {
    match link.kind.as_str() {
        "global" => global(link),
        "stack" => format!("the stack of {}", thread(link)),
        "register" => format!(
            "register {} of {}",
            link.register.as_deref().unwrap_or("?"),
            thread(link)
        ),
        "tls" => of_thread(link),
        "mapping" => match link.module.as_deref() {
            Some(name) if !name.is_empty() => format!("mapping of {name} at {}", link.address),
            _ => format!("memory the program mapped, at {}", link.address),
        },
        "unrecorded" => format!("a block without a record, at {}", link.address),
        "runtime" => format!(
            "{}, which the loader keeps (storage of threads, its lists)",
            block(link)
        ),
        _ => block(link),
    }
}

fn global(link: &Link) -> String {
    let module = link.module.as_deref().unwrap_or("an unknown file");
    match &link.variable {
        Some(name) => format!("global {}{} in {module}", quoted(name), offset(link)),
        None => format!("a global of {module} at {} (no symbol)", link.address),
    }
}

fn of_thread(link: &Link) -> String {
    match &link.variable {
        Some(name) => format!(
            "thread-local {}{} in {} of {}",
            quoted(name),
            offset(link),
            link.module.as_deref().unwrap_or("an unknown file"),
            thread(link)
        ),
        None => format!(
            "thread-local storage of {} at {}",
            thread(link),
            link.address
        ),
    }
}

fn offset(link: &Link) -> String {
    match link.variable_offset {
        None | Some(0) => String::new(),
        Some(bytes) => format!(" + {bytes}"),
    }
}

fn quoted(name: &str) -> String {
    format!("`{name}`")
}

fn thread(link: &Link) -> String {
    let Some(id) = link.thread else {
        return "a thread".to_owned();
    };
    match link.thread_name.as_deref() {
        Some(name) if !name.is_empty() => format!("thread {id} ({name})"),
        _ => format!("thread {id}"),
    }
}

fn block(link: &Link) -> String {
    let name = link.function.as_deref().map(quoted);
    let mut facts = vec![units::bytes(link.bytes.unwrap_or(0))];
    if let Some(into) = link.points_into.filter(|into| *into > 0) {
        facts.push(format!("pointed to at +{into}"));
    }
    if let Some(from) = link.points_from {
        facts.push(format!("+{from}"));
    }
    format!(
        "block of {} ({})",
        name.unwrap_or_else(|| "a stack not known".to_owned()),
        facts.join(", ")
    )
}

fn answer(why: &Why) -> String {
    let what = match why.asked_kind.as_str() {
        "site" => format!("site {}", why.asked),
        _ => why.asked.clone(),
    };
    let class = why.asked_class.as_deref();
    match (why.state.as_str(), why.class.as_deref()) {
        ("reached", Some("possible")) => {
            "Perhaps alive: each chain to it has a pointer into the middle of a block".to_owned()
        }
        ("reached", _) => "Alive: a chain of pointers leads to it".to_owned(),
        ("lost", Some("indirect")) => {
            "Lost: no root reaches it, only the lost block below does; what frees that should free it too".to_owned()
        }
        ("lost", _) => "Lost: no root reaches it, and no other lost block leads to it".to_owned(),
        ("memory", _) => "Not known: there was no memory for the search".to_owned(),
        ("too_long", _) => "Not known: the search took too long".to_owned(),
        ("moved", _) => "Not known: threads that could not be held changed the chain meanwhile; ask again".to_owned(),
        _ if why.asked_kind == "site" => match class {
            Some(class) => format!("Nothing: {what} has no {class} block now"),
            None => format!("Nothing: {what} has no live block now"),
        },
        _ => format!("Nothing: no live block with a record is at {what}; it was freed, or never was one of this heap"),
    }
}

fn caution(why: &Why) -> Option<String> {
    let root = why.links.first()?;
    match root.kind.as_str() {
        "stack" | "register" => Some(STALE.to_owned()),
        "mapping" | "unrecorded" => Some(CHANCE.to_owned()),
        _ => None,
    }
}

fn chain(why: &Why) -> String {
    let part = |step: &Step<'_>| match step {
        Step::Links(link, 1) => link.text.clone(),
        Step::Links(link, times) => format!("{times} times {}", link.text),
        Step::LeftOut(text) => text.clone(),
    };
    let parts: Vec<String> = steps(why).iter().map(part).collect();
    parts.join(" -> ")
}

/// A step of a chain as it is told.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// So many links that read the same; the first of them.
    Links(&'a Link, usize),
    /// Links that are not listed.
    LeftOut(String),
}

/// The chain, blocks of one site that hang on each other told once.
pub(crate) fn steps(why: &Why) -> Vec<Step<'_>> {
    let cut = usize::try_from(why.left_out_after).unwrap_or(0);
    let mut steps = Vec::new();
    for (index, link) in why.links.iter().enumerate() {
        if let Some(text) = left_out(why).filter(|_| index == cut) {
            steps.push(Step::LeftOut(text));
        }
        match steps.last_mut() {
            Some(Step::Links(first, times))
                if first.text == link.text && first.site == link.site =>
            {
                *times += 1;
            }
            _ => steps.push(Step::Links(link, 1)),
        }
    }
    steps
}

/// What stands for links that are not listed.
fn left_out(why: &Why) -> Option<String> {
    let blocks = if why.left_out == 1 { "block" } else { "blocks" };
    (why.left_out > 0).then(|| format!("{} more {blocks}", why.left_out))
}

/// For terminals.
pub(crate) fn report(entry: &Entry, why: &Why) -> String {
    let mut out = String::new();
    let name = words::clean(&entry.name);
    let what = match why.asked_kind.as_str() {
        "site" => "site ",
        _ => "",
    };
    let _ = writeln!(
        out,
        "{name} {}: why is {what}{} alive?",
        entry.pid, why.asked
    );
    let _ = writeln!(out, "{}.", words::clean(&why.answer));
    for (index, step) in steps(why).iter().enumerate() {
        let arrow = if index == 0 { "  " } else { "  -> " };
        match step {
            Step::LeftOut(text) => {
                let _ = writeln!(out, "{arrow}… {text} …");
            }
            Step::Links(link, times) => write_link(&mut out, arrow, link, *times),
        }
    }
    if let Some(caution) = &why.caution {
        let _ = writeln!(out, "{caution}.");
    }
    out
}

fn write_link(out: &mut String, arrow: &str, link: &Link, times: usize) {
    let times = match times {
        1 => String::new(),
        times => format!("{times} times "),
    };
    let _ = writeln!(out, "{arrow}{times}{}", words::clean(&link.text));
    if let (Some(site), Some(frame)) = (&link.site, link.stack.first()) {
        let place = words::full_place(frame);
        let place = words::clean(&place);
        let _ = writeln!(out, "       {} site {site}, {place}", link.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str) -> Link {
        Link {
            kind: kind.to_owned(),
            address: "0x4010".to_owned(),
            ..Link::default()
        }
    }

    fn blocks(function: &str, from: Option<u64>, into: u64) -> Link {
        Link {
            bytes: Some(64),
            function: Some(function.to_owned()),
            points_from: from,
            points_into: Some(into),
            ..of("block")
        }
    }

    // Goal: a chain reads as a sentence, with what is left out of it. Method: a variable and two blocks.
    #[test]
    fn a_chain_is_a_sentence() {
        let variable = Link {
            variable: Some("cache".to_owned()),
            variable_offset: Some(0),
            module: Some("app".to_owned()),
            ..of("global")
        };
        let mut why = Why {
            asked: "0x5000".to_owned(),
            asked_kind: "address".to_owned(),
            state: "reached".to_owned(),
            class: Some("reachable".to_owned()),
            links: vec![
                variable,
                blocks("cache_insert", Some(16), 0),
                blocks("entry_new", None, 8),
            ],
            ..Why::default()
        };
        fill(&mut why);
        assert_eq!(
            why.chain,
            "global `cache` in app -> block of `cache_insert` (64 B, +16) -> block of `entry_new` (64 B, pointed to at +8)"
        );
        assert_eq!(why.caution, None);
        why.links.push(why.links[2].clone());
        why.links.push(why.links[2].clone());
        fill(&mut why);
        assert!(
            why.chain
                .ends_with("-> 3 times block of `entry_new` (64 B, pointed to at +8)")
        );
        why.links.truncate(3);
        why.left_out = 7;
        why.left_out_after = 2;
        fill(&mut why);
        assert!(
            why.chain
                .contains("+16) -> 7 more blocks -> block of `entry_new`"),
            "{}",
            why.chain
        );
        let said = report(&Entry::default(), &why);
        assert!(
            said.contains("Alive") && said.contains("… 7 more blocks …"),
            "{said}"
        );
    }

    // Goal: every kind of root has words, and what is not known is said. Method: one of each.
    #[test]
    fn roots_have_words() {
        let named = |mut link: Link| {
            link.thread = Some(71);
            link.thread_name = Some("worker".to_owned());
            link.register = Some("rbx".to_owned());
            text(&link)
        };
        assert_eq!(named(of("stack")), "the stack of thread 71 (worker)");
        assert_eq!(named(of("register")), "register rbx of thread 71 (worker)");
        assert_eq!(
            named(of("tls")),
            "thread-local storage of thread 71 (worker) at 0x4010"
        );
        assert_eq!(text(&of("stack")), "the stack of a thread");
        assert!(text(&of("global")).contains("no symbol"));
        for kind in ["mapping", "unrecorded"] {
            assert!(text(&of(kind)).contains("0x4010"));
        }
        for (state, said) in [
            ("nothing", "no live block"),
            ("moved", "ask again"),
            ("lost", "Lost"),
        ] {
            let mut why = Why {
                state: state.to_owned(),
                ..Why::default()
            };
            fill(&mut why);
            assert!(why.answer.contains(said), "{}", why.answer);
        }
        let mut stale = Why {
            state: "reached".to_owned(),
            links: vec![of("stack")],
            ..Why::default()
        };
        fill(&mut stale);
        assert!(stale.caution.expect("one").contains("left over"));
    }
}
