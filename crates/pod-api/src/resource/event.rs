//! Events, which two groups serve: the core group's words are stored, those of `events.k8s.io` are another view of them.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::view::{self, at, text};
use super::{Column, Part, Strategy};
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError};

/// Fields of one meaning and two names: core, `events.k8s.io`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];
const MAX_INSTANCE: usize = 128;
const MAX_MESSAGE: usize = 1024;

/// Events of the core group.
#[derive(Debug)]
pub(super) struct Events;

/// Events of `events.k8s.io/v1`.
#[derive(Debug)]
pub(super) struct EventsV1;

impl Strategy for Events {
    fn default(&self, object: &mut Value) {
        let members = view::object(object, "");
        // Upstream's type has these without omitempty.
        members.entry("source").or_insert_with(|| Value::Object(Map::new()));
        for name in ["reportingComponent", "reportingInstance"] {
            members.entry(name).or_insert_with(|| "".into());
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        event(object, &mut findings);
        validate::errors(findings)
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Last Seen", "Time since it last happened."),
                Column::text("Type", "Normal, or Warning."),
                Column::text("Reason", "What happened, as one word for machines."),
                Column::text("Object", "What it happened to."),
                Column::text("Subobject", "The part of the object it happened to.").wide(),
                Column::text("Source", "Who says so.").wide(),
                Column::text("Message", "What happened, for people."),
                Column::text("First Seen", "Time since it first happened.").wide(),
                Column::text("Count", "How often it has happened.").wide(),
                Column { priority: 1, ..Column::NAME },
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let first = view::time(object, "firstTimestamp").or_else(|| view::time(object, "eventTime"));
        let series = at(object, "series");
        let (last, count) = if series.is_null() {
            let count = view::integer(object, "count").filter(|count| *count != 0).unwrap_or(1);
            (view::time(object, "lastTimestamp").or(first), count)
        } else {
            (view::time(series, "lastObservedTime"), view::integer(series, "count").unwrap_or(0))
        };
        let kind = text(object, "involvedObject.kind").to_lowercase();
        let target = match text(object, "involvedObject.name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let either = |first: &'static str, second: &'static str| match text(object, first) {
            "" => text(object, second),
            first => first,
        };
        let component = either("source.component", "reportingComponent");
        let source = match either("source.host", "reportingInstance") {
            "" => component.to_owned(),
            host => format!("{component}, {host}"),
        };
        vec![
            view::since(last, now).into(),
            text(object, "type").into(),
            text(object, "reason").into(),
            target.into(),
            text(object, "involvedObject.fieldPath").into(),
            source.into(),
            text(object, "message").trim().into(),
            view::since(first, now).into(),
            count.into(),
            view::name(object),
        ]
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        let path = match label {
            "involvedObject.kind"
            | "involvedObject.namespace"
            | "involvedObject.name"
            | "involvedObject.uid"
            | "involvedObject.apiVersion"
            | "involvedObject.resourceVersion"
            | "involvedObject.fieldPath"
            | "reason"
            | "reportingComponent"
            | "type" => label,
            "source" if text(object, "source.component").is_empty() => "reportingComponent",
            "source" => "source.component",
            _ => return None,
        };
        Some(text(object, path).to_owned())
    }
}

impl Strategy for EventsV1 {
    fn to_stored(&self, object: &mut Value) {
        rename(object, RENAMED.iter().map(|(core, other)| (*other, *core)));
        object["apiVersion"] = "v1".into();
    }

    fn from_stored(&self, object: &mut Value) {
        rename(object, RENAMED.iter().copied());
        object["apiVersion"] = "events.k8s.io/v1".into();
    }

    fn default(&self, object: &mut Value) {
        self.to_stored(object);
        Events.default(object);
        self.from_stored(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        if at(object, "eventTime").is_null() {
            findings.required(Path::of("eventTime"), "");
        }
        let kind = text(object, "type");
        if !matches!(kind, "Normal" | "Warning") {
            findings.invalid(Path::of("type"), "", &format!("has invalid value: {kind}"));
        }
        for (_, field) in RENAMED.iter().filter(|(_, field)| field.starts_with("deprecated")) {
            if !view::is_empty(&object[*field]) {
                findings.invalid(Path::of(field), object[*field].clone(), "needs to be unset");
            }
        }
        let mut errors = validate::errors(findings);
        errors.extend(self.validate_stored(object));
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        self.validate_stored(new)
    }

    fn columns(&self) -> &'static [Column] {
        Events.columns()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        Events.cells(&self.stored(object), now)
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        match label {
            "reason" | "type" | "reportingController" => Some(text(object, label).to_owned()),
            "regarding.kind"
            | "regarding.namespace"
            | "regarding.name"
            | "regarding.uid"
            | "regarding.apiVersion"
            | "regarding.resourceVersion"
            | "regarding.fieldPath" => Some(text(object, label).to_owned()),
            _ => None,
        }
    }
}

impl EventsV1 {
    fn stored(&self, object: &Value) -> Value {
        let mut object = object.clone();
        self.to_stored(&mut object);
        object
    }

    /// The rules of both groups, with the field names of this one.
    fn validate_stored(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Events.validate_create(&self.stored(object));
        for error in &mut errors {
            let (first, rest) = error.path.split_once('.').unwrap_or((&error.path, ""));
            if let Some((_, name)) = RENAMED.iter().find(|(core, _)| *core == first) {
                error.path = [*name, rest].join(".").trim_end_matches('.').to_owned();
            }
        }
        errors
    }
}

fn rename(object: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(members) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = members.remove(from) {
            members.insert(to.to_owned(), value);
        }
    }
}

/// `ValidateEventCreate` of the core group: old events say little, those with an `eventTime` must say who and what.
fn event(object: &Value, findings: &mut Findings) {
    let (namespace, involved) = (text(object, "metadata.namespace"), text(object, "involvedObject.namespace"));
    // Events about what has no namespace are in the default one.
    let agree = if involved.is_empty() { matches!(namespace, "" | "default") } else { involved == namespace };
    if !agree {
        findings.invalid(Path::of("involvedObject.namespace"), involved, "does not match event.namespace");
    }
    if at(object, "eventTime").is_null() {
        return;
    }
    for field in ["reportingComponent", "reportingInstance", "action", "reason"] {
        if text(object, field).is_empty() {
            findings.required(Path::of(field), "");
        }
    }
    let long = |findings: &mut Findings, field: &'static str, most: usize| {
        if text(object, field).len() > most {
            findings.invalid(Path::of(field), "", &format!("can have at most {most} characters"));
        }
    };
    let component = text(object, "reportingComponent");
    if !component.is_empty() {
        validate::qualified_name(component, Path::of("reportingComponent"), findings);
    }
    long(findings, "reportingInstance", MAX_INSTANCE);
    long(findings, "action", MAX_INSTANCE);
    long(findings, "reason", MAX_INSTANCE);
    long(findings, "message", MAX_MESSAGE);
}
