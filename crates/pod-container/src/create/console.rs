//! A pseudo-terminal of the container's own devpts as its stdin, stdout and stderr.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;

use crate::failure::{Failure, OrFail};
use crate::report::Reporter;
use crate::tree::Tree;

/// Makes one, shows it as `/dev/console`, and hands its master side to the shim. `dev` is the root of the `/dev` that was
/// just made, so no path of the image's or a volume's making is involved.
pub(super) fn open(dev: &OwnedFd, reporter: &Reporter) -> Result<OwnedFd, Failure> {
    let what = || "failed to make a terminal".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(dev, "pts/ptmx", flags, Mode::empty()).or_fail(what)?;
    rustix::pty::unlockpt(&master).or_fail(what)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).or_fail(what)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let console = rustix::fs::openat(dev, "console", flags, Mode::from_raw_mode(0o600)).or_fail(what)?;
    Tree::of(terminal.as_fd(), false).and_then(|tree| tree.attach(console)).or_fail(what)?;
    reporter.terminal(&master);
    Ok(terminal)
}
