//! The last steps of every process that enters a container: identity, privileges, program.
//!
//! The order is the kernel's demand (capabilities(7), seccomp(2)): what needs a privilege comes before its loss. A filter
//! needs CAP_SYS_ADMIN unless no_new_privs is set, so without it filters are loaded while still root, and with it as
//! the very last thing, where they can bother nobody but the program.
//!
//! A PID namespace in which others already live is entered when nothing is left that they could take: a debugger among them
//! (CAP_SYS_PTRACE) sees a new process at once, and neither credentials nor `PR_SET_DUMPABLE` keep it away. So all is done
//! outside, and a sibling, forked last, is born inside with the final identity, root and descriptors.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::failure::{Failure, OrFail, Reason};
use crate::report::Reporter;
use crate::spec::{Capabilities, Identity, ProcessSpec};
use crate::sys::process::Fork;
use crate::{inside, sys};

mod user;

/// Where programs are looked for when the environment does not say (what Docker sets for an image without `PATH`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process inside its container's namespaces and root, not yet anybody in particular.
pub(crate) struct Entering<'a> {
    pub(crate) spec: &'a ProcessSpec,
    pub(crate) reporter: &'a Reporter,
    pub(crate) resolved: Account,
    /// Also die when the shim does: set where no PID namespace does it.
    pub(crate) die_with_parent: bool,
    /// The PID namespace for children is another one, with others in it: be born there.
    pub(crate) joins_others: bool,
    /// Standard input is a terminal that must become the controlling one; without this it does if it can.
    pub(crate) owns_terminal: bool,
}

/// Who it will be.
pub(crate) struct Account {
    pub(crate) identity: Identity,
    home: String,
}

/// Takes the engine's session keyring away.
pub(crate) fn leave_keyring() -> Result<(), Failure> {
    match sys::process::leave_keyring() {
        // A kernel, or a sandbox around us, without keys has nothing to leave.
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).or_fail(|| "failed to leave the engine's keyring".into()),
    }
}

