//! One more process in a container that runs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::failure::{Failure, OrFail};
use crate::report::Reporter;
use crate::spec::{ExecSpec, PidMode};
use crate::{create, process, sys};

mod terminal;

/// What the shim hands to the child.
#[derive(Debug)]
pub struct Handed {
    /// The [`ExecSpec`] as JSON.
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
    /// With [`PidMode::Host`] there is no PID namespace to be entered.
    pub pid: PidMode,
}

/// Becomes the process, or reports why not and ends.
pub fn run(handed: Handed) -> ! {
    let Handed { spec, report, stdio, container, cgroups, born_in_cgroup, oom_score_adj, pid } = handed;
    let reporter = Reporter::new(report);
    let enter = || -> Result<std::convert::Infallible, Failure> {
        let [stdin, stdout, stderr] = &stdio;
        let kept = [&spec, &container, stdin, stdout, stderr].map(OwnedFd::as_fd);
        sys::process::close_all_but(&[&kept[..], &[reporter.socket()]].concat())
            .or_fail(|| "failed to close descriptors".into())?;
        let ExecSpec { process: spec, terminal } = create::parse(spec)?;
        create::join(&cgroups, born_in_cgroup)?;
        process::leave_keyring()?;
        process::limit(&spec, oom_score_adj)?;
        let joins_others = pid != PidMode::Host;
        let mut spaces = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::CONTROL_GROUP;
        if joins_others {
            // For the sibling that is to be the program; this process stays where nobody of the container sees it.
            spaces |= ThreadNameSpaceType::PROCESS_ID;
        }
        move_into_thread_name_spaces(container.as_fd(), spaces).map_err(|errno| match errno {
            Errno::SRCH => Failure::create("the container is not running"),
            errno => Failure::create(format!("failed to enter the container: {}", crate::failure::Reason(errno))),
        })?;
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .or_fail(|| "failed to open the container's root".into())?;
        let account = process::account(root.as_fd(), &spec)?;
        if terminal {
            let terminal = terminal::open(root.as_fd(), stdin.as_fd())?;
            process::place_stdio(&terminal, &terminal, &terminal)?;
        } else {
            process::place_stdio(stdin, stdout, stderr)?;
        }
        process::Entering {
            spec: &spec,
            reporter: &reporter,
            resolved: account,
            die_with_parent: !joins_others,
            joins_others,
            owns_terminal: terminal,
        }
        .become_program()
    };
    let failure = match enter() {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    reporter.failed(&failure);
    sys::process::exit(1)
}
