//! One version of an object: its JSON with the revision in it, and what is read out of it once.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// Bytes of one object's JSON: the 3 MiB that one request can bring, and room for what is noted about them. Without a bound
/// patches could make an object grow without end, and it is in memory with its changes.
pub(crate) const LIMIT: usize = 4 << 20;

/// Where an object is.
///
/// `resource` and `name` may not be empty and no part may contain a NUL byte (the parts are joined with it on the disk).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Group and plural as one word: `pods`, `events`, `leases.coordination.k8s.io`.
    pub resource: Arc<str>,
    /// Empty for what belongs to no namespace.
    pub namespace: String,
    pub name: String,
}

/// One version of an object. Immutable; shared by everyone who reads it.
#[derive(PartialEq, Eq)]
pub struct Object {
    pub key: Key,
    /// The `metadata.resourceVersion` that is in `json`.
    pub revision: u64,
    /// `metadata.uid`, empty if there is none.
    pub uid: String,
    /// `metadata.labels`, sorted by key.
    pub labels: Vec<(String, String)>,
    /// The whole object, serialized once.
    pub json: Box<[u8]>,
}

/// Everything of a resource at one revision.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    pub revision: u64,
    /// By namespace and name.
    pub items: Vec<Arc<Object>>,
}

/// Without the content: Secrets are objects too, and what is debugged ends up in logs.
impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { resource, namespace, name } = &self.key;
        write!(formatter, "{resource}/{namespace}/{name}@{}", self.revision)
    }
}

impl Object {
    /// The object parsed; a fresh copy for the caller to change.
    pub fn value(&self) -> Value {
        // The store serialized these bytes itself, and the file they come from is checksummed.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The object of `value` at `revision`; says what is wrong with a value that has no place for a revision.
    ///
    /// The revision is written into `value`: nothing else in it changes, so the same value may be rendered again.
    pub(crate) fn render(key: Key, value: &mut Value, revision: u64) -> Result<Self, &'static str> {
        let json = serialize(value, revision)?;
        let metadata = &value["metadata"];
        let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
        let mut labels: Vec<(String, String)> = Vec::new();
        if let Some(map) = metadata["labels"].as_object() {
            labels.extend(map.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))));
            // The map is sorted only while nobody in the build turns on serde_json's `preserve_order`.
            labels.sort_unstable();
            labels.shrink_to_fit();
        }
        Ok(Self { key, revision, uid, labels, json })
    }

    /// Whether `value` is this object, whatever revision it carries.
    pub(crate) fn equals(&self, value: &mut Value) -> bool {
        let Ok(json) = serialize(value, self.revision) else { return false };
        // Equal values have equal lengths in any order of their keys, so unequal lengths settle it; equal bytes do as
        // well. What is left (same length, other bytes) is parsed, because the order of keys is no difference.
        json.len() == self.json.len() && (json == self.json || self.value() == *value)
    }
}

fn serialize(value: &mut Value, revision: u64) -> Result<Box<[u8]>, &'static str> {
    let object = value.as_object_mut().ok_or("it is not a JSON object")?;
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    let metadata = metadata.as_object_mut().ok_or("its metadata is not a JSON object")?;
    metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    // Serializing a `Value` to memory fails for nothing: its keys are strings and its numbers finite.
    let json = serde_json::to_vec(value).map_err(|_| "it cannot be serialized")?;
    Ok(json.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> Key {
        Key { resource: "pods".into(), namespace: "default".into(), name: "a".into() }
    }

    #[test]
    fn the_revision_stands_in_the_json() {
        let mut value = json!({"metadata": {"name": "a", "uid": "u", "labels": {"b": "2", "a": "1", "n": 3}}, "x": 1});
        let object = Object::render(key(), &mut value, 7).unwrap();
        assert_eq!(object.value()["metadata"]["resourceVersion"], "7");
        assert_eq!(object.uid, "u");
        assert_eq!(object.labels, [("a".into(), "1".into()), ("b".into(), "2".into())]);
    }

    #[test]
    fn equality_ignores_the_revision_and_nothing_else() {
        let object = Object::render(key(), &mut json!({"metadata": {"name": "a"}, "x": [1, 2]}), 7).unwrap();
        assert!(object.equals(&mut json!({"x": [1, 2], "metadata": {"resourceVersion": "99", "name": "a"}})));
        assert!(!object.equals(&mut json!({"x": [2, 1], "metadata": {"resourceVersion": "7", "name": "a"}})));
        assert!(!object.equals(&mut json!({"x": [1, 2, 3], "metadata": {"resourceVersion": "7", "name": "a"}})));
        assert!(!object.equals(&mut json!(3)));
    }

    #[test]
    fn a_value_without_a_place_for_the_revision_is_refused() {
        assert!(Object::render(key(), &mut json!([1]), 1).is_err());
        assert!(Object::render(key(), &mut json!({"metadata": "none"}), 1).is_err());
        let object = Object::render(key(), &mut json!({}), 1).unwrap();
        assert_eq!(&*object.json, br#"{"metadata":{"resourceVersion":"1"}}"#);
    }
}
