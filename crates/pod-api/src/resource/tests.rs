//! Every kind as the server uses it: an object in, the stored object or the refusal out.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Part, Surroundings, all, find};
use crate::failure::Failure;

mod configuration;
mod hostile;
mod network;
mod pod;
mod policy;
mod update;

/// What is there already, and the cluster's addresses.
#[derive(Default)]
struct World {
    objects: Vec<(&'static str, Value)>,
}

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn plural(kind: &str) -> (&'static str, &'static super::Resource) {
    let (group, plural) = kind.split_once('/').map_or(("", kind), |(group, plural)| (group, plural));
    let resource = find(group, "v1", plural).unwrap_or_else(|| panic!("{kind} is not served"));
    (resource.stored_as, resource)
}

impl World {
    fn with(objects: &[(&'static str, Value)]) -> Self {
        Self { objects: objects.to_vec() }
    }

    fn look<T>(&self, act: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let in_namespace = |object: &Value, namespace: &str| object["metadata"]["namespace"] == namespace;
        let find = |resource: &str, namespace: &str, name: &str| {
            let mut found = self.objects.iter().filter(|(stored, _)| *stored == resource).map(|(_, object)| object);
            found.find(|object| in_namespace(object, namespace) && object["metadata"]["name"] == name).cloned()
        };
        let list = |resource: &str, namespace: &str| {
            let found = self.objects.iter().filter(|(stored, _)| *stored == resource).map(|(_, object)| object);
            found.filter(|object| in_namespace(object, namespace)).cloned().collect()
        };
        let address = |asked: &str| match asked {
            "" => Ok("10.96.0.7".to_owned()),
            "10.96.0.1" => Err("provided IP is already allocated".to_owned()),
            other => Ok(other.to_owned()),
        };
        act(&Surroundings { now: now(), find: &find, list: &list, cluster_address: Some(&address) })
    }

    /// `kind` is `pods`, or `coordination.k8s.io/leases`. Adds what the server adds.
    fn create(&self, kind: &str, mut object: Value) -> Result<Value, Failure> {
        let (_, resource) = plural(kind);
        let strategy = resource.strategy;
        let version = if resource.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", resource.group) };
        object["apiVersion"] = version.into();
        object["kind"] = resource.kind.into();
        if resource.namespaced {
            object["metadata"].as_object_mut().unwrap().entry("namespace").or_insert_with(|| "default".into());
        }
        strategy.default(&mut object);
        self.look(|cx| strategy.prepare_create(&mut object, cx))?;
        let errors = strategy.validate_create(&object);
        if !errors.is_empty() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            return Err(Failure::invalid(resource.kind, resource.group, name, &errors));
        }
        self.look(|cx| strategy.admit(&object, None, Part::Object, cx))?;
        Ok(object)
    }

    fn refusal(&self, kind: &str, object: Value) -> String {
        self.create(kind, object).expect_err("it was taken").message
    }
}

fn created(kind: &str, object: Value) -> Value {
    World::default().create(kind, object).unwrap_or_else(|failure| panic!("{failure}"))
}

fn refused(kind: &str, object: Value) -> String {
    World::default().refusal(kind, object)
}

/// What becomes of an object that is written over another; `part` empty for the object itself.
fn updated(kind: &str, old: &Value, mut new: Value, part: &str) -> Result<Value, String> {
    let (_, resource) = plural(kind);
    let part = if part.is_empty() { Part::Object } else { Part::Sub(part) };
    resource.strategy.default(&mut new);
    resource.strategy.prepare_update(&mut new, old, part);
    let errors = resource.strategy.validate_update(&new, old, part);
    match errors.as_slice() {
        [] => Ok(new),
        errors => Err(errors.iter().map(|e| format!("{}: {}", e.path, e.message)).collect::<Vec<_>>().join("\n")),
    }
}

/// `old` with a merge patch applied, as far as these tests need one.
fn patched(old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    merge(&mut new, patch);
    new
}

fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
                    value => merge(&mut target[name], value),
                }
            }
        }
        value => *target = value.clone(),
    }
}

fn row(kind: &str, object: &Value) -> String {
    let (_, resource) = plural(kind);
    let cells = resource.strategy.cells(object, now());
    assert_eq!(cells.len(), resource.strategy.columns().len(), "{kind}");
    let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    cells.iter().map(text).collect::<Vec<_>>().join(" | ")
}

#[test]
fn what_is_served_fits_together() {
    let mut seen = Vec::new();
    for resource in all() {
        let columns = resource.strategy.columns();
        let empty = resource.strategy.cells(&json!({}), now());
        assert_eq!(empty.len(), columns.len(), "{}", resource.plural);
        assert!(resource.verbs.is_sorted() && resource.subresources.is_sorted_by_key(|sub| sub.name));
        assert_eq!(columns.iter().filter(|column| column.format == "name").count(), 1, "{}", resource.plural);
        let names = [resource.plural, resource.singular].into_iter().chain(resource.short_names.iter().copied());
        for name in names.filter(|_| resource.group != "events.k8s.io" && resource.plural != resource.singular) {
            assert!(!seen.contains(&name), "{name}");
            seen.push(name);
        }
    }
    let mut headers: Vec<String> = all()
        .iter()
        .map(|resource| {
            let shown = |column: &super::Column| match column.priority {
                0 => column.name.to_owned(),
                _ => format!("{}*", column.name),
            };
            let columns: Vec<String> = resource.strategy.columns().iter().map(shown).collect();
            format!("{}: {}", resource.plural, columns.join(", "))
        })
        .collect();
    headers.dedup();
    assert_eq!(
        headers.join("\n"),
        "configmaps: Name, Data, Age
endpoints: Name, Endpoints, Age
events: Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*
limitranges: Name, Created At
namespaces: Name, Status, Age
nodes: Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, Container-Runtime*
persistentvolumeclaims: Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode*
pods: Name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*
podtemplates: Name, Containers, Images, Pod Labels
replicationcontrollers: Name, Desired, Current, Ready, Age, Containers*, Images*, Selector*
resourcequotas: Name, Request, Limit, Age
secrets: Name, Type, Data, Age
serviceaccounts: Name, Age
services: Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*
leases: Name, Holder, Age
endpointslices: Name, AddressType, Ports, Endpoints, Age
events: Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*"
    );
}
