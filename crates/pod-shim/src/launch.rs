//! From a spec to a running shim: the two short-lived processes before it.
//!
//! What fails is told in one line on standard error, and nothing stays behind: namespaces and mounts end with the process
//! that made them, and the few files are removed.

use std::ffi::CString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use pod_container::spec::{PidMode, SandboxSpec, Tmpfs};
use pod_container::{Fork, exit, fork, membership};
use pod_shim::protocol::{FACTS, PID_FILE, SOCKET};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use crate::{loopback, serve, sys};

/// What the kernel is told to spare the shim from; the sandbox's value in Kubernetes.
const OOM_SCORE_ADJ: &str = "-998";

pub(crate) fn usage() -> ExitCode {
    let _ = writeln!(std::io::stderr(), "usage: outrigger-shim DIR < SANDBOX.json");
    ExitCode::from(2)
}

/// The first process.
pub(crate) fn run(directory: &Path) -> ExitCode {
    let outcome = launch(directory);
    match outcome {
        Ok(ready) => {
            let _ = writeln!(std::io::stdout(), "{}", ready.trim());
            ExitCode::SUCCESS
        }
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn launch(directory: &Path) -> Result<String, String> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(|error| format!("failed to read the sandbox's spec: {error}"))?;
    let spec: SandboxSpec =
        serde_json::from_slice(&text).map_err(|error| format!("malformed sandbox spec: {error}"))?;
    if spec.user_namespace.is_some() {
        return Err("user namespaces (hostUsers: false) are not supported yet".into());
    }
    let (mut reader, writer) = std::io::pipe().map_err(|error| format!("failed to make a pipe: {error}"))?;
    let host_mounts = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| format!("failed to open the mount namespace: {errno}"))?;
    // Here, because a mount can be copied only by who shares its mount namespace.
    let program = read_only_program().map_err(|errno| format!("failed to open the shim's own program: {errno}"))?;
    let child = match fork(namespaces(&spec), None).map_err(|errno| format!("failed to make namespaces: {errno}"))? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop(reader);
            let writer = OwnedFd::from(writer);
            let message = become_shim(directory, &spec, &host_mounts, &program, &writer);
            remove_files(directory);
            let _ = rustix::io::write(&writer, message.as_bytes());
            exit(1);
        }
    };
    drop(writer);
    let mut said = String::new();
    let read = reader.read_to_string(&mut said);
    if read.is_ok() && said.starts_with("ready ") {
        return Ok(said);
    }
    // Whatever it is doing, it shall not outlive this report.
    let _ = sys::kill(child, libc::SIGKILL);
    sys::wait_for(child);
    remove_files(directory);
    Err(if said.is_empty() { "the shim died while it was made".into() } else { said })
}

