//! Makes a container: what a forked child of the shim does from its first instruction to execve(2).
//!
//! ```text
//! join cgroups ▶ overlay root ▶ /proc /dev /sys ▶ mounts ▶ hide ▶ pivot ▶ read-only ▶ identity ▶ exec
//! ```
//! The child is already in new mount and PID namespaces and may do as it likes: everything it mounts, opens or allocates
//! is gone or belongs to the container when it ends. Network, IPC and UTS namespaces are the shim's.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use crate::failure::{Failure, OrFail};
use crate::report::Reporter;
use crate::spec::{ContainerSpec, PidMode, ProcessSpec};
use crate::sys::mount::{Attributes, set_attributes};
use crate::{inside, membership, process, sys};

mod console;
mod defaults;
mod hide;
mod mounts;
mod rootfs;

/// What the shim hands to the child that becomes a container.
#[derive(Debug)]
pub struct Handed {
    /// The [`ContainerSpec`] as JSON.
    pub spec: OwnedFd,
    /// See [`crate::report`].
    pub report: OwnedFd,
    /// `None` is the null device, or the terminal.
    pub input: Option<OwnedFd>,
    /// `None` for a terminal, which the child makes itself.
    pub output: Option<(OwnedFd, OwnedFd)>,
}

/// What the child must know of the shim it came from.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    pub pid: PidMode,
    /// The mount namespace the shim left: mounts that propagate back to the host are taken from there.
    pub host_mounts: BorrowedFd<'a>,
    /// What `oom_score_adj` was before the shim protected itself.
    pub oom_score_adj: i32,
    /// Forked into the first of the spec's cgroups ([`crate::membership::birthplace`]).
    pub born_in_cgroup: bool,
    /// With [`PidMode::Pod`], and for one that joins another container's processes.
    pub shared: Option<SharedProcesses<'a>>,
}

/// The PID namespace of a whole pod, or of another container.
#[derive(Debug, Clone, Copy)]
pub struct SharedProcesses<'a> {
    /// A pidfd of its first process.
    pub keeper: BorrowedFd<'a>,
    /// A mount namespace with a procfs of it: one can be mounted only from within, where a container must not meet a
    /// process that still has its privileges.
    pub proc: BorrowedFd<'a>,
    /// Where in there.
    pub proc_path: &'static str,
}

/// The namespaces the child is to be forked with ([`crate::fork`]).
pub fn namespaces(pid: PidMode) -> UnshareFlags {
    match pid {
        PidMode::Container => UnshareFlags::NEWNS | UnshareFlags::NEWPID,
        PidMode::Pod | PidMode::Host => UnshareFlags::NEWNS,
    }
}

/// Becomes the container, or reports why not and ends.
pub fn run(handed: Handed, surroundings: Surroundings<'_>) -> ! {
    let Handed { spec, report, input, output } = handed;
    let reporter = Reporter::new(report);
    let failure = match become_container(spec, input, output, &reporter, surroundings) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    reporter.failed(&failure);
    sys::process::exit(1)
}

