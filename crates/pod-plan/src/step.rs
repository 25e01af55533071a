//! What the engine is to do: the closed list of everything the plan asks for. Each step is begun once
//! ([`crate::Lifecycle::begin`]) and answered by an [`crate::Event`].

use serde::{Deserialize, Serialize};

use crate::{Hook, ProbeKind, Time};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// → `VolumesReady` / `VolumesFailed`.
    PrepareVolumes,
    /// → `SandboxReady` / `SandboxFailed`.
    CreateSandbox,
    /// Make the image present by its pull policy → `ImageReady` / `ImageFailed`.
    EnsureImage { container: String },
    /// Resolve env and user, make the container, start it → `Started` / `ConfigFailed` / `CreateFailed` /
    /// `StartFailed`, and one day `Exited`.
    Start { container: String, attempt: u32 },
    /// → `HookEnded`. `abandon_after` seconds (preStop only): the engine then reports a failure but kills nothing.
    RunHook { container: String, attempt: u32, hook: Hook, abandon_after: Option<u64> },
    /// Run one probe now → `ProbeEnded`.
    Probe { container: String, attempt: u32, probe: ProbeKind },
    /// Send the stop signal (the image's STOPSIGNAL, else SIGTERM) to PID 1 → `Exited` if it obeys.
    Terminate { container: String, attempt: u32 },
    /// SIGKILL → `Exited`.
    Kill { container: String, attempt: u32 },
    /// Forget an old attempt's writable layer and log (all but the last two attempts).
    RemoveAttempt { container: String, attempt: u32 },
    /// Give these running containers, and the pod, the CPU and memory of the present manifest → `ResizeEnded`.
    Resize { containers: Vec<String> },
    /// All containers are down for good (or before starting over): tear the namespaces and network down →
    /// `SandboxRemoved`.
    RemoveSandbox,
}

/// What to do now, and when to ask again if nothing happens before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub wake: Option<Time>,
    /// The pod has reached its end and the sandbox is gone: nothing will ever be planned again.
    pub finished: bool,
}

/// A Kubernetes event about the pod, to be shown or stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub at: Time,
    pub warning: bool,
    pub reason: String,
    pub message: String,
    /// `spec.containers{name}`, `spec.initContainers{name}`, or empty for the pod.
    pub field_path: String,
}
