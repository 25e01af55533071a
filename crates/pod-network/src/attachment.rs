//! What callers say and hear: configuration, attachment, host ports, errors.

use std::{fmt, io, net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{LinkError, PortError};

/// How pods are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Pods get their addresses from here; the first one is the gateway's. At least a /30.
    pub cidr: Ipv4Net,
    /// Of the pods' links, in bytes. None: that of the link of the default route.
    pub mtu: Option<u32>,
}

impl Default for Config {
    /// 10.89.0.0/16: outside of what Docker, k3s, minikube and kubeadm take for themselves.
    fn default() -> Self {
        Self { cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16), mtu: None }
    }
}

/// How one pod is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod's address, on its `eth0`.
    pub ip: Ipv4Addr,
    /// Where its default route leads.
    pub gateway: Ipv4Addr,
    /// The host's end of its link.
    pub host_link: String,
}

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// Only at this address of the host. None or 0.0.0.0: at all of them, 127.0.0.1 included.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    /// Refused: the maps know TCP and UDP.
    Sctp,
}

impl HostPort {
    /// None for every spelling of "at all addresses".
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.host_ip.filter(|address| !address.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => write!(f, "{address}:{}/{}", self.host_port, self.protocol),
            None => write!(f, "{}/{}", self.host_port, self.protocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the pod network {0} has no room for a gateway and a pod: it must be a /30 or larger")]
    TooSmall(Ipv4Net),
    #[error("the pod network {0} cannot be used for unicast addresses")]
    NotUnicast(Ipv4Net),
    #[error("failed to prepare the network directory `{path}`")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Nothing is left of an attach that failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("`{0}` cannot name a pod in the network register: it must be a file name of at most 128 bytes")]
    PodId(String),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("failed to open the network namespace `{path}`")]
    Namespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{0}` is the host's own network namespace")]
    HostNamespace(PathBuf),
    #[error(
        "the pod network {cidr} overlaps {taken}, which this machine already reaches through {link}\n\
         hint: choose another network for pods"
    )]
    Overlap { cidr: Ipv4Net, taken: Ipv4Net, link: String },
    /// An earlier attach or detach of this pod left something that still cannot be removed.
    #[error("failed to remove what is left of pod `{pod_id}`: {}", failures.join("; "))]
    Leftovers { pod_id: String, failures: Vec<String> },
    #[error("all addresses of the pod network {0} are in use")]
    Exhausted(Ipv4Net),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("failed to install the pod network's address translation")]
    Translation(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to switch `{path}`")]
    Setting {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to keep the network register `{path}`")]
    Register {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Everything that could be removed was; the record stays, so that detach or sweep can try the rest again.
#[derive(Debug, thiserror::Error)]
#[error("failed to detach pod `{pod_id}` completely: {}", failures.join("; "))]
pub struct DetachError {
    pub pod_id: String,
    /// Each with its causes.
    pub failures: Vec<String>,
}

/// Everything that could be removed was.
#[derive(Debug, thiserror::Error)]
#[error("failed to sweep the pod network completely: {}", failures.join("; "))]
pub struct SweepError {
    /// Each with its causes.
    pub failures: Vec<String>,
    /// What was removed nevertheless.
    pub swept: Box<Swept>,
}

/// What a sweep found and removed or repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Ids of pods that had a record.
    pub removed: Vec<String>,
    /// Addresses that belonged to no recorded pod.
    pub addresses: Vec<Ipv4Addr>,
    /// Links that belonged to no recorded pod.
    pub links: Vec<String>,
    /// Tables of address translation removed because no pod needs them any more.
    pub tables: Vec<String>,
    /// Tables of address translation put back because pods that live had lost theirs.
    pub repaired: Vec<String>,
}

impl Swept {
    /// Whether everything was as it should be.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// An error and its causes in one line, for lists of them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
