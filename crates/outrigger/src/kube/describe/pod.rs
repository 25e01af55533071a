//! A pod.

use serde_json::Value;

use super::container;
use super::page::Page;
use super::volume;
use crate::kube::value::{self, integer, items, text};

pub(super) fn describe(page: &mut Page, pod: &Value) {
    page.field(0, "Name", value::name(pod));
    page.field(0, "Namespace", value::namespace(pod));
    if let Some(priority) = integer(pod, "spec.priority") {
        page.field(0, "Priority", priority);
    }
    page.maybe(0, "Priority Class Name", text(pod, "spec.priorityClassName"));
    page.maybe(0, "Runtime Class Name", text(pod, "spec.runtimeClassName"));
    page.maybe(0, "Service Account", text(pod, "spec.serviceAccountName"));
    match text(pod, "spec.nodeName") {
        "" => page.field(0, "Node", "<none>"),
        node => page.field(0, "Node", format!("{node}/{}", text(pod, "status.hostIP"))),
    }
    if pod["status"]["startTime"].is_string() {
        let time = page.time(&pod["status"]["startTime"]);
        page.field(0, "Start Time", time);
    }
    page.labels_and_annotations(pod);
    status(page, pod);
    page.field(0, "IP", text(pod, "status.podIP"));
    match items(pod, "status.podIPs") {
        [] => page.field(0, "IPs", "<none>"),
        addresses => {
            page.line(0, "IPs:");
            addresses.iter().for_each(|address| page.field(1, "IP", text(address, "ip")));
        }
    }
    let owners = items(pod, "metadata.ownerReferences");
    if let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) {
        page.field(0, "Controlled By", format!("{}/{}", text(owner, "kind"), text(owner, "name")));
    }
    page.maybe(0, "NominatedNodeName", text(pod, "status.nominatedNodeName"));
    if pod["spec"]["resources"].is_object() {
        page.line(0, "Resources:");
        container::resources(page, 1, &pod["spec"]["resources"]);
    }
    containers(page, pod);
    conditions(page, pod);
    volume::describe(page, items(pod, "spec.volumes"));
    page.field(0, "QoS Class", text(pod, "status.qosClass"));
    page.map("Node-Selectors", value::members(pod, "spec.nodeSelector"));
    tolerations(page, items(pod, "spec.tolerations"));
    spread(page, items(pod, "spec.topologySpreadConstraints"));
}

fn status(page: &mut Page, pod: &Value) {
    let phase = text(pod, "status.phase");
    if pod["metadata"]["deletionTimestamp"].is_string() && !matches!(phase, "Failed" | "Succeeded") {
        let lasts = page.since(&pod["metadata"]["deletionTimestamp"]);
        page.field(0, "Status", format!("Terminating (lasts {lasts})"));
        let grace = integer(pod, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
        page.field(0, "Termination Grace Period", format!("{grace}s"));
    } else {
        page.field(0, "Status", phase);
    }
    page.maybe(0, "Reason", text(pod, "status.reason"));
    page.maybe(0, "Message", text(pod, "status.message"));
    container::seccomp(page, 0, 0, &pod["spec"]["securityContext"]["seccompProfile"]);
}

fn containers(page: &mut Page, pod: &Value) {
    let groups = [
        ("Init Containers", "spec.initContainers", "status.initContainerStatuses"),
        ("Containers", "spec.containers", "status.containerStatuses"),
        ("Ephemeral Containers", "spec.ephemeralContainers", "status.ephemeralContainerStatuses"),
    ];
    for (title, specs, statuses) in groups {
        let specs = items(pod, specs);
        if !specs.is_empty() || title == "Containers" {
            container::describe(page, title, specs, items(pod, statuses), pod);
        }
    }
}

fn conditions(page: &mut Page, pod: &Value) {
    let conditions = items(pod, "status.conditions");
    let gates = items(pod, "spec.readinessGates");
    if !gates.is_empty() {
        page.line(0, "Readiness Gates:");
        page.line(1, "Type\tStatus");
        for gate in gates {
            let name = text(gate, "conditionType");
            let found = conditions.iter().find(|condition| text(condition, "type") == name);
            page.line(1, format!("{name} \t{} ", found.map_or("<none>", |condition| text(condition, "status"))));
        }
    }
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus");
        for condition in conditions {
            page.line(1, format!("{} \t{} ", text(condition, "type"), text(condition, "status")));
        }
    }
}

fn tolerations(page: &mut Page, tolerations: &[Value]) {
    let mut tolerations: Vec<&Value> = tolerations.iter().collect();
    tolerations.sort_by_key(|one| text(one, "key"));
    let lines = tolerations.into_iter().map(|one| {
        let (key, value, effect) = (text(one, "key"), text(one, "value"), text(one, "effect"));
        let mut line = key.to_owned();
        if !value.is_empty() {
            line.push_str(&format!("={value}"));
        }
        if !effect.is_empty() {
            line.push_str(&format!(":{effect}"));
        }
        if text(one, "operator") == "Exists" && value.is_empty() {
            line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = integer(one, "tolerationSeconds") {
            line.push_str(&format!(" for {seconds}s"));
        }
        line
    });
    page.list("Tolerations", lines.collect());
}

fn spread(page: &mut Page, constraints: &[Value]) {
    if constraints.is_empty() {
        return;
    }
    let mut constraints: Vec<&Value> = constraints.iter().collect();
    constraints.sort_by_key(|one| text(one, "topologyKey"));
    let lines = constraints.into_iter().map(|one| {
        let selector = match one["labelSelector"].is_object() {
            true => format!(" for selector {}", label_selector(&one["labelSelector"])),
            false => String::new(),
        };
        let skew = integer(one, "maxSkew").unwrap_or(0);
        format!(
            "{}:{} when max skew {skew} is exceeded{selector}",
            text(one, "topologyKey"),
            text(one, "whenUnsatisfiable")
        )
    });
    page.list("Topology Spread Constraints", lines.collect());
}

fn label_selector(selector: &Value) -> String {
    let mut parts: Vec<String> = value::members(selector, "matchLabels")
        .into_iter()
        .map(|(name, value)| format!("{name}={}", value::scalar(value)))
        .collect();
    for one in items(selector, "matchExpressions") {
        let mut values: Vec<String> = items(one, "values").iter().map(value::scalar).collect();
        values.sort();
        let (key, values) = (text(one, "key"), values.join(","));
        parts.push(match text(one, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.sort();
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}
