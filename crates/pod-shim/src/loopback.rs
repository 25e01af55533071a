//! Brings `lo` up: a new network namespace has it down.

use std::os::fd::AsFd as _;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

pub(crate) fn raise() -> Result<(), Errno> {
    // Any socket of the namespace will do.
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    crate::sys::raise_loopback(socket.as_fd())
}
