//! Namespaces: those that are always there, and what every namespace holds.

use jiff::Timestamp;
use pod_store::{Object, Store, WriteError};
use serde_json::{Value, json};

use crate::object::{self, ensure, key};

/// Made at start (`pkg/controlplane/controller/systemnamespaces`).
const ALWAYS: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(crate) async fn ensure_all(store: &Store, root_ca: &str, now: Timestamp) -> Result<(), WriteError> {
    for name in ALWAYS {
        if store.get(&key("namespaces", "", name)).is_none() {
            let mut metadata = object::metadata("", name, now).map_err(WriteError::Disk)?;
            metadata["labels"] = json!({"kubernetes.io/metadata.name": name});
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata,
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
            ensure(store, key("namespaces", "", name), namespace).await?;
        }
    }
    for namespace in store.list("namespaces", None).items {
        furnish(store, &namespace, root_ca, now).await?;
    }
    Ok(())
}

/// The service account and the certificate authority that pods of a namespace expect
/// (`pkg/controller/serviceaccount`, `pkg/controller/certificates/rootcacertpublisher`).
pub(crate) async fn furnish(
    store: &Store,
    namespace: &Object,
    root_ca: &str,
    now: Timestamp,
) -> Result<(), WriteError> {
    if object::is_being_deleted(&object::value(namespace)) {
        return Ok(());
    }
    let name = namespace.key.name.as_str();
    let account = key("serviceaccounts", name, "default");
    if store.get(&account).is_none() {
        let metadata = object::metadata(name, "default", now).map_err(WriteError::Disk)?;
        let value = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        object::ensure_in(store, namespace, account, value).await?;
    }
    let certificates = key("configmaps", name, "kube-root-ca.crt");
    match store.get(&certificates) {
        None => {
            let mut metadata = object::metadata(name, "kube-root-ca.crt", now).map_err(WriteError::Disk)?;
            let why = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
                       such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
                       distributions of Kubernetes clusters.";
            metadata["annotations"] = json!({"kubernetes.io/description": why});
            let value =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": root_ca}});
            object::ensure_in(store, namespace, certificates, value).await
        }
        Some(found) => {
            let renewed = |mut value: Value| {
                let same = object::text(&value, "/data/ca.crt") == root_ca;
                (!same).then(|| {
                    value["data"] = json!({"ca.crt": root_ca});
                    value
                })
            };
            object::modify(store, &certificates, &found.uid, pod_store::Durability::Lazy, renewed).await.map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pod_store::{Change, Durability};

    #[tokio::test]
    async fn a_namespace_that_is_gone_gets_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("objects.redb")).unwrap();
        let place = key("namespaces", "", "team");
        let write = |change| store.write(place.clone(), change, Durability::Lazy);
        let object = || json!({"metadata": {"name": "team", "uid": "u"}});
        let seen = write(Change::Create(object())).await.unwrap();
        let mut labelled = object();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        write(Change::Replace { value: labelled, expected: None }).await.unwrap();
        furnish(&store, &seen, "ca", Timestamp::now()).await.unwrap();
        assert_eq!(store.list("serviceaccounts", None).items.len(), 1, "another label is no reason to leave it out");
        let account = store.list("serviceaccounts", None).items[0].key.clone();
        store.write(account, Change::Delete { expected: None, last: None }, Durability::Lazy).await.unwrap();
        write(Change::Delete { expected: None, last: None }).await.unwrap();
        furnish(&store, &seen, "ca", Timestamp::now()).await.unwrap();
        assert_eq!(store.list("serviceaccounts", None).items.len(), 0);
    }
}