/// RLIMIT_NPROC and RLIMIT_NOFILE of getrlimit(2).
const PROCESSES: u32 = 6;
const OPEN_FILES: u32 = 7;
/// systemd's `DefaultLimitNOFILE`, which containerd has had since its unit sets none (1.7): enough for select(2) and no
/// more at first, and programs that know what they do may raise it.
const DEFAULT_OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Applies to the process wherever it is: resource limits and the kernel's preference among victims. Where the spec says
/// nothing, the number of processes is the cgroup's business and open files are a service's, whatever shell the engine
/// was started from; all other limits are the engine's.
pub(crate) fn limit(spec: &ProcessSpec, inherited_oom_score_adj: i32) -> Result<(), Failure> {
    // Raising takes CAP_SYS_RESOURCE; without, what the engine has is the most.
    let _ = sys::process::set_limit(PROCESSES, u64::MAX, u64::MAX);
    let (soft, hard) = DEFAULT_OPEN_FILES;
    if sys::process::set_limit(OPEN_FILES, soft, hard).is_err() {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(hard).min(hard);
        let _ = sys::process::set_limit(OPEN_FILES, soft.min(most), most);
    }
    for limit in &spec.rlimits {
        sys::process::set_limit(limit.resource, limit.soft, limit.hard)
            .or_fail(|| format!("failed to set rlimit {} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    let score = spec.oom_score_adj.unwrap_or(inherited_oom_score_adj);
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
        .or_fail(|| format!("failed to set oom_score_adj to {score}"))
}

/// Looks up who the spec means, in the container's files below `root`.
pub(crate) fn account(root: BorrowedFd<'_>, spec: &ProcessSpec) -> Result<Account, Failure> {
    let accounts = user::Accounts { passwd: read(root, "/etc/passwd")?, group: read(root, "/etc/group")? };
    let user::Resolved { identity, home } = accounts.resolve(&spec.user).map_err(Failure::create)?;
    Ok(Account { identity, home })
}

/// A missing file is an empty one: distroless images have none.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, Failure> {
    /// Nobody's account file is larger; a device or an endless file must not fill the memory.
    const LARGEST: u64 = 16 << 20;
    match inside::open_file(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(String::new()),
        Err(errno) => Err(Failure::create(format!("failed to read {path}: {}", Reason(errno)))),
        Ok(fd) if inside::kind(&fd).is_ok_and(FileType::is_file) => {
            let mut bytes = Vec::new();
            let mut file = std::io::Read::take(std::fs::File::from(fd), LARGEST);
            std::io::Read::read_to_end(&mut file, &mut bytes).or_fail(|| format!("failed to read {path}"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Ok(_) => Err(Failure::create(format!("failed to read {path}: not a regular file"))),
    }
}

impl Entering<'_> {
    /// Becomes the program, or reports why not and ends.
    pub(crate) fn become_program(self) -> ! {
        let failure = match self.try_become_program() {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        self.reporter.failed(&failure);
        sys::process::exit(1)
    }

    fn try_become_program(&self) -> Result<std::convert::Infallible, Failure> {
        let Entering { spec, reporter, ref resolved, joins_others, .. } = *self;
        let identity = &resolved.identity;
        let arguments = c_strings(spec.args.iter().map(String::as_bytes))?;
        let environment = environment(spec, &resolved.home)?;
        own_stdio(identity);
        // From here on until execve nobody in the container may look into this process or at its executable
        // (CVE-2019-5736): it still is a program of the host.
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        sys::process::reset_signals();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if !joins_others {
            self.lead_session()?;
        }
        sys::process::close_all_but(&[reporter.socket()]).or_fail(|| "failed to close descriptors".into())?;

        sys::process::limit_bounding_set(spec.capabilities.bounding)
            .or_fail(|| "failed to drop capabilities from the bounding set".into())?;
        if !spec.no_new_privileges {
            load_filters(spec)?;
        }
        become_user(identity, spec.capabilities)?;
        if self.die_with_parent {
            // After the change of user, which clears it (prctl(2)).
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        }
        if spec.no_new_privileges {
            rustix::thread::set_no_new_privs(true).or_fail(|| "failed to set no_new_privs".into())?;
        }
        enter_working_directory(&spec.cwd)?;
        let program = find_program(spec)?;

        if joins_others {
            match sys::process::fork_sibling() {
                Ok(Fork::Child) => self.lead_session()?,
                Ok(Fork::Parent(_)) => sys::process::exit(0),
                // What a namespace says whose first process has died.
                Err(Errno::NOMEM) => return Err(Failure::create("the container is not running")),
                Err(errno) => return Err(errno).or_fail(|| "failed to fork into the PID namespace".into()),
            }
        }
        reporter.identity(identity);
        if spec.no_new_privileges {
            load_filters(spec)?;
        }
        let errno = sys::process::execute(&program, &arguments, &environment);
        Err(Failure::start(format!("exec {}: {}", program.to_string_lossy(), Reason(errno))))
    }

    fn lead_session(&self) -> Result<(), Failure> {
        let led = rustix::process::setsid().map(drop);
        let stdin = std::io::stdin();
        let terminal = rustix::termios::isatty(&stdin).then(|| rustix::process::ioctl_tiocsctty(&stdin));
        match terminal {
            _ if !self.owns_terminal => Ok(()),
            // Another session's terminal, given for an exec, stays what it is.
            terminal => led
                .and(terminal.unwrap_or(Err(Errno::NOTTY)))
                .or_fail(|| "failed to make the terminal the controlling one".into()),
        }
    }
}

/// Not through a link to a descriptor, which may lead anywhere.
fn enter_working_directory(path: &str) -> Result<(), Failure> {
    let path = if path.is_empty() { "/" } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .and_then(rustix::process::fchdir)
        .map_err(|errno| Failure::start(format!("failed to change to working directory \"{path}\": {}", Reason(errno))))
}

fn load_filters(spec: &ProcessSpec) -> Result<(), Failure> {
    spec.seccomp
        .iter()
        .try_for_each(|program| sys::process::load_filter(program).or_fail(|| "failed to load seccomp filter".into()))
}

/// Pipes and terminals belong to whom they serve, so that the program can open `/dev/stdout` again.
fn own_stdio(identity: &Identity) {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let kind = inside::kind(fd);
        let terminal = rustix::termios::isatty(fd);
        if terminal || kind.is_ok_and(|kind| matches!(kind, FileType::Fifo | FileType::Socket)) {
            // Someone else's pipe (an exec's) may refuse; the descriptor itself still works.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(identity.uid)), None);
        }
    }
}

fn become_user(identity: &Identity, capabilities: Capabilities) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups).or_fail(|| format!("failed to set groups {:?}", identity.groups))?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).or_fail(|| format!("failed to become group {}", identity.gid))?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).or_fail(|| format!("failed to become user {}", identity.uid))?;
    // Leaving root has taken a non-root process's sets; root gives its surplus away.
    let kept = if identity.uid == 0 { capabilities.permitted & capabilities.bounding } else { 0 };
    let mine = rustix::thread::capabilities(None).or_fail(|| "failed to read capabilities".into())?;
    let kept = CapabilitySet::from_bits_retain(kept) & mine.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).or_fail(|| "failed to set capabilities".into())?;
    // Inherited from whoever started the engine; without inheritable ones the kernel has cleared it, but old ones have
    // no such call.
    let _ = rustix::thread::clear_ambient_capability_set();
    Ok(())
}

