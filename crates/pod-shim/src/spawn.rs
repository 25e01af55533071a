//! Forking the children that become containers and execs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use logfile::write::Writer;
use pod_container::spec::PidMode;
use pod_container::{Fork, create, exec, fork, membership};
use pod_shim::protocol::TTY;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::UnshareFlags;

use crate::child::{Child, host_number};
use crate::input::Input;
use crate::output::Output;
use crate::pause::Keeper;
use crate::serve::now;

/// Where children are put.
#[derive(Debug)]
pub(crate) struct Spaces {
    pub(crate) pid: PidMode,
    /// What `oom_score_adj` was before the shim protected itself.
    pub(crate) oom_score_adj: i32,
    /// The mount namespace of the host.
    pub(crate) host_mounts: OwnedFd,
    /// The pod's shared PID namespace.
    pub(crate) shared: Option<Keeper>,
}

impl Spaces {
    pub(crate) fn new(pid: PidMode, oom_score_adj: i32, host_mounts: OwnedFd) -> Result<Spaces, Errno> {
        let shared = match pid {
            PidMode::Pod => Some(crate::pause::start()?),
            PidMode::Container | PidMode::Host => None,
        };
        Ok(Spaces { pid, oom_score_adj, host_mounts, shared })
    }

    /// Forks a child that becomes a container, in the PID namespace of the process `host` if there is one.
    pub(crate) fn container(
        &self,
        spec: OwnedFd,
        streams: u64,
        host: Option<i32>,
        log: Writer,
        cgroups: &[PathBuf],
        deadline: u64,
    ) -> Result<(Child, Output, Input), Errno> {
        let (ours, theirs) = report_pair()?;
        let tty = streams & TTY != 0;
        let (input, handed_input) = Input::new(streams)?;
        let (output, handed) = if tty {
            (Output::new(log, None, None), None)
        } else {
            let (stdout, stdout_writer) = output_pipe()?;
            let (stderr, stderr_writer) = output_pipe()?;
            (Output::new(log, Some(stdout), Some(stderr)), Some((stdout_writer, stderr_writer)))
        };
        let host = host.map(Neighbour::new).transpose()?;
        let namespaces = if host.is_some() { UnshareFlags::NEWNS } else { create::namespaces(self.pid) };
        let (forked, born_in_cgroup) = Spaces::fork_into(namespaces, cgroups)?;
        match forked {
            Fork::Parent(pid) => Ok((Child::new(pid, ours, deadline, tty), output, input)),
            Fork::Child => {
                self.die_with_shim();
                let surroundings = create::Surroundings {
                    pid: self.pid,
                    host_mounts: self.host_mounts.as_fd(),
                    oom_score_adj: self.oom_score_adj,
                    born_in_cgroup,
                    shared: match (&self.shared, &host) {
                        (Some(Keeper { process, proc }), _) => Some(create::SharedProcesses {
                            keeper: process.as_fd(),
                            proc: proc.as_fd(),
                            proc_path: "/",
                        }),
                        (None, Some(Neighbour { process, mounts })) => Some(create::SharedProcesses {
                            keeper: process.as_fd(),
                            proc: mounts.as_fd(),
                            proc_path: "/proc",
                        }),
                        (None, None) => None,
                    },
                };
                let handed = create::Handed { spec, report: theirs, input: handed_input, output: handed };
                create::run(handed, surroundings)
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
    ) -> Result<Child, Errno> {
        let (ours, theirs) = report_pair()?;
        let container = open_pidfd(container)?;
        let (forked, born_in_cgroup) = Spaces::fork_into(UnshareFlags::empty(), cgroups)?;
        match forked {
            Fork::Parent(pid) => Ok(Child::new(pid, ours, deadline, false)),
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
                    pid: self.pid,
                })
            }
        }
    }

    /// Also tells whether the child was born in the first of `cgroups`.
    fn fork_into(flags: UnshareFlags, cgroups: &[PathBuf]) -> Result<(Fork, bool), Errno> {
        let birthplace = membership::birthplace(cgroups);
        let forked = fork(flags, birthplace.as_ref().map(OwnedFd::as_fd)).map(|forked| (forked, birthplace.is_some()));
        if forked.is_err() && birthplace.is_some() {
            // An older kernel, or a group that only a member can be moved to: the child will try, and say why not.
            return fork(flags, None).map(|forked| (forked, false));
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

/// A container whose processes another one joins.
struct Neighbour {
    /// A pidfd.
    process: OwnedFd,
    mounts: OwnedFd,
}

impl Neighbour {
    fn new(pid: i32) -> Result<Neighbour, Errno> {
        let process = open_pidfd(pid)?;
        let mounts = mounts_of(&process)?;
        Ok(Neighbour { process, mounts })
    }
}

/// The mount namespace of a process.
pub(crate) fn mounts_of(process: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mut path = b"/proc/".to_vec();
    path.extend_from_slice(&host_number(process)?);
    path.extend_from_slice(b"/ns/mnt");
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the log before anything else: a container whose log cannot be written is not started.
pub(crate) fn open_log(path: &Path, max_size: u64, max_files: u32) -> std::io::Result<Writer> {
    Writer::open(path, max_size, max_files, now())
}

pub(crate) fn open_pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())
}

/// With the kernel's word for who sent what.
fn report_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_passcred(&ours, true)?;
    Ok((ours, theirs))
}

/// Our end does not block, the container's does.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    never_block(&reader);
    Ok((reader, writer))
}

pub(crate) fn never_block(fd: &OwnedFd) {
    let flags = rustix::fs::fcntl_getfl(fd).unwrap_or(rustix::fs::OFlags::empty());
    let _ = rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK);
}
