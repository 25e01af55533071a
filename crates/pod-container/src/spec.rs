//! What a container is made of, fully resolved: the executor below has no choices left and has never heard of
//! Kubernetes. These types cross the shim's socket as JSON; both ends come from the same build.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The pod's surroundings, made once by the shim before any container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Hostname of a new UTS namespace; `None` keeps the host's.
    pub hostname: Option<String>,
    /// A new network namespace (its loopback is brought up), or the host's.
    pub new_network: bool,
    /// A new IPC namespace, or the host's.
    pub new_ipc: bool,
    pub pid: PidMode,
    /// `net.ipv4.x=y`, written to `/proc/sys` inside the new namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Mounted in the shim's own mount namespace at start, so that they vanish with the shim. The engine reaches
    /// them through `/proc/PID/root`.
    pub tmpfs: Vec<Tmpfs>,
    /// One user namespace for the whole pod (`hostUsers: false`, and rootless); `None` stays in the current one.
    pub user_namespace: Option<IdMaps>,
    /// cgroup directories (one per hierarchy on v1, one on v2) that the shim itself joins.
    pub cgroups: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Each container has its own PID namespace, nested in the shim's.
    Container,
    /// All containers live in one PID namespace, whose PID 1 is a keeper that only reaps (as Kubernetes' pause).
    Pod,
    /// The host's. The shim is then not an init: its death is answered by killing the pod's cgroup.
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub path: PathBuf,
    /// Bytes; `None` is the kernel's default (half of memory).
    pub size: Option<u64>,
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
}

/// One line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub process: ProcessSpec,
    pub rootfs: Rootfs,
    /// Applied in order, after the default mounts (`/proc`, `/dev` with its nodes and `pts`, `/dev/mqueue`, `/sys`,
    /// `/sys/fs/cgroup`).
    pub mounts: Vec<Mount>,
    /// Paths hidden with `/dev/null` or an empty read-only tmpfs; missing ones are skipped.
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// All host devices, `/sys` writable, nothing masked by default.
    pub privileged: bool,
    /// Directories whose `cgroup.procs` the first process joins before anything of the container runs. The engine made
    /// them and wrote their limits (see [`crate::cgroup`]).
    pub cgroups: Vec<PathBuf>,
    pub log: LogSpec,
    /// A pseudo-terminal as stdin, stdout and stderr.
    pub tty: bool,
    pub stdin: Stdin,
    /// The running container of the pod whose PID namespace it joins, instead of one of its own. Means nothing unless
    /// containers have their own ([`PidMode::Container`]).
    pub processes_of: Option<String>,
}

/// Where a container's first process reads from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// `/dev/null`, or a terminal into which nobody types.
    #[default]
    Null,
    /// A pipe or a terminal that stays open; clients attach to it.
    Open,
    /// The same; the pipe is closed when the first client that wrote to it has ended. (A terminal has no such end.)
    Once,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// argv; `argv[0]` without a slash is looked up in the `PATH` of `env`, inside the container.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Made if missing, owned by the user (as containerd does). `/` when empty.
    pub cwd: String,
    pub user: User,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// Ready classic-BPF programs, 8 bytes an instruction (`struct sock_filter`, native endian), loaded in order.
    pub seccomp: Vec<Vec<u8>>,
    /// What is not named here is the engine's, but for two: processes are unlimited (their number is the cgroup's
    /// business), and open files 1024 soft, 524288 hard, as a service of systemd has.
    pub rlimits: Vec<Rlimit>,
    /// `None` is what the engine has.
    pub oom_score_adj: Option<i32>,
}

/// One more process in a container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    pub process: ProcessSpec,
    /// A pseudo-terminal of the container's own, as its stdin, stdout and stderr and its controlling terminal. What is
    /// handed over as stdin is then a Unix socket, over which the terminal's master side comes back before the program
    /// starts.
    pub terminal: bool,
}

/// Who the process runs as. Names are looked up in the container's own `/etc/passwd` and `/etc/group`, after the root
/// was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `uid`, `name`, `uid:gid`, `name:group` … as in an OCI image's `User`; empty is root.
    pub user: String,
    /// Overrides the group that `user` gives.
    pub group: Option<u32>,
    pub additional_groups: Vec<u32>,
    /// Also the memberships in the container's `/etc/group` (`supplementalGroupsPolicy: Merge`).
    pub merge_image_groups: bool,
}

/// Bit masks of capabilities(7), bit N = capability N.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: u64,
    /// Given to a root process as permitted and effective; a non-root process keeps only the bounding set.
    pub permitted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Overlay layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// Per attempt; both are made if missing.
    pub upper: PathBuf,
    pub work: PathBuf,
    pub readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute path inside the container; resolved without leaving the root (openat2 `RESOLVE_IN_ROOT`), made if
    /// missing: a directory, or an empty file for a bind of a non-directory.
    pub target: String,
    pub readonly: bool,
    /// Submounts too (`mount_setattr` with `AT_RECURSIVE`).
    pub recursive_readonly: bool,
    pub noexec: bool,
    pub propagation: Propagation,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// Recursive bind of a path in the shim's mount namespace.
    Bind(PathBuf),
    /// `subPath`: `path` below `root`, resolved so that no symlink leads out of `root`; made if missing (mode 0750
    /// widened to the volume root's mode) unless the volume is read-only.
    BindBelow {
        root: PathBuf,
        path: String,
    },
    Tmpfs {
        size: Option<u64>,
        mode: u32,
    },
    /// Read-only layers, topmost first (an `image` volume).
    Layers(Vec<PathBuf>),
}

/// mount_namespaces(7); Kubernetes' `mountPropagation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
}

/// Where the shim writes what the container prints (`logfile` format).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// `…/CONTAINER/ATTEMPT.log`; its directory is made if missing.
    pub path: PathBuf,
    /// Bytes after which the file is rotated.
    pub max_size: u64,
    /// Files kept, the live one included.
    pub max_files: u32,
}

/// Who the first process turned out to be (`status.containerStatuses[].user.linux`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0–255; 128 + N when signal N ended it.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel killed something of its cgroup for memory.
    pub oom_killed: bool,
}
