//! What nobody asked for object by object: emptying namespaces that are being deleted, and collecting objects whose owners
//! are gone (upstream: the namespace and garbage-collector controllers). Owners are collected in the background:
//! `propagationPolicy: Foreground` is not told apart.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pod_store::{ChangeKind, Durability, Object, Store, WriteError};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::object::{self, items, text};
use crate::quota;
use crate::watch::{Word, follow};

/// What can wake it: a word on one resource.
struct Heard {
    resource: &'static str,
    word: Word,
}

#[derive(Debug)]
pub(crate) struct Janitor {
    store: Store,
    /// Stored resources, and whether they belong to namespaces.
    resources: BTreeMap<&'static str, bool>,
}

impl Janitor {
    pub(crate) fn new(store: Store) -> Self {
        let resources = pod_api::resource::all().iter().map(|resource| (resource.stored_as, resource.namespaced));
        Self { store, resources: resources.collect() }
    }

    /// Never ends. `complain` takes what went wrong with a write; the next change tries again.
    pub(crate) async fn run(self, complain: impl Fn(String)) {
        let (sender, mut heard) = mpsc::unbounded_channel();
        for resource in self.resources.keys().copied().filter(|resource| !is_noise(resource)) {
            follow(&self.store, resource, &sender, move |word| Heard { resource, word });
        }
        while let Some(first) = heard.recv().await {
            let mut owners_gone = BTreeSet::new();
            let mut namespaces = BTreeSet::new();
            let mut touched = BTreeSet::new();
            let mut next = Some(first);
            // Whatever came together is looked at in one pass.
            while let Some(Heard { resource, word }) = next {
                self.note(resource, &word, &mut owners_gone, &mut namespaces);
                match word {
                    Word::Listed(list) if resource == "resourcequotas" => {
                        touched.extend(list.items.iter().map(|item| item.key.namespace.clone()));
                    }
                    Word::Changed(event) => drop(touched.insert(event.object.key.namespace.clone())),
                    Word::Listed(_) => {}
                }
                next = heard.try_recv().ok();
            }
            if !owners_gone.is_empty()
                && let Err(error) = self.collect(&owners_gone).await
            {
                complain(format!("failed to remove what deleted objects owned: {}", pod_engine::chain(&error)));
            }
            for namespace in touched {
                if let Err(error) = quota::settle(&self.store, &namespace).await {
                    complain(format!(
                        "failed to tell how much of its quotas namespace {namespace} has used: {}",
                        pod_engine::chain(&error)
                    ));
                }
            }
            for namespace in namespaces {
                if let Err(error) = self.empty(&namespace).await {
                    complain(format!("failed to empty namespace {namespace}: {}", pod_engine::chain(&error)));
                }
            }
        }
    }

    fn note(&self, resource: &str, word: &Word, owners_gone: &mut BTreeSet<String>, namespaces: &mut BTreeSet<String>) {
        match word {
            Word::Listed(list) if resource == "namespaces" => {
                namespaces.extend(list.items.iter().filter(|item| is_ending(item)).map(|item| item.key.name.clone()));
            }
            // What lost its owner while nobody looked.
            Word::Listed(list) => owners_gone.extend(list.items.iter().flat_map(|item| self.missing_owners(item))),
            Word::Changed(event) if event.kind == ChangeKind::Deleted => {
                owners_gone.insert(event.object.uid.clone());
                let namespace = &event.object.key.namespace;
                let of = self.store.get(&object::key("namespaces", "", namespace));
                if of.is_some_and(|found| is_ending(&found)) {
                    namespaces.insert(namespace.clone());
                }
            }
            Word::Changed(event) if resource == "namespaces" && is_ending(&event.object) => {
                namespaces.insert(event.object.key.name.clone());
            }
            // Somebody created something in a namespace that is going.
            Word::Changed(event) if event.kind == ChangeKind::Added => {
                if mentions_owners(&event.object) {
                    owners_gone.extend(self.missing_owners(&event.object));
                }
            }
            Word::Changed(_) => {}
        }
    }