fn namespaces(spec: &SandboxSpec) -> UnshareFlags {
    let mut flags = UnshareFlags::NEWNS;
    for (wanted, flag) in [
        (spec.pid != PidMode::Host, UnshareFlags::NEWPID),
        (spec.new_network, UnshareFlags::NEWNET),
        (spec.new_ipc, UnshareFlags::NEWIPC),
        (spec.hostname.is_some(), UnshareFlags::NEWUTS),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    flags
}

fn remove_files(directory: &Path) {
    for name in [SOCKET, PID_FILE] {
        let _ = fs::remove_file(directory.join(name));
    }
}

/// The second process, inside the new namespaces. Returns only what went wrong.
fn become_shim(
    directory: &Path,
    spec: &SandboxSpec,
    host_mounts: &OwnedFd,
    program: &OwnedFd,
    status: &OwnedFd,
) -> String {
    match try_become_shim(directory, spec, host_mounts, program, status) {
        Ok(never) => match never {},
        Err(message) => message,
    }
}

fn try_become_shim(
    directory: &Path,
    spec: &SandboxSpec,
    host_mounts: &OwnedFd,
    program: &OwnedFd,
    status: &OwnedFd,
) -> Result<std::convert::Infallible, String> {
    let because = |what: &str| {
        let what = what.to_owned();
        move |errno: Errno| format!("{what}: {errno}")
    };
    rustix::process::setsid().map_err(because("failed to make a session"))?;
    sys::leave_keyring();
    // Each container and exec takes a few descriptors here; containers get limits of their own.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: files.maximum, maximum: files.maximum },
    );
    for cgroup in &spec.cgroups {
        membership::join(cgroup).map_err(|errno| format!("failed to join cgroup {}: {errno}", cgroup.display()))?;
    }
    // Mounts of the host still arrive here (mountPropagation: HostToContainer); none of ours arrive there.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(because("failed to detach from the host's mounts"))?;
    if let Some(hostname) = &spec.hostname {
        rustix::system::sethostname(hostname.as_bytes()).map_err(because("failed to set the hostname"))?;
    }
    if spec.new_network {
        loopback::raise().map_err(because("failed to bring lo up"))?;
    }
    for (name, value) in &spec.sysctls {
        write_sysctl(name, value)?;
    }
    for tmpfs in &spec.tmpfs {
        mount_tmpfs(tmpfs)?;
    }

    // The shim's files. Facts of an earlier shim here are kept: attempts are never numbered twice.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| format!("failed to make {}: {error}", directory.display()))?;
    let facts = open_facts(&directory.join(FACTS))
        .map_err(|error| format!("failed to open the facts in {}: {error}", directory.display()))?;
    let home = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(because("failed to open the shim's directory"))?;
    // An address has room for 107 bytes, and a pod's directory may be longer: so from within.
    rustix::process::fchdir(&home).map_err(because("failed to enter the shim's directory"))?;
    let socket = listen().map_err(because("failed to listen on the shim's socket"))?;
    rustix::process::chdir("/").map_err(because("failed to leave the shim's directory"))?;

    let before = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    // Without CAP_SYS_RESOURCE the shim is as killable as the engine that started it.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(because("failed to open /dev/null"))?;
    let settings = serve::Settings { pid: spec.pid, oom_score_adj: before.trim().parse().unwrap_or(0) };
    let arguments = [c"outrigger-shim".to_owned(), c_string(serve::WORD)?, c_string(&settings.to_text())?];
    serve::hand_over(
        &null,
        serve::Inherited {
            socket: socket.as_fd(),
            facts: facts.as_fd(),
            home: home.as_fd(),
            host_mounts: host_mounts.as_fd(),
            status: status.as_fd(),
        },
        program.as_fd(),
        &arguments,
    )
    .map_err(because("failed to execute the shim's own program"))
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|error| error.to_string())
}

/// This binary, through a mount that nobody can write through.
fn read_only_program() -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = rustix::mount::open_tree(rustix::fs::CWD, "/proc/self/exe", flags)?;
    sys::make_read_only(program.as_fd())?;
    Ok(program)
}

/// Network and IPC sysctls resolve by who writes, so the host's `/proc` is good for them.
fn write_sysctl(name: &str, value: &str) -> Result<(), String> {
    let relative = sysctl_path(name).ok_or_else(|| format!("malformed sysctl name \"{name}\""))?;
    fs::write(Path::new("/proc/sys").join(relative), value)
        .map_err(|error| format!("failed to set sysctl {name} to \"{value}\": {error}"))
}

/// Dots separate unless the name has slashes: then they separate, and dots belong to interface names (sysctl(8)).
fn sysctl_path(name: &str) -> Option<String> {
    let path = match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'.' => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    };
    let sane = path.split('/').all(|component| !component.is_empty() && component != "." && component != "..");
    sane.then_some(path)
}

fn mount_tmpfs(tmpfs: &Tmpfs) -> Result<(), String> {
    let shown = tmpfs.path.display();
    fs::create_dir_all(&tmpfs.path).map_err(|error| format!("failed to make {shown}: {error}"))?;
    let size = tmpfs.size.map(|size| format!(",size={size}")).unwrap_or_default();
    let options = CString::new(format!("mode={:o}{size}", tmpfs.mode)).map_err(|error| error.to_string())?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", &tmpfs.path, "tmpfs", flags, options.as_c_str())
        .map_err(|errno| format!("failed to mount a tmpfs at {shown}: {errno}"))
}

/// A last line without its end (the machine lost power) is taken away: the next fact must not be glued to it.
fn open_facts(path: &Path) -> std::io::Result<fs::File> {
    let mut facts = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut text = Vec::new();
    facts.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        facts.set_len(whole as u64)?;
    }
    Ok(facts)
}

/// In the current directory.
fn listen() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match rustix::fs::unlink(SOCKET) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(SOCKET)?);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// For `serve`: a descriptor somewhere out of the way of the fixed numbers.
pub(crate) fn out_of_the_way(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 16)
}

#[cfg(test)]
mod tests {
    use super::sysctl_path;

    #[test]
    fn sysctl_names_become_paths_below_proc_sys() {
        for (name, path) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net.ipv4.conf.eth0/1.forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("kernel/../../x", None),
            ("net..ipv4", None),
            ("", None),
        ] {
            assert_eq!(sysctl_path(name).as_deref(), path, "{name}");
        }
    }
}
