//! Namespaces: they wait for their contents to go before they go.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::view::{self, text};
use super::{Column, Part, Strategy, Surroundings};
use crate::failure::Failure;
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError};

/// The finalizer that stands for "has been emptied"; whoever empties the namespace takes it away through `finalize`.
pub const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Debug)]
pub(super) struct Namespaces;

impl Strategy for Namespaces {
    fn default(&self, object: &mut Value) {
        label(object);
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Surroundings<'_>) -> Result<(), Failure> {
        object["status"] = json!({"phase": "Active"});
        // Again: a name that is generated was not there before.
        label(object);
        let finalizers = view::items(object, "spec.finalizers");
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            let mut finalizers = finalizers.to_vec();
            finalizers.push(FINALIZER.into());
            view::object(object, "spec").insert("finalizers".to_owned(), finalizers.into());
        }
        Ok(())
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, false, validate::NameRule::Label, &mut findings);
        finalizers(object, &mut findings);
        validate::errors(findings)
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part<'_>) {
        match part {
            Part::Object => {
                view::put_back(new, old, "status");
                view::put_back(new, old, "spec");
            }
            Part::Sub("status") => view::put_back(new, old, "spec"),
            Part::Sub(_) => view::put_back(new, old, "status"),
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part<'_>) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if part == Part::Sub("status") {
            let deleted = !view::at(old, "metadata.deletionTimestamp").is_null();
            let phase = text(new, "status.phase");
            let mut findings = Findings::default();
            match (deleted, phase) {
                (true, "Terminating") | (false, "" | "Active") => {}
                (true, _) => findings.invalid(
                    Path::of("status.phase"),
                    phase,
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                ),
                (false, _) => {
                    findings.invalid(
                        Path::of("status.phase"),
                        phase,
                        "may only be 'Active' if `deletionTimestamp` is empty",
                    );
                }
            }
            errors.extend(validate::errors(findings));
        }
        errors
    }

    fn graceful_deletion(&self, object: &Value, _asked_seconds: Option<i64>) -> Option<i64> {
        (!view::items(object, "spec.finalizers").is_empty()).then_some(0)
    }

    fn prepare_deletion(&self, object: &mut Value) {
        view::object(object, "status").insert("phase".to_owned(), "Terminating".into());
    }

    fn is_removable(&self, object: &Value) -> bool {
        view::items(object, "metadata.finalizers").is_empty() && view::items(object, "spec.finalizers").is_empty()
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Status", "Active, or Terminating while it is emptied."), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![view::name(object), text(object, "status.phase").into(), view::age(object, now)]
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        match label {
            "status.phase" => Some(text(object, "status.phase").to_owned()),
            // For clients of the first days of the API.
            "name" => Some(text(object, "metadata.name").to_owned()),
            _ => None,
        }
    }
}

/// The label by which selectors can name a namespace is always there and true.
fn label(object: &mut Value) {
    let name = text(object, "metadata.name").to_owned();
    if !name.is_empty() {
        view::object(object, "metadata.labels").insert(NAME_LABEL.to_owned(), name.into());
    }
}

fn finalizers(object: &Value, findings: &mut Findings) {
    for (index, finalizer) in view::items(object, "spec.finalizers").iter().enumerate() {
        let path = Path::of("spec.finalizers").index(index);
        validate::finalizer(finalizer.as_str().unwrap_or_default(), path, findings);
    }
}
