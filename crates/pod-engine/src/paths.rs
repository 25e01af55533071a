//! Where everything of one engine root lives. One place, so that cleaning up is reading it backwards.

use std::path::{Path, PathBuf};

/// Of a pod's directory name; see [`Roots::pod`].
const LONGEST_KEY: usize = 200;

/// The directories of one state root. `run` and `start` share the default one; a test brings its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Gone after a reboot: sockets, facts, ledgers, secrets.
    pub run: PathBuf,
    /// Images and pods' disk volumes and writable layers.
    pub data: PathBuf,
    /// `NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log`.
    pub logs: PathBuf,
    /// Told apart from other roots on the machine in cgroup and network names; empty for the default root.
    pub tag: String,
}

impl Roots {
    /// `/run/outrigger`, `/var/lib/outrigger`, `/var/log/outrigger`.
    pub fn system() -> Self {
        Self {
            run: "/run/outrigger".into(),
            data: "/var/lib/outrigger".into(),
            logs: "/var/log/outrigger/pods".into(),
            tag: String::new(),
        }
    }

    /// Everything below one directory (`--root`, `OUTRIGGER_ROOT`).
    pub fn below(root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self {
            run: root.join("run"),
            data: root.join("lib"),
            logs: root.join("log"),
            tag: format!("{:08x}", fnv1a(root.as_os_str().as_encoded_bytes())),
        }
    }

    /// Makes the run directory, for root alone whatever the umask is and whoever made it before. Everything below it is
    /// protected by that.
    pub fn make_run(&self) -> std::io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.run)?;
        std::fs::set_permissions(&self.run, std::fs::Permissions::from_mode(0o700))
    }

    pub fn pods(&self) -> PathBuf {
        self.run.join("pods")
    }

    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The background engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("engine.sock")
    }

    /// Kernel names (links, addresses, rules) are the machine's, not a root's: all roots share this directory.
    pub fn network(&self) -> PathBuf {
        "/run/outrigger/network".into()
    }

    /// The top cgroup, in every tree.
    pub fn cgroup(&self) -> PathBuf {
        if self.tag.is_empty() { "/outrigger".into() } else { format!("/outrigger-{}", self.tag).into() }
    }

    /// A pod's name in machine-wide registers.
    pub fn network_id(&self, uid: &str) -> String {
        if self.tag.is_empty() { uid.into() } else { format!("{}-{uid}", self.tag) }
    }

    /// Whether a name in a machine-wide register was made by [`Self::network_id`] of this root.
    pub fn is_ours(&self, network_id: &str) -> bool {
        const UID_LENGTH: usize = 36;
        if self.tag.is_empty() { network_id.len() == UID_LENGTH } else { network_id.starts_with(&self.tag) }
    }

    pub fn pod(&self, namespace: &str, name: &str) -> PodPaths {
        let mut key = format!("{namespace}_{name}");
        // A file name holds 255 bytes, and the log directory adds the uid.
        if key.len() > LONGEST_KEY {
            let hash = fnv1a(key.as_bytes());
            key.truncate(LONGEST_KEY - 9);
            key = format!("{key}~{hash:08x}");
        }
        PodPaths { run: self.pods().join(key), data: self.data.join("pods"), logs: self.logs.clone() }
    }
}

/// The directories of one pod.
#[derive(Debug, Clone)]
pub struct PodPaths {
    /// Per namespace and name: there is one pod of a name.
    pub run: PathBuf,
    data: PathBuf,
    logs: PathBuf,
}

impl PodPaths {
    pub fn at(run: PathBuf, roots: &Roots) -> Self {
        Self { run, data: roots.data.join("pods"), logs: roots.logs.clone() }
    }

    pub fn record(&self) -> PathBuf {
        self.run.join("pod.json")
    }
    pub fn ledger(&self) -> PathBuf {
        self.run.join("ledger.json")
    }
    pub fn status(&self) -> PathBuf {
        self.run.join("status.json")
    }
    pub fn notices(&self) -> PathBuf {
        self.run.join("events.jsonl")
    }
    /// Beside the pods' directories and never removed: a lock whose file can vanish can be held twice.
    pub fn lock(&self) -> PathBuf {
        let key = self.run.file_name().unwrap_or_default();
        self.run.ancestors().nth(2).unwrap_or(&self.run).join("locks").join(key)
    }
    /// Where the run directory goes when the pod is forgotten, in one rename, before its parts are removed.
    pub fn gone(&self, uid: &str) -> PathBuf {
        self.run.with_file_name(format!(".gone-{uid}"))
    }
    /// Names the socket of the engine that owns the pod.
    pub fn owner(&self) -> PathBuf {
        self.run.join("owner")
    }
    /// A tmpfs of the shim: configMap, secret, projected and downward volumes.
    pub fn memory(&self) -> PathBuf {
        self.run.join("memory")
    }
    /// One tmpfs of the shim per `emptyDir` with `medium: Memory`.
    pub fn memory_volume(&self, volume: &str) -> PathBuf {
        self.run.join("empty").join(volume)
    }
    /// The images of `image` volumes.
    pub fn volume_images(&self) -> PathBuf {
        self.run.join("volume-images.json")
    }
    pub fn shm(&self) -> PathBuf {
        self.run.join("shm")
    }
    /// What an attempt was launched with; alone in its directory.
    pub fn launch(&self, container: &str, attempt: u32) -> PathBuf {
        self.run.join("containers").join(container).join(attempt.to_string()).join("launch.json")
    }

    pub fn data(&self, uid: &str) -> PathBuf {
        self.data.join(uid)
    }
    pub fn disk_volume(&self, uid: &str, volume: &str) -> PathBuf {
        self.data(uid).join("volumes").join(volume)
    }
    pub fn attempt(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.data(uid).join("containers").join(container).join(attempt.to_string())
    }
    /// Beside the attempt's writable layer, in a directory of the files that are the attempt's own.
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.attempt(uid, container, attempt).join("files/termination-log")
    }

    pub fn logs(&self, uid: &str) -> PathBuf {
        let key = self.run.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        self.logs.join(format!("{key}_{uid}"))
    }
    pub fn log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.logs(uid).join(container).join(format!("{attempt}.log"))
    }
}

/// FNV-1a, 32 bits: a stable short tag, not a security measure.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
