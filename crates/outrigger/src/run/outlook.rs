//! Whether a pod is up, still on its way, or will not get there by itself: when `run --detach` returns.

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, PodSpec, PodStatus};
use pod_api::role::is_sidecar;
use pod_plan::Notice;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outlook {
    Coming,
    /// Mains run or have completed, sidecars have started.
    Up,
    /// A definite failure. The engine goes on trying by the pod's policy.
    Broken {
        container: Option<String>,
        reason: String,
        message: String,
    },
}

/// Waiting reasons after which waiting longer is hoping. An `ErrImagePull` may pass, but the person should hear of it.
const BROKEN: [&str; 11] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PostStartHookError",
    "RegistryUnavailable",
];

pub(crate) fn of_status(spec: &PodSpec, status: &PodStatus) -> Outlook {
    match status.phase.as_deref() {
        Some("Succeeded") => return Outlook::Up,
        Some("Failed") => return failed(status),
        _ => {}
    }
    let statuses = || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    if let Some(broken) = statuses().find_map(broken) {
        return broken;
    }
    if let Some(broken) = status.init_container_statuses.iter().flatten().find_map(backing_off) {
        return broken;
    }
    let find = |container: &Container| statuses().find(|status| status.name == container.name);
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let started = |status: &ContainerStatus| status.started == Some(true) && is_running(status);
    let up = spec.containers.iter().all(|main| find(main).is_some_and(|main| is_running(main) || completed(main)))
        && sidecars.into_iter().all(|sidecar| find(sidecar).is_some_and(started));
    if up { Outlook::Up } else { Outlook::Coming }
}

/// Volumes and networks are retried for ever; what the first refusal says will not change by itself on one machine.
pub(crate) fn of_notice(notice: &Notice) -> Outlook {
    match notice.reason.as_str() {
        // A sidecar that ends with code 0 backs off without a waiting reason: the event is all there is.
        "FailedMount" | "FailedCreatePodSandBox" | "BackOff" if notice.warning => {
            Outlook::Broken { container: None, reason: notice.reason.clone(), message: notice.message.clone() }
        }
        _ => Outlook::Coming,
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn completed(status: &ContainerStatus) -> bool {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|terminated| terminated.exit_code == 0)
}

fn broken(status: &ContainerStatus) -> Option<Outlook> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| BROKEN.contains(reason))?;
    let mut message = waiting.message.clone().unwrap_or_default();
    if reason == "CrashLoopBackOff" {
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        message = last
            .map_or(message, |last| format!("it exited with code {} and is restarted with back-off", last.exit_code));
    }
    Some(Outlook::Broken { container: Some(status.name.clone()), reason: reason.into(), message })
}

/// A sidecar that ends with code 0 goes on showing that while it is in back-off: no waiting reason ever comes. Before its
/// first restart there is no back-off, and a plain init container that has passed is never restarted.
fn backing_off(status: &ContainerStatus) -> Option<Outlook> {
    let ended = |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    let end = ended(&status.state).filter(|end| end.exit_code == 0 && !status.ready)?;
    ended(&status.last_state)?;
    let message = format!("it exited with code {} and is restarted with back-off", end.exit_code);
    Some(Outlook::Broken { container: Some(status.name.clone()), reason: "CrashLoopBackOff".into(), message })
}

fn failed(status: &PodStatus) -> Outlook {
    let ended = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let culprit = ended.into_iter().find_map(|status| {
        let end = status.state.as_ref()?.terminated.as_ref().filter(|end| end.exit_code != 0)?;
        Some((status.name.clone(), end.clone()))
    });
    let reason = status.reason.clone().unwrap_or_else(|| "Failed".into());
    match (&status.message, culprit) {
        (Some(message), _) => Outlook::Broken { container: None, reason, message: message.clone() },
        (None, Some((name, end))) => {
            let message = end.message.filter(|message| !message.is_empty());
            let message = message.unwrap_or_else(|| format!("exited with code {}", end.exit_code));
            Outlook::Broken { container: Some(name), reason: end.reason.unwrap_or(reason), message }
        }
        (None, None) => Outlook::Broken { container: None, reason, message: String::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec() -> PodSpec {
        serde_json::from_value(json!({
            "initContainers": [{"name": "proxy", "image": "p", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "a"}],
        }))
        .expect("a spec")
    }

    fn judge(phase: &str, proxy: (bool, Value), app: Value) -> Outlook {
        let status = |name, started, state| json!({"name": name, "image": "i", "imageID": "", "restartCount": 0, "ready": false, "started": started, "state": state});
        let status = json!({"phase": phase, "initContainerStatuses": [status("proxy", proxy.0, proxy.1)],
            "containerStatuses": [status("app", true, app)]});
        of_status(&spec(), &serde_json::from_value(status).expect("a status"))
    }

    fn running() -> Value {
        json!({"running": {}})
    }

    #[test]
    fn up_means_mains_run_or_completed_and_sidecars_started() {
        assert_eq!(
            judge("Pending", (false, running()), json!({"waiting": {"reason": "PodInitializing"}})),
            Outlook::Coming
        );
        assert_eq!(judge("Running", (false, running()), running()), Outlook::Coming);
        assert_eq!(judge("Running", (true, running()), running()), Outlook::Up);
        assert_eq!(judge("Running", (true, running()), json!({"terminated": {"exitCode": 0}})), Outlook::Up);
        // One crash is not yet the end: the next attempt may run.
        assert_eq!(judge("Running", (true, running()), json!({"terminated": {"exitCode": 1}})), Outlook::Coming);
    }

    #[test]
    fn a_sidecar_that_keeps_ending_well_is_not_waited_for() {
        let ended = json!({"terminated": {"exitCode": 0}});
        let judge = |restarts: u32, last: Value, ready: bool| {
            let status = json!({"phase": "Running", "initContainerStatuses": [{"name": "proxy", "image": "p", "imageID": "",
                "restartCount": restarts, "ready": ready, "started": false, "state": ended, "lastState": last}],
                "containerStatuses": [{"name": "app", "image": "a", "imageID": "", "restartCount": 0, "ready": true,
                "started": true, "state": running()}]});
            of_status(&spec(), &serde_json::from_value(status).expect("a status"))
        };
        // The first restart is immediate.
        assert_eq!(judge(0, json!({}), false), Outlook::Coming);
        let message = "it exited with code 0 and is restarted with back-off".to_owned();
        let expected = Outlook::Broken { container: Some("proxy".into()), reason: "CrashLoopBackOff".into(), message };
        assert_eq!(judge(1, ended.clone(), false), expected);
        // A plain init container that was restarted and has passed.
        assert_eq!(judge(1, json!({"terminated": {"exitCode": 1}}), true), Outlook::Coming);
    }

    #[test]
    fn a_definite_failure_is_named() {
        let pull = json!({"waiting": {"reason": "ErrImagePull", "message": "refused"}});
        let expected =
            Outlook::Broken { container: Some("app".into()), reason: "ErrImagePull".into(), message: "refused".into() };
        assert_eq!(judge("Pending", (true, running()), pull), expected);
        let end = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
        let expected = Outlook::Broken {
            container: Some("app".into()),
            reason: "Error".into(),
            message: "exited with code 3".into(),
        };
        assert_eq!(judge("Failed", (true, json!({"terminated": {"exitCode": 0}})), end), expected);
    }
}
