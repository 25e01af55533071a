//! The directory all engines of a machine share: a lock, the addresses in use, a record per pod.
//!
//! ```text
//! lock                  flock(2): one attach, detach or sweep at a time
//! addresses/10.89.0.2   → pod id    a symbolic link, see below
//! pods/<pod id>.json                what was (or is about to be) done for the pod
//! ip_forward.before                 see `forwarding`
//! ```
//!
//! An address is claimed by making a symbolic link whose text is the pod's id: one system call that fails if the name
//! exists, so a claim is never seen half written. Nothing but `ip_forward.before` is synced to the disk: what the files
//! describe is kernel state, which a power cut takes away too.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::record::Record;

#[derive(Debug, Clone)]
pub(crate) struct Register {
    directory: PathBuf,
}

/// Released on drop, and by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// A failed operation on the register's file.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} `{path}`")]
pub(crate) struct RegisterError {
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

/// A pod's file: readable, or of a form this engine does not know.
#[derive(Debug)]
pub(crate) enum Entry {
    Known(Record),
    Unreadable { pod_id: String },
}

impl Register {
    pub(crate) fn open(directory: &Path) -> Result<Self, RegisterError> {
        let register = Self { directory: directory.to_owned() };
        for part in [register.pods(), register.addresses()] {
            fs::create_dir_all(&part).map_err(|source| RegisterError { what: "make", path: part, source })?;
        }
        Ok(register)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn lock(&self) -> Result<Lock, RegisterError> {
        let path = self.directory.join("lock");
        let lock = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            io::Result::Ok(file)
        };
        match lock() {
            Ok(file) => Ok(Lock { _file: file }),
            Err(source) => Err(RegisterError { what: "lock", path, source }),
        }
    }

    // --- records ---

    pub(crate) fn record(&self, pod_id: &str) -> Result<Option<Record>, RegisterError> {
        let path = self.record_path(pod_id);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RegisterError { what: "read", path, source }),
        }
    }

    /// Replaces the record in one step.
    pub(crate) fn write_record(&self, record: &Record) -> Result<(), RegisterError> {
        let path = self.record_path(&record.pod_id);
        let new = path.with_extension("new");
        let write = || {
            fs::write(&new, serde_json::to_vec(record)?)?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| RegisterError { what: "write", path: path.clone(), source })
    }

    pub(crate) fn remove_record(&self, pod_id: &str) -> Result<(), RegisterError> {
        remove(self.record_path(pod_id))
    }

    /// Ids of all pods that have a record.
    pub(crate) fn pod_ids(&self) -> Result<Vec<String>, RegisterError> {
        let names = names(self.pods())?.into_iter().filter_map(|name| name.into_string().ok());
        Ok(names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect())
    }

    pub(crate) fn entries(&self) -> Result<Vec<Entry>, RegisterError> {
        let mut entries = Vec::new();
        for pod_id in self.pod_ids()? {
            entries.push(match self.record(&pod_id)? {
                Some(record) => Entry::Known(record),
                None => Entry::Unreadable { pod_id },
            });
        }
        Ok(entries)
    }

    pub(crate) fn records(&self) -> Result<Vec<Record>, RegisterError> {
        let known = |entry| if let Entry::Known(record) = entry { Some(record) } else { None };
        Ok(self.entries()?.into_iter().filter_map(known).collect())
    }

    // --- addresses ---

    /// False if another pod has it.
    pub(crate) fn claim(&self, address: Ipv4Addr, pod_id: &str) -> Result<bool, RegisterError> {
        let path = self.address_path(address);
        match std::os::unix::fs::symlink(pod_id, &path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.owner(address)?.as_deref() == Some(pod_id))
            }
            Err(source) => Err(RegisterError { what: "claim", path, source }),
        }
    }

    /// Gives the address back unless it is another pod's by now.
    pub(crate) fn release(&self, address: Ipv4Addr, pod_id: &str) -> Result<(), RegisterError> {
        if self.owner(address)?.as_deref() != Some(pod_id) {
            return Ok(());
        }
        remove(self.address_path(address))
    }

    pub(crate) fn owner(&self, address: Ipv4Addr) -> Result<Option<String>, RegisterError> {
        let path = self.address_path(address);
        match fs::read_link(&path) {
            Ok(owner) => Ok(Some(owner.to_string_lossy().into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RegisterError { what: "read", path, source }),
        }
    }

    /// All addresses in use, of every pod network of the machine.
    pub(crate) fn addresses_in_use(&self) -> Result<Vec<Ipv4Addr>, RegisterError> {
        Ok(names(self.addresses())?.into_iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    // --- paths ---

    fn pods(&self) -> PathBuf {
        self.directory.join("pods")
    }

    fn addresses(&self) -> PathBuf {
        self.directory.join("addresses")
    }

    fn record_path(&self, pod_id: &str) -> PathBuf {
        self.pods().join(format!("{pod_id}.json"))
    }

    fn address_path(&self, address: Ipv4Addr) -> PathBuf {
        self.addresses().join(address.to_string())
    }
}

fn names(directory: PathBuf) -> Result<Vec<OsString>, RegisterError> {
    let read = || fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    read().map_err(|source| RegisterError { what: "list", path: directory.clone(), source })
}

fn remove(path: PathBuf) -> Result<(), RegisterError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RegisterError { what: "remove", path, source }),
        _ => Ok(()),
    }
}

/// Whether the id can be a file's name, and no other file's.
pub(crate) fn is_valid_id(pod_id: &str) -> bool {
    !pod_id.is_empty()
        && pod_id.len() <= 128
        && !pod_id.starts_with('.')
        && !pod_id.bytes().any(|byte| byte == b'/' || byte < b' ')
}