fn become_container(
    spec: OwnedFd,
    input: Option<OwnedFd>,
    output: Option<(OwnedFd, OwnedFd)>,
    reporter: &Reporter,
    surroundings: Surroundings<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let pipes = output.iter().flat_map(|(stdout, stderr)| [stdout.as_fd(), stderr.as_fd()]);
    let pipes = pipes.chain(input.iter().map(OwnedFd::as_fd));
    let shared = surroundings.shared.iter().flat_map(|shared| [shared.keeper, shared.proc]);
    let kept = [spec.as_fd(), reporter.socket(), surroundings.host_mounts];
    sys::process::close_all_but(&kept.into_iter().chain(pipes).chain(shared).collect::<Vec<_>>())
        .or_fail(|| "failed to close descriptors".into())?;
    let spec: ContainerSpec = parse(spec)?;
    rustix::process::umask(Mode::empty());
    join(&spec.cgroups, surroundings.born_in_cgroup)?;
    process::leave_keyring()?;
    process::limit(&spec.process, surroundings.oom_score_adj)?;
    let null = null_device()?;

    // The root and everything on it.
    let root = rootfs::mount(&spec.rootfs)?;
    let places = defaults::mount(root.as_fd(), &spec, surroundings.shared)?;
    mounts::mount(root.as_fd(), &spec.mounts, surroundings.host_mounts)?;
    let terminal = if spec.tty { Some(console::open(&places.dev, reporter)?) } else { None };
    hide::mask(root.as_fd(), &spec.masked_paths, &null)?;
    hide::protect(root.as_fd(), &spec.readonly_paths)?;
    let account = process::account(root.as_fd(), &spec.process)?;
    make_working_directory(root.as_fd(), &spec.process, &account)?;

    // In there.
    enter_root(&root)?;
    if spec.rootfs.readonly {
        set_attributes(&root, false, Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY))
            .or_fail(|| "failed to make the root read-only".into())?;
    }

    // Somebody, and something.
    match (&terminal, &output) {
        (Some(terminal), _) => {
            process::place_stdio(terminal, terminal, terminal)?;
        }
        (None, Some((stdout, stderr))) => process::place_stdio(input.as_ref().unwrap_or(&null), stdout, stderr)?,
        (None, None) => return Err(Failure::create("neither a terminal nor pipes were handed over")),
    }
    if let Some(shared) = surroundings.shared {
        move_into_thread_name_spaces(shared.keeper, ThreadNameSpaceType::PROCESS_ID)
            .or_fail(|| "failed to choose the pod's PID namespace".into())?;
    }
    process::Entering {
        spec: &spec.process,
        reporter,
        resolved: account,
        die_with_parent: surroundings.pid == PidMode::Host,
        joins_others: surroundings.shared.is_some(),
        owns_terminal: spec.tty,
    }
    .become_program()
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(spec: OwnedFd) -> Result<T, Failure> {
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(spec), &mut text)
        .or_fail(|| "failed to read the container's spec".into())?;
    serde_json::from_slice(&text).map_err(|error| Failure::create(format!("malformed container spec: {error}")))
}

/// Except where it was born in.
pub(crate) fn join(cgroups: &[impl AsRef<Path>], born_in_first: bool) -> Result<(), Failure> {
    for directory in &cgroups[usize::from(born_in_first).min(cgroups.len())..] {
        let directory = directory.as_ref();
        membership::join(directory).or_fail(|| format!("failed to join cgroup {}", directory.display()))?;
    }
    Ok(())
}

/// The host's, and truly the null device: masking with anything else would show an attacker's file
/// (CVE-2025-31133).
fn null_device() -> Result<OwnedFd, Failure> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .or_fail(|| "failed to open /dev/null".into())?;
    let status = rustix::fs::fstat(&null).or_fail(|| "failed to look at /dev/null".into())?;
    let is_device = rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::CharacterDevice;
    if is_device && status.st_rdev == rustix::fs::makedev(1, 3) {
        Ok(null)
    } else {
        Err(Failure::create("/dev/null of the host is not the null device"))
    }
}

/// Made before the root becomes read-only; owned by the user as containerd makes it.
fn make_working_directory(
    root: BorrowedFd<'_>,
    process: &ProcessSpec,
    account: &process::Account,
) -> Result<(), Failure> {
    if matches!(process.cwd.as_str(), "" | "/") {
        return Ok(());
    }
    if !process.cwd.starts_with('/') {
        return Err(Failure::start(format!("working directory \"{}\" is not an absolute path", process.cwd)));
    }
    match inside::open(root, &process.cwd) {
        Err(rustix::io::Errno::NOENT) => {}
        // Whatever is wrong with it, chdir will say it.
        _ => return Ok(()),
    }
    let mode = Mode::from_raw_mode(0o755);
    let what = || format!("failed to make working directory \"{}\"", process.cwd);
    let made = inside::open_or_make(root, &process.cwd, inside::Make::Directory, mode).or_fail(what)?;
    let owner = rustix::process::Uid::from_raw(account.identity.uid);
    let group = rustix::process::Gid::from_raw(account.identity.gid);
    rustix::fs::chownat(made, c"", Some(owner), Some(group), rustix::fs::AtFlags::EMPTY_PATH).or_fail(what)
}

/// pivot_root(2) with both arguments the same directory stacks the old root on the new one, from where it is let go.
fn enter_root(root: &OwnedFd) -> Result<(), Failure> {
    let what = || "failed to change the root".to_owned();
    rustix::process::fchdir(root).or_fail(what)?;
    rustix::process::pivot_root(".", ".").or_fail(what)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).or_fail(what)?;
    rustix::process::chdir("/").or_fail(what)?;
    Ok(())
}
