//! Checks in a state by hand.

use pageshim_wire::check::{SUPPRESSIONS_AT, SUPPRESSIONS_MAX, State, word};

use super::read::read;
use super::*;
use crate::books::fake::State as Fake;

fn some(blocks: u64, bytes: u64) -> Amount {
    Amount { bytes, blocks }
}

// Goal: a result is read whole, one that is being written or makes no sense is not. Method: a header by hand.
#[test]
fn checks_are_read() {
    let mut state = Fake::new();
    let layout = state.layout;
    assert_eq!(read(&state.view(), &layout), None, "none ran");
    let mut set = |index: usize, value: u64| state.put(layout.check() + index as u64 * 8, value);
    for (index, value) in [
        (word::SEQUENCE, 1),
        (word::STATE, State::Done as u64),
        (word::TRIGGER, 1),
        (word::METHOD, 1),
        (word::REASON, 2),
        (word::TICK, 251),
        (word::CLASSES, 7),
        (word::CLASSES + 1, 70),
    ] {
        set(index, value);
    }
    assert_eq!(read(&state.view(), &layout), None, "being written");
    state.put(layout.check(), 2);
    let check = read(&state.view(), &layout).expect("whole");
    assert_eq!(
        (check.trigger.as_str(), check.method.as_str()),
        ("request", "held")
    );
    assert_eq!(check.classes.definite, some(7, 70));
    assert_eq!(check.classes.named("definite"), Some(some(7, 70)));
    assert_eq!(check.classes.named("lost"), None);
    assert!(check.note.expect("why not by fork").contains("refused"));
    state.put(layout.check() + word::METHOD as u64 * 8, u64::MAX);
    state.put(
        layout.check() + word::STATE as u64 * 8,
        State::Failed as u64,
    );
    let failed = read(&state.view(), &layout).expect("whole");
    assert!(failed.trouble.expect("why").contains("refused"));
    let site = layout.check_row(5);
    state.put(site, 2);
    state.put(site + 8, 64);
    let last = Last::read(&state.view(), &layout, 9, None).expect("whole");
    assert_eq!(last.row(5).classes[0], some(2, 64));
    assert_eq!(last.row(u32::MAX), Row::default());
    state.put(site, 3);
    let last = Last::read(&state.view(), &layout, 9, Some(last)).expect("the same");
    assert_eq!(last.row(5).classes[0].blocks, 2, "read once");
    state.put(layout.check(), 3);
    let last = Last::read(&state.view(), &layout, 9, Some(last)).expect("being written");
    assert_eq!(last.row(5).classes[0].blocks, 2, "the one before");
    state.put(layout.check(), 4);
    let last = Last::read(&state.view(), &layout, 9, Some(last)).expect("new");
    assert_eq!(last.row(5).classes[0].blocks, 3);
}

// Goal: a program's own rules are read, however long it says they are. Method: a text by hand.
#[test]
fn own_rules_are_read() {
    let mut state = Fake::new();
    let layout = state.layout;
    assert!(rules(&state.view(), &layout).is_empty());
    let at = layout.check() + SUPPRESSIONS_AT;
    state.put(at, u64::from_le_bytes(*b"leak:a\nl"));
    state.put(at + 8, u64::from_le_bytes(*b"eak:main"));
    for len in [16, u64::MAX] {
        state.put(layout.check() + word::SUPPRESSIONS_BYTES as u64 * 8, len);
        assert!(!rules(&state.view(), &layout).is_empty());
    }
    assert!(layout.check_row(0) >= at + SUPPRESSIONS_MAX);
}
