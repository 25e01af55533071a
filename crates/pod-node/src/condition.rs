//! Conditions of a pod before the engine has it: the scheduler's one.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::moment;
use crate::object::{items, text};

/// `PodScheduled` as a scheduler writes it (`pkg/scheduler/schedule_one.go` handleSchedulingFailure, and the pod
/// registry's strategy for gates).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheduled {
    Yes,
    Gated,
    Unschedulable(String),
}

const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

impl Scheduled {
    fn parts(&self) -> (&'static str, Option<&'static str>, Option<&str>) {
        match self {
            Scheduled::Yes => ("True", None, None),
            Scheduled::Gated => ("False", Some("SchedulingGated"), Some(GATED)),
            Scheduled::Unschedulable(message) => ("False", Some("Unschedulable"), Some(message)),
        }
    }

    /// Puts the condition into the pod; `false` if it said so already.
    pub(crate) fn write(&self, pod: &mut Value, now: Timestamp) -> bool {
        let (status, reason, message) = self.parts();
        let known = items(pod, "/status/conditions").iter().find(|condition| condition["type"] == "PodScheduled");
        let same = known.is_some_and(|known| {
            text(known, "/status") == status
                && text(known, "/reason") == reason.unwrap_or_default()
                && text(known, "/message") == message.unwrap_or_default()
        });
        if same {
            return false;
        }
        let since = known.filter(|known| text(known, "/status") == status).map(|known| &known["lastTransitionTime"]);
        let since = since.cloned().unwrap_or_else(|| moment::seconds(now).into());
        let mut condition =
            json!({"type": "PodScheduled", "status": status, "lastProbeTime": null, "lastTransitionTime": since});
        if let Some(generation) = pod.pointer("/metadata/generation") {
            condition["observedGeneration"] = generation.clone();
        }
        if let Some(reason) = reason {
            condition["reason"] = reason.into();
        }
        if let Some(message) = message {
            condition["message"] = message.into();
        }
        if !pod["status"].is_object() {
            pod["status"] = json!({"phase": "Pending"});
        }
        match pod["status"].get_mut("conditions").and_then(Value::as_array_mut) {
            Some(conditions) => {
                conditions.retain(|condition| condition["type"] != "PodScheduled");
                conditions.push(condition);
            }
            None => pod["status"]["conditions"] = json!([condition]),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_turns() {
        let now: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2025-01-01T01:00:00Z".parse().unwrap();
        let mut pod =
            json!({"metadata": {"generation": 1}, "status": {"phase": "Pending", "conditions": [{"type": "x"}]}});
        assert!(Scheduled::Gated.write(&mut pod, now));
        assert!(!Scheduled::Gated.write(&mut pod, later));
        assert_eq!(pod["status"]["conditions"][1]["reason"], "SchedulingGated");
        assert!(Scheduled::Unschedulable("no".into()).write(&mut pod, later));
        assert_eq!(pod["status"]["conditions"][1]["lastTransitionTime"], "2025-01-01T00:00:00Z", "still False");
        assert!(Scheduled::Yes.write(&mut pod, later));
        let expected = json!([{"type": "x"}, {"type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": "2025-01-01T01:00:00Z", "observedGeneration": 1}]);
        assert_eq!(pod["status"]["conditions"], expected);
    }
}