    /// Uids that the object's owner references name and nobody has.
    fn missing_owners(&self, object: &Object) -> Vec<String> {
        if !mentions_owners(object) {
            return Vec::new();
        }
        let value = object::value(object);
        let owners = items(&value, "/metadata/ownerReferences").iter();
        owners
            .filter(|owner| !self.exists(owner, &object.key.namespace))
            .map(|owner| text(owner, "/uid").to_owned())
            .collect()
    }

    /// By kind, name and uid. A kind that is not served has no objects, but who refers to it may know better: such an
    /// owner counts as there.
    fn exists(&self, owner: &Value, namespace: &str) -> bool {
        let (kind, version) = (text(owner, "/kind"), text(owner, "/apiVersion"));
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let served = pod_api::resource::all().iter().find(|served| served.kind == kind && served.group == group);
        let Some(served) = served else { return true };
        // An object outside of namespaces cannot say in which one its owner is: upstream never collects it.
        if served.namespaced && namespace.is_empty() {
            return true;
        }
        let namespace = if served.namespaced { namespace } else { "" };
        let found = self.store.get(&object::key(served.stored_as, namespace, text(owner, "/name")));
        found.is_some_and(|found| found.uid == text(owner, "/uid"))
    }

    /// Deletes what one of these owned, unless somebody else owns it as well.
    async fn collect(&self, gone: &BTreeSet<String>) -> Result<(), WriteError> {
        for resource in self.resources.keys() {
            for object in self.store.list(resource, None).items.iter().filter(|object| mentions_owners(object)) {
                let value = object::value(object);
                let owners = items(&value, "/metadata/ownerReferences");
                if !owners.iter().any(|owner| gone.contains(text(owner, "/uid"))) {
                    continue;
                }
                let left: Vec<Value> =
                    owners.iter().filter(|owner| self.exists(owner, &object.key.namespace)).cloned().collect();
                if left.is_empty() {
                    object::delete(&self.store, object, Timestamp::now()).await?;
                } else if left.len() < owners.len() {
                    let without = |mut value: Value| {
                        value["metadata"]["ownerReferences"] = Value::from(left.clone());
                        Some(value)
                    };
                    object::modify(&self.store, &object.key, &object.uid, Durability::Synced, without).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes everything in the namespace; when nothing is left, the namespace.
    async fn empty(&self, name: &str) -> Result<(), WriteError> {
        let key = object::key("namespaces", "", name);
        let Some(namespace) = self.store.get(&key).filter(|found| is_ending(found)) else { return Ok(()) };
        let mut left = 0;
        // Events last, so that what is told of the end is not left behind.
        let mut resources: Vec<&str> =
            self.resources.iter().filter(|(_, in_one)| **in_one).map(|(name, _)| *name).collect();
        resources.sort_by_key(|resource| is_noise(resource));
        for resource in resources {
            for object in self.store.list(resource, Some(name)).items {
                object::delete(&self.store, &object, Timestamp::now()).await?;
                left += usize::from(self.store.get(&object.key).is_some());
            }
        }
        if left > 0 {
            return Ok(());
        }
        let finalized = |mut value: Value| {
            value["spec"]["finalizers"] = json!([]);
            Some(value)
        };
        object::modify(&self.store, &key, &namespace.uid, Durability::Synced, finalized).await?;
        let Some(namespace) = self.store.get(&key) else { return Ok(()) };
        if !object::has_finalizers(&object::value(&namespace)) {
            object::remove(&self.store, &namespace).await?;
        }
        Ok(())
    }
}

/// Changes often and owns nothing.
fn is_noise(resource: &str) -> bool {
    matches!(resource, "events" | "leases.coordination.k8s.io")
}

fn is_ending(namespace: &Object) -> bool {
    contains(&namespace.json, b"\"deletionTimestamp\"") && object::is_being_deleted(&object::value(namespace))
}

/// A look at the bytes, so that most objects need not be read.
fn mentions_owners(object: &Object) -> bool {
    contains(&object.json, b"\"ownerReferences\"")
}

fn contains(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}
