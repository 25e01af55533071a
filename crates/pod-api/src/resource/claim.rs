//! PersistentVolumeClaims: each is a directory of this machine, made when a pod first uses it; so each is bound at once.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::total::amount;
use super::view::{self, at, items, text};
use super::{Column, Part, Strategy, Surroundings, canonical, limits, quota};
use crate::failure::Failure;
use crate::path::Path;
use crate::problem::Findings;
use crate::quantity::Amount;
use crate::validate::{self, FieldError};

const ACCESS_MODES: &[(&str, &str)] =
    &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
const UNSET: &str = "<unset>";

#[derive(Debug)]
pub(super) struct Claims;

impl Strategy for Claims {
    fn default(&self, object: &mut Value) {
        let spec = view::object(object, "spec");
        view::fill(spec, "volumeMode", "Filesystem");
        object.get_mut("spec").into_iter().for_each(canonical::quantities);
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Surroundings<'_>) -> Result<(), Failure> {
        let name = format!("{}-{}", text(object, "metadata.namespace"), text(object, "metadata.name"));
        let asked = text(object, "spec.volumeName");
        // A claim that asks for a volume is refused by validation, which must see it.
        if asked.is_empty() {
            object["status"] = json!({
                "phase": "Bound",
                "accessModes": at(object, "spec.accessModes"),
                "capacity": at(object, "spec.resources.requests"),
            });
            view::object(object, "spec").insert("volumeName".to_owned(), name.into());
        }
        Ok(())
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        claim(&object["spec"], &mut findings);
        let own = format!("{}-{}", text(object, "metadata.namespace"), text(object, "metadata.name"));
        if text(object, "spec.volumeName") != own {
            let detail = "there are no PersistentVolumes: each claim is a directory of this machine; leave it out";
            findings.forbidden(Path::of("spec.volumeName"), detail);
        }
        validate::errors(findings)
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part<'_>) {
        if part != Part::Object {
            return view::put_back(new, old, "spec");
        }
        view::put_back(new, old, "status");
        if text(new, "spec.volumeName").is_empty() {
            view::put_back(&mut new["spec"], &old["spec"], "volumeName");
        }
        // A directory has no size of its own: growing is done as soon as it is asked for.
        if at(new, "spec.resources.requests") != at(old, "spec.resources.requests") {
            new["status"]["capacity"] = at(new, "spec.resources.requests").clone();
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part<'_>) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if part != Part::Object {
            return errors;
        }
        let mut findings = Findings::default();
        let storage = |claim: &Value| amount(at(claim, "spec.resources.requests.storage")).map(|(amount, _)| amount);
        let (mut after, mut before) = (new["spec"].clone(), old["spec"].clone());
        canonical::spec(&mut after);
        canonical::spec(&mut before);
        if storage(new) < storage(old) {
            let detail = "field can not be less than status.capacity";
            findings.forbidden(Path::of("spec.resources.requests.storage"), detail);
        }
        view::put_back(&mut after, &before, "resources");
        if after != before {
            let detail = format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                 claims\n{}",
                canonical::difference(&before, &after, "spec")
            );
            findings.forbidden(Path::of("spec"), &detail);
        }
        errors.extend(validate::errors(findings));
        errors
    }

    fn admit(&self, new: &Value, old: Option<&Value>, part: Part<'_>, cx: &Surroundings<'_>) -> Result<(), Failure> {
        if part == Part::Object {
            limits::check_claim(new, cx)?;
        }
        quota::admit(new, old, part, cx)
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Status", "Whether the claim has its volume."),
                Column::text("Volume", "The volume it has."),
                Column::text("Capacity", "The size it was made for."),
                Column::text("Access Modes", "How it may be mounted."),
                Column::text("StorageClass", "The class it names."),
                Column::text("VolumeAttributesClass", "The attributes it names."),
                Column::AGE,
                Column::text("VolumeMode", "A directory, or a device.").wide(),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let terminating = !at(object, "metadata.deletionTimestamp").is_null();
        let phase = if terminating { "Terminating" } else { text(object, "status.phase") };
        let modes: Vec<&str> = ACCESS_MODES
            .iter()
            .filter(|(mode, _)| items(object, "status.accessModes").iter().any(|has| has == mode))
            .map(|(_, short)| *short)
            .collect();
        let or_unset = |text: &str| if text.is_empty() { UNSET.to_owned() } else { text.to_owned() };
        vec![
            view::name(object),
            phase.into(),
            text(object, "spec.volumeName").into(),
            text(object, "status.capacity.storage").into(),
            modes.join(",").into(),
            text(object, "spec.storageClassName").into(),
            or_unset(text(object, "spec.volumeAttributesClassName")).into(),
            view::age(object, now),
            or_unset(text(object, "spec.volumeMode")).into(),
        ]
    }
}

/// `ValidatePersistentVolumeClaimSpec`, and what a directory cannot be.
fn claim(spec: &Value, findings: &mut Findings) {
    let path = Path::of("spec");
    let modes = items(spec, "accessModes");
    if modes.is_empty() {
        findings.required(path.field("accessModes"), "at least 1 access mode is required");
    }
    for (index, mode) in modes.iter().enumerate() {
        let mode = mode.as_str().unwrap_or_default();
        if !ACCESS_MODES.iter().any(|(known, _)| *known == mode) {
            let mut known: Vec<&str> = ACCESS_MODES.iter().map(|(mode, _)| *mode).collect();
            known.sort_unstable();
            findings.not_supported(path.field("accessModes").index(index), mode, &known);
        }
    }
    let storage = path.under("resources.requests").key("storage");
    match at(spec, "resources.requests.storage") {
        Value::Null => findings.required(path.under("resources").key("storage"), ""),
        value => match amount(value) {
            Some((amount, _)) if amount > Amount::default() => {}
            _ => findings.invalid(storage, value.clone(), "must be greater than zero"),
        },
    }
    let refused = [
        ("selector", "there are no PersistentVolumes to choose from; leave it out"),
        ("dataSource", "a claim cannot be filled from another one or a snapshot; use an init container"),
        ("dataSourceRef", "a claim cannot be filled from another one or a snapshot; use an init container"),
        ("volumeAttributesClassName", "a directory has no attributes; leave it out"),
    ];
    for (field, advice) in refused.into_iter().filter(|(field, _)| !view::is_empty(&spec[*field])) {
        findings.forbidden(path.field(field), advice);
    }
    if text(spec, "volumeMode") != "Filesystem" {
        findings.not_supported(path.field("volumeMode"), text(spec, "volumeMode"), &["Filesystem"]);
    }
}
