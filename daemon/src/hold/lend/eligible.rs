//! Whether a process may be held at all: what procfs says of it.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;
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

/// True where the children of a thread would live in another process id namespace than it does. A copy
/// that is the first process of one takes it along when it ends.
pub(super) fn begins_namespace(pid: u32, tid: Pid) -> bool {
    is_another(Path::new(&format!("/proc/{pid}/task/{tid}/ns")))
}

fn is_another(spaces: &Path) -> bool {
    let children = spaces.join("pid_for_children");
    let Ok(own) = fs::read_link(spaces.join("pid")) else {
        return false;
    };
    // Before the first child the link is there and leads nowhere; old kernels have none.
    fs::symlink_metadata(&children).is_ok() && fs::read_link(&children).ok() != Some(own)
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

    // Goal: children in the namespace of their parent are no reason. Method: our own links.
    #[test]
    fn most_children_live_where_their_parents_do() {
        assert!(!is_another(Path::new("/proc/self/ns")));
        assert!(!is_another(Path::new("/nonexistent")));
    }
}
