//! What `kubectl get pod -o yaml` shows: a projection of the facts. `kubernetes/kubernetes pkg/kubelet/kubelet_pods.go`
//! convertToAPIContainerStatuses, `…/prober/prober_manager.go` UpdatePodStatus, `…/status/status_manager.go`
//! TerminatePod.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;

use crate::facts::{Attempt, Container, End};
use crate::fold::LOST_MESSAGE;
use crate::probe::{is_ready, is_started};
use crate::shape::ContainerShape;
use crate::stop::PodStopCause;
use crate::{Identity, Lifecycle, Time};

/// The statuses of all containers: init containers in spec order, mains by name.
pub(crate) struct ContainerStatuses {
    pub(crate) inits: Vec<ContainerStatus>,
    pub(crate) mains: Vec<ContainerStatus>,
    /// By name; they count for nothing.
    ephemerals: Vec<ContainerStatus>,
}

impl ContainerStatuses {
    pub(crate) fn find(&self, name: &str) -> Option<&ContainerStatus> {
        self.inits.iter().chain(&self.mains).find(|status| status.name == name)
    }
}

impl Lifecycle {
    /// The status as of the last turn of time.
    pub(crate) fn status_now(&self) -> PodStatus {
        let statuses = self.container_statuses();
        let phase = self.phase_of(&statuses);
        let cause = self.stop.as_ref().filter(|_| phase.is_terminal()).map(|stop| &stop.cause);
        if let Some(PodStopCause::Rejected { reason, message }) = cause {
            return self.rejected_status(reason, message);
        }
        let (reason, message) = match cause {
            Some(PodStopCause::Failed { reason, message }) => (Some(reason.clone()), Some(message.clone())),
            _ => (None, None),
        };
        let conditions = self.conditions(&statuses, phase);
        let statuses = if self.stop.is_some() && self.all_down() { statuses.at_the_end(self) } else { statuses };
        let host_ip = self.sandbox.host_ip.map(|ip| ip.to_string());
        let ips: Vec<String> = self.sandbox.ips.iter().map(ToString::to_string).collect();
        PodStatus {
            phase: Some(phase.as_str().to_owned()),
            reason,
            message,
            conditions: Some(conditions),
            host_ip: host_ip.clone(),
            host_ips: host_ip.map(|ip| vec![HostIP { ip }]),
            pod_ip: ips.first().cloned(),
            pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
            start_time: Some(ApiTime(self.created)),
            init_container_statuses: (!statuses.inits.is_empty()).then_some(statuses.inits),
            container_statuses: Some(statuses.mains),
            ephemeral_container_statuses: (!statuses.ephemerals.is_empty()).then_some(statuses.ephemerals),
            observed_generation: self.pod.generation,
            ..PodStatus::default()
        }
    }

    pub(crate) fn container_statuses(&self) -> ContainerStatuses {
        let of = |belongs: fn(&ContainerShape) -> bool| {
            let containers = self.wanted().filter(move |(_, c)| belongs(&c.shape) && !c.excused);
            containers.map(|(_, container)| self.container_status(container)).collect::<Vec<_>>()
        };
        let by_name = |mut statuses: Vec<ContainerStatus>| {
            statuses.sort_by(|a, b| a.name.cmp(&b.name));
            statuses
        };
        ContainerStatuses {
            inits: of(ContainerShape::is_initial),
            mains: by_name(of(ContainerShape::is_main)),
            ephemerals: by_name(of(ContainerShape::is_ephemeral)),
        }
    }

    fn container_status(&self, container: &Container) -> ContainerStatus {
        let shape = &container.shape;
        let (current, previous) = container.shown();
        let mut state = current.map_or_else(|| self.not_yet(), state_of);
        let mut last_state = previous.filter(|attempt| !attempt.is_alive()).map(state_of);
        if let Some(trouble) = container.trouble.as_ref().filter(|_| self.shows_trouble(container, current)) {
            if state.terminated.is_some() {
                last_state = Some(state);
            }
            state = waiting(&trouble.reason, Some(&trouble.message));
        }
        let running = current.filter(|attempt| attempt.is_alive());
        let done = current.and_then(|attempt| attempt.end.as_ref()).is_some_and(|end| end.exit.code == 0);
        ContainerStatus {
            name: container.name().to_owned(),
            image: current.map_or(shape.image(), |attempt| &attempt.image).to_owned(),
            image_id: current.map_or_else(String::new, |attempt| attempt.image_id.clone()),
            container_id: current.map(container_id).filter(|id| !id.is_empty()),
            restart_count: current.map_or(0, |attempt| i32::try_from(attempt.number).unwrap_or(i32::MAX)),
            ready: match running {
                Some(attempt) => !shape.is_init() && !shape.is_ephemeral() && is_ready(shape, attempt),
                None => shape.is_init() && done,
            },
            started: (!shape.is_ephemeral()).then(|| running.is_some_and(|attempt| is_started(shape, attempt))),
            allocated_resources: current
                .filter(|_| !shape.is_ephemeral())
                .and_then(|attempt| {
                    attempt.resources.as_ref().filter(|_| self.resize_is_refused()).or(shape.spec.resources.as_ref())
                })
                .and_then(|resources| resources.requests.clone()),
            resources: current.map(|attempt| attempt.resources.clone().unwrap_or_else(|| shape.resources())),
            volume_mounts: volume_mounts(container),
            user: current.and_then(|attempt| attempt.identity.as_ref()).map(user),
            state: Some(state),
            last_state,
            ..ContainerStatus::default()
        }
    }

