//! This process and this machine: where state lives, an engine of our own, the thread that drives it.

use std::path::PathBuf;

use anyhow::Context as _;
use pod_engine::{Config, Engine, OpenError, Roots, control};

use crate::cli::Global;
use crate::exit::{Coded, ENGINE};

pub(crate) fn roots(global: &Global) -> Roots {
    match &global.root {
        Some(root) => Roots::below(root),
        None => Roots::system(),
    }
}

/// Runs a command's future on this thread, with local tasks: engines are not `Send`.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to set up the event loop")?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}

/// Namespaces, cgroups and mounts need root; said before anything is tried.
pub(crate) fn require_root() -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let error = anyhow::anyhow!("running pods needs root: namespaces, cgroups and mounts are the kernel's");
    Err(Coded::new(ENGINE, error).hint("run as root (sudo)").into())
}

/// An engine in this process, which other commands find under a socket of its own.
pub(crate) struct OwnEngine {
    pub(crate) engine: Engine,
    socket: PathBuf,
}

impl OwnEngine {
    /// Must be called inside [`block_on`].
    pub(crate) fn open(roots: &Roots, pod_cidr: ipnet::Ipv4Net) -> anyhow::Result<Self> {
        require_root()?;
        remove_dead_sockets(roots);
        let socket = roots.run.join(format!("engine-{}.sock", std::process::id()));
        let config = Config { roots: roots.clone(), pod_cidr, socket: socket.clone(), node_name: None };
        let engine = open(config)?;
        let listener = control::bind(&socket)
            .with_context(|| format!("failed to listen on `{}`", socket.display()))
            .map_err(|error| Coded::new(ENGINE, error))?;
        tokio::task::spawn_local(control::serve(engine.clone(), listener));
        Ok(Self { engine, socket })
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        // A socket nobody answers is replaced anyway.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Sockets of foreground engines that were killed.
pub(crate) fn remove_dead_sockets(roots: &Roots) {
    for entry in std::fs::read_dir(&roots.run).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("engine-")?.strip_suffix(".sock"));
        let Some(pid) = pid.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        if !std::path::Path::new("/proc").join(pid).exists() {
            // Removed by someone else in the same moment is removed as well.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Opens an engine; what is missing on the machine is said with what to do about it.
pub(crate) fn open(config: Config) -> anyhow::Result<Engine> {
    Engine::open(config).map_err(refused)
}

/// Why an engine (or a sweep, which opens one) could not be opened.
pub(crate) fn refused(error: OpenError) -> anyhow::Error {
    let hint = match &error {
        OpenError::Network(_) => {
            Some("pods' networks need veth and nf_tables in the kernel (modprobe veth nf_tables) and a free --pod-cidr")
        }
        OpenError::Cgroups(_) => {
            Some("mount the cgroup file systems below /sys/fs/cgroup, with the cpu, memory and pids controllers")
        }
        OpenError::Directory(..) | OpenError::Store(_) | OpenError::Shim(_) => None,
    };
    let coded = Coded::new(ENGINE, error);
    match hint {
        Some(hint) => coded.hint(hint).into(),
        None => coded.into(),
    }
}
