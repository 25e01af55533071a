//! What is known of one pod's network: enough to undo it.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Attachment, HostPort};

/// Written before the kernel is changed, and again when all is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) pod_id: String,
    /// The pod network the address is from.
    pub(crate) cidr: Ipv4Net,
    pub(crate) attachment: Attachment,
    /// Where the pod's namespace was found, and which it was.
    pub(crate) namespace_path: PathBuf,
    pub(crate) namespace: NamespaceId,
    pub(crate) ports: Vec<HostPort>,
    /// False while attaching: such a record is only good for undoing.
    pub(crate) complete: bool,
}

/// A network namespace as long as it lives (namespaces(7): the device and inode of its file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    pub(crate) fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

impl Record {
    /// Whether the pod's namespace still is where it was. If the path is a process' (`/proc/PID/ns/net`) it is gone with
    /// the process, and the namespace with its last process.
    pub(crate) fn namespace_is_held(&self) -> bool {
        fs::metadata(&self.namespace_path).is_ok_and(|file| NamespaceId::of(&file) == self.namespace)
    }
}

/// Names for the host's end of a pod's link, the preferred one first: `or` and eight hexadecimal digits, those the id
/// begins with (as a UUID does, so that people find one by the other), then hashes of it (FNV-1a). The later ones are
/// for ids that begin alike, and for a pod that is attached again before its old link has vanished.
pub(crate) fn link_names(pod_id: &str) -> impl Iterator<Item = String> {
    let prefix = pod_id.get(..8).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let hashed = (0u8..16).map(move |salt| {
        let bytes = pod_id.bytes().chain((salt > 0).then_some(salt));
        let hash = bytes.fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        format!("or{hash:08x}")
    });
    prefix.map(|digits| format!("or{}", digits.to_ascii_lowercase())).into_iter().chain(hashed)
}

/// Whether a link could be a pod's.
pub(crate) fn is_link_name(name: &str) -> bool {
    name.strip_prefix("or").is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_after_the_pod() {
        let first = |id: &str| link_names(id).next().unwrap();
        assert_eq!(first("3F2A9C01-8d1e-4c55-9d3a-0123456789ab"), "or3f2a9c01");
        assert_ne!(first("k1-3f2a9c01"), "or3f2a9c01");
        assert_ne!(first("a"), first("b"));
        let all: std::collections::BTreeSet<_> = link_names("3f2a9c01").collect();
        assert_eq!(all.len(), 17);
        assert!(all.iter().all(|name| is_link_name(name) && name.len() < 16));
        assert!(!is_link_name("orchestra"));
    }
}
