//! Which container of the pod is meant, and which attempt of it has the log that is asked for.

use pod_api::failure::Failure;
use serde_json::Value;

/// The container `asked` for; without a name, the only one there is.
///
/// # Errors
/// 400 with upstream's words (`pkg/registry/core/pod/strategy.go`, validateContainer).
pub(super) fn choose(pod: &Value, asked: Option<&str>) -> Result<String, Failure> {
    let of = |field: &str| pod["spec"][field].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str());
    let pod_name = name_of(pod);
    if let Some(asked) = asked.filter(|name| !name.is_empty()) {
        let known =
            of("initContainers").chain(of("containers")).chain(of("ephemeralContainers")).any(|name| name == asked);
        return match known {
            true => Ok(asked.to_owned()),
            false => Err(Failure::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
        };
    }
    let mut mains = of("containers");
    match (mains.next(), mains.next()) {
        (Some(only), None) => Ok(only.to_owned()),
        (None, _) => Err(Failure::bad_request(format!("a container name must be specified for pod {pod_name}"))),
        _ => {
            let all: Vec<&str> =
                of("initContainers").chain(of("containers")).chain(of("ephemeralContainers")).collect();
            let all = all.join(" ");
            let text = format!("a container name must be specified for pod {pod_name}, choose one of: [{all}]");
            Err(Failure::bad_request(text))
        }
    }
}

/// The attempt (`restartCount`) whose log is meant: the current one if it runs or has ended, else the last one that ended;
/// with `previous`, the one that ended before the current one.
///
/// # Errors
/// 400 with upstream's words (`pkg/kubelet/kubelet_pods.go`, validateContainerLogStatus).
pub(super) fn attempt(pod: &Value, container: &str, previous: bool) -> Result<u32, Failure> {
    let about = format!("container {container:?} in pod {:?}", name_of(pod));
    let refuse = |text: String| Err(Failure::bad_request(text));
    let Some(status) = status_of(pod, container) else {
        return refuse(format!("{about} is not available"));
    };
    let (state, restarts) = (&status["state"], restart_count(status));
    let has_last = has_run(&status["lastState"]["terminated"]);
    let current = state["running"].is_object() || has_run(&state["terminated"]);
    if previous {
        return match has_last {
            true => Ok(if current { restarts.saturating_sub(1) } else { restarts }),
            false => refuse(format!("previous terminated {about} not found")),
        };
    }
    if current || has_last {
        return Ok(restarts);
    }
    if state["terminated"].is_object() {
        return refuse(format!("{about} is terminated"));
    }
    let Some(waiting) = state["waiting"].as_object() else {
        return refuse(format!("{about} is waiting to start - no logs yet"));
    };
    let reason = waiting.get("reason").and_then(Value::as_str).unwrap_or_default();
    let why = match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    refuse(format!("{about} is waiting to start: {why}"))
}

/// Whether nothing more will be written to that attempt's log: it has ended, another one has begun, or the pod is gone.
pub(super) fn attempt_is_over(pod: &Value, uid: &str, container: &str, attempt: u32) -> bool {
    if pod["metadata"]["uid"].as_str().unwrap_or_default() != uid {
        return true;
    }
    let Some(status) = status_of(pod, container) else { return true };
    !status["state"]["running"].is_object() || restart_count(status) != attempt
}

/// The container as the manifest has it.
pub(super) fn spec_of<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|field| pod["spec"][*field].as_array().into_iter().flatten())
        .find(|one| one["name"] == container)
}

pub(super) fn name_of(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

fn status_of<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
        .iter()
        .flat_map(|field| pod["status"][*field].as_array().into_iter().flatten())
        .find(|one| one["name"] == container)
}

/// A state `terminated` that was reached by running: there is a container, or at least a time when it began.
fn has_run(terminated: &Value) -> bool {
    [&terminated["containerID"], &terminated["startedAt"]]
        .iter()
        .any(|field| field.as_str().is_some_and(|text| !text.is_empty()))
}

fn restart_count(status: &Value) -> u32 {
    status["restartCount"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(statuses: Value) -> Value {
        json!({"metadata": {"name": "web", "uid": "u"},
            "spec": {"initContainers": [{"name": "p"}], "containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"containerStatuses": statuses}})
    }

    #[test]
    fn a_container_is_named_or_the_only_one() {
        let two = pod(json!([]));
        let message = |result: Result<String, Failure>| result.unwrap_err().message;
        assert_eq!(choose(&two, Some("p")).unwrap(), "p");
        assert_eq!(message(choose(&two, Some("x"))), "container x is not valid for pod web");
        assert_eq!(
            message(choose(&two, None)),
            "a container name must be specified for pod web, choose one of: [p a b]"
        );
        let one = json!({"metadata": {"name": "web"}, "spec": {"initContainers": [{"name": "p"}], "containers": [{"name": "a"}]}});
        assert_eq!(choose(&one, Some("")).unwrap(), "a");
    }

    #[test]
    fn the_attempt_follows_the_state() {
        let running = json!({"running": {}});
        let ended = json!({"terminated": {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z"}});
        let never = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let none = json!({});
        let refused = |words: &str| Err(words.to_owned());
        for (state, last, restarts, previous, expected) in [
            (&running, &none, 0, false, Ok(0)),
            (&running, &ended, 2, false, Ok(2)),
            (&running, &ended, 2, true, Ok(1)),
            (&ended, &ended, 2, false, Ok(2)),
            (&ended, &ended, 2, true, Ok(1)),
            (&waiting, &ended, 2, false, Ok(2)),
            (&waiting, &ended, 2, true, Ok(2)),
            (&never, &none, 0, false, refused("container \"a\" in pod \"web\" is terminated")),
            (
                &waiting,
                &none,
                0,
                false,
                refused("container \"a\" in pod \"web\" is waiting to start: CrashLoopBackOff"),
            ),
            (&running, &none, 0, true, refused("previous terminated container \"a\" in pod \"web\" not found")),
            (
                &json!({"waiting": {"reason": "ErrImagePull"}}),
                &none,
                0,
                false,
                refused("container \"a\" in pod \"web\" is waiting to start: image can't be pulled"),
            ),
            (
                &json!({"waiting": {"reason": "ImagePullBackOff"}}),
                &none,
                0,
                false,
                refused("container \"a\" in pod \"web\" is waiting to start: trying and failing to pull image"),
            ),
        ] {
            let pod = pod(json!([{"name": "a", "restartCount": restarts, "state": state, "lastState": last}]));
            assert_eq!(
                attempt(&pod, "a", previous).map_err(|failure| failure.message),
                expected,
                "{state} {last} {previous}"
            );
        }
        let missing = attempt(&pod(json!([])), "a", false).unwrap_err();
        assert_eq!(missing.message, "container \"a\" in pod \"web\" is not available");
    }

    #[test]
    fn an_attempt_is_over_when_it_cannot_write_any_more() {
        let running = pod(json!([{"name": "a", "restartCount": 1, "state": {"running": {}}}]));
        assert!(!attempt_is_over(&running, "u", "a", 1));
        assert!(attempt_is_over(&running, "u", "a", 0) && attempt_is_over(&running, "other", "a", 1));
        let ended = pod(json!([{"name": "a", "restartCount": 1, "state": {"terminated": {}}}]));
        assert!(attempt_is_over(&ended, "u", "a", 1));
    }
}
