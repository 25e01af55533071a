//! The engine's word on a pod, put into its stored object.
//!
//! The engine projects the whole status; only what is not a node's stays: conditions that clients write through
//! `pods/status`, and fields no engine knows.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value};

use crate::object::{items, text};

/// Conditions a kubelet writes; all others are somebody's else (`pkg/kubelet/types/pod_status.go` PodConditionByKubelet).
const OWN: [&str; 9] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

/// Fields of the status that a node writes, or leaves out.
const FIELDS: [&str; 15] = [
    "phase",
    "reason",
    "message",
    "conditions",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
    "observedGeneration",
    "resources",
];

/// The pod with the new status; `None` if that is what it has.
pub(crate) fn merged(mut pod: Value, told: &PodStatus) -> Option<Value> {
    let Ok(Value::Object(told)) = serde_json::to_value(told) else { return None };
    let ended = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let phase = told.get("phase").and_then(Value::as_str).unwrap_or_default();
    // What has ended stays so (`pkg/kubelet/status/status_manager.go` checkContainerStateTransition).
    if ended(text(&pod, "/status/phase")) && !ended(phase) {
        return None;
    }
    let mut status = pod.get("status").and_then(Value::as_object).cloned().unwrap_or_default();
    status.retain(|field, _| !FIELDS.contains(&field.as_str()));
    let conditions = conditions(items(&pod, "/status/conditions"), told.get("conditions"));
    // A list that is gone and one that is empty look alike.
    status.extend(told);
    status.insert("conditions".into(), conditions.into());
    if pod.get("status").and_then(Value::as_object) == Some(&status) {
        return None;
    }
    pod["status"] = Value::Object(status);
    Some(pod)
}

/// Foreign ones first, as they are; then the node's. When the scheduler bound the pod is its own word.
fn conditions(stored: &[Value], told: Option<&Value>) -> Vec<Value> {
    let is_own = |condition: &Value| condition["type"].as_str().is_some_and(|kind| OWN.contains(&kind));
    let foreign = stored.iter().filter(|condition| !is_own(condition)).cloned();
    let told = told.and_then(Value::as_array).into_iter().flatten();
    let own = told.filter(|condition| is_own(condition)).map(|condition| {
        let mut condition = condition.as_object().cloned().unwrap_or_else(Map::new);
        condition.entry("lastProbeTime").or_insert(Value::Null);
        let same = stored.iter().find(|known| {
            known["type"] == "PodScheduled"
                && condition.get("type") == known.get("type")
                && condition.get("status") == known.get("status")
        });
        if let Some(since) = same.and_then(|known| known.get("lastTransitionTime")) {
            condition.insert("lastTransitionTime".into(), since.clone());
        }
        Value::Object(condition)
    });
    foreign.chain(own).collect()
}

/// Conditions that the pod's readiness waits for, as clients have written them: type and status (KEP-580).
pub(crate) fn gates(pod: &Value) -> Vec<(String, String)> {
    let asked = items(pod, "/spec/readinessGates").iter().map(|gate| text(gate, "/conditionType"));
    let conditions = items(pod, "/status/conditions");
    asked
        .filter(|kind| !OWN.contains(kind))
        .filter_map(|kind| {
            let condition = conditions.iter().find(|condition| text(condition, "/type") == kind)?;
            Some((kind.to_owned(), text(condition, "/status").to_owned()))
        })
        .collect()
}

/// Whether the pod has run on this node before: some container has a past.
pub(crate) fn has_run(pod: &Value) -> bool {
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    statuses.iter().flat_map(|list| items(pod, list)).any(|status| {
        let state = |field: &str, kind: &str| status.get(field).and_then(|state| state.get(kind)).is_some();
        state("state", "running")
            || state("state", "terminated")
            || state("lastState", "terminated")
            || status["restartCount"].as_i64().unwrap_or(0) > 0
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn foreign_conditions_and_unknown_fields_stay() {
        let pod = json!({"metadata": {"name": "web"}, "status": {
        "phase": "Pending", "podIP": "10.0.0.9", "nominatedNodeName": "n",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
            {"type": "example.com/gate", "status": "True", "reason": "Mine"},
        ]}});
        let status = told(json!({"phase": "Running", "conditions": [
            {"type": "example.com/gate", "status": "True"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:02Z"},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2025-01-01T00:00:03Z"},
        ]}));
        let new = merged(pod, &status).unwrap();
        let expected = json!({"phase": "Running", "nominatedNodeName": "n", "conditions": [
            {"type": "example.com/gate", "status": "True", "reason": "Mine"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:02Z", "lastProbeTime": null},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z", "lastProbeTime": null},
        ]});
        assert_eq!(new["status"], expected);
        assert_eq!(merged(new, &status), None, "nothing new");
    }

    #[test]
    fn what_has_ended_does_not_come_back() {
        let pod = json!({"status": {"phase": "Succeeded"}});
        assert_eq!(merged(pod.clone(), &told(json!({"phase": "Running"}))), None);
        assert!(merged(pod, &told(json!({"phase": "Failed"}))).is_some());
    }

    #[test]
    fn gates_are_only_what_the_pod_waits_for() {
        let pod = json!({"spec": {"readinessGates": [{"conditionType": "a/b"}, {"conditionType": "c/d"}]},
            "status": {"conditions": [{"type": "a/b", "status": "False"}, {"type": "other", "status": "True"}]}});
        assert_eq!(gates(&pod), [("a/b".to_owned(), "False".to_owned())]);
    }

    #[test]
    fn a_past_is_told_by_any_container() {
        let pod = |status: Value| json!({"status": {"containerStatuses": [status]}});
        assert!(!has_run(&pod(
            json!({"state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}, "restartCount": 0})
        )));
        assert!(has_run(&pod(json!({"state": {"running": {}}}))));
        assert!(has_run(&pod(json!({"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}}))));
    }
}
