//! A pod of which only its last status is left: the machine went down, and with it the ledger and every process.
//!
//! What the status tells of attempts becomes facts again; then the sandbox is lost, as when a shim dies, and the policy
//! says what is started again (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go`
//! computePodActions).

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};

use crate::condition::Transition;
use crate::facts::{Attempt, Container, End, EndReason, HookState, SandboxState, Volumes};
use crate::probe::Probes;
use crate::{Event, Exit, Lifecycle, Time};

impl Lifecycle {
    /// `pod` as in [`Lifecycle::new`]; `status` is the last one that was told of it. Attempts that ran are lost, restart
    /// counts go on.
    pub fn restored(pod: &Pod, uid: &str, status: &PodStatus, now: Time) -> Self {
        let created = status.start_time.as_ref().map_or(now, |time| time.0);
        let mut lifecycle = Self::new(pod, uid, created);
        lifecycle.notices.clear();
        if lifecycle.stop.is_some() {
            return lifecycle;
        }
        lifecycle.volumes = Volumes::Ready;
        lifecycle.sandbox.state = SandboxState::Ready;
        lifecycle.sandbox.ips = status.pod_ips.iter().flatten().filter_map(|address| address.ip.parse().ok()).collect();
        lifecycle.sandbox.host_ip = status.host_ip.as_deref().and_then(|address| address.parse().ok());
        for condition in status.conditions.iter().flatten() {
            let at = condition.last_transition_time.as_ref().map_or(created, |time| time.0);
            lifecycle.transitions.retain(|known| !known.is_of(&condition.type_));
            lifecycle.transitions.push(Transition::new(&condition.type_, condition.status == "True", at));
        }
        let inits = status.init_container_statuses.iter().flatten();
        let told = inits.chain(status.container_statuses.iter().flatten());
        let told = told.chain(status.ephemeral_container_statuses.iter().flatten());
        for told in told {
            if let Some(container) = lifecycle.containers.iter_mut().find(|known| known.name() == told.name) {
                container.recall(told, now);
            }
        }
        lifecycle.apply(Event::SandboxLost, now);
        lifecycle
    }
}

impl Container {
    fn recall(&mut self, told: &ContainerStatus, now: Time) {
        let number = u32::try_from(told.restart_count).unwrap_or(0);
        let waits = told.state.as_ref().is_none_or(|state| state.waiting.is_some());
        // What waits shows the attempt before it in the place of the previous one.
        let (previous, newest) = match (&told.last_state, &told.state) {
            (last, _) if waits => (None, last.as_ref()),
            (last, state) => (last.as_ref(), state.as_ref()),
        };
        self.first_number = number;
        let before = previous.filter(|_| number > 0).and_then(|state| attempt_of(number - 1, state, told, now));
        self.attempts.extend(before);
        self.attempts.extend(newest.and_then(|state| attempt_of(number, state, told, now)));
        self.image_id = Some(told.image_id.clone()).filter(|id| !id.is_empty());
    }
}

fn attempt_of(number: u32, state: &ContainerState, told: &ContainerStatus, now: Time) -> Option<Attempt> {
    let (started, container_id, end) = match (&state.terminated, &state.running) {
        (Some(ended), _) => {
            let ContainerStateTerminated { started_at, container_id, .. } = ended;
            let started = started_at.as_ref().map(|time| time.0).filter(|time| *time > Time::UNIX_EPOCH);
            (started, container_id.clone(), Some(end_of(ended, now)))
        }
        (None, Some(ContainerStateRunning { started_at })) => {
            (started_at.as_ref().map(|time| time.0), told.container_id.clone(), None)
        }
        (None, None) => return None,
    };
    Some(Attempt {
        number,
        era: 0,
        image: told.image.clone(),
        image_id: told.image_id.clone(),
        container_id: container_id.unwrap_or_default(),
        identity: None,
        started,
        end,
        post_start: HookState::Absent,
        probes: Probes::default(),
        stop: None,
        resources: told.resources.clone(),
    })
}

fn end_of(ended: &ContainerStateTerminated, now: Time) -> End {
    let reason = match ended.reason.as_deref() {
        Some("StartError") => EndReason::StartError,
        Some("ContainerStatusUnknown") => EndReason::Lost,
        _ => EndReason::Exited,
    };
    End {
        at: ended.finished_at.as_ref().map_or(now, |time| time.0),
        exit: Exit { code: ended.exit_code, signal: None, oom_killed: ended.reason.as_deref() == Some("OOMKilled") },
        reason,
        message: ended.message.clone().unwrap_or_default(),
        at_once: false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn restored(policy: &str, state: Value, last: Value) -> Lifecycle {
        let pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"restartPolicy": policy,
            "containers": [{"name": "app", "image": "a"}]}});
        let status = json!({"phase": "Running", "startTime": "2025-01-01T00:00:00Z", "containerStatuses": [{
            "name": "app", "image": "a", "imageID": "i", "ready": true, "restartCount": 3, "state": state, "lastState": last}]});
        let pod = serde_json::from_value(pod).unwrap();
        let status = serde_json::from_value(status).unwrap();
        Lifecycle::restored(&pod, "u", &status, "2025-01-01T01:00:00Z".parse().unwrap())
    }

    fn running() -> Value {
        json!({"running": {"startedAt": "2025-01-01T00:00:01Z"}})
    }

    fn ended(code: i32) -> Value {
        json!({"terminated": {"exitCode": code, "finishedAt": "2025-01-01T00:00:02Z", "startedAt": "2025-01-01T00:00:01Z"}})
    }

    #[test]
    fn what_ran_is_lost_and_goes_on_counting() {
        let lifecycle = restored("Always", running(), json!({}));
        assert!(!lifecycle.is_stopping());
        assert_eq!(lifecycle.next_attempt("app"), Some(4));
        let status = lifecycle.status("2025-01-01T01:00:00Z".parse().unwrap());
        let app = &status.container_statuses.unwrap()[0];
        assert_eq!(app.restart_count, 3);
        let terminated = app.state.clone().unwrap().terminated.unwrap();
        assert_eq!((terminated.exit_code, terminated.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    }

    #[test]
    fn policy_decides_what_comes_back() {
        assert!(restored("Never", running(), json!({})).is_stopping());
        assert!(restored("Never", ended(0), json!({})).is_stopping());
        assert!(restored("OnFailure", ended(0), json!({})).is_stopping());
        assert!(!restored("OnFailure", ended(1), json!({})).is_stopping());
        assert!(!restored("OnFailure", running(), json!({})).is_stopping());
    }

    #[test]
    fn a_container_in_back_off_keeps_its_last_attempt() {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let lifecycle = restored("Always", waiting, ended(2));
        assert_eq!(lifecycle.next_attempt("app"), Some(4));
        assert_eq!(lifecycle.attempts("app")[0].exit_code, Some(2));
    }
}
