//! Paths into objects, and the metadata that is the server's.

use pod_api::resource::Resource;
use pod_store::Object;
use serde_json::{Map, Value, json};

use crate::route::{api_version, full_name};

/// The text at `metadata.name` and the like; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The object's metadata, made if need be. Of what is no object it is a throw-away.
pub(crate) fn metadata<'a>(value: &'a mut Value, spare: &'a mut Map<String, Value>) -> &'a mut Map<String, Value> {
    let Some(object) = value.as_object_mut() else { return spare };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().unwrap_or(spare)
}

/// Changes the metadata of an object.
pub(crate) fn with_metadata<T>(value: &mut Value, change: impl FnOnce(&mut Map<String, Value>) -> T) -> T {
    let mut spare = Map::new();
    change(metadata(value, &mut spare))
}

/// Whether a resource is another view of what is stored for its kind.
pub(crate) fn is_view(resource: &Resource) -> bool {
    full_name(resource) != resource.stored_as
}

/// Kind and apiVersion as this resource serves them.
pub(crate) fn set_type(resource: &Resource, value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".into(), api_version(resource.group, resource.version).into());
        object.insert("kind".into(), resource.kind.into());
    }
}

/// A stored object as its resource serves it.
pub(crate) fn served(resource: &Resource, object: &Object) -> Value {
    // The store gives back what it was given as JSON; anything else would be a broken store.
    let mut value = serde_json::from_slice(&object.json).unwrap_or(Value::Null);
    if is_view(resource) {
        resource.strategy.from_stored(&mut value);
    }
    set_type(resource, &mut value);
    value
}

/// What is stored of a served object.
pub(crate) fn stored(resource: &Resource, mut value: Value) -> Value {
    if is_view(resource) {
        resource.strategy.to_stored(&mut value);
    }
    value
}

pub(crate) fn finalizers(value: &Value) -> &[Value] {
    value.pointer("/metadata/finalizers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn is_being_deleted(value: &Value) -> bool {
    value.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn partial(value: &Value, version: &str) -> Value {
    let metadata = value.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}
