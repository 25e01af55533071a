//! What of its quotas a namespace has used, kept in their status (upstream: the resourcequota controller). Whether something
//! may be created is decided by the API server from the objects themselves; this is for people to read.

use pod_store::{Durability, Store, WriteError};
use serde_json::{Value, json};

use crate::object;

/// Brings the status of every quota of the namespace up to date.
///
/// # Errors
/// When the store refuses a write.
pub(crate) async fn settle(store: &Store, namespace: &str) -> Result<(), WriteError> {
    let list = |resource: &str, namespace: &str| -> Vec<Value> {
        store.list(resource, Some(namespace)).items.iter().map(|item| object::value(item)).collect()
    };
    for quota in store.list("resourcequotas", Some(namespace)).items {
        let renewed = |mut value: Value| {
            let status = json!({"hard": value["spec"]["hard"], "used": pod_api::resource::quota_used(&value, &list)});
            let changed = value["status"] != status;
            changed.then(|| {
                value["status"] = status;
                value
            })
        };
        object::modify(store, &quota.key, &quota.uid, Durability::Lazy, renewed).await?;
    }
    Ok(())
}
