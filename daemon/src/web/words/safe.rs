//! Texts of others made safe: for a terminal, for a shell.

use std::borrow::Cow;

/// Text of a hostile program made safe for a terminal: no control, no bidi characters.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let harmful =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(harmful, "\u{fffd}"))
}

/// A word that any shell of Bourne's family takes as it is.
pub(crate) fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+,@%=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fixture;

    // Goal: no escape sequence reaches a terminal. Method: the hostile name.
    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        assert!(!clean(fixture::HOSTILE).contains('\u{1b}'));
        assert!(matches!(clean("plain"), Cow::Borrowed(_)));
    }
}
