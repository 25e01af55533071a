//! Pod templates, which nothing acts on anywhere, and ReplicationControllers, which nothing acts on here.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use super::view::{self, at, items, text};
use super::{Column, Part, Strategy, canonical};
use crate::decode::{self, checked};
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError};
use crate::{default, unsupported};

#[derive(Debug)]
pub(super) struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, object: &mut Value) {
        let Ok(mut typed) = decode::pod_template(object) else { return };
        let Some(spec) = typed.template.as_mut().and_then(|template| template.spec.as_mut()) else { return };
        default::pod_spec(spec);
        let Ok(mut spec) = serde_json::to_value(spec) else { return };
        canonical::spec(&mut spec);
        object["template"]["spec"] = spec;
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        unsupported::find(at(object, "template.spec"), &Path::of("template.spec"), &mut findings);
        let mut errors = validate::errors(findings);
        errors.extend(checked::<PodTemplate>(object, true, |typed| {
            let mut findings = Findings::default();
            let template = typed.template.as_ref();
            validate::find_in_template(
                template.and_then(|template| template.metadata.as_ref()),
                template.and_then(|template| template.spec.as_ref()),
                &Path::of("template"),
                &mut findings,
            );
            validate::errors(findings)
        }));
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Containers", "The containers of the template."),
                Column::text("Images", "Their images."),
                Column::text("Pod Labels", "The labels of its pods."),
            ]
        }
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let (containers, images) = names_and_images(at(object, "template.spec"));
        vec![view::name(object), containers, images, view::pairs(at(object, "template.metadata.labels")).into()]
    }
}

/// Served so that clients can ask whether there are any. None can be made: nothing would start their pods.
#[derive(Debug)]
pub(super) struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        let advice =
            "Unsupported by outrigger: nothing here keeps replicas of a pod running yet; create the pods themselves";
        findings.forbidden(Path::of("spec"), advice);
        validate::errors(findings)
    }

    fn validate_update(&self, new: &Value, _old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::integer("Desired", "How many pods there should be."),
                Column::integer("Current", "How many there are."),
                Column::integer("Ready", "How many of them are ready."),
                Column::AGE,
                Column::text("Containers", "The containers of the template.").wide(),
                Column::text("Images", "Their images.").wide(),
                Column::text("Selector", "Which pods count.").wide(),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |path: &str| Value::from(view::integer(object, path).unwrap_or(0));
        let (containers, images) = names_and_images(at(object, "spec.template.spec"));
        vec![
            view::name(object),
            count("spec.replicas"),
            count("status.replicas"),
            count("status.readyReplicas"),
            view::age(object, now),
            containers,
            images,
            view::pairs(at(object, "spec.selector")).into(),
        ]
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        (label == "status.replicas").then(|| view::integer(object, label).unwrap_or(0).to_string())
    }
}

fn names_and_images(spec: &Value) -> (Value, Value) {
    let all = |field: &str| {
        let texts: Vec<&str> = items(spec, "containers").iter().map(|container| text(container, field)).collect();
        Value::from(texts.join(","))
    };
    (all("name"), all("image"))
}
