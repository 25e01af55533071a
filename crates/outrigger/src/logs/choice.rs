//! Which log `outrigger logs` means: kubectl's and the API server's rules and words.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use pod_api::role::{Role, containers, find};

use crate::exit::{Coded, FAILED};

/// Read by kubectl, too.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// An attempt of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) container: String,
    pub(crate) attempt: u32,
}

/// The container that was asked for, or the default one with kubectl's note about it.
pub(crate) fn one(
    pod: &Pod,
    status: &PodStatus,
    wanted: Option<&str>,
    previous: bool,
) -> anyhow::Result<(Chosen, Option<String>)> {
    let (container, note) = match wanted {
        Some(name) => (name.to_owned(), None),
        None => default(pod),
    };
    let known = pod.spec.as_ref().is_some_and(|spec| find(spec, &container).is_some());
    if !known {
        return Err(refuse(format!("container {container} is not valid for pod {}", pod_name(pod))));
    }
    let attempt = attempt(pod, status, &container, previous)?;
    Ok((Chosen { container, attempt }, note))
}

/// Every container that has a log, init containers first.
pub(crate) fn all(pod: &Pod, status: &PodStatus, previous: bool) -> Vec<Chosen> {
    let names = pod.spec.iter().flat_map(|spec| containers(spec).map(|(_, container)| container.name.clone()));
    let choose = |container: String| {
        let attempt = attempt(pod, status, &container, previous).ok()?;
        Some(Chosen { container, attempt })
    };
    names.filter_map(choose).collect()
}

/// Whether the attempt is over.
pub(crate) fn has_ended(status: &PodStatus, chosen: &Chosen) -> bool {
    let Some(status) = status_of(status, &chosen.container) else { return false };
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    !running || count(status) != chosen.attempt
}

fn default(pod: &Pod) -> (String, Option<String>) {
    let Some(spec) = pod.spec.as_ref() else { return (String::new(), None) };
    let annotated = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    if let Some(name) = annotated.filter(|name| find(spec, name).is_some()) {
        return (name.clone(), None);
    }
    let name = spec.containers.first().map(|main| main.name.clone()).unwrap_or_default();
    let mains = containers(spec).filter(|(role, _)| *role == Role::Main).map(|(_, main)| main.name.clone());
    let inits =
        containers(spec).filter(|(role, _)| *role != Role::Main).map(|(_, init)| format!("{} (init)", init.name));
    let others: Vec<String> = mains.chain(inits).collect();
    let note = (others.len() > 1).then(|| format!("Defaulted container \"{name}\" out of: {}", others.join(", ")));
    (name, note)
}

/// Running: this one. Over: that one. Waiting for its next try: the last one.
fn attempt(pod: &Pod, status: &PodStatus, container: &str, previous: bool) -> anyhow::Result<u32> {
    let pod = pod_name(pod);
    let Some(status) = status_of(status, container) else {
        return Err(refuse(format!("container \"{container}\" in pod \"{pod}\" is not available")));
    };
    let has_last = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    match (previous, waiting) {
        (true, _) if !has_last => {
            Err(refuse(format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")))
        }
        // Restarts are counted when the next attempt is made: while it is waited for, the last one has the count.
        (true, Some(_)) => Ok(count(status)),
        (true, None) => Ok(count(status).saturating_sub(1)),
        (false, Some(waiting)) if !has_last => {
            let what = match waiting.reason.as_deref().unwrap_or("ContainerCreating") {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                reason => reason,
            };
            Err(refuse(format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {what}")))
        }
        (false, _) => Ok(count(status)),
    }
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let inits = status.init_container_statuses.iter().flatten();
    inits.chain(status.container_statuses.iter().flatten()).find(|status| status.name == container)
}

fn count(status: &ContainerStatus) -> u32 {
    u32::try_from(status.restart_count).unwrap_or(0)
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn refuse(message: String) -> anyhow::Error {
    Coded::new(FAILED, anyhow::Error::msg(message)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod() -> Pod {
        let value = json!({"metadata": {"name": "web"}, "spec": {
            "initContainers": [{"name": "proxy", "image": "p", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "a"}, {"name": "side", "image": "s"}]}});
        serde_json::from_value(value).expect("a pod")
    }

    fn status(restarts: i32, state: Value, last: Value) -> PodStatus {
        let container = |name| {
            json!({"name": name, "image": "i", "imageID": "", "ready": false,
            "restartCount": restarts, "state": state, "lastState": last})
        };
        let value = json!({"initContainerStatuses": [container("proxy")],
            "containerStatuses": [container("app"), container("side")]});
        serde_json::from_value(value).expect("a status")
    }

    fn choose(status: &PodStatus, wanted: Option<&str>, previous: bool) -> Result<u32, String> {
        one(&pod(), status, wanted, previous).map(|(chosen, _)| chosen.attempt).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_main_is_the_default_and_the_others_are_named() {
        let running = status(0, json!({"running": {}}), json!({}));
        let (chosen, note) = one(&pod(), &running, None, false).expect("it has a log");
        assert_eq!(chosen, Chosen { container: "app".into(), attempt: 0 });
        assert_eq!(note.as_deref(), Some("Defaulted container \"app\" out of: app, side, proxy (init)"));
        let mut annotated = pod();
        annotated.metadata.annotations = Some([(DEFAULT_CONTAINER.to_owned(), "side".to_owned())].into());
        let (chosen, note) = one(&annotated, &running, None, false).expect("it has a log");
        assert_eq!((chosen.container.as_str(), note), ("side", None));
        let names: Vec<String> = all(&pod(), &running, false).into_iter().map(|chosen| chosen.container).collect();
        assert_eq!(names, ["proxy", "app", "side"]);
    }

    #[test]
    fn the_attempt_follows_the_state() {
        let ended = json!({"terminated": {"exitCode": 1}});
        assert_eq!(choose(&status(2, json!({"running": {}}), ended.clone()), Some("app"), false), Ok(2));
        assert_eq!(choose(&status(2, json!({"running": {}}), ended.clone()), Some("app"), true), Ok(1));
        assert_eq!(
            choose(&status(2, json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended.clone()), Some("app"), false),
            Ok(2)
        );
        assert_eq!(choose(&status(0, ended, json!({})), Some("app"), false), Ok(0));
    }

    #[test]
    fn refusals_are_the_servers() {
        let waiting = |reason| status(0, json!({"waiting": {"reason": reason}}), json!({}));
        let refusal = |status: &PodStatus, wanted, previous| choose(status, Some(wanted), previous).unwrap_err();
        assert_eq!(
            refusal(&waiting("PodInitializing"), "app", false),
            "container \"app\" in pod \"web\" is waiting to start: PodInitializing"
        );
        assert_eq!(
            refusal(&waiting("ErrImagePull"), "app", false),
            "container \"app\" in pod \"web\" is waiting to start: image can't be pulled"
        );
        assert_eq!(refusal(&waiting(""), "nope", false), "container nope is not valid for pod web");
        let running = status(0, json!({"running": {}}), json!({}));
        assert_eq!(refusal(&running, "app", true), "previous terminated container \"app\" in pod \"web\" not found");
    }

    #[test]
    fn following_ends_with_the_attempt() {
        let chosen = Chosen { container: "app".into(), attempt: 1 };
        assert!(!has_ended(&status(1, json!({"running": {}}), json!({})), &chosen));
        assert!(has_ended(&status(2, json!({"running": {}}), json!({})), &chosen));
        assert!(has_ended(&status(1, json!({"terminated": {"exitCode": 0}}), json!({})), &chosen));
    }
}
