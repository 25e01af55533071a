//! What the plan needs to know of a manifest: the pod's own numbers, and its containers in start order.

use k8s_openapi::api::core::v1::{Container as Spec, EphemeralContainer, Pod, Probe};
use serde::{Deserialize, Serialize};

use crate::{Hook, ProbeKind};

/// When an ended container is started again (`spec.restartPolicy`, or a container's own since KEP-5307).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// An init container that runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always` (KEP-753): it keeps running beside the mains.
    Sidecar,
    Main,
    /// Added to a live pod for debugging: started once, no part of the pod's readiness or end.
    Ephemeral,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodShape {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) generation: Option<i64>,
    pub(crate) policy: RestartPolicy,
    /// `terminationGracePeriodSeconds`; a negative one counts as 1 (`kubernetes/kubernetes
    /// pkg/registry/core/pod/strategy.go`).
    pub(crate) grace: u64,
    /// `activeDeadlineSeconds`.
    pub(crate) deadline: Option<u64>,
    pub(crate) host_network: bool,
    pub(crate) readiness_gates: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerShape {
    pub(crate) role: Role,
    pub(crate) spec: Spec,
}

/// A probe's numbers, in seconds, with the defaults of `kubernetes/kubernetes pkg/apis/core/v1/defaults.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeShape {
    pub(crate) initial_delay: u64,
    pub(crate) period: u64,
    pub(crate) timeout: u64,
    pub(crate) success_threshold: u32,
    pub(crate) failure_threshold: u32,
    pub(crate) grace: Option<u64>,
}

/// The grace period of a manifest that does not say, in seconds.
const DEFAULT_GRACE: i64 = 30;

impl RestartPolicy {
    /// An unknown word counts as the default: the manifest was validated before it came here.
    fn parse(word: Option<&str>) -> Self {
        match word {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }
}

impl PodShape {
    pub(crate) fn new(pod: &Pod, uid: &str) -> Self {
        let spec = pod.spec.as_ref();
        let grace = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE);
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            uid: uid.to_owned(),
            generation: pod.metadata.generation,
            policy: RestartPolicy::parse(spec.and_then(|s| s.restart_policy.as_deref())),
            grace: u64::try_from(grace).unwrap_or(1),
            deadline: spec.and_then(|s| s.active_deadline_seconds).and_then(|d| u64::try_from(d).ok()),
            host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
            readiness_gates: spec
                .and_then(|s| s.readiness_gates.as_ref())
                .map(|gates| gates.iter().map(|gate| gate.condition_type.clone()).collect())
                .unwrap_or_default(),
        }
    }

    /// `name_namespace(uid)`, as back-off messages name a pod (`kubernetes/kubernetes pkg/kubelet/util/format/pod.go`).
    pub(crate) fn title(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// A pod's containers: init containers and sidecars as they stand, then mains, in start order; then ephemeral ones, which
/// wait for nobody.
pub(crate) fn containers_of(pod: &Pod) -> Vec<ContainerShape> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let inits = spec.init_containers.iter().flatten().map(|spec| {
        let sidecar = spec.restart_policy.as_deref() == Some("Always");
        ContainerShape { role: if sidecar { Role::Sidecar } else { Role::Init }, spec: spec.clone() }
    });
    let mains = spec.containers.iter().map(|spec| ContainerShape { role: Role::Main, spec: spec.clone() });
    let ephemerals = spec.ephemeral_containers.iter().flatten();
    let ephemerals = ephemerals.map(|spec| ContainerShape { role: Role::Ephemeral, spec: as_container(spec) });
    inits.chain(mains).chain(ephemerals).collect()
}

/// An ephemeral container as one like the others. Whose processes it joins is left out.
pub fn as_container(ephemeral: &EphemeralContainer) -> Spec {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle: _,
        liveness_probe: _,
        name,
        ports: _,
        readiness_probe: _,
        resize_policy: _,
        resources: _,
        restart_policy: _,
        restart_policy_rules: _,
        security_context,
        startup_probe: _,
        stdin,
        stdin_once,
        target_container_name: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices: _,
        volume_mounts,
        working_dir,
    } = ephemeral.clone();
    Spec {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_mounts,
        working_dir,
        ..Spec::default()
    }
}

impl ContainerShape {
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn image(&self) -> &str {
        self.spec.image.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_main(&self) -> bool {
        self.role == Role::Main
    }

    pub(crate) fn is_sidecar(&self) -> bool {
        self.role == Role::Sidecar
    }

    pub(crate) fn is_init(&self) -> bool {
        self.role == Role::Init
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.role == Role::Ephemeral
    }

    /// It stands in `spec.initContainers`.
    pub(crate) fn is_initial(&self) -> bool {
        matches!(self.role, Role::Init | Role::Sidecar)
    }

    /// The policy of this container in this pod, without its exit-code rules.
    pub(crate) fn policy(&self, pod: RestartPolicy) -> RestartPolicy {
        match self.spec.restart_policy.as_deref() {
            None => pod,
            own => RestartPolicy::parse(own),
        }
    }

    pub(crate) fn has_hook(&self, hook: Hook) -> bool {
        let Some(lifecycle) = &self.spec.lifecycle else { return false };
        match hook {
            Hook::PostStart => lifecycle.post_start.is_some(),
            Hook::PreStop => lifecycle.pre_stop.is_some(),
        }
    }

    /// Init containers have no probes (`kubernetes/kubernetes pkg/kubelet/prober/prober_manager.go` AddPod).
    pub(crate) fn probe(&self, kind: ProbeKind) -> Option<ProbeShape> {
        if self.is_init() || self.is_ephemeral() {
            return None;
        }
        self.probe_spec(kind).map(ProbeShape::new)
    }

    pub(crate) fn probe_spec(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.spec.startup_probe.as_ref(),
            ProbeKind::Liveness => self.spec.liveness_probe.as_ref(),
            ProbeKind::Readiness => self.spec.readiness_probe.as_ref(),
        }
    }

    pub(crate) fn field_path(&self) -> String {
        let list = match self.role {
            Role::Main => "containers",
            Role::Init | Role::Sidecar => "initContainers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.name())
    }
}

impl ProbeShape {
    pub(crate) fn new(probe: &Probe) -> Self {
        let positive = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            initial_delay: probe.initial_delay_seconds.and_then(|v| u64::try_from(v).ok()).unwrap_or(0),
            period: positive(probe.period_seconds, 10).into(),
            timeout: positive(probe.timeout_seconds, 1).into(),
            success_threshold: positive(probe.success_threshold, 1),
            failure_threshold: positive(probe.failure_threshold, 3),
            grace: probe.termination_grace_period_seconds.and_then(|v| u64::try_from(v).ok()),
        }
    }
}
