//! Writing to a terminal or a pipe. A reader that went away is not an error.

use std::io::Write;

/// Standard output, for reports and answers. Ends the program quietly when nobody reads.
pub(crate) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        // Whoever closed the pipe has what they wanted (`| head`).
        std::process::exit(0);
    }
}

/// One line of ours on standard error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "pageshim: {line}");
}

/// Text of ours on standard error, as it is.
pub(crate) fn say_text(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// One line of ours about something that went wrong.
pub(crate) fn complain(why: &str) {
    say(why);
}
