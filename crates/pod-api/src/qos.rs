//! Quality-of-service class and the OOM score adjustment that follows from it.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::resources::{ContainerResources, ResourceError, containers_memory_request, pod_level};
use crate::role::{Role, containers};

/// `oom_score_adj` of the process that holds the pod together.
pub const SANDBOX_OOM_SCORE_ADJ: i32 = -998;
const GUARANTEED: i32 = -997;
const BEST_EFFORT: i32 = 1000;
/// Pods at or above this priority are as protected as guaranteed ones.
const NODE_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Printed as `status.qosClass` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Only CPU and memory count, of mains, plain inits and sidecars alike; pod-level resources, where set, decide alone.
pub fn qos_class(spec: &PodSpec) -> Result<QosClass, ResourceError> {
    if let Some(pod_level) = pod_level(spec)? {
        return Ok(class_of(&pod_level));
    }
    let mut class = None;
    for (_, container) in containers(spec) {
        let own = class_of(&ContainerResources::of(container)?);
        match class {
            None => class = Some(own),
            Some(before) if before != own => return Ok(QosClass::Burstable),
            Some(_) => {}
        }
    }
    Ok(class.unwrap_or(QosClass::BestEffort))
}

fn class_of(resources: &ContainerResources) -> QosClass {
    // Zero is the same as absent here.
    let positive = |amount: Option<i64>| amount.filter(|amount| *amount > 0);
    let cpu = (positive(resources.cpu_request_millis), positive(resources.cpu_limit_millis));
    let memory = (positive(resources.memory_request), positive(resources.memory_limit));
    if cpu == (None, None) && memory == (None, None) {
        return QosClass::BestEffort;
    }
    let guaranteed = |(request, limit): (Option<i64>, Option<i64>)| limit.is_some() && request == limit;
    if guaranteed(cpu) && guaranteed(memory) { QosClass::Guaranteed } else { QosClass::Burstable }
}

/// The kernel's `oom_score_adj` (−1000 … 1000; higher dies first) of a container's first process.
///
/// A burstable container is protected in proportion to its memory request. A sidecar never gets a worse score than the
/// main with the smallest request, because losing it would take that main along (KEP-753).
pub fn oom_score_adj(
    spec: &PodSpec,
    container: &Container,
    is_sidecar: bool,
    node_memory_bytes: i64,
) -> Result<i32, ResourceError> {
    if spec.priority.is_some_and(|priority| priority >= NODE_CRITICAL_PRIORITY) {
        return Ok(GUARANTEED);
    }
    match qos_class(spec)? {
        QosClass::Guaranteed => return Ok(GUARANTEED),
        QosClass::BestEffort => return Ok(BEST_EFFORT),
        QosClass::Burstable => {}
    }
    let share = unassigned_share(spec)?;
    let score = |request: i64| {
        let request = i128::from(request.saturating_add(share));
        1000 - 1000 * request / i128::from(node_memory_bytes.max(1))
    };
    let mut result = score(memory_request(container)?);
    if is_sidecar {
        let mut least = None;
        for main in &spec.containers {
            let request = memory_request(main)?;
            least = Some(least.map_or(request, |least: i64| least.min(request)));
        }
        result = result.min(score(least.unwrap_or(0)));
    }
    Ok(result.clamp(i128::from(1000 + GUARANTEED), i128::from(BEST_EFFORT - 1)) as i32)
}

/// Each container's equal part of the pod-level memory request that no container asks for.
fn unassigned_share(spec: &PodSpec) -> Result<i64, ResourceError> {
    let has_requests = spec.resources.as_ref().is_some_and(|resources| resources.requests.is_some());
    let Some(pod_level) = pod_level(spec)?.filter(|_| has_requests) else { return Ok(0) };
    let requested = pod_level.memory_request.unwrap_or(0);
    let unassigned = requested.saturating_sub(containers_memory_request(spec)?).max(0);
    let sharers = containers(spec).filter(|(role, _)| *role != Role::Init).count();
    Ok(unassigned / i64::try_from(sharers.max(1)).unwrap_or(i64::MAX))
}

