//! What is written down about a pod, and who owns it. A pod's run directory outlives the engine that made it: another
//! engine (or `ps`, `logs`, `down`) reads it and continues.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod_api::context::Objects;
use pod_plan::Time;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::paths::{PodPaths, Roots};

/// What was asked for. Rewritten only when a changed manifest is applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub uid: String,
    pub pod: Pod,
    pub objects: Objects,
    /// `Deployment/web` when the pod is a workload's template.
    pub origin: Option<String>,
    pub created: Time,
    /// The pod's cgroup. Decided once: a changed manifest may change the QoS class, but not where the processes are.
    pub cgroup: PathBuf,
    pub offline: bool,
    pub pids_limit: Option<u64>,
    /// Outlives its `run`; listed by `ps` until `down`.
    pub detached: bool,
    /// An object of the root's API, not a manifest of `run`.
    #[serde(default)]
    pub of_store: bool,
}

impl Record {
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }
}

/// A pod as the files tell it, for readers that own nothing.
#[derive(Debug, Clone)]
pub struct Listed {
    pub paths: PodPaths,
    pub record: Record,
    pub status: PodStatus,
    /// An engine holds its lock.
    pub owned: bool,
    pub owner: Option<PathBuf>,
}

/// All pods of a root, by namespace and name. Unreadable ones are passed over: `cleanup` deals with them.
pub fn list(roots: &Roots) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(roots.pods()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        // Forgotten, and only not removed yet.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let paths = PodPaths::at(entry.path(), roots);
        if let Ok(listed) = read(paths) {
            found.push(listed);
        }
    }
    found.sort_by(|a, b| a.paths.run.cmp(&b.paths.run));
    Ok(found)
}

pub fn find(roots: &Roots, namespace: &str, name: &str) -> io::Result<Option<Listed>> {
    match read(roots.pod(namespace, name)) {
        Ok(listed) => Ok(Some(listed)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn read(paths: PodPaths) -> io::Result<Listed> {
    let record: Record = load(&paths.record())?;
    let status = load(&paths.status()).unwrap_or_default();
    let owned = Ownership::is_taken(&paths)?;
    let owner = std::fs::read_to_string(paths.owner()).ok().map(PathBuf::from);
    Ok(Listed { paths, record, status, owned, owner })
}

/// The right to drive a pod: an exclusive lock on its directory, released by the kernel when the holder dies.
#[derive(Debug)]
pub struct Ownership {
    _file: File,
}

impl Ownership {
    /// `None`: another engine has it. A reader's look ([`Self::is_taken`]) holds the lock for microseconds, so one
    /// refusal is not believed.
    pub fn try_take(paths: &PodPaths) -> io::Result<Option<Self>> {
        let path = paths.lock();
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        for _ in 0..5 {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(2)),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(None)
    }

    /// Whether some engine drives the pod right now.
    pub fn is_taken(paths: &PodPaths) -> io::Result<bool> {
        let file = match File::open(paths.lock()) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

/// Write-then-rename, so that a reader or a crash never sees half a file.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.create(true).truncate(true).write(true).open(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    std::fs::rename(&temporary, path)
}

pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::from)
}

/// A random UUID (RFC 9562 version 4).
pub fn new_uid() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
