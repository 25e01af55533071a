//! ConfigMaps and Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::Value;

use super::view::{self, at, text};
use super::{Column, Part, Strategy};
use crate::decode::checked;
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError};

const IMMUTABLE: &str = "field is immutable when `immutable` is set";

#[derive(Debug)]
pub(super) struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        checked::<ConfigMap>(object, true, validate::config_map)
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        errors.extend(immutable(new, old, &["data", "binaryData"]));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Data", "How many keys there are, text and binary together."), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys = view::members(object, "data").count() + view::members(object, "binaryData").count();
        vec![view::name(object), keys.into(), view::age(object, now)]
    }
}

#[derive(Debug)]
pub(super) struct Secrets;

impl Strategy for Secrets {
    /// `stringData` is written only: it becomes `data`.
    fn default(&self, object: &mut Value) {
        let texts = object.as_object_mut().and_then(|members| members.remove("stringData"));
        if let Some(Value::Object(texts)) = texts.filter(|texts| !view::is_empty(texts)) {
            let data = view::object(object, "data");
            data.extend(
                texts.into_iter().map(|(key, text)| (key, STANDARD.encode(text.as_str().unwrap_or("")).into())),
            );
        }
        view::fill(view::object(object, ""), "type", "Opaque");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        checked::<Secret>(object, false, validate::secret)
    }

    /// An update without a type keeps the one there is; but [`Self::default`] has made it `Opaque`, as upstream does too.
    fn validate_update(&self, new: &Value, old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        let mut findings = Findings::default();
        if new["type"] != old["type"] {
            findings.invalid(Path::of("type"), new["type"].clone(), validate::IMMUTABLE_FIELD);
        }
        let mut errors = validate::errors(findings);
        errors.extend(immutable(new, old, &["data"]));
        errors.extend(self.validate_create(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Type", "What the keys mean to programs."),
                Column::text("Data", "How many keys there are."),
                Column::AGE,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys = view::members(object, "data").count();
        vec![view::name(object), text(object, "type").into(), keys.into(), view::age(object, now)]
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        (label == "type").then(|| text(object, "type").to_owned())
    }
}

/// What `immutable: true` forbids: taking it back, and changing what it protects.
fn immutable(new: &Value, old: &Value, fields: &[&'static str]) -> Vec<FieldError> {
    let mut findings = Findings::default();
    if view::is_true(old, "immutable") {
        if !view::is_true(new, "immutable") {
            findings.forbidden(Path::of("immutable"), IMMUTABLE);
        }
        for field in fields {
            let (new, old) = (at(new, field), at(old, field));
            if new != old && !(view::is_empty(new) && view::is_empty(old)) {
                findings.forbidden(Path::of(field), IMMUTABLE);
            }
        }
    }
    validate::errors(findings)
}