fn memory_request(container: &Container) -> Result<i64, ResourceError> {
    Ok(ContainerResources::of(container)?.memory_request.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GI: i64 = 1 << 30;

    fn pod(inits: Value, mains: Value) -> PodSpec {
        serde_json::from_value(json!({"initContainers": inits, "containers": mains})).unwrap()
    }

    fn container(name: &str, resources: Value) -> Value {
        json!({"name": name, "resources": resources})
    }

    fn sidecar(name: &str, resources: Value) -> Value {
        json!({"name": name, "restartPolicy": "Always", "resources": resources})
    }

    fn full() -> Value {
        json!({"limits": {"cpu": "1", "memory": "1Gi"}})
    }

    fn memory(request: &str) -> Value {
        json!({"requests": {"memory": request}})
    }

    #[test]
    fn classes() {
        let class = |inits, mains| qos_class(&pod(inits, mains)).unwrap();
        assert_eq!(class(json!([]), json!([container("m", full())])), QosClass::Guaranteed);
        assert_eq!(class(json!([]), json!([container("m", json!({}))])), QosClass::BestEffort);
        assert_eq!(class(json!([]), json!([container("m", memory("1Mi"))])), QosClass::Burstable);
        assert_eq!(class(json!([sidecar("s", full())]), json!([container("m", full())])), QosClass::Guaranteed);
        // The frequent surprise: one sidecar without limits.
        assert_eq!(class(json!([sidecar("s", json!({}))]), json!([container("m", full())])), QosClass::Burstable);
        assert_eq!(class(json!([container("i", json!({}))]), json!([container("m", full())])), QosClass::Burstable);
        // Zeros and other resources count as nothing.
        let zeros = json!({"requests": {"cpu": "0", "ephemeral-storage": "1Gi"}});
        assert_eq!(class(json!([]), json!([container("m", zeros)])), QosClass::BestEffort);
        let explicit_zero = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0"}});
        assert_eq!(class(json!([]), json!([container("m", explicit_zero)])), QosClass::Burstable);
    }

    #[test]
    fn pod_level_resources_decide_alone() {
        let mut spec = pod(json!([]), json!([container("m", memory("1Mi"))]));
        spec.resources = serde_json::from_value(full()).unwrap();
        assert_eq!(qos_class(&spec).unwrap(), QosClass::Guaranteed);
    }

    #[test]
    fn scores() {
        let score = |spec: &PodSpec, container: &Container, is_sidecar| {
            oom_score_adj(spec, container, is_sidecar, 10 * GI).unwrap()
        };
        let best_effort = pod(json!([]), json!([container("m", json!({}))]));
        assert_eq!(score(&best_effort, &best_effort.containers[0], false), 1000);
        let guaranteed = pod(json!([]), json!([container("m", full())]));
        assert_eq!(score(&guaranteed, &guaranteed.containers[0], false), -997);

        let spec = pod(
            json!([sidecar("small", memory("1Mi")), sidecar("big", memory("5Gi"))]),
            json!([container("a", memory("1Gi")), container("b", memory("2Gi")), container("all", memory("20Gi"))]),
        );
        assert_eq!(score(&spec, &spec.containers[0], false), 900);
        assert_eq!(score(&spec, &spec.containers[2], false), 3);
        let inits = spec.init_containers.as_ref().unwrap();
        assert_eq!(score(&spec, &inits[0], true), 900, "as protected as the least protected main");
        assert_eq!(score(&spec, &inits[1], true), 500, "its own request is better");
        // 1 Mi of 10 Gi rounds to nothing, but a burstable container stays below a best-effort one.
        assert_eq!(score(&spec, &inits[0], false), 999);

        let mut critical = best_effort.clone();
        critical.priority = Some(2_000_001_000);
        assert_eq!(score(&critical, &critical.containers[0], false), -997);
    }

    #[test]
    fn unassigned_pod_memory_is_shared_equally() {
        let mut spec = pod(json!([sidecar("s", json!({}))]), json!([container("m", memory("1Gi"))]));
        spec.resources = serde_json::from_value(memory("5Gi")).unwrap();
        let adjust = |container: &Container, is_sidecar| oom_score_adj(&spec, container, is_sidecar, 10 * GI).unwrap();
        assert_eq!(adjust(&spec.containers[0], false), 1000 - 300);
        assert_eq!(adjust(&spec.init_containers.as_ref().unwrap()[0], true), 1000 - 300);
    }
}
