//! Pods.

mod admission;
mod update;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodReadinessGate, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::view::{self, at, items, text};
use super::{Column, Part, Strategy, Surroundings, canonical, limits, quota};
use crate::decode::{self, checked};
use crate::failure::Failure;
use crate::path::Path;
use crate::problem::Findings;
use crate::qos::{self, QosClass};
use crate::validate::{self, FieldError};
use crate::{default, status, unsupported};

/// Of the metadata, what only the object itself may change, and no subresource.
const OBJECT_METADATA: &[&str] =
    &["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"];
/// Fields that admission fills in; a body that replaces a pod need not repeat them.
const ADMITTED: &[&str] = &["serviceAccountName", "serviceAccount", "priority", "preemptionPolicy", "nodeName"];

pub(super) use admission::forbidden;

#[derive(Debug)]
pub(super) struct Pods;

impl Strategy for Pods {
    fn default(&self, object: &mut Value) {
        // What does not fit its type is left for validation to refuse.
        let Ok(spec) = decode::pod_spec(&object["spec"]) else { return };
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        default::pod(&mut pod);
        let Ok(mut spec) = serde_json::to_value(&pod.spec) else { return };
        canonical::spec(&mut spec);
        object["spec"] = spec;
    }

    fn prepare_create(&self, object: &mut Value, cx: &Surroundings<'_>) -> Result<(), Failure> {
        admission::service_account(object, cx)?;
        admission::priority(object)?;
        admission::tolerate(object);
        limits::apply_to_pod(object, cx);
        let class = quality(object).unwrap_or(QosClass::BestEffort);
        object["status"] = json!({"phase": "Pending", "qosClass": class.as_str()});
        Ok(())
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = checked::<Pod>(object, true, validate::pod);
        errors.extend(not_supported(&object["spec"]));
        errors
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part<'_>) {
        match part {
            Part::Object => {
                view::put_back(new, old, "status");
                for field in ADMITTED {
                    if view::is_empty(&new["spec"][*field]) {
                        view::put_back(&mut new["spec"], &old["spec"], field);
                    }
                }
                admission::tolerate(new);
            }
            Part::Sub("status") => {
                view::put_back(new, old, "spec");
                view::put_back(&mut new["metadata"], &old["metadata"], "deletionTimestamp");
                view::put_back(&mut new["metadata"], &old["metadata"], "ownerReferences");
                update::keep_status(new, old);
            }
            Part::Sub(sub) => {
                for field in OBJECT_METADATA {
                    view::put_back(&mut new["metadata"], &old["metadata"], field);
                }
                view::put_back(new, old, "status");
                match sub {
                    "resize" => update::keep_resources(new, old),
                    _ => {
                        let asked = std::mem::take(&mut new["spec"]);
                        view::put_back(new, old, "spec");
                        view::put_back(&mut new["spec"], &asked, "ephemeralContainers");
                    }
                }
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part<'_>) -> Vec<FieldError> {
        let mut errors = match decode::pod(new) {
            Ok(pod) => validate::existing_pod(&pod),
            // What does not fit its type cannot be compared either.
            Err(errors) => return errors,
        };
        let mut findings = Findings::default();
        match part {
            Part::Object => update::object(new, old, &mut findings),
            Part::Sub("status") => update::status(new, old, &mut findings),
            Part::Sub("resize") => update::resize(new, old, &mut findings),
            Part::Sub("ephemeralcontainers") => {
                let added = json!({
                    "ephemeralContainers": at(new, "spec.ephemeralContainers"), "volumes": at(new, "spec.volumes"),
                });
                let added = not_supported(&added);
                errors.extend(added.into_iter().filter(|error| error.path.starts_with("spec.ephemeralContainers")));
                update::ephemeral(new, old, &mut findings);
            }
            Part::Sub(_) => {}
        }
        errors.extend(validate::errors(findings));
        errors
    }

    fn admit(&self, new: &Value, old: Option<&Value>, part: Part<'_>, cx: &Surroundings<'_>) -> Result<(), Failure> {
        if old.is_none() || part == Part::Sub("resize") {
            limits::check_pod(new, cx)?;
        }
        quota::admit(new, old, part, cx)
    }

    fn has_generation(&self) -> bool {
        true
    }

    /// `podStrategy.CheckGracefulDelete`.
    fn graceful_deletion(&self, object: &Value, asked_seconds: Option<i64>) -> Option<i64> {
        let own = view::integer(object, "spec.terminationGracePeriodSeconds");
        let ended = matches!(text(object, "status.phase"), "Succeeded" | "Failed");
        match asked_seconds.or(own).unwrap_or(0) {
            _ if ended || text(object, "spec.nodeName").is_empty() => None,
            0 => None,
            seconds if seconds < 0 => Some(1),
            seconds => Some(seconds),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Ready", "Containers that are ready, of those that should be."),
                Column::text("Status", "The statuses of the containers in one word."),
                Column::text("Restarts", "How often containers were restarted, and when last."),
                Column::AGE,
                Column::text("IP", "The pod's address.").wide(),
                Column::text("Node", "The node the pod is on.").wide(),
                Column::text("Nominated Node", "The node that is being made free for the pod.").wide(),
                Column::text("Readiness Gates", "Conditions that are true, of those the pod waits for.").wide(),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let row = status::columns(&outline(object), now);
        [
            row.name,
            row.ready,
            row.status,
            row.restarts,
            row.age,
            row.ip,
            row.node,
            row.nominated_node,
            row.readiness_gates,
        ]
        .map(Value::from)
        .to_vec()
    }

    fn row_conditions(&self, object: &Value) -> Option<Value> {
        let phase = text(object, "status.phase");
        let message = match phase {
            "Succeeded" => "The pod has completed successfully.",
            "Failed" => "The pod failed.",
            _ => return None,
        };
        Some(json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]))
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        let first_ip = |object: &Value| text(&object["status"]["podIPs"][0], "ip").to_owned();
        Some(match label {
            "spec.nodeName"
            | "spec.restartPolicy"
            | "spec.schedulerName"
            | "spec.serviceAccountName"
            | "status.phase"
            | "status.nominatedNodeName" => text(object, label).to_owned(),
            "spec.hostNetwork" => view::is_true(object, label).to_string(),
            "status.podIP" | "status.podIPs" => first_ip(object),
            _ => return None,
        })
    }
}

/// The QoS class, if the resources can be read.
pub(super) fn quality(pod: &Value) -> Option<QosClass> {
    let spec = decode::pod_spec(&pod["spec"]).ok()?;
    qos::qos_class(&spec).ok()
}

/// A pod with only what its row is made of: a table has many rows, and reading whole specs would be most of its cost.
fn outline(object: &Value) -> Pod {
    let some = |path: &str| Some(text(object, path).to_owned()).filter(|text| !text.is_empty());
    let time = |path: &str| view::time(object, path).map(Time);
    let container = |container: &Value| Container {
        name: text(container, "name").to_owned(),
        restart_policy: container["restartPolicy"].as_str().map(str::to_owned),
        ..Container::default()
    };
    let all = |list: &str| items(object, list).iter().map(container).collect::<Vec<_>>();
    let gate = |gate: &Value| PodReadinessGate { condition_type: text(gate, "conditionType").to_owned() };
    Pod {
        metadata: ObjectMeta {
            name: some("metadata.name"),
            creation_timestamp: time("metadata.creationTimestamp"),
            deletion_timestamp: time("metadata.deletionTimestamp"),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: all("spec.containers"),
            init_containers: Some(all("spec.initContainers")),
            node_name: some("spec.nodeName"),
            readiness_gates: Some(items(object, "spec.readinessGates").iter().map(gate).collect()),
            ..PodSpec::default()
        }),
        status: Some(decode::pod_status(&object["status"])),
    }
}

/// What Kubernetes would run and this node does not. Defaulting copies limits into requests; one complaint is enough.
fn not_supported(spec: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    unsupported::find(spec, &Path::of("spec"), &mut findings);
    let mut errors = validate::errors(findings);
    let of_limits: Vec<String> = errors
        .iter()
        .filter(|error| error.path.contains(".limits["))
        .map(|error| error.path.replace(".limits[", ".requests["))
        .collect();
    errors.retain(|error| !of_limits.contains(&error.path));
    errors
}
