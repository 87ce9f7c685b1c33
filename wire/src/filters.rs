//! Filters of system calls (seccomp) a process is under, from its status file: both sides
//! look, and compare with the number the process began under
//! ([`word::FILTERS`](crate::process::word::FILTERS)).

/// No filter, or how many; `None` when the kernel does not count them.
pub fn count(status: &[u8]) -> Option<u64> {
    let value = |name: &[u8]| {
        let mut lines = status.split(|byte| *byte == b'\n');
        let digits = lines.find_map(|line| line.strip_prefix(name))?.trim_ascii();
        core::str::from_utf8(digits).ok()?.parse().ok()
    };
    match value(b"Seccomp:") {
        Some(0) | None => Some(0),
        Some(_) => value(b"Seccomp_filters:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: filters are counted where the kernel does. Method: parts of status files.
    #[test]
    fn filters_are_counted_where_the_kernel_does() {
        let counted = |text: &str| count(text.as_bytes());
        assert_eq!(
            counted("Threads:\t1\nSeccomp:\t0\nSeccomp_filters:\t0\n"),
            Some(0)
        );
        assert_eq!(counted("Seccomp:\t2\nSeccomp_filters:\t3\n"), Some(3));
        assert_eq!(counted("Seccomp:\t2\nSpeculation:\t3\n"), None);
        assert_eq!(counted("Name:\tx\n"), Some(0), "a kernel without filters");
    }
}
