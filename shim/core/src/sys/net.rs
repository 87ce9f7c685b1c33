//! Descriptors that carry the shared state: memfd, Unix socket.

use super::process::{arg, fd_of};
use super::{EINVAL, Errno, call, close, number};

const F_DUPFD_CLOEXEC: usize = 1030;
const F_ADD_SEALS: usize = 1033;

/// A sealable memfd of `bytes`, sealed against shrinking.
pub fn sealed_memfd(name: &[u8], bytes: u64) -> Result<i32, Errno> {
    const CLOEXEC_AND_SEALING: usize = 3;
    const SHRINK_AND_GROW: usize = 2 | 4;
    if name.last() != Some(&0) {
        return Err(Errno(EINVAL));
    }
    let length = usize::try_from(bytes).map_err(|_| Errno(EINVAL))?;
    let args = [name.as_ptr().addr(), CLOEXEC_AND_SEALING, 0, 0, 0, 0];
    // SAFETY: the name is NUL terminated.
    let fd = unsafe { call(number::MEMFD_CREATE, args) }.map(fd_of)?;
    // SAFETY: plain numbers on our own descriptor.
    let sized = unsafe { call(number::FTRUNCATE, [arg(fd)?, length, 0, 0, 0, 0]) };
    // SAFETY: as above.
    let sealed = sized.and_then(|_| unsafe {
        call(
            number::FCNTL,
            [arg(fd)?, F_ADD_SEALS, SHRINK_AND_GROW, 0, 0, 0],
        )
    });
    match sealed {
        Ok(_) => Ok(fd),
        Err(error) => {
            close(fd);
            Err(error)
        }
    }
}

/// Moves a descriptor to the first free number at or above `lowest` (so that it
/// is out of the way of programs that close or count low numbers); the old one
/// is closed. Keeps the old one when there is no room above.
pub fn move_high(fd: i32, lowest: i32) -> i32 {
    let (Ok(from), Ok(low)) = (arg(fd), arg(lowest)) else {
        return fd;
    };
    // SAFETY: plain numbers.
    match unsafe { call(number::FCNTL, [from, F_DUPFD_CLOEXEC, low, 0, 0, 0]) } {
        Ok(moved) => {
            close(fd);
            fd_of(moved)
        }
        Err(_) => fd,
    }
}

/// What tells one open file from another: device and inode. `None` when closed.
pub fn identity(fd: i32) -> Option<(u64, u64)> {
    let mut stat = [0u64; 18];
    let args = [arg(fd).ok()?, stat.as_mut_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: struct stat has 144 bytes on x86-64, as `stat` has.
    unsafe { call(number::FSTAT, args) }.ok()?;
    Some((stat[0], stat[1]))
}

/// A non-blocking Unix stream socket connected to `path` (no NUL inside).
pub fn connect_unix(path: &[u8]) -> Result<i32, Errno> {
    const UNIX: usize = 1;
    const STREAM_NONBLOCK_CLOEXEC: usize = 1 | 0o4000 | 0o2_000_000;
    let mut address = [0u8; 110];
    let room = address.get_mut(2..2 + path.len()).ok_or(Errno(EINVAL))?;
    if path.len() > 107 || path.is_empty() {
        return Err(Errno(EINVAL));
    }
    room.copy_from_slice(path);
    address[0] = 1;
    // SAFETY: plain numbers.
    let fd =
        unsafe { call(number::SOCKET, [UNIX, STREAM_NONBLOCK_CLOEXEC, 0, 0, 0, 0]) }.map(fd_of)?;
    let args = [
        arg(fd)?,
        address.as_ptr().addr(),
        2 + path.len() + 1,
        0,
        0,
        0,
    ];
    // SAFETY: `address` is a sockaddr_un of the stated length.
    match unsafe { call(number::CONNECT, args) } {
        Ok(_) => Ok(fd),
        Err(error) => {
            close(fd);
            Err(error)
        }
    }
}

/// The process at the other end of a Unix socket, when it connected or listened.
pub fn peer_pid(fd: i32) -> Option<u32> {
    const SOL_SOCKET: usize = 1;
    const SO_PEERCRED: usize = 17;
    let mut credentials = [0u32; 3];
    let mut bytes = 12u32;
    let args = [
        arg(fd).ok()?,
        SOL_SOCKET,
        SO_PEERCRED,
        credentials.as_mut_ptr().addr(),
        (&raw mut bytes).addr(),
        0,
    ];
    // SAFETY: the kernel writes at most 12 bytes of credentials and their length.
    unsafe { call(number::GETSOCKOPT, args) }.ok()?;
    Some(credentials[0]).filter(|pid| *pid != 0)
}

#[repr(C)]
struct Message {
    name: usize,
    name_bytes: usize,
    parts: usize,
    part_count: usize,
    control: usize,
    control_bytes: usize,
    flags: usize,
}

#[repr(C)]
struct PassedFd {
    bytes: usize,
    level: i32,
    kind: i32,
    fd: i32,
    padding: i32,
}

/// Sends up to two parts as one message without blocking, with a descriptor
/// beside it when given. Answers how many bytes went out.
pub fn send(fd: i32, first: &[u8], second: &[u8], passed: Option<i32>) -> Result<usize, Errno> {
    const NOSIGNAL_DONTWAIT: usize = 0x4000 | 0x40;
    let parts = [
        [first.as_ptr().addr(), first.len()],
        [second.as_ptr().addr(), second.len()],
    ];
    let control = PassedFd {
        bytes: 20,
        level: 1,
        kind: 1,
        fd: passed.unwrap_or(-1),
        padding: 0,
    };
    let message = Message {
        name: 0,
        name_bytes: 0,
        parts: parts.as_ptr().addr(),
        part_count: 2,
        control: passed.map_or(0, |_| core::ptr::from_ref(&control).addr()),
        control_bytes: if passed.is_some() { 24 } else { 0 },
        flags: 0,
    };
    let at = core::ptr::from_ref(&message).addr();
    // SAFETY: message, parts and control live through the call and have the kernel's layout.
    unsafe { call(number::SENDMSG, [arg(fd)?, at, NOSIGNAL_DONTWAIT, 0, 0, 0]) }
}

/// Receives what is there without blocking.
pub fn receive(fd: i32, into: &mut [u8]) -> Result<usize, Errno> {
    const DONTWAIT: usize = 0x40;
    let args = [
        arg(fd)?,
        into.as_mut_ptr().addr(),
        into.len(),
        DONTWAIT,
        0,
        0,
    ];
    // SAFETY: the kernel writes at most `into.len()` bytes.
    unsafe { call(number::RECVFROM, args) }
}

/// Waits until `fd` takes more, at most `ms` milliseconds; true when it does.
pub fn wait_writable(fd: i32, ms: u32) -> bool {
    const OUT: u64 = 4;
    poll(fd, OUT, ms) & OUT != 0
}

/// True when the other side of a socket is gone.
pub fn has_hung_up(fd: i32) -> bool {
    const HUP: u64 = 16;
    poll(fd, 0, 0) & HUP != 0
}

/// What happened to `fd` within `ms` milliseconds, of what is asked for and its end.
fn poll(fd: i32, events: u64, ms: u32) -> u64 {
    let Ok(number) = arg(fd) else { return 0 };
    let mut poll = (number as u64 & 0xffff_ffff) | events << 32;
    let at = core::ptr::from_mut(&mut poll).addr();
    // SAFETY: one struct pollfd of eight bytes.
    match unsafe { call(number::POLL, [at, 1, ms as usize, 0, 0, 0]) } {
        Ok(1) => poll >> 48,
        _ => 0,
    }
}
