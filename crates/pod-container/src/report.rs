//! The words between a child that is becoming a container and the shim that waits for it.
//!
//! A close-on-exec `SOCK_SEQPACKET` pair. The process that is to be the program sends `identity UID GID GROUPS` when all is
//! ready, and then is silent: the end of the stream without another packet means that execve(2) succeeded. Which process
//! that was the shim knows from the kernel (`SO_PASSCRED`). Or it sends `failed STAGE TEXT`.
//! A terminal's master side comes as a descriptor with the packet `terminal`.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::failure::{Failure, Stage};
use crate::spec::Identity;

/// Longest packet; a longer message is cut.
pub const LONGEST: usize = 4096;

#[derive(Debug)]
pub(crate) struct Reporter {
    socket: OwnedFd,
}

impl Reporter {
    pub(crate) fn new(socket: OwnedFd) -> Reporter {
        Reporter { socket }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn identity(&self, identity: &Identity) {
        self.send(&format!("identity {}", words(identity)), None);
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        let stage = match failure.stage {
            Stage::Create => "create",
            Stage::Start => "start",
        };
        self.send(&format!("failed {stage} {}", failure.message), None);
    }

    pub(crate) fn terminal(&self, master: &OwnedFd) {
        self.send("terminal", Some(master));
    }

    fn send(&self, text: &str, fd: Option<&OwnedFd>) {
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd.as_fd()]);
        if let Some(fds) = &fds {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        // A shim that is gone has taken this process along, or is about to.
        let _ = rustix::net::sendmsg(
            &self.socket,
            &[IoSlice::new(&text.as_bytes()[..end])],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
    }
}

/// `UID GID GROUP,GROUP…`. An image's `/etc/group` may hold tens of thousands of memberships; the process has them all,
/// but of those told only as many as a line of facts has room for.
fn words(identity: &Identity) -> String {
    const ROOM: usize = 3 * 1024;
    let mut words = format!("{} {} ", identity.uid, identity.gid);
    for (index, group) in identity.groups.iter().enumerate() {
        if words.len() > ROOM {
            break;
        }
        let comma = if index == 0 { "" } else { "," };
        words.push_str(&format!("{comma}{group}"));
    }
    if identity.groups.is_empty() {
        words.push('-');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_words_and_not_too_many() {
        let identity = Identity { uid: 1, gid: 2, groups: vec![2, 3] };
        assert_eq!(words(&identity), "1 2 2,3");
        assert_eq!(words(&Identity::default()), "0 0 -");
        let many = words(&Identity { groups: (1_000_000..1_010_000).collect(), ..identity });
        assert!(many.len() < 3200 && many.rsplit(',').next().is_some_and(|last| last.len() == 7), "{many}");
    }
}
