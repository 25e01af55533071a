//! The words between a child that is becoming a container and the shim that waits for it.
//!
//! A close-on-exec `SOCK_SEQPACKET` pair. The child sends `identity PID UID GID GROUPS` when all is ready, and then is
//! silent: the end of the stream without another packet means that execve(2) succeeded. Or it sends `failed STAGE TEXT`.
//! A terminal's master side comes as a descriptor with the packet `terminal`.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

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

    pub(crate) fn identity(&self, host_pid: u32, identity: &Identity) {
        let groups: Vec<String> = identity.groups.iter().map(u32::to_string).collect();
        let groups = if groups.is_empty() { "-".to_owned() } else { groups.join(",") };
        self.send(&format!("identity {host_pid} {} {} {groups}", identity.uid, identity.gid), None);
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
