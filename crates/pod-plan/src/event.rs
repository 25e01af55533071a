//! What can happen to a pod: the closed list of everything the engine tells the plan.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Time;

/// Times inside an event are when it happened (the shim's word); `apply`'s `now` is when the engine learned of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The pod's namespaces and network stand. `ips` is empty only for a host-network pod without an address.
    SandboxReady {
        ips: Vec<IpAddr>,
        host_ip: Option<IpAddr>,
    },
    /// Retried by the plan (`FailedCreatePodSandBox`).
    SandboxFailed {
        message: String,
    },
    /// The shim died and took every process along: running attempts become lost (137, `ContainerStatusUnknown`) unless
    /// an exit was already told; `SandboxChanged`, and the plan starts over from the first init container.
    SandboxLost,
    VolumesReady,
    /// Retried by the plan (`FailedMount`).
    VolumesFailed {
        message: String,
    },

    /// A pull has really begun (optional; it makes the event `Pulling` appear while it lasts).
    Pulling {
        container: String,
    },
    /// The image is in the store. `pulled` is `None` when it was already present.
    ImageReady {
        container: String,
        image_id: String,
        pulled: Option<Pulled>,
        host_userland: bool,
    },
    /// `reason` is a waiting reason (`kubernetes/kubernetes pkg/kubelet/images/types.go`): `ErrImagePull`,
    /// `ErrImageNeverPull`, `InvalidImageName`, …
    ImageFailed {
        container: String,
        reason: String,
        message: String,
    },

    /// `CreateContainerConfigError`: missing configMap key, runAsNonRoot, bad subPath. Retried by the plan.
    ConfigFailed {
        container: String,
        attempt: u32,
        message: String,
    },
    /// `CreateContainerError`.
    CreateFailed {
        container: String,
        attempt: u32,
        message: String,
    },
    /// `RunContainerError`; the attempt counts as terminated `StartError` 128.
    StartFailed {
        container: String,
        attempt: u32,
        at: Time,
        message: String,
    },
    Started {
        container: String,
        attempt: u32,
        at: Time,
        container_id: String,
        identity: Identity,
    },
    /// `message` is the termination message (already read from its file or the log's tail).
    Exited {
        container: String,
        attempt: u32,
        at: Time,
        exit: Exit,
        message: String,
    },

    HookEnded {
        container: String,
        attempt: u32,
        hook: Hook,
        at: Time,
        outcome: Result<(), String>,
    },
    ProbeEnded {
        container: String,
        attempt: u32,
        probe: ProbeKind,
        at: Time,
        outcome: ProbeOutcome,
    },

    /// Delete the pod: `grace` seconds, or the spec's. A second request can only shorten; 0 kills at once.
    StopRequested {
        grace: Option<u64>,
    },
    /// Fail the pod with a reason of its own (`Evicted` …) after stopping it.
    Evicted {
        reason: String,
        message: String,
        grace: Option<u64>,
    },
    /// Nothing of the sandbox is left.
    SandboxRemoved,
    ResizeEnded {
        outcome: ResizeOutcome,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResizeOutcome {
    /// All of it.
    Applied,
    /// All but these containers, or the pod as a whole. It is tried again.
    Failed { containers: Vec<String>, message: String },
    /// Nothing: this machine will never have so much.
    Infeasible(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Milliseconds spent pulling, without and with waiting for other pulls.
    pub took_ms: u64,
    pub took_with_wait_ms: u64,
    /// Bytes, as in the event text.
    pub size: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hook {
    PostStart,
    PreStop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeOutcome {
    Success,
    /// Success with an event `ProbeWarning` (redirect to another host).
    Warning(String),
    Failure(String),
    /// The probe itself broke (after its three tries): thrown away, event `Unhealthy` "… errored and resulted in
    /// unknown state: …".
    Unknown(String),
}
