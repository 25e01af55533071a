//! Does a pod fit on this node? The filters of upstream's scheduler for the one node there is, in its order and words
//! (`pkg/scheduler/framework/plugins`: nodeunschedulable, nodename, tainttoleration, nodeaffinity, nodeports,
//! noderesources, podtopologyspread, interpodaffinity).

mod neighbours;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Map, Value};

use crate::object::{items, text};

pub(crate) use neighbours::{Namespaces, looks_around};

/// What a pod takes of the node while it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) cpu_millis: i64,
    pub(crate) memory: i64,
    /// Address, protocol, port on the host.
    pub(crate) ports: BTreeSet<(String, String, i32)>,
    /// It has required anti-affinity: its neighbours must be asked.
    pub(crate) repels: bool,
}

/// What the node has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) cpu_millis: i64,
    pub(crate) memory: i64,
    pub(crate) pods: usize,
}

/// A filter's answer: reasons as they are counted in the message, and whether removing other pods would help.
struct Refusal {
    reasons: Vec<&'static str>,
    preemptable: bool,
}

// === impl Share ===

impl Share {
    pub(crate) fn of(spec: &PodSpec) -> Share {
        // Validation lets no unreadable quantity through.
        let effective = pod_api::resources::pod_effective(spec).unwrap_or_default();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let ports = ports.filter_map(|port| {
            let number = port.host_port.filter(|number| *number != 0)?;
            let address = port.host_ip.clone().filter(|address| !address.is_empty());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((address.unwrap_or_else(|| "0.0.0.0".into()), protocol, number))
        });
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let repelled = affinity.and_then(|terms| terms.required_during_scheduling_ignored_during_execution.as_ref());
        Share {
            cpu_millis: effective.cpu_request_millis,
            memory: effective.memory_request,
            ports: ports.collect(),
            repels: repelled.is_some_and(|terms| !terms.is_empty()),
        }
    }

    fn ports_clash(&self, other: &Share) -> bool {
        self.ports.iter().any(|(address, protocol, port)| {
            other.ports.iter().any(|(theirs, their_protocol, their_port)| {
                let same = address == theirs || address == "0.0.0.0" || theirs == "0.0.0.0";
                same && protocol == their_protocol && port == their_port
            })
        })
    }
}

/// Whether `pod` may come to `node` beside `others`; an error is the scheduler's message.
pub(crate) fn check(pod: &Value, share: &Share, node: &Value, room: &Room, others: &[&Share]) -> Result<(), String> {
    let refusal = if !may_be_scheduled(pod, node) {
        Refusal { reasons: vec!["node(s) were unschedulable"], preemptable: false }
    } else if !tolerates(pod, items(node, "/spec/taints")) {
        Refusal { reasons: vec!["node(s) had untolerated taint(s)"], preemptable: false }
    } else if !selects(pod, node) {
        Refusal { reasons: vec!["node(s) didn't match Pod's node affinity/selector"], preemptable: false }
    } else if others.iter().any(|other| share.ports_clash(other)) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        Refusal { reasons: vec![reason], preemptable: true }
    } else {
        match lack(share, room, others) {
            Some(refusal) => refusal,
            None => return Ok(()),
        }
    };
    Err(message(&refusal))
}

/// The last filters: what the pod and those on the node (bound, and not ended) want of each other.
pub(crate) fn check_neighbours(
    pod: &Value,
    node: &Value,
    others: &[Value],
    namespaces: Namespaces<'_>,
) -> Result<(), String> {
    neighbours::refusal(pod, node, others, namespaces).map_or(Ok(()), |refusal| Err(message(&refusal)))
}

fn message(refusal: &Refusal) -> String {
    let mut reasons: Vec<String> = refusal.reasons.iter().map(|reason| format!("1 {reason}")).collect();
    reasons.sort();
    let preemption = match refusal.preemptable {
        true => "No preemption victims found for incoming pod",
        false => "Preemption is not helpful for scheduling",
    };
    format!(
        "0/1 nodes are available: {}. no new claims to deallocate, preemption: 0/1 nodes are available: 1 {preemption}.",
        reasons.join(", ")
    )
}

fn lack(share: &Share, room: &Room, others: &[&Share]) -> Option<Refusal> {
    let taken = |amount: fn(&Share) -> i64| others.iter().map(|other| amount(other)).sum::<i64>();
    let mut reasons = Vec::new();
    if others.len() >= room.pods {
        reasons.push("Too many pods");
    }
    if share.cpu_millis > 0 && share.cpu_millis + taken(|share| share.cpu_millis) > room.cpu_millis {
        reasons.push("Insufficient cpu");
    }
    if share.memory > 0 && share.memory + taken(|share| share.memory) > room.memory {
        reasons.push("Insufficient memory");
    }
    let too_big = share.cpu_millis > room.cpu_millis || share.memory > room.memory;
    (!reasons.is_empty()).then_some(Refusal { reasons, preemptable: !too_big })
}

fn may_be_scheduled(pod: &Value, node: &Value) -> bool {
    let cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    let taint = serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    !cordoned || tolerates(pod, &[taint])
}

