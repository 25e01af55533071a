//! Reading and rewriting stored objects. The JSON is the truth; what is not looked at stays as it is.

use std::sync::Arc;

use jiff::Timestamp;
use pod_store::{Change, Durability, Guard, Key, Object, Store, WriteError};
use serde_json::{Value, json};

use crate::moment;

pub(crate) fn key(resource: &str, namespace: &str, name: &str) -> Key {
    Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
}

/// An object that does not parse is not ours to judge: it looks empty.
pub(crate) fn value(object: &Object) -> Value {
    serde_json::from_slice(&object.json).unwrap_or(Value::Null)
}

/// A string below the root; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn is_being_deleted(value: &Value) -> bool {
    !text(value, "/metadata/deletionTimestamp").is_empty()
}

pub(crate) fn has_finalizers(value: &Value) -> bool {
    !items(value, "/metadata/finalizers").is_empty()
}

/// The `metadata` an API server would give a new object.
pub(crate) fn metadata(namespace: &str, name: &str, now: Timestamp) -> std::io::Result<Value> {
    let uid = pod_engine::record::new_uid()?;
    let mut metadata = json!({"name": name, "uid": uid, "creationTimestamp": moment::seconds(now)});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    Ok(metadata)
}

/// Replaces an object by what `change` makes of it, again if somebody else was faster. `None`: it is gone, is another
/// object by now (`uid`), or `change` found nothing to do.
pub(crate) async fn modify(
    store: &Store,
    key: &Key,
    uid: &str,
    durability: Durability,
    mut change: impl FnMut(Value) -> Option<Value>,
) -> Result<Option<Arc<Object>>, WriteError> {
    let mut current = store.get(key);
    while let Some(object) = current {
        if !uid.is_empty() && object.uid != uid {
            return Ok(None);
        }
        let Some(new) = change(value(&object)) else { return Ok(None) };
        let replace = Change::Replace { value: new, expected: Some(object.revision) };
        match store.write(key.clone(), replace, durability).await {
            Ok(object) => return Ok(Some(object)),
            Err(WriteError::Conflict(newer)) => current = Some(newer),
            Err(WriteError::Missing) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Creates what is not there in a namespace; one that is going, or gone, gets nothing more.
pub(crate) async fn ensure_in(store: &Store, namespace: &Object, key: Key, value: Value) -> Result<(), WriteError> {
    loop {
        let now = store.get(&namespace.key).filter(|now| now.uid == namespace.uid);
        let Some(now) = now.filter(|now| !is_being_deleted(&self::value(now))) else { return Ok(()) };
        let guard = Guard { key: namespace.key.clone(), revision: now.revision };
        match store.write_while(guard, key.clone(), Change::Create(value.clone()), Durability::Lazy).await {
            Err(WriteError::Outdated) => {}
            Ok(_) | Err(WriteError::Exists(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Creates what is not there.
pub(crate) async fn ensure(store: &Store, key: Key, value: Value) -> Result<(), WriteError> {
    match store.write(key, Change::Create(value), Durability::Lazy).await {
        Ok(_) | Err(WriteError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes an object away for good, whatever its finalizers say. True if it is gone.
pub(crate) async fn remove(store: &Store, object: &Object) -> Result<bool, WriteError> {
    let change = Change::Delete { expected: Some(object.revision), last: None };
    match store.write(object.key.clone(), change, Durability::Synced).await {
        Ok(_) | Err(WriteError::Missing) => Ok(true),
        Err(WriteError::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes what nothing is left of: at once, unless finalizers hold it.
pub(crate) async fn delete_now(store: &Store, object: &Object, now: Timestamp) -> Result<(), WriteError> {
    let mut current = store.get(&object.key).filter(|found| found.uid == object.uid);
    while let Some(found) = current {
        let mut new = value(&found);
        if !has_finalizers(&new) {
            if remove(store, &found).await? {
                return Ok(());
            }
            current = store.get(&object.key).filter(|found| found.uid == object.uid);
            continue;
        }
        if is_being_deleted(&new) {
            return Ok(());
        }
        new["metadata"]["deletionTimestamp"] = moment::seconds(now).into();
        new["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        let replace = Change::Replace { value: new, expected: Some(found.revision) };
        match store.write(found.key.clone(), replace, Durability::Synced).await {
            Ok(_) | Err(WriteError::Missing) => return Ok(()),
            Err(WriteError::Conflict(newer)) => current = Some(newer).filter(|newer| newer.uid == object.uid),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Deletes as a client would: pods get their grace period, finalizers hold the object.
/// (`apiserver/pkg/registry/generic/registry/store.go`, `pkg/registry/core/pod/strategy.go` CheckGracefulDelete)
pub(crate) async fn delete(store: &Store, object: &Object, now: Timestamp) -> Result<(), WriteError> {
    let mut current = store.get(&object.key);
    while let Some(found) = current {
        if found.uid != object.uid {
            return Ok(());
        }
        let mut new = value(&found);
        let grace = grace_of(&found.key.resource, &new);
        if is_being_deleted(&new) {
            return Ok(());
        }
        if grace == 0 && !has_finalizers(&new) {
            if remove(store, &found).await? {
                return Ok(());
            }
            current = store.get(&object.key);
            continue;
        }
        let at = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
        new["metadata"]["deletionTimestamp"] = moment::seconds(at).into();
        new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if let Some(generation) = new.pointer("/metadata/generation").and_then(Value::as_i64) {
            new["metadata"]["generation"] = (generation + 1).into();
        }
        let replace = Change::Replace { value: new, expected: Some(found.revision) };
        match store.write(found.key.clone(), replace, Durability::Synced).await {
            Ok(_) | Err(WriteError::Missing) => return Ok(()),
            Err(WriteError::Conflict(newer)) => current = Some(newer),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Only pods wait: for their own grace period, once they are bound and until they have ended.
fn grace_of(resource: &str, object: &Value) -> i64 {
    let ended = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if resource != "pods" || ended || text(object, "/spec/nodeName").is_empty() {
        return 0;
    }
    let grace = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    if grace < 0 { 1 } else { grace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bound_pod_that_has_not_ended_waits() {
        let pod =
            json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 7}, "status": {"phase": "Running"}});
        assert_eq!(grace_of("pods", &pod), 7);
        assert_eq!(grace_of("secrets", &pod), 0);
        assert_eq!(grace_of("pods", &json!({"spec": {"nodeName": "n"}})), 30);
        assert_eq!(grace_of("pods", &json!({"spec": {}})), 0);
        assert_eq!(grace_of("pods", &json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}})), 0);
        assert_eq!(grace_of("pods", &json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": -3}})), 1);
    }
}