fn environment(spec: &ProcessSpec, home: &str) -> Result<Vec<CString>, Failure> {
    let mut pairs: Vec<Vec<u8>> = spec.env.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
    if !spec.env.iter().any(|(name, value)| name == "HOME" && !value.is_empty()) {
        pairs.retain(|pair| pair != b"HOME=");
        pairs.push(format!("HOME={home}").into_bytes());
    }
    c_strings(pairs.iter().map(Vec::as_slice))
}

fn c_strings<'a>(strings: impl Iterator<Item = &'a [u8]>) -> Result<Vec<CString>, Failure> {
    strings
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::start("an argument or environment variable contains a NUL byte"))
}

/// The words are Go's `exec.LookPath` as runc shows them.
fn find_program(spec: &ProcessSpec) -> Result<CString, Failure> {
    let name = spec.args.first().map(String::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(Failure::start("no command specified"));
    }
    let found = if name.contains('/') {
        executable(name)
            .map(|()| name.to_owned())
            .map_err(|errno| match errno {
                Errno::NOENT | Errno::NOTDIR => format!("exec: \"{name}\": stat {name}: {}", Reason(errno)),
                errno => format!("exec: \"{name}\": {}", Reason(errno)),
            })
            .map_err(Failure::start)?
    } else {
        let path = spec.env.iter().rev().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
        path.split(':')
            .map(|directory| if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") })
            .find(|candidate| executable(candidate).is_ok())
            .ok_or_else(|| Failure::start(format!("exec: \"{name}\": executable file not found in $PATH")))?
    };
    CString::new(found).map_err(|_| Failure::start("the command contains a NUL byte"))
}

fn executable(path: &str) -> Result<(), Errno> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if inside::kind(&fd)? == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Makes descriptors 0, 1 and 2 of what the shim gave.
pub(crate) fn place_stdio(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> Result<(), Failure> {
    for (number, fd) in [(0, stdin.as_fd()), (1, stdout.as_fd()), (2, stderr.as_fd())] {
        sys::process::place(fd, number).or_fail(|| format!("failed to set up descriptor {number}"))?;
    }
    Ok(())
}