fn tolerates(pod: &Value, taints: &[Value]) -> bool {
    let tolerations = items(pod, "/spec/tolerations");
    let binding = taints.iter().filter(|taint| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute"));
    binding.into_iter().all(|taint| tolerations.iter().any(|toleration| is_tolerated(taint, toleration)))
}

/// `k8s.io/component-helpers/scheduling/corev1` ToleratesTaint.
fn is_tolerated(taint: &Value, toleration: &Value) -> bool {
    let (key, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
    let exists = text(toleration, "/operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "/effect"))
        && (key.is_empty() || key == text(taint, "/key"))
        && (exists || (!key.is_empty() && text(toleration, "/value") == text(taint, "/value")))
}

/// `nodeSelector`, and one of the terms of the required node affinity.
fn selects(pod: &Value, node: &Value) -> bool {
    let empty = Map::new();
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).unwrap_or(&empty);
    let selector = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    let selected = selector.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let affine = match pod.pointer(required) {
        None | Some(Value::Null) => true,
        Some(required) => items(required, "/nodeSelectorTerms").iter().any(|term| {
            let (expressions, fields) = (items(term, "/matchExpressions"), items(term, "/matchFields"));
            let name = text(node, "/metadata/name");
            // A term without anything in it selects nothing.
            !(expressions.is_empty() && fields.is_empty())
                && expressions.iter().all(|e| holds(e, labels.get(text(e, "/key")).and_then(Value::as_str)))
                && fields.iter().all(|e| holds(e, (text(e, "/key") == "metadata.name").then_some(name)))
        }),
    };
    selected && affine
}

fn holds(expression: &Value, found: Option<&str>) -> bool {
    let values: Vec<&str> = items(expression, "/values").iter().filter_map(Value::as_str).collect();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let compared = || Some((number(found)?, number(values.first().copied())?));
    match text(expression, "/operator") {
        "In" => found.is_some_and(|found| values.contains(&found)),
        "NotIn" => found.is_none_or(|found| !values.contains(&found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(|(found, bound)| found > bound),
        "Lt" => compared().is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn room() -> Room {
        Room { cpu_millis: 2000, memory: 1 << 30, pods: 110 }
    }

    fn judge(pod: Value, node: Value, others: &[&Share]) -> String {
        let mut spec = pod["spec"].clone();
        if spec["containers"].is_null() {
            spec["containers"] = json!([]);
        }
        let share = Share::of(&serde_json::from_value(spec).unwrap());
        match check(&pod, &share, &node, &room(), others) {
            Ok(()) => "fits".into(),
            Err(message) => {
                message.split(". no new").next().unwrap().trim_start_matches("0/1 nodes are available: ").to_owned()
            }
        }
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
    }

    #[test]
    fn resources_are_added_up() {
        let half = Share { cpu_millis: 1500, memory: 1 << 29, ..Share::default() };
        assert_eq!(judge(asks("500m", "512Mi"), json!({}), &[&half]), "fits");
        assert_eq!(judge(asks("501m", "1Mi"), json!({}), &[&half]), "1 Insufficient cpu");
        assert_eq!(judge(asks("3", "2Gi"), json!({}), &[]), "1 Insufficient cpu, 1 Insufficient memory");
        let full: Vec<Share> = vec![Share::default(); 110];
        assert_eq!(judge(asks("0", "0"), json!({}), &full.iter().collect::<Vec<_>>()), "1 Too many pods");
    }

    #[test]
    fn the_whole_message_is_upstreams() {
        let share = Share { cpu_millis: 9000, ..Share::default() };
        assert_eq!(
            check(&json!({}), &share, &json!({}), &room(), &[]).unwrap_err(),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
             available: 1 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn nodes_are_selected_by_labels_and_expressions() {
        let node = json!({"metadata": {"name": "n", "labels": {"disk": "ssd", "size": "5"}}});
        let by_selector = |value: &str| json!({"spec": {"nodeSelector": {"disk": value}}});
        assert_eq!(judge(by_selector("ssd"), node.clone(), &[]), "fits");
        assert_eq!(judge(by_selector("hdd"), node.clone(), &[]), "1 node(s) didn't match Pod's node affinity/selector");
        let by_term = |term: Value| {
            json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}}}})
        };
        let fits = |term: Value| judge(by_term(term), node.clone(), &[]) == "fits";
        assert!(fits(json!({"key": "size", "operator": "Gt", "values": ["4"]})));
        assert!(!fits(json!({"key": "size", "operator": "Lt", "values": ["5"]})));
        assert!(fits(json!({"key": "none", "operator": "DoesNotExist"})));
        assert!(!fits(json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]})));
    }

    #[test]
    fn taints_and_cordons_want_tolerations() {
        let node = json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}});
        let pod = |toleration: Value| json!({"spec": {"tolerations": [toleration]}});
        assert_eq!(judge(pod(json!({"key": "gpu", "value": "yes"})), node.clone(), &[]), "fits");
        assert_eq!(judge(pod(json!({"operator": "Exists"})), node.clone(), &[]), "fits");
        assert_eq!(judge(pod(json!({"key": "gpu", "value": "no"})), node, &[]), "1 node(s) had untolerated taint(s)");
        let cordoned = json!({"spec": {"unschedulable": true}});
        assert_eq!(judge(json!({"spec": {}}), cordoned, &[]), "1 node(s) were unschedulable");
    }

    #[test]
    fn host_ports_are_taken_once() {
        let pod = |address: &str| json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": address}]}]}});
        let other = Share::of(&serde_json::from_value(pod("127.0.0.1")["spec"].clone()).unwrap());
        assert_eq!(judge(pod("127.0.0.2"), json!({}), &[&other]), "fits");
        let clash = "1 node(s) didn't have free ports for the requested pod ports";
        assert_eq!(judge(pod(""), json!({}), &[&other]), clash);
    }
}
