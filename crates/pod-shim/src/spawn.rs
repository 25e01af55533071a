//! Forking the children that become containers and execs, and hearing how it went.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use logfile::write::Writer;
use pod_container::spec::PidMode;
use pod_container::{Fork, create, exec, fork, membership};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use crate::output::Output;
use crate::serve::now;

/// Where children are put.
#[derive(Debug)]
pub(crate) struct Spaces {
    pub(crate) pid: PidMode,
    /// What `oom_score_adj` was before the shim protected itself.
    pub(crate) oom_score_adj: i32,
    /// The mount namespace of the host.
    pub(crate) host_mounts: OwnedFd,
    /// A pidfd of the shim itself: the way back into its own PID namespace.
    pub(crate) own: OwnedFd,
    /// A pidfd of PID 1 of the pod's shared PID namespace ([`crate::pause`]).
    pub(crate) shared: Option<OwnedFd>,
}

/// A child that is not yet the program it is to be.
#[derive(Debug)]
pub(crate) struct Making {
    report: OwnedFd,
    /// See [`crate::serve::monotonic_ms`].
    pub(crate) deadline: u64,
    identity: Option<Box<[u8]>>,
    failure: Option<Box<[u8]>>,
    terminal: Option<OwnedFd>,
}

/// How the making ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It runs: `PID UID GID GROUPS`.
    Runs(Box<[u8]>),
    /// It will not: `STAGE MESSAGE`.
    Failed(Box<[u8]>),
    /// It went without a word: killed.
    Silent,
}

/// A child on its way, with its output for a container.
pub(crate) struct Spawned {
    pub(crate) pid: i32,
    pub(crate) making: Making,
}

impl Spaces {
    pub(crate) fn new(pid: PidMode, oom_score_adj: i32, host_mounts: OwnedFd) -> Result<Spaces, Errno> {
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let shared = match pid {
            PidMode::Pod => Some(open_pidfd(crate::pause::start()?)?),
            PidMode::Container | PidMode::Host => None,
        };
        Ok(Spaces { pid, oom_score_adj, host_mounts, own, shared })
    }

    /// Forks a child that becomes a container.
    pub(crate) fn container(
        &self,
        spec: OwnedFd,
        tty: bool,
        log: Writer,
        cgroups: &[PathBuf],
        deadline: u64,
    ) -> Result<(Spawned, Output), Errno> {
        let (ours, theirs) = report_pair()?;
        let (output, handed) = if tty {
            (Output::new(log, None, None), None)
        } else {
            let (stdout, stdout_writer) = output_pipe()?;
            let (stderr, stderr_writer) = output_pipe()?;
            (Output::new(log, Some(stdout), Some(stderr)), Some((stdout_writer, stderr_writer)))
        };
        let target = self.shared.as_ref().map(OwnedFd::as_fd);
        let (forked, born_in_cgroup) = self.fork_into(target, create::namespaces(self.pid), cgroups)?;
        match forked {
            Fork::Parent(pid) => Ok((Spawned { pid, making: Making::new(ours, deadline) }, output)),
            Fork::Child => {
                self.die_with_shim();
                let surroundings = create::Surroundings {
                    pid: self.pid,
                    host_mounts: self.host_mounts.as_fd(),
                    oom_score_adj: self.oom_score_adj,
                    born_in_cgroup,
                };
                create::run(create::Handed { spec, report: theirs, output: handed }, surroundings)
            }
        }
    }

    /// Forks a child that joins the container whose first process is `container`.
    pub(crate) fn exec(
        &self,
        container: i32,
        cgroups: &[PathBuf],
        spec: OwnedFd,
        stdio: [OwnedFd; 3],
        deadline: u64,
    ) -> Result<Spawned, Errno> {
        let (ours, theirs) = report_pair()?;
        let container = open_pidfd(container)?;
        let target = (self.pid != PidMode::Host).then_some(container.as_fd());
        let (forked, born_in_cgroup) = self.fork_into(target, UnshareFlags::empty(), cgroups)?;
        match forked {
            Fork::Parent(pid) => Ok(Spawned { pid, making: Making::new(ours, deadline) }),
            Fork::Child => {
                self.die_with_shim();
                exec::run(exec::Handed {
                    spec,
                    report: theirs,
                    stdio,
                    container,
                    cgroups: cgroups.to_vec(),
                    born_in_cgroup,
                    oom_score_adj: self.oom_score_adj,
                    die_with_parent: self.pid == PidMode::Host,
                })
            }
        }
    }

    /// A process cannot change its own PID namespace, only that of its next children. Also tells whether the child was
    /// born in the first of `cgroups`.
    fn fork_into(
        &self,
        target: Option<BorrowedFd<'_>>,
        flags: UnshareFlags,
        cgroups: &[PathBuf],
    ) -> Result<(Fork, bool), Errno> {
        if let Some(target) = target {
            move_into_thread_name_spaces(target, ThreadNameSpaceType::PROCESS_ID)?;
        }
        let birthplace = membership::birthplace(cgroups);
        let mut forked =
            fork(flags, birthplace.as_ref().map(OwnedFd::as_fd)).map(|forked| (forked, birthplace.is_some()));
        if forked.is_err() && birthplace.is_some() {
            // An older kernel, or a group that only a member can be moved to: the child will try, and say why not.
            forked = fork(flags, None).map(|forked| (forked, false));
        }
        if target.is_some() && !matches!(forked, Ok((Fork::Child, _))) {
            // Its own namespace is always open to it (pid_namespaces(7)); were it not, later children would be born in
            // the wrong place, and no shim at all is better.
            if move_into_thread_name_spaces(self.own.as_fd(), ThreadNameSpaceType::PROCESS_ID).is_err() {
                std::process::abort();
            }
        }
        forked
    }

    /// In the child. With a PID namespace the kernel sees to it.
    fn die_with_shim(&self) {
        if self.pid == PidMode::Host {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        }
    }
}

impl Making {
    fn new(report: OwnedFd, deadline: u64) -> Making {
        Making { report, deadline, identity: None, failure: None, terminal: None }
    }

    pub(crate) fn report(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    pub(crate) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Reads all packets there are; the verdict comes with the end of them.
    pub(crate) fn hear(&mut self, buffer: &mut [u8]) -> Option<Verdict> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let mut slices = [std::io::IoSliceMut::new(buffer)];
            let count = match recvmsg(&self.report, &mut slices, &mut ancillary, flags) {
                Ok(message) => message.bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return None,
                Err(_) => 0,
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                    self.terminal = fds.next();
                }
            }
            let packet = &buffer[..count];
            if packet.is_empty() {
                return Some(match (self.failure.take(), self.identity.take()) {
                    (Some(failure), _) => Verdict::Failed(failure),
                    (None, Some(identity)) => Verdict::Runs(identity),
                    (None, None) => Verdict::Silent,
                });
            }
            if let Some(identity) = packet.strip_prefix(b"identity ") {
                self.identity = Some(identity.into());
            } else if let Some(failure) = packet.strip_prefix(b"failed ") {
                self.failure = Some(failure.into());
            }
        }
    }
}

/// Opens the log before anything else: a container whose log cannot be written is not started.
pub(crate) fn open_log(path: &Path, max_size: u64, max_files: u32) -> std::io::Result<Writer> {
    Writer::open(path, max_size, max_files, now())
}

fn open_pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())
}

fn report_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Our end does not block, the container's does.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK)?;
    Ok((reader, writer))
}
