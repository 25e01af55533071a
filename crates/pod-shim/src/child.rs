//! A child on its way to become a program, and that program after it.
//!
//! A PID namespace in which others live is entered by one process forking another there (`pod_container::create`, `exec`):
//! the *maker* prepares all and goes, its sibling is the *process*. Elsewhere the two are one. Which process it is the
//! kernel says with the process's first word, in our own numbers, so that nobody can be missed or made up.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys;
use crate::text::{Decimal, parse_number};

#[derive(Debug)]
pub(crate) struct Child {
    /// Until the end of its reports.
    report: Option<OwnedFd>,
    /// See [`crate::serve::monotonic_ms`].
    pub(crate) deadline: u64,
    maker: Option<i32>,
    process: Option<i32>,
    /// The wait status of a maker that has ended.
    made: Option<i32>,
    /// The wait status of the process.
    ended: Option<i32>,
    /// Nobody wants it any more: what is not known yet is killed when it is.
    doomed: bool,
    identity: Option<Box<[u8]>>,
    failure: Option<Box<[u8]>>,
    /// `Some` where a terminal is expected.
    terminal: Option<Option<OwnedFd>>,
}

/// How the making ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It runs: `PID UID GID GROUPS`.
    Runs(Box<[u8]>),
    /// It will not: `STAGE MESSAGE`.
    Failed(Box<[u8]>),
    /// It went without a word, with this wait status.
    Died(i32),
}

impl Child {
    pub(crate) fn new(pid: i32, report: OwnedFd, deadline: u64, tty: bool) -> Child {
        Child {
            report: Some(report),
            deadline,
            maker: Some(pid),
            process: None,
            made: None,
            ended: None,
            doomed: false,
            identity: None,
            failure: None,
            terminal: tty.then_some(None),
        }
    }

    pub(crate) fn report(&self) -> Option<BorrowedFd<'_>> {
        self.report.as_ref().map(OwnedFd::as_fd)
    }

    pub(crate) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.as_mut().and_then(Option::take)
    }

    pub(crate) fn has_pid(&self, pid: i32) -> bool {
        self.maker == Some(pid) || self.process == Some(pid)
    }

    /// The number of the process, as long as it is its own.
    pub(crate) fn process(&self) -> Option<i32> {
        self.process
    }

    /// The wait status of the process, when it has been waited for.
    pub(crate) fn ended(&self) -> Option<i32> {
        self.ended
    }

    /// Everybody has been waited for, and nobody more will come.
    pub(crate) fn is_over(&self) -> bool {
        self.maker.is_none() && self.process.is_none() && self.report.is_none()
    }

    pub(crate) fn kill(&mut self) {
        self.doomed = true;
        for pid in [self.maker, self.process].into_iter().flatten() {
            let _ = sys::kill(pid, libc::SIGKILL);
        }
    }

    /// One of its two has been waited for.
    pub(crate) fn reap(&mut self, pid: i32, status: i32) -> Option<Verdict> {
        if self.process == Some(pid) {
            (self.process, self.ended) = (None, Some(status));
        }
        if self.maker == Some(pid) {
            (self.maker, self.made) = (None, Some(status));
        }
        self.silence()
    }

    /// Reads all packets there are; the verdict comes with the end of them.
    pub(crate) fn hear(&mut self, buffer: &mut [u8]) -> Option<Verdict> {
        while let Some(report) = &self.report {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let mut slices = [std::io::IoSliceMut::new(buffer)];
            let count = match recvmsg(report, &mut slices, &mut ancillary, flags) {
                Ok(message) => message.bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return None,
                Err(_) => 0,
            };
            let mut sender = None;
            for message in ancillary.drain() {
                match message {
                    RecvAncillaryMessage::ScmRights(mut fds) => {
                        if let Some(terminal @ None) = &mut self.terminal {
                            *terminal = fds.next();
                        }
                    }
                    RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                    _ => {}
                }
            }
            let packet = &buffer[..count];
            if packet.is_empty() {
                self.report = None;
            } else if let (Some(words), Some(sender)) = (packet.strip_prefix(b"identity "), sender) {
                self.learn(sender, words);
            } else if let Some(failure) = packet.strip_prefix(b"failed ") {
                self.failure.get_or_insert_with(|| failure.into());
            }
        }
        match (self.failure.take(), self.identity.take()) {
            (Some(failure), _) => Some(Verdict::Failed(failure)),
            (None, Some(identity)) => Some(Verdict::Runs(identity)),
            (None, None) => self.silence(),
        }
    }

    fn learn(&mut self, sender: Pid, words: &[u8]) {
        let pid = sender.as_raw_nonzero().get();
        if self.identity.is_some() {
            return;
        }
        let pidfd = pidfd_open(sender, PidfdFlags::empty());
        let mut identity = pidfd.and_then(|pidfd| host_number(&pidfd)).unwrap_or_else(|_| b"0".to_vec());
        identity.push(b' ');
        identity.extend_from_slice(words);
        self.identity = Some(identity.into());
        if self.maker == Some(pid) {
            self.maker = None;
        }
        self.process = Some(pid);
        if self.doomed {
            self.kill();
        }
    }

    /// No word, and none to come; how it died is known when the maker has been waited for.
    fn silence(&mut self) -> Option<Verdict> {
        if self.report.is_some() || self.process.is_some() || self.ended.is_some() {
            return None;
        }
        if self.maker.is_some() {
            self.kill();
            return None;
        }
        self.made.take().map(Verdict::Died)
    }
}

/// As the host sees it, whose `/proc` ours is (proc_pid_fdinfo(5)). Works until it has been waited for.
pub(crate) fn host_number(pidfd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    use std::os::fd::AsRawFd as _;
    let mut path = b"/proc/self/fdinfo/".to_vec();
    path.extend_from_slice(Decimal::new(pidfd.as_raw_fd().unsigned_abs().into()).as_bytes());
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let info = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    let mut text = [0; 512];
    let count = rustix::io::read(&info, &mut text)?;
    let mut lines = text[..count].split(|byte| *byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(b"Pid:\t").and_then(parse_number));
    number.map(|number| Decimal::new(number).as_bytes().to_vec()).ok_or(Errno::SRCH)
}
