//! Whether a process may be held at all: what procfs says of it.

use std::fs;

use pageshim_wire::filters;

use crate::hold::order::Order;
use crate::target::directory::directory;

/// True when the held process maps the state that the order is about.
pub(super) fn maps_state(order: &Order) -> bool {
    let maps = fs::read_to_string(directory(order.pid).join("maps")).unwrap_or_default();
    maps.lines().any(|line| is_state(line, order.state_inode))
}

fn is_state(line: &str, inode: u64) -> bool {
    let mut fields = line.split_whitespace().skip(4);
    let same = fields
        .next()
        .is_some_and(|field| field.parse() == Ok(inode));
    same && fields.next() == Some("/memfd:pageshim")
}

/// True where a filter of system calls came since the program began, or may have. One it
/// began under is made for programs that fork.
pub(super) fn has_own_filter(order: &Order) -> bool {
    filter_count(order).is_none_or(|now| now > 0 && now + 1 != order.filters)
}

/// How many filters it is under; `None` where the kernel does not count them.
pub(super) fn filter_count(order: &Order) -> Option<u64> {
    let status = fs::read(directory(order.pid).join("status")).unwrap_or_default();
    filters::count(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: only the state itself is taken for it. Method: lines of a maps file.
    #[test]
    fn a_state_is_known_by_its_inode() {
        let line = |inode: &str, name: &str| {
            is_state(
                &format!("7f00-7f10 rw-s 00000000 00:01 {inode} {name}"),
                1234,
            )
        };
        assert!(line(
            "1234",
            "                     /memfd:pageshim (deleted)"
        ));
        assert!(!line("12345", "/memfd:pageshim (deleted)"));
        assert!(!line("1234", "/memfd:other (deleted)"));
        assert!(!line("1234", "/tmp/x /memfd:pageshim"));
        assert!(!is_state("", 0) && !is_state("7f00-7f10 rw-p 0 00:00 0", 0));
    }
}
