//! A pod object as the agent knows it.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::Value;

use crate::fit::Share;
use crate::source::Needs;

/// ```text
///   Waiting ──fits──▶ Blocked? ──▶ Running ──▶ Ended
///      │                 │            │          │
///      └─────────────────┴─ deleted ──┴──────────┴──▶ Stopping ──▶ Down (finalizers) ──▶ removed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not bound: gated, or it does not fit.
    Waiting,
    /// Bound, but something outside has its place.
    Blocked,
    /// The engine has it.
    Running,
    /// It came to its end and is kept to be looked at.
    Ended,
    /// Its deletion was asked of the engine.
    Stopping,
    /// Nothing of it runs; its object waits for finalizers.
    Down,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) uid: String,
    pub(crate) state: State,
    /// The newest version that was looked at or written here.
    pub(crate) revision: u64,
    /// What the engine was told, as a hash: the manifest and the revisions of what it refers to.
    pub(crate) told: Option<u64>,
    pub(crate) needs: Needs,
    /// Readiness gates' conditions as the engine was told them.
    pub(crate) gates: Vec<(String, String)>,
    /// Of the node, while it is bound and has not ended.
    pub(crate) share: Option<Share>,
    /// The grace period the engine was told, in seconds.
    pub(crate) grace: Option<u64>,
    /// While it waits: what pods are beside it decides, too.
    pub(crate) looks_around: bool,
    /// Why it is not scheduled, as last told in an event.
    pub(crate) complaint: String,
    /// A status that the store refused (a full disk).
    pub(crate) unwritten: Option<Box<PodStatus>>,
    /// It had a directory on this machine.
    pub(crate) was_here: bool,
}

impl Slot {
    pub(crate) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            state: State::Waiting,
            revision: 0,
            told: None,
            needs: Needs::new(),
            gates: Vec::new(),
            share: None,
            grace: None,
            looks_around: false,
            complaint: String::new(),
            unwritten: None,
            was_here: false,
        }
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.state == State::Blocked
    }
}

/// Equal for versions of an object between which the engine need not be told anything.
pub(crate) fn manifest_hash(pod: &Value, sources: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in ["/spec", "/metadata/labels", "/metadata/annotations", "/metadata/generation"] {
        // serde_json keeps members in one order, so that equal values have equal texts.
        pod.pointer(part).map(Value::to_string).hash(&mut hasher);
    }
    sources.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_nothing_new_for_the_engine() {
        let pod = |labels: Value, phase: &str| json!({"metadata": {"labels": labels, "resourceVersion": phase}, "spec": {}, "status": {"phase": phase}});
        let hash = |pod: &Value| manifest_hash(pod, &[1]);
        assert_eq!(hash(&pod(json!({"a": "b"}), "Pending")), hash(&pod(json!({"a": "b"}), "Running")));
        assert_ne!(hash(&pod(json!({"a": "b"}), "Pending")), hash(&pod(json!({"a": "c"}), "Pending")));
        assert_ne!(manifest_hash(&json!({}), &[1]), manifest_hash(&json!({}), &[2]));
    }
}
