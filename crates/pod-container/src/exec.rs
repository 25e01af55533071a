//! One more process in a container that runs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::failure::{Failure, OrFail};
use crate::report::Reporter;
use crate::spec::ProcessSpec;
use crate::{create, process, sys};

/// What the shim hands to the child. The child was forked into the container's PID namespace: a process cannot move its
/// own self there.
#[derive(Debug)]
pub struct Handed {
    /// The [`ProcessSpec`] as JSON.
    pub spec: OwnedFd,
    /// See [`crate::report`].
    pub report: OwnedFd,
    /// stdin, stdout, stderr.
    pub stdio: [OwnedFd; 3],
    /// A pidfd of the container's first process.
    pub container: OwnedFd,
    /// The container's, to be joined.
    pub cgroups: Vec<PathBuf>,
    /// Forked into the first of them.
    pub born_in_cgroup: bool,
    pub oom_score_adj: i32,
    /// See [`crate::spec::PidMode::Host`].
    pub die_with_parent: bool,
}

/// Becomes the process, or reports why not and ends.
pub fn run(handed: Handed) -> ! {
    let Handed { spec, report, stdio, container, cgroups, born_in_cgroup, oom_score_adj, die_with_parent } = handed;
    let reporter = Reporter::new(report);
    let enter = || -> Result<std::convert::Infallible, Failure> {
        let spec: ProcessSpec = create::parse(spec)?;
        let host_pid = create::host_pid()?;
        rustix::process::setsid().or_fail(|| "failed to make a session".into())?;
        // Before there is anything to see of this process inside.
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        create::join(&cgroups, born_in_cgroup)?;
        process::limit(&spec, oom_score_adj)?;
        let spaces = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::CONTROL_GROUP;
        move_into_thread_name_spaces(container.as_fd(), spaces).map_err(|errno| match errno {
            Errno::SRCH => Failure::create("the container is not running"),
            errno => Failure::create(format!("failed to enter the container: {}", crate::failure::Reason(errno))),
        })?;
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .or_fail(|| "failed to open the container's root".into())?;
        let account = process::account(root.as_fd(), &spec)?;
        let [stdin, stdout, stderr] = &stdio;
        process::place_stdio(stdin, stdout, stderr)?;
        if rustix::termios::isatty(stdin) {
            // Another session's terminal stays what it is.
            let _ = rustix::process::ioctl_tiocsctty(stdin);
        }
        Err(process::Entering { spec: &spec, reporter: &reporter, host_pid, resolved: account, die_with_parent }
            .become_program())
    };
    let failure = match enter() {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    reporter.failed(&failure);
    sys::process::exit(1)
}
