//! What of a pod may change after its creation, and through which door (`ValidatePodUpdate`, `ValidatePodResize`,
//! `ValidatePodEphemeralContainersUpdate`, `ValidatePodStatusUpdate`).

use serde_json::Value;

use crate::path::Path;
use crate::problem::{Findings, quote};
use crate::resource::canonical;
use crate::resource::pod::quality;
use crate::resource::view::{self, at, integer, items, text};
use crate::validate;

const MAX_INT32: i64 = 2_147_483_647;
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// Through the pod itself: images, a deadline, more tolerations, fewer scheduling gates.
pub(super) fn object(new: &Value, old: &Value, findings: &mut Findings) {
    let (new, old) = (&new["spec"], &old["spec"]);
    for list in CONTAINERS {
        if !same_containers(new, old, list, findings) {
            return;
        }
    }
    if !deadline(new, old, findings) {
        return;
    }
    added_tolerations(items(new, "tolerations"), items(old, "tolerations"), findings);
    removed_gates(items(new, "schedulingGates"), items(old, "schedulingGates"), findings);

    // What may change is made equal, so that the rest can be compared as a whole.
    let (mut munged, mut before) = (new.clone(), old.clone());
    canonical::spec(&mut munged);
    canonical::spec(&mut before);
    for list in CONTAINERS {
        let old = items(&before, list).to_vec();
        for (container, old) in munged[list].as_array_mut().into_iter().flatten().zip(&old) {
            view::put_back(container, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        view::put_back(&mut munged, &before, field);
    }
    let grace = |spec: &Value| integer(spec, "terminationGracePeriodSeconds");
    if grace(&before).is_some_and(|seconds| seconds < 0) && grace(&munged) == Some(1) {
        view::put_back(&mut munged, &before, "terminationGracePeriodSeconds");
    }
    // `munged[list]` above has made absent lists null.
    canonical::spec(&mut munged);
    if munged != before {
        let difference = canonical::difference(&before, &munged, "spec");
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{difference}");
        findings.forbidden(Path::of("spec"), &detail);
    }
}

fn same_containers(new: &Value, old: &Value, list: &'static str, findings: &mut Findings) -> bool {
    let path = Path::of("spec").field(list);
    let (new, old) = (items(new, list), items(old, list));
    if new.len() != old.len() {
        findings.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (index, container) in new.iter().enumerate() {
        if text(container, "image").is_empty() {
            findings.required(path.index(index).field("image"), "");
        }
    }
    true
}

/// It may be set once, and then only come nearer.
fn deadline(new: &Value, old: &Value, findings: &mut Findings) -> bool {
    let path = Path::of("spec.activeDeadlineSeconds");
    match (integer(new, "activeDeadlineSeconds"), integer(old, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=MAX_INT32).contains(&new) => {
            findings.invalid(path, new, &format!("must be between 0 and {MAX_INT32}, inclusive"));
            return false;
        }
        (Some(new), Some(old)) if old < new => {
            findings.invalid(path, new, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => {
            findings.invalid(path, Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
    true
}

fn added_tolerations(new: &[Value], old: &[Value], findings: &mut Findings) {
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        view::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let kept = |old: &Value| new.iter().any(|new| without_time(new) == without_time(old));
    if !old.iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        findings.forbidden(Path::of("spec.tolerations"), detail);
    }
}

fn removed_gates(new: &[Value], old: &[Value], findings: &mut Findings) {
    for gate in new.iter().filter(|gate| !old.contains(gate)) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
        findings.forbidden(Path::of("spec.schedulingGates"), &detail);
    }
}

// === resize ===

/// Takes over resources and resize policies, and nothing else. Containers that do not match are left for validation.
pub(super) fn keep_resources(new: &mut Value, old: &Value) {
    let matches = CONTAINERS.iter().all(|list| {
        let (new, old) = (items(&new["spec"], list), items(&old["spec"], list));
        new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new["name"] == old["name"])
    });
    if !matches {
        return;
    }
    let asked = std::mem::take(&mut new["spec"]);
    new["spec"] = old["spec"].clone();
    for list in CONTAINERS {
        let Some(containers) = new["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (container, asked) in containers.iter_mut().zip(items(&asked, list)) {
            view::put_back(container, asked, "resources");
            view::put_back(container, asked, "resizePolicy");
        }
    }
}

/// Through `resize`: CPU and memory of mains and sidecars.
pub(super) fn resize(new: &Value, old: &Value, findings: &mut Findings) {
    let spec = Path::of("spec");
    if !view::is_empty(at(old, "spec.resources")) {
        return findings.forbidden(Path::root(), "pods with pod-level resources cannot be resized");
    }
    let (mut after, mut before) = (new["spec"].clone(), old["spec"].clone());
    canonical::spec(&mut after);
    canonical::spec(&mut before);
    for list in CONTAINERS {
        let (new, old) = (items(&after, list), items(&before, list));
        if new.len() != old.len() {
            return findings.forbidden(spec.field(list), "pod updates may not add or remove containers");
        }
        if new.iter().zip(old).any(|(new, old)| new["name"] != old["name"]) {
            return findings.forbidden(spec.field(list), "containers may not be renamed or reordered on resize");
        }
    }
    let was = text(old, "status.qosClass");
    if let (Some(before), Some(after)) = (quality(old), quality(new))
        && before != after
    {
        findings.invalid(spec.clone(), was, "Pod QOS Class may not change as a result of resizing");
    }
    let known = findings.0.len();
    for list in CONTAINERS {
        let mains = list == "containers";
        for (index, (new, old)) in items(&after, list).iter().zip(items(&before, list)).enumerate() {
            let sidecar = text(old, "restartPolicy") == "Always";
            if !mains && !sidecar {
                if new != old {
                    findings.forbidden(spec.clone(), "resources for non-sidecar init containers are immutable");
                }
                continue;
            }
            let path = spec.field(list).index(index).field("resources");
            for (list, what) in [("requests", "resource requests"), ("limits", "resource limits")] {
                let (new, old) = (at(new, "resources"), at(old, "resources"));
                if view::members(old, list).any(|(name, _)| at(new, list).get(name).is_none()) {
                    findings.forbidden(path.field(list), &format!("{what} cannot be removed"));
                }
            }
            if without_compute(new) != without_compute(old) {
                let detail = if mains {
                    "only cpu and memory resources are mutable"
                } else {
                    "only cpu and memory resources for sidecar containers are mutable"
                };
                findings.forbidden(spec.clone(), detail);
            }
        }
    }
    if findings.0.len() > known {
        return;
    }
    for spec in [&mut after, &mut before] {
        CONTAINERS.iter().for_each(|list| view::remove(spec, list));
    }
    if after != before {
        findings.forbidden(spec, "only cpu and memory resources are mutable");
    }
}

/// A container without what a resize may change.
fn without_compute(container: &Value) -> Value {
    let mut container = container.clone();
    for list in ["limits", "requests"] {
        if let Some(list) = container["resources"].get_mut(list) {
            view::remove(list, "cpu");
            view::remove(list, "memory");
        }
    }
    canonical::spec(&mut container);
    container
}

// === ephemeral containers ===

/// Through `ephemeralcontainers`: more of them.
pub(super) fn ephemeral(new: &Value, old: &Value, findings: &mut Findings) {
    let path = Path::of("spec.ephemeralContainers");
    let canonical = |value: &Value| {
        let mut value = value.clone();
        canonical::spec(&mut value);
        value
    };
    for old in items(old, "spec.ephemeralContainers") {
        let name = quote(text(old, "name"));
        match items(new, "spec.ephemeralContainers").iter().find(|new| new["name"] == old["name"]) {
            None => {
                let detail = format!("existing ephemeral containers {name} may not be removed\n");
                findings.forbidden(path.clone(), &detail);
            }
            Some(new) if canonical(new) != canonical(old) => {
                let difference = canonical::difference(&canonical(old), &canonical(new), "spec.ephemeralContainers[]");
                let detail = format!("existing ephemeral containers {name} may not be changed\n{difference}");
                findings.forbidden(path.clone(), &detail);
            }
            Some(_) => {}
        }
    }
}

// === status ===

/// What a status may not lose: its QoS class, and which generation it is about.
pub(super) fn keep_status(new: &mut Value, old: &Value) {
    let status = view::object(new, "status");
    let before = &old["status"];
    for field in ["qosClass", "observedGeneration"] {
        if status.get(field).is_none_or(view::is_empty) && !view::is_empty(&before[field]) {
            status.insert(field.to_owned(), before[field].clone());
        }
    }
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let old = items(before, "conditions").iter().find(|old| old["type"] == condition["type"]);
        if let Some(old) = old.filter(|old| !view::is_empty(&old["observedGeneration"]))
            && view::is_empty(&condition["observedGeneration"])
        {
            condition["observedGeneration"] = old["observedGeneration"].clone();
        }
    }
}

/// Through `status`.
pub(super) fn status(new: &Value, old: &Value, findings: &mut Findings) {
    for (index, condition) in items(new, "status.conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            validate::qualified_name(kind, Path::of("metadata.conditions").index(index).field("Type"), findings);
        }
    }
    if new["status"]["qosClass"] != old["status"]["qosClass"] {
        let class = text(new, "status.qosClass");
        findings.invalid(Path::of("status.qosClass"), class, validate::IMMUTABLE_FIELD);
    }
    let policy = text(old, "spec.restartPolicy");
    let sidecar = |name: &Value| {
        let inits = items(old, "spec.initContainers");
        inits.iter().any(|init| &init["name"] == name && text(init, "restartPolicy") == "Always")
    };
    for (list, policy) in
        [("containerStatuses", policy), ("initContainerStatuses", policy), ("ephemeralContainerStatuses", "Never")]
    {
        if policy == "Always" {
            continue;
        }
        for (index, before) in items(&old["status"], list).iter().enumerate() {
            let ended = at(before, "state.terminated");
            let restarts = integer(ended, "exitCode") != Some(0) && policy == "OnFailure";
            if ended.is_null() || restarts || (list == "initContainerStatuses" && sidecar(&before["name"])) {
                continue;
            }
            let alive = |after: &&Value| after["name"] == before["name"] && at(after, "state.terminated").is_null();
            if items(&new["status"], list).iter().any(|after| alive(&after)) {
                let path = Path::of("status").field(list).index(index).field("state");
                findings.forbidden(path, "may not be transitioned to non-terminated state");
            }
        }
    }
}
