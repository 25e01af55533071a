//! What is there from the start, namespaces that go with all they hold, and objects whose owner is gone.

use pod_store::{Change, Durability, Key};
use serde_json::{Value, json};

use crate::world::{Life, World, eventually, sleeper};

async fn create(life: &Life, resource: &str, namespace: &str, name: &str, mut value: Value) -> String {
    let uid = pod_engine::record::new_uid().unwrap();
    value["metadata"]["name"] = name.into();
    value["metadata"]["uid"] = uid.as_str().into();
    if !namespace.is_empty() {
        value["metadata"]["namespace"] = namespace.into();
    }
    let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
    life.store.write(key, Change::Create(value), Durability::Synced).await.unwrap();
    uid
}

fn exists(life: &Life, resource: &str, namespace: &str, name: &str) -> bool {
    let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
    life.store.get(&key).is_some()
}

#[test]
fn the_node_and_its_namespaces_are_there_at_once() {
    World::new().live(async |life| {
        let node = life.engine.node().name.clone();
        assert!(exists(&life, "nodes", "", &node));
        assert!(exists(&life, "leases.coordination.k8s.io", "kube-node-lease", &node));
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            assert!(exists(&life, "namespaces", "", namespace));
            assert!(exists(&life, "serviceaccounts", namespace, "default"));
            assert!(exists(&life, "configmaps", namespace, "kube-root-ca.crt"));
        }
        create(&life, "namespaces", "", "team", json!({"spec": {"finalizers": ["kubernetes"]}})).await;
        eventually("its service account", || exists(&life, "serviceaccounts", "team", "default")).await;
    });
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    World::new().live(async |life| {
        create(&life, "namespaces", "", "team", json!({"spec": {"finalizers": ["kubernetes"]}})).await;
        create(&life, "configmaps", "team", "settings", json!({"data": {}})).await;
        let spec =
            json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 2, "containers": [sleeper("app")]});
        create(&life, "pods", "team", "web", json!({"spec": spec, "status": {"phase": "Pending"}})).await;
        eventually("the pod to be driven", || life.engine.drives("team", "web")).await;
        let key = Key { resource: "namespaces".into(), namespace: String::new(), name: "team".into() };
        let object = life.store.get(&key).unwrap();
        let mut value: Value = serde_json::from_slice(&object.json).unwrap();
        value["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z".into();
        value["status"] = json!({"phase": "Terminating"});
        let change = Change::Replace { value, expected: None };
        life.store.write(key, change, Durability::Synced).await.unwrap();
        eventually("the namespace to go", || !exists(&life, "namespaces", "", "team")).await;
        assert!(!exists(&life, "pods", "team", "web") && !exists(&life, "configmaps", "team", "settings"));
        assert!(!exists(&life, "serviceaccounts", "team", "default"));
        eventually("the engine to be rid of it", || life.engine.driven().is_empty()).await;
        assert!(exists(&life, "configmaps", "default", "kube-root-ca.crt"), "others are not touched");
    });
}

#[test]
fn what_is_owned_goes_with_its_last_owner() {
    World::new().live(async |life| {
        let first = create(&life, "configmaps", "default", "first", json!({})).await;
        let second = create(&life, "configmaps", "default", "second", json!({})).await;
        let owner = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
        let both = json!({"metadata": {"ownerReferences": [owner("first", &first), owner("second", &second)]}});
        create(&life, "secrets", "default", "shared", both).await;
        let stale = json!({"metadata": {"ownerReferences": [owner("first", "another uid")]}});
        let mut stale_namespace = stale.clone();
        stale_namespace["spec"] = json!({"finalizers": ["kubernetes"]});
        create(&life, "secrets", "default", "orphan", stale).await;
        // Who is in no namespace cannot say in which its owner is.
        create(&life, "namespaces", "", "kept", stale_namespace).await;
        eventually("one that never had an owner", || !exists(&life, "secrets", "default", "orphan")).await;
        let delete = async |name: &str| {
            let key = Key { resource: "configmaps".into(), namespace: "default".into(), name: name.into() };
            let change = Change::Delete { expected: None, last: None };
            life.store.write(key, change, Durability::Synced).await.unwrap();
        };
        delete("first").await;
        let owners = || life.read("secrets", "shared").map(|secret| secret["metadata"]["ownerReferences"].clone());
        eventually("the first to be struck out", || owners() == Some(json!([owner("second", &second)]))).await;
        delete("second").await;
        eventually("the last owner's end", || !exists(&life, "secrets", "default", "shared")).await;
        assert!(exists(&life, "namespaces", "", "kept"));
    });
}
