//! `Resize`: changed CPU and memory of containers that run, written to their groups and the pod's.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;
use pod_api::context::NodeInfo;
use pod_api::resources::pod_effective;
use pod_container::cgroup::{Hierarchy, Limits, Unapplied};
use pod_plan::ResizeOutcome;

use crate::running::Running;
use crate::{blocking, chain, launch, sandbox};

pub(crate) async fn apply(running: &Rc<Running>, containers: Vec<String>) -> ResizeOutcome {
    let everyone = containers.clone();
    let failed = |message| ResizeOutcome::Failed { containers: everyone, message };
    let spec = running.spec();
    match refusal(&spec, &running.cx.node) {
        Ok(None) => {}
        Ok(Some(message)) => return ResizeOutcome::Infeasible(message),
        Err(message) => return failed(message),
    }
    let change = match Change::of(running, &spec, containers) {
        Ok(change) => change,
        Err(message) => return failed(message),
    };
    // Lowering a memory limit reclaims, which takes its time.
    blocking(move || Ok(change.apply())).await.unwrap_or_else(failed)
}

/// More than the whole machine (`kubernetes/kubernetes pkg/kubelet/allocation/allocation_manager.go` canResizePod).
fn refusal(spec: &PodSpec, node: &NodeInfo) -> Result<Option<String>, String> {
    let effective = pod_effective(spec).map_err(|error| chain(&error))?;
    let asked = [
        ("cpu", effective.cpu_request_millis, node.cpu_millis),
        ("memory", effective.memory_request, node.memory_bytes),
    ];
    let too_much = asked.into_iter().find(|(_, requested, capacity)| requested > capacity);
    Ok(too_much.map(|(resource, requested, capacity)| {
        format!("Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}")
    }))
}

/// Groups with what they are to get.
struct Change {
    cgroups: Hierarchy,
    pod: (PathBuf, Limits),
    containers: Vec<(String, PathBuf, Limits)>,
}

// === impl Change ===

impl Change {
    fn of(running: &Running, spec: &PodSpec, names: Vec<String>) -> Result<Change, String> {
        let group = running.cgroup();
        let pod = sandbox::pod_limits(running, spec)?;
        let containers = names.into_iter().filter_map(|name| {
            let container = running.container(&name)?;
            let limits = launch::size_limits(&container).map_err(|error| chain(&error));
            Some(limits.map(|limits| (name.clone(), group.join(&name), limits)))
        });
        let containers = containers.collect::<Result<_, _>>()?;
        Ok(Change { cgroups: running.cx.cgroups.clone(), pod: (group, pod), containers })
    }

    /// The pod's own limits go out of the way first and come back last, so that neither growing nor shrinking containers
    /// ever contradict them; each container is still held by its own.
    fn apply(self) -> ResizeOutcome {
        let (pod, limits) = &self.pod;
        let mut complaints = Vec::new();
        if let Some((limit, usage)) = self.below_usage(pod, limits) {
            complaints.push(format!("attempting to set pod memory limit ({limit}) below current usage ({usage})"));
        }
        for (name, group, limits) in &self.containers {
            if let Some((limit, usage)) = self.below_usage(group, limits) {
                complaints.push(format!(
                    "attempting to set container \"{name}\" memory limit ({limit}) below current usage ({usage})"
                ));
            }
        }
        if !complaints.is_empty() {
            let containers = self.containers.into_iter().map(|(name, ..)| name).collect();
            let message = match &complaints[..] {
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return ResizeOutcome::Failed { containers, message: format!("cannot decrease memory limits: {message}") };
        }
        let mut failed = Vec::new();
        let free = Limits { cpu_quota_us: None, memory_limit: None, ..limits.clone() };
        self.write(pod, &free, "pod", &mut complaints);
        for (name, group, limits) in &self.containers {
            if !self.write(group, limits, &format!("container {name}"), &mut complaints) {
                failed.push(name.clone());
            }
        }
        self.write(pod, limits, "pod", &mut complaints);
        if complaints.is_empty() {
            return ResizeOutcome::Applied;
        }
        ResizeOutcome::Failed { containers: failed, message: complaints.join(", ") }
    }

    /// A memory limit that would make the kernel kill, and what is used.
    fn below_usage(&self, group: &Path, limits: &Limits) -> Option<(u64, u64)> {
        let limit = limits.memory_limit?;
        let usage = self.cgroups.stats(group).ok()?.memory_usage?;
        (usage > limit).then_some((limit, usage))
    }

    /// Whether all of it holds now.
    fn write(&self, group: &Path, limits: &Limits, owner: &str, complaints: &mut Vec<String>) -> bool {
        let unapplied = match self.cgroups.update(group, limits) {
            Ok(unapplied) => unapplied,
            Err(error) => {
                complaints.push(format!("{owner}: {}", chain(&error)));
                return false;
            }
        };
        // A limit that this machine never held is no news.
        let grave = unapplied.iter().filter(|unapplied| !is_lacking(unapplied)).collect::<Vec<_>>();
        complaints.extend(grave.iter().map(|Unapplied { limit, reason }| format!("{owner}: {limit}: {reason}")));
        grave.is_empty()
    }
}

fn is_lacking(unapplied: &Unapplied) -> bool {
    unapplied.reason.starts_with("no cgroup controller")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_no_machine_could_give_is_refused() {
        let node = NodeInfo {
            name: "n".into(),
            host_ips: Vec::new(),
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
            ephemeral_bytes: 0,
        };
        let refusal = |cpu: &str, memory: &str| {
            let spec =
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
            super::refusal(&serde_json::from_value(spec).unwrap(), &node).unwrap()
        };
        assert_eq!(refusal("2", "1Gi"), None);
        let cpu = "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000";
        assert_eq!(refusal("2001m", "1Gi").as_deref(), Some(cpu));
        let memory = "Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824";
        assert_eq!(refusal("1", "2Gi").as_deref(), Some(memory));
    }
}
