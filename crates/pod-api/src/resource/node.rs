//! Nodes: this machine. The node makes its own object, and keeps its status true.

use jiff::Timestamp;
use serde_json::Value;

use super::view::{self, NONE, UNKNOWN, at, items, text};
use super::{Column, Part, Strategy, Surroundings};
use crate::failure::Failure;
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";
/// What of the spec a person may change: `kubectl cordon`, `kubectl taint`.
const CHANGEABLE: &[&str] = &["unschedulable", "taints"];

#[derive(Debug)]
pub(super) struct Nodes;

impl Strategy for Nodes {
    fn prepare_create(&self, object: &mut Value, _cx: &Surroundings<'_>) -> Result<(), Failure> {
        let why = "there is one node, this machine; others cannot join";
        Err(Failure::forbidden("nodes", text(object, "metadata.name"), why))
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, false, validate::NameRule::Subdomain, &mut findings);
        for (index, taint) in items(object, "spec.taints").iter().enumerate() {
            let path = Path::of("spec.taints").index(index);
            validate::qualified_name(text(taint, "key"), path.field("key"), &mut findings);
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            findings.one_of(path.field("effect"), taint["effect"].as_str(), &effects);
        }
        validate::errors(findings)
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part<'_>) {
        view::put_back(new, old, if part == Part::Object { "status" } else { "spec" });
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        let fixed = |node: &Value| {
            let mut spec = node["spec"].clone();
            CHANGEABLE.iter().for_each(|field| view::remove(&mut spec, field));
            if view::is_empty(&spec) { Value::Null } else { spec }
        };
        if fixed(new) != fixed(old) {
            let mut findings = Findings::default();
            findings.forbidden(Path::root(), "node updates may only change labels, taints, or capacity");
            errors.extend(validate::errors(findings));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Status", "Whether the node is ready, and takes new pods."),
                Column::text("Roles", "What the node's labels say it is for."),
                Column::AGE,
                Column::text("Version", "The version the node says it has."),
                Column::text("Internal-IP", "The node's address inside.").wide(),
                Column::text("External-IP", "The node's address outside.").wide(),
                Column::text("OS-Image", "The operating system.").wide(),
                Column::text("Kernel-Version", "The kernel.").wide(),
                Column::text("Container-Runtime", "What runs the containers.").wide(),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ready = items(object, "status.conditions").iter().find(|condition| text(condition, "type") == "Ready");
        let mut status = match ready.map(|condition| text(condition, "status")) {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        }
        .to_owned();
        if view::is_true(object, "spec.unschedulable") {
            status.push_str(",SchedulingDisabled");
        }
        let address = |kind: &str| {
            let found = items(object, "status.addresses").iter().find(|address| text(address, "type") == kind);
            found.map_or(NONE, |address| text(address, "address"))
        };
        let info = |field: &str| match at(object, "status.nodeInfo")[field].as_str() {
            None | Some("") => UNKNOWN,
            Some(text) => text,
        };
        vec![
            view::name(object),
            status.into(),
            roles(object).into(),
            view::age(object, now),
            text(object, "status.nodeInfo.kubeletVersion").into(),
            address("InternalIP").into(),
            address("ExternalIP").into(),
            info("osImage").into(),
            info("kernelVersion").into(),
            info("containerRuntimeVersion").into(),
        ]
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        (label == "spec.unschedulable").then(|| view::is_true(object, label).to_string())
    }
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = view::members(object, "metadata.labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == ROLE),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    view::or_none(&roles.join(",")).to_owned()
}
