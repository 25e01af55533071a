//! From client-side to server-side apply. `kubectl apply` keeps what it applied in an annotation; when its user changes to
//! `kubectl apply --server-side`, the fields that the annotation names, and that nobody changed since, are `kubectl`'s already:
//! they make no conflict. The annotation is kept in step, so that the user can change back.
//!
//! Only for the manager `kubectl`, as the API server does it; another `--field-manager` opts out.

use pod_schema::Type;
use serde_json::Value;

use crate::field_set::FieldSet;
use crate::{bound, tree};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Bytes of all annotations together (the API server's limit).
const ANNOTATIONS: usize = 256 * 1024;

pub(crate) const MANAGER: &str = "kubectl";

/// The fields that the annotation says `kubectl` applied and that still are as it applied them.
pub(crate) fn owned(ty: Type, live: &Value, api_version: &str) -> Option<FieldSet> {
    let applied: Value = serde_json::from_str(annotation(live)?).ok()?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(api_version)
        || !bound::within(&applied, bound::DEPTH)
        || !tree::misfits(ty, &applied).is_empty()
    {
        return None;
    }
    let changed = tree::compare(ty, &applied, live);
    let set = tree::collect(ty, &applied);
    Some(set.difference(&changed.written()).difference(&changed.removed))
}

/// Writes what was applied into the annotation, if the object has it; takes it off if it does not fit any more.
pub(crate) fn sync(object: &mut Value, applied: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), Value::String(format!("{applied}\n")));
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}
