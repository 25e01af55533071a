//! A pseudo-terminal for one exec, of the container's own devpts, so that the program finds it by its name.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pty::OpenptFlags;

use crate::failure::{Failure, OrFail};
use crate::inside;

/// Of linux/magic.h.
const DEVPTS: u64 = 0x1cd1;

/// Makes one in the container whose root is `root`, and sends its master side over `socket`.
pub(super) fn open(root: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let what = || "failed to make a terminal".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    // The container may have put anything there: only the multiplexer of a devpts is opened as one.
    let plain = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let pts =
        rustix::fs::openat2(root, "dev/pts", place, Mode::empty(), plain | ResolveFlags::IN_ROOT).or_fail(what)?;
    if inside::magic(&pts).or_fail(what)? != DEVPTS {
        return Err(Failure::create("failed to make a terminal: /dev/pts of the container is no devpts"));
    }
    let master =
        rustix::fs::openat2(&pts, "ptmx", flags, Mode::empty(), plain | ResolveFlags::NO_XDEV).or_fail(what)?;
    rustix::pty::unlockpt(&master).or_fail(what)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).or_fail(what)?;
    send(socket, master.as_fd()).or_fail(what)?;
    Ok(terminal)
}

fn send(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<(), rustix::io::Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [master];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"t")], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}
