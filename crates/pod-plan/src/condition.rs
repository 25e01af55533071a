//! The pod's conditions. `kubernetes/kubernetes pkg/kubelet/status/generate.go`; the order is the kubelet's
//! (`…/kubelet_pods.go` generateAPIPodStatus).
//!
//! A condition's value is worked out; only when it last turned is a fact that has to be kept.

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use serde::{Deserialize, Serialize};

use crate::facts::SandboxState;
use crate::phase::Phase;
use crate::status::ContainerStatuses;
use crate::{Lifecycle, Time};

/// When one of our conditions got the status it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transition {
    kind: String,
    holds: bool,
    at: Time,
}

impl Transition {
    pub(crate) fn new(kind: &str, holds: bool, at: Time) -> Self {
        Self { kind: kind.to_owned(), holds, at }
    }

    pub(crate) fn is_of(&self, kind: &str) -> bool {
        self.kind == kind
    }
}

/// A condition that clients write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Foreign {
    kind: String,
    status: String,
    at: Time,
}

/// A condition's value now.
struct Value {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Value {
    fn holds(kind: &'static str) -> Self {
        Self { kind, holds: true, reason: None, message: None }
    }

    fn fails(kind: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self { kind, holds: false, reason: Some(reason), message }
    }
}

impl Lifecycle {
    /// An empty status: the client has taken the condition away.
    pub(crate) fn set_foreign(&mut self, kind: &str, status: &str, now: Time) {
        if status.is_empty() {
            self.foreign.retain(|condition| condition.kind != kind);
            return;
        }
        if let Some(known) = self.foreign.iter_mut().find(|condition| condition.kind == kind) {
            if known.status != status {
                status.clone_into(&mut known.status);
                known.at = now;
            }
            return;
        }
        self.foreign.push(Foreign { kind: kind.to_owned(), status: status.to_owned(), at: now });
    }

    /// Keeps the time of every condition that turned with the last change.
    pub(crate) fn record_transitions(&mut self, now: Time) {
        let statuses = self.container_statuses();
        for value in self.values(&statuses, self.phase_of(&statuses)) {
            match self.transitions.iter_mut().find(|transition| transition.kind == value.kind) {
                Some(transition) if transition.holds == value.holds => {}
                Some(transition) => (transition.holds, transition.at) = (value.holds, now),
                None => {
                    self.transitions.push(Transition { kind: value.kind.to_owned(), holds: value.holds, at: now });
                }
            }
        }
    }

    pub(crate) fn conditions(&self, statuses: &ContainerStatuses, phase: Phase) -> Vec<PodCondition> {
        let foreign = self.foreign.iter().map(|condition| PodCondition {
            type_: condition.kind.clone(),
            status: condition.status.clone(),
            last_transition_time: Some(ApiTime(condition.at)),
            ..PodCondition::default()
        });
        let own = self.values(statuses, phase).into_iter().map(|value| {
            let transition = self.transitions.iter().find(|transition| transition.kind == value.kind);
            PodCondition {
                type_: value.kind.to_owned(),
                status: if value.holds { "True" } else { "False" }.to_owned(),
                last_transition_time: Some(ApiTime(transition.map_or(self.created, |transition| transition.at))),
                reason: value.reason.map(str::to_owned),
                message: value.message,
                observed_generation: self.pod.generation,
                last_probe_time: None,
            }
        });
        foreign.chain(self.resize_condition()).chain(own).collect()
    }

    fn values(&self, statuses: &ContainerStatuses, phase: Phase) -> [Value; 5] {
        let containers_ready = self.containers_ready(statuses, phase);
        let ready = self.ready(&containers_ready);
        [
            self.ready_to_start(),
            self.initialized(statuses, phase),
            ready,
            containers_ready,
            Value::holds("PodScheduled"),
        ]
    }

    fn ready_to_start(&self) -> Value {
        let ready = self.sandbox.state == SandboxState::Ready;
        let holds = ready && (self.pod.host_network || !self.sandbox.ips.is_empty());
        Value { holds, ..Value::holds("PodReadyToStartContainers") }
    }

    fn initialized(&self, statuses: &ContainerStatuses, phase: Phase) -> Value {
        const KIND: &str = "Initialized";
        if phase == Phase::Succeeded {
            return Value { reason: Some("PodCompleted"), ..Value::holds(KIND) };
        }
        // Once a main has run, a sidecar that is being restarted does not take it back.
        let main_has_run = statuses
            .mains
            .iter()
            .filter_map(|status| status.state.as_ref())
            .any(|state| state.running.is_some() || state.terminated.is_some());
        if main_has_run {
            return Value::holds(KIND);
        }
        let incomplete = statuses.inits.iter().filter(|status| {
            let sidecar = self.index(&status.name).is_some_and(|index| self.containers[index].shape.is_sidecar());
            if sidecar { status.started != Some(true) } else { !status.ready }
        });
        let names: Vec<&str> = incomplete.map(|status| status.name.as_str()).collect();
        if names.is_empty() {
            return Value::holds(KIND);
        }
        let message = format!("containers with incomplete status: [{}]", names.join(" "));
        Value::fails(KIND, "ContainersNotInitialized", Some(message))
    }

    fn containers_ready(&self, statuses: &ContainerStatuses, phase: Phase) -> Value {
        const KIND: &str = "ContainersReady";
        match phase {
            Phase::Succeeded => return Value::fails(KIND, "PodCompleted", None),
            Phase::Failed => return Value::fails(KIND, "PodFailed", None),
            Phase::Pending | Phase::Running => {}
        }
        let unready = self.wanted().filter(|(_, container)| {
            !container.shape.is_init() && statuses.find(container.name()).is_some_and(|status| !status.ready)
        });
        let names: Vec<&str> = unready.map(|(_, container)| container.name()).collect();
        if names.is_empty() {
            return Value::holds(KIND);
        }
        let message = format!("containers with unready status: [{}]", names.join(" "));
        Value::fails(KIND, "ContainersNotReady", Some(message))
    }

    /// Containers ready, and every readiness gate's condition `True` (KEP-580).
    fn ready(&self, containers_ready: &Value) -> Value {
        const KIND: &str = "Ready";
        if !containers_ready.holds {
            return Value { kind: KIND, message: containers_ready.message.clone(), ..*containers_ready };
        }
        let complaints: Vec<String> =
            self.pod.readiness_gates.iter().filter_map(|gate| self.gate_complaint(gate)).collect();
        if complaints.is_empty() {
            return Value::holds(KIND);
        }
        Value::fails(KIND, "ReadinessGatesNotReady", Some(complaints.join(", ")))
    }

    fn gate_complaint(&self, gate: &str) -> Option<String> {
        match self.foreign.iter().find(|condition| condition.kind == gate) {
            None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
            Some(condition) if condition.status == "True" => None,
            Some(condition) => {
                let status = &condition.status;
                Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {status}"))
            }
        }
    }
}
