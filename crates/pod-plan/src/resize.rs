//! Changed `resources` of running containers, applied where they run (KEP-1287; `kubernetes/kubernetes
//! pkg/kubelet/kuberuntime/kuberuntime_manager.go` doPodResizeAction, `…/allocation/allocation_manager.go`).
//!
//! ```text
//! Settled ──manifest──▶ Due ──step──▶ Applying ──done──▶ Restarting ──nothing differs──▶ Settled
//!                        ▲               ├──failed──▶ Due, later
//!                        └───manifest────┴──too large──▶ Refused
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as Spec, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use serde::{Deserialize, Serialize};

use crate::agenda::Agenda;
use crate::backoff::failed_pass_retry;
use crate::event::ResizeOutcome;
use crate::facts::{Container, Launch, SandboxState};
use crate::shape::{ContainerShape, Role};
use crate::stop::{Stop, Why};
use crate::{Lifecycle, Step, Time};

/// What can change in place.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// How far the containers are on their way to what the manifest gives them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resize {
    stage: Stage,
    /// When the stage's condition began to hold.
    since: Option<Time>,
    /// Why the last try failed.
    error: Option<String>,
    announced: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    #[default]
    Settled,
    /// To be applied, not before this time.
    Due(Time),
    Applying,
    /// What could be applied has been; some containers are started again for the rest.
    Restarting,
    /// This machine will never have so much.
    Refused(String),
}

/// The events' summary of what every resizable container is to have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Member<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Member<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Member<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

impl Lifecycle {
    /// After a changed manifest: is anything of it to be applied to what runs?
    pub(crate) fn consider_resize(&mut self, now: Time) {
        if !self.differs() {
            if self.resize.stage != Stage::Applying {
                self.resize = Resize::default();
            }
            return;
        }
        let since = self.resize.since.filter(|_| !matches!(self.resize.stage, Stage::Settled | Stage::Refused(_)));
        self.resize = Resize {
            // One under way looks again when it ends.
            stage: if self.resize.stage == Stage::Applying { Stage::Applying } else { Stage::Due(now) },
            since: since.or(Some(now)),
            ..Resize::default()
        };
    }

    pub(crate) fn plan_resize(&self, agenda: &mut Agenda) {
        if self.stop.is_some() || self.sandbox.state != SandboxState::Ready {
            return;
        }
        if let Stage::Due(time) = self.resize.stage
            && self.wanted().any(|(_, container)| container.lags())
            && agenda.is_due(time)
        {
            let in_place = self.wanted().filter(|(_, container)| container.lags() && !container.resize_restarts());
            agenda.step(Step::Resize { containers: in_place.map(|(_, c)| c.name().to_owned()).collect() });
        }
    }

    pub(crate) fn begin_resize(&mut self, names: &[String]) {
        if !matches!(self.resize.stage, Stage::Due(_)) {
            return;
        }
        self.resize.stage = Stage::Applying;
        for container in
            self.containers.iter_mut().filter(|container| names.iter().any(|name| name == container.name()))
        {
            container.applying = Some(container.shape.resources());
        }
    }

    pub(crate) fn resize_ended(&mut self, outcome: ResizeOutcome, now: Time) {
        if self.resize.stage != Stage::Applying {
            return;
        }
        for container in &mut self.containers {
            let Some(applied) = container.applying.take() else { continue };
            let left_out = match &outcome {
                ResizeOutcome::Applied => false,
                ResizeOutcome::Failed { containers, .. } => containers.iter().any(|name| name == container.name()),
                ResizeOutcome::Infeasible(_) => true,
            };
            if let Some(attempt) = container.alive_mut().filter(|_| !left_out) {
                attempt.resources = Some(applied);
            }
        }
        match outcome {
            ResizeOutcome::Infeasible(message) => {
                let text = format!("Pod resize Infeasible: {}", self.summary(Some(&message)));
                self.warn_pod(now, "ResizeInfeasible", text);
                self.resize = Resize { stage: Stage::Refused(message), since: Some(now), ..Resize::default() };
                return;
            }
            _ if !self.resize.announced => {
                let text = format!("Pod resize started: {}", self.summary(None));
                self.note_pod(now, "ResizeStarted", text);
                self.resize.announced = true;
            }
            _ => {}
        }
        if let ResizeOutcome::Failed { message, .. } = outcome {
            let text = format!("Pod resize error: {}", self.summary(Some(&message)));
            self.warn_pod(now, "ResizeError", text);
            self.resize.stage = Stage::Due(failed_pass_retry(now));
            self.resize.error = Some(message);
            return;
        }
        self.resize.error = None;
        // The manifest may have changed meanwhile.
        let again = self.wanted().any(|(_, container)| container.lags() && !container.resize_restarts());
        self.resize.stage = if again { Stage::Due(now) } else { Stage::Restarting };
        for index in 0..self.containers.len() {
            if self.containers[index].resize_restarts() {
                self.stop_container(index, Why::Resize, now);
            }
        }
    }

    /// Notes the end of a resize when nothing differs any more.
    pub(crate) fn settle_resize(&mut self, now: Time) {
        if matches!(self.resize.stage, Stage::Due(_) | Stage::Restarting) && !self.differs() {
            if self.resize.announced {
                let text = format!("Pod resize completed: {}", self.summary(None));
                self.note_pod(now, "ResizeCompleted", text);
            }
            self.resize = Resize::default();
        }
    }