    /// The reason depends only on whether the pod has init containers at all.
    fn not_yet(&self) -> ContainerState {
        let has_inits = self.wanted().any(|(_, container)| container.shape.is_initial());
        waiting(if has_inits { "PodInitializing" } else { "ContainerCreating" }, None)
    }

    /// A container that will be started shows why it has not been yet, if that is known. An init container (sidecars
    /// included) that ended with 0 goes on showing that.
    fn shows_trouble(&self, container: &Container, current: Option<&Attempt>) -> bool {
        if self.stop.is_some() {
            return false;
        }
        let Some(attempt) = current else { return true };
        let Some(end) = &attempt.end else { return false };
        if end.exit.code == 0 && container.shape.is_initial() {
            return false;
        }
        container.runs_again(self.pod.policy, end)
    }
}

impl Container {
    /// The attempt shown as the present one, and the one before. An attempt whose `postStart` has not succeeded is not
    /// shown yet: upstream publishes a status only between its synchronous passes, so the container "cannot reach a
    /// running state" before.
    fn shown(&self) -> (Option<&Attempt>, Option<&Attempt>) {
        let hidden = self.alive().is_some_and(|attempt| !attempt.is_up());
        let mut newest = self.attempts.iter().rev().skip(usize::from(hidden));
        (newest.next(), newest.next())
    }
}

fn waiting(reason: &str, message: Option<&str>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message: message.filter(|m| !m.is_empty()).map(str::to_owned),
    };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn state_of(attempt: &Attempt) -> ContainerState {
    match &attempt.end {
        None => {
            let running = ContainerStateRunning { started_at: attempt.started.map(ApiTime) };
            ContainerState { running: Some(running), ..ContainerState::default() }
        }
        Some(end) => ContainerState { terminated: Some(terminated(attempt, end)), ..ContainerState::default() },
    }
}

fn terminated(attempt: &Attempt, end: &End) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: end.exit.code,
        reason: Some(end.reason_text().to_owned()),
        message: Some(end.message.clone()).filter(|message| !message.is_empty()),
        // What never ran started at the epoch, as containerd tells it.
        started_at: Some(ApiTime(attempt.started.unwrap_or(Time::UNIX_EPOCH))),
        finished_at: Some(ApiTime(end.at)),
        container_id: Some(container_id(attempt)).filter(|id| !id.is_empty()),
        // A signal shows in the code (128 + number); upstream leaves the field alone.
        signal: None,
    }
}

/// `type://id`, as the field's format asks; an id that has a type keeps it.
fn container_id(attempt: &Attempt) -> String {
    match attempt.container_id.as_str() {
        "" => String::new(),
        id if id.contains("://") => id.to_owned(),
        id => format!("outrigger://{id}"),
    }
}

fn user(identity: &Identity) -> ContainerUser {
    let groups: Vec<i64> = identity.groups.iter().copied().map(i64::from).collect();
    let linux = LinuxContainerUser {
        uid: identity.uid.into(),
        gid: identity.gid.into(),
        supplemental_groups: (!groups.is_empty()).then_some(groups),
    };
    ContainerUser { linux: Some(linux) }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.shape.spec.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let status = mounts.iter().map(|mount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        let recursive = match mount.recursive_read_only.as_deref() {
            // Every kernel we run on can do it.
            Some("Enabled" | "IfPossible") => "Enabled",
            _ => "Disabled",
        };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| recursive.to_owned()),
        }
    });
    Some(status.collect())
}

// === the last status of a pod ===

impl ContainerStatuses {
    /// When a pod is over, containers that should have run and did not are said to be lost.
    fn at_the_end(mut self, lifecycle: &Lifecycle) -> Self {
        if lifecycle.was_initialised(&self) {
            self.mains.iter_mut().for_each(mark_lost);
        }
        let has_run = |status: &ContainerStatus| {
            let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
            let ran = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
            !waits || ran
        };
        // All up to the last one that was ever begun; at least the first.
        let begun = self.inits.iter().rposition(has_run).unwrap_or(0) + 1;
        self.inits.iter_mut().take(begun).for_each(mark_lost);
        self
    }
}

impl Lifecycle {
    fn was_initialised(&self, statuses: &ContainerStatuses) -> bool {
        let terminated =
            |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.as_ref()).cloned();
        let Some(last) = statuses.inits.last() else { return true };
        let main_moved = statuses.mains.iter().any(|status| {
            let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
            !waits || terminated(&status.last_state).is_some()
        });
        if self.stop.as_ref().is_some_and(|stop| stop.cause == PodStopCause::InitFailed) {
            // The last one may have ended with 0 and failed nevertheless: killed for memory.
            return main_moved;
        }
        let sidecar = self.index(&last.name).is_some_and(|index| self.containers[index].shape.is_sidecar());
        let completed = [&last.state, &last.last_state].into_iter().filter_map(terminated).any(|t| t.exit_code == 0);
        main_moved || (!sidecar && completed)
    }
}

fn mark_lost(status: &mut ContainerStatus) {
    if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        return;
    }
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(LOST_MESSAGE.to_owned()),
        ..ContainerStateTerminated::default()
    };
    status.state = Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() });
}
