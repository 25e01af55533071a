//! Whatever stands in an object, nothing panics: the schema has been checked before, but not everything a client may send.

use serde_json::{Value, json};

use super::{World, plural};
use crate::resource::{Part, Resource};

fn samples() -> Vec<(&'static str, Value)> {
    let resources = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}});
    let container =
        json!({"name": "a", "image": "a", "resources": resources, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let state = json!({"name": "a", "state": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}}});
    vec![
        (
            "pods",
            json!({
                "spec": {
                    "nodeName": "n", "restartPolicy": "Never", "tolerations": [{"key": "k", "operator": "Exists"}],
                    "containers": [container], "initContainers": [container], "ephemeralContainers": [container],
                    "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}], "schedulingGates": [{"name": "g"}],
                    "readinessGates": [{"conditionType": "x"}],
                },
                "status": {
                    "phase": "Running", "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}],
                    "containerStatuses": [state], "initContainerStatuses": [state], "podIPs": [{"ip": "1.2.3.4"}],
                },
            }),
        ),
        ("configmaps", json!({"data": {"a": "b"}, "immutable": true})),
        ("secrets", json!({"data": {"a": "Yg=="}, "stringData": {"b": "c"}, "type": "Opaque"})),
        ("namespaces", json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})),
        (
            "events",
            json!({"involvedObject": {"kind": "Pod"}, "series": {"count": 1}, "eventTime": "x", "source": {"host": "h"}}),
        ),
        ("events.k8s.io/events", json!({"regarding": {"kind": "Pod"}, "deprecatedSource": {"host": "h"}})),
        (
            "services",
            json!({"spec": {"ports": [{"port": 1, "targetPort": "a"}], "clusterIPs": ["1.2.3.4"], "selector": {"a": "b"}}}),
        ),
        ("endpoints", json!({"subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 1}]}]})),
        (
            "discovery.k8s.io/endpointslices",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}], "ports": [{"port": 1, "name": "a"}]}),
        ),
        ("coordination.k8s.io/leases", json!({"spec": {"holderIdentity": "a", "leaseTransitions": 1}})),
        (
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}),
        ),
        (
            "resourcequotas",
            json!({"spec": {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "x", "values": ["y"]}]}}}),
        ),
        (
            "limitranges",
            json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "1"}, "default": {"cpu": "1"}}]}}),
        ),
        ("podtemplates", json!({"template": {"spec": {"containers": [container]}}})),
        (
            "replicationcontrollers",
            json!({"spec": {"template": {"spec": {"containers": [container]}}, "selector": {"a": "b"}}}),
        ),
        ("serviceaccounts", json!({"secrets": [{"name": "a"}]})),
        (
            "nodes",
            json!({"spec": {"taints": [{"key": "a"}]}, "status": {"addresses": [{"type": "x"}], "conditions": [{"type": "Ready"}]}}),
        ),
    ]
}

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| places(value, &format!("{at}/{}", name.replace('/', "~1")), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at_, item)| places(item, &format!("{at}/{at_}"), found))
        }
        _ => {}
    }
}

fn everything(resource: &Resource, world: &World, old: &Value, object: &Value) {
    let strategy = resource.strategy;
    let mut new = object.clone();
    strategy.default(&mut new);
    let prepared = world.look(|cx| strategy.prepare_create(&mut new, cx));
    let _ = (prepared, strategy.validate_create(&new), world.look(|cx| strategy.admit(&new, None, Part::Object, cx)));
    for part in ["", "status", "resize", "ephemeralcontainers", "finalize"] {
        let part = if part.is_empty() { Part::Object } else { Part::Sub(part) };
        for (old, new) in [(old, object), (object, old)] {
            let mut new = new.clone();
            strategy.default(&mut new);
            strategy.prepare_update(&mut new, old, part);
            let _ = strategy.validate_update(&new, old, part);
            let _ = world.look(|cx| strategy.admit(&new, Some(old), part, cx));
        }
    }
    let mut other = object.clone();
    strategy.prepare_deletion(&mut other);
    strategy.to_stored(&mut other);
    strategy.from_stored(&mut other);
    let _ = (strategy.graceful_deletion(object, None), strategy.is_removable(object), strategy.row_conditions(object));
    assert_eq!(strategy.cells(object, super::now()).len(), strategy.columns().len());
}

#[test]
fn nothing_panics() {
    let range = json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}, "max": {"cpu": "1"}},
        {"type": "Pod", "min": {"cpu": "1"}}, {"type": "PersistentVolumeClaim", "min": {"storage": "1"}},
    ]}});
    let quota = json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {
        "hard": {"requests.cpu": "1", "pods": "1", "requests.storage": "1", "services": "1"},
    }});
    let world = World::with(&[("limitranges", range), ("resourcequotas", quota)]);
    for (kind, mut sample) in samples() {
        let (_, resource) = plural(kind);
        sample["kind"] = resource.kind.into();
        sample["apiVersion"] = [resource.group, "v1"].join("/").trim_start_matches('/').into();
        sample["metadata"] = json!({
            "name": "a", "namespace": "default", "labels": {"a": "b"}, "finalizers": ["a/b"],
            "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{"kind": "x", "controller": true}],
        });
        let mut all = Vec::new();
        places(&sample, "", &mut all);
        for place in all.iter().filter(|place| !place.is_empty()) {
            for odd in [json!(null), json!("odd"), json!(-7), json!([1]), json!({"odd": [null]})] {
                let mut object = sample.clone();
                *object.pointer_mut(place).unwrap() = odd;
                everything(resource, &world, &sample, &object);
            }
        }
    }
}