    /// After an engine crash: nobody knows how far it came.
    pub(crate) fn resume_resize(&mut self, now: Time) {
        if self.resize.stage == Stage::Applying {
            self.resize.stage = Stage::Due(now);
        }
        for container in &mut self.containers {
            container.applying = None;
        }
    }

    pub(crate) fn resize_condition(&self) -> Option<PodCondition> {
        let (kind, reason, message) = match &self.resize.stage {
            Stage::Settled => return None,
            Stage::Refused(message) => ("PodResizePending", Some("Infeasible"), Some(message.clone())),
            _ => ("PodResizeInProgress", self.resize.error.as_ref().map(|_| "Error"), self.resize.error.clone()),
        };
        Some(PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            last_transition_time: self.resize.since.map(ApiTime),
            observed_generation: self.pod.generation,
            reason: reason.map(str::to_owned),
            message,
            ..PodCondition::default()
        })
    }

    /// The manifest's resources are not what was granted.
    pub(crate) fn resize_is_refused(&self) -> bool {
        matches!(self.resize.stage, Stage::Refused(_))
    }

    /// Something runs, or is about to, with other numbers than its definition's.
    fn differs(&self) -> bool {
        let restarting = self.resize.stage == Stage::Restarting;
        let mut containers = self.wanted().map(|(_, container)| container);
        containers
            .any(|container| container.lags() || container.starts_behind() || (restarting && container.is_restarting()))
    }

    fn summary(&self, error: Option<&str>) -> String {
        let members = |role: Role| {
            let containers = self.wanted().filter(move |(_, container)| container.shape.role == role);
            containers.map(|(_, c)| Member { name: c.name(), resources: resizable(&c.shape.resources()) }).collect()
        };
        let summary = Summary {
            init_containers: members(Role::Sidecar),
            containers: members(Role::Main),
            generation: self.pod.generation,
            error,
        };
        serde_json::to_string(&summary).unwrap_or_default()
    }
}

impl Container {
    /// It runs with other numbers than its definition's, and goes on running.
    fn lags(&self) -> bool {
        let attempt = self.alive().filter(|attempt| attempt.stop.is_none());
        self.is_behind(attempt.and_then(|attempt| attempt.resources.as_ref()))
    }

    /// Likewise, but it is only being started.
    fn starts_behind(&self) -> bool {
        let starting = matches!(self.launch, Launch::Starting { stale: false, .. });
        self.is_behind(self.starting.as_ref().filter(|_| starting))
    }

    fn is_behind(&self, has: Option<&ResourceRequirements>) -> bool {
        let resizable_role = matches!(self.shape.role, Role::Main | Role::Sidecar);
        resizable_role && has.is_some_and(|has| resizable(has) != resizable(&self.shape.resources()))
    }

    fn is_restarting(&self) -> bool {
        self.must_restart || self.alive().and_then(|attempt| attempt.stop.as_ref()).is_some_and(Stop::promises_restart)
    }

    /// What differs may only change with a restart (`resizePolicy`).
    fn resize_restarts(&self) -> bool {
        let alive = self.alive().filter(|_| self.lags());
        let Some(has) = alive.and_then(|attempt| attempt.resources.as_ref()) else { return false };
        let wants = self.shape.resources();
        RESOURCES.iter().any(|resource| of(has, resource) != of(&wants, resource) && self.shape.restarts_for(resource))
    }
}

impl ContainerShape {
    pub(crate) fn resources(&self) -> ResourceRequirements {
        self.spec.resources.clone().unwrap_or_default()
    }

    fn restarts_for(&self, resource: &str) -> bool {
        let policies = self.spec.resize_policy.iter().flatten();
        policies
            .into_iter()
            .any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
    }

    /// Nothing but CPU and memory differs, and this is a container that can take it.
    pub(crate) fn differs_in_size_only(&self, new: &ContainerShape) -> bool {
        let without = |spec: &Spec| Spec {
            resources: Some(others(&spec.resources.clone().unwrap_or_default())),
            resize_policy: None,
            ..spec.clone()
        };
        let resizable = matches!(self.role, Role::Main | Role::Sidecar) && self.role == new.role;
        resizable && self != new && without(&self.spec) == without(&new.spec)
    }
}

type Amounts = Option<BTreeMap<String, Quantity>>;

fn of<'a>(resources: &'a ResourceRequirements, name: &str) -> (Option<&'a Quantity>, Option<&'a Quantity>) {
    let find = |amounts: &'a Amounts| amounts.as_ref().and_then(|amounts| amounts.get(name));
    (find(&resources.requests), find(&resources.limits))
}

/// The part that can change.
fn resizable(resources: &ResourceRequirements) -> ResourceRequirements {
    filtered(resources, |name| RESOURCES.contains(&name))
}

fn others(resources: &ResourceRequirements) -> ResourceRequirements {
    ResourceRequirements { claims: resources.claims.clone(), ..filtered(resources, |name| !RESOURCES.contains(&name)) }
}

fn filtered(resources: &ResourceRequirements, keep: impl Fn(&str) -> bool) -> ResourceRequirements {
    let part = |amounts: &Amounts| {
        let kept = amounts.iter().flatten().filter(|(name, _)| keep(name));
        let kept: BTreeMap<String, Quantity> = kept.map(|(name, amount)| (name.clone(), amount.clone())).collect();
        (!kept.is_empty()).then_some(kept)
    };
    ResourceRequirements { claims: None, limits: part(&resources.limits), requests: part(&resources.requests) }
}
