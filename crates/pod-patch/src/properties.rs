//! What holds for all values, not only for those that somebody thought of.

use std::collections::{BTreeMap, BTreeSet};

use pod_schema::Type;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::managed::Manager;
use crate::{ApplyError, apply, json as json_patch, merge, strategic, track};

/// Names that mean something somewhere, so that the interesting paths are hit.
const NAMES: [&str; 26] = [
    "metadata",
    "spec",
    "status",
    "labels",
    "annotations",
    "finalizers",
    "managedFields",
    "containers",
    "volumes",
    "env",
    "ports",
    "name",
    "image",
    "command",
    "containerPort",
    "protocol",
    "tolerations",
    "conditions",
    "type",
    "emptyDir",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "$setElementOrder/env",
    "x",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..100).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("delete"), Just("replace"), Just("a"), Just("b"), Just("TCP"), Just("f:spec"), Just("")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(&NAMES[..]), inner), 0..4).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// Some spec of a pod that fits its type.
fn any_spec() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(&["a", "b", "c"][..]);
    let text = || prop::option::of(prop::sample::select(&["x", "y"][..]));
    let env = prop::collection::btree_map(name(), text(), 0..3);
    let ports = prop::collection::btree_set(1u16..4, 0..3);
    let parts = (text(), env, ports, prop::option::of(prop::collection::vec("[ab]", 0..2)));
    let containers = prop::collection::btree_map(name(), parts, 0..4);
    (containers, text(), prop::option::of(prop::collection::btree_map(name(), name(), 0..3)), any::<bool>()).prop_map(
        |(containers, hostname, selector, reversed)| {
            let mut list: Vec<Value> = containers.into_iter().map(container).collect();
            if reversed {
                list.reverse();
            }
            let spec = with(json!({"containers": list}), "hostname", hostname.map(|hostname| json!(hostname)));
            with(spec, "nodeSelector", selector.map(|selector| json!(selector)))
        },
    )
}

type Container = (
    &'static str,
    (Option<&'static str>, BTreeMap<&'static str, Option<&'static str>>, BTreeSet<u16>, Option<Vec<String>>),
);

fn container((name, (image, env, ports, command)): Container) -> Value {
    let env: Vec<Value> =
        env.into_iter().map(|(name, value)| with(json!({"name": name}), "value", value.map(Value::from))).collect();
    let ports: Vec<Value> = ports.into_iter().map(|port| json!({"containerPort": port})).collect();
    let container = with(json!({"name": name, "env": env}), "image", image.map(Value::from));
    let container = with(container, "command", command.map(Value::from));
    with(container, "ports", (!ports.is_empty()).then(|| json!(ports)))
}

fn with(mut object: Value, name: &str, value: Option<Value>) -> Value {
    if let Some(value) = value {
        object[name] = value;
    }
    object
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"l": "1"}}, "spec": spec})
}

fn pod_type() -> Type {
    Type::of_kind("", "v1", "Pod").unwrap()
}

fn manager(name: &str, second: u32) -> Manager {
    Manager {
        name: name.to_owned(),
        api_version: "v1".to_owned(),
        subresource: String::new(),
        time: format!("2026-01-01T00:00:{second:02}Z"),
    }
}

/// The merge patch that makes `new` of `old`; neither has nulls.
fn merge_difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let mut patch: Map<String, Value> =
        old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in new {
        match old.get(name) {
            Some(old) if old == value => {}
            Some(old) if old.is_object() => {
                patch.insert(name.clone(), merge_difference(old, value));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// Operations that make `new` of `old`.
fn json_difference(old: &Value, new: &Value, path: &str, out: &mut Vec<Value>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let place = |name: &str| format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                out.push(json!({"op": "remove", "path": place(name)}));
            }
            for (name, value) in new {
                match old.get(name) {
                    Some(old) => json_difference(old, value, &place(name), out),
                    None => out.push(json!({"op": "add", "path": place(name), "value": value})),
                }
            }
        }
        (old, new) if old == new => out.push(json!({"op": "test", "path": path, "value": old})),
        _ => out.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

fn without_managed(object: &Value) -> Value {
    crate::managed::split(object).0
}

fn without_times(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(entries) = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut) {
        for entry in entries.iter_mut() {
            entry.as_object_mut().unwrap().remove("time");
        }
        entries.sort_by_key(|entry| entry["manager"].to_string());
    }
    object
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_panics(target in any_json(), patch in any_json(), force in any::<bool>()) {
        for kind in ["Pod", "Service", "ConfigMap"] {
            let ty = Type::of_kind("", "v1", kind).unwrap();
            let mut object = target.clone();
            drop(strategic(ty, &mut object, &patch));
            let mut object = target.clone();
            drop(json_patch(&mut object, &patch));
            drop(json_patch(&mut object, &json!([patch])));
            let mut object = target.clone();
            merge(&mut object, &patch).unwrap();
            let mut wanted = patch.clone();
            if let Value::Object(fields) = &mut wanted {
                fields.insert("apiVersion".to_owned(), json!("v1"));
            }
            drop(apply(ty, Some(&target), &wanted, &manager("kubectl", 1), force));
            let mut new = patch.clone();
            track(ty, Some(&target), &mut new, &manager("b", 1));
            track(ty, None, &mut new, &manager("b", 1));
        }
    }

    #[test]
    fn a_merge_patch_of_the_difference_makes_the_other(old in any_spec(), new in any_spec()) {
        let mut result = old.clone();
        merge(&mut result, &merge_difference(&old, &new)).unwrap();
        prop_assert_eq!(&result, &new);
        let again = result.clone();
        merge(&mut result, &merge_difference(&old, &new)).unwrap();
        prop_assert_eq!(result, again);
    }

    #[test]
    fn a_json_patch_of_the_difference_makes_the_other(old in any_spec(), new in any_spec()) {
        let mut operations = Vec::new();
        json_difference(&old, &new, "", &mut operations);
        let mut result = old;
        json_patch(&mut result, &Value::Array(operations)).unwrap();
        prop_assert_eq!(result, new);
    }

    #[test]
    fn a_strategic_patch_twice_is_one(old in any_spec(), patch in any_spec()) {
        let mut once = pod(old);
        let patch = json!({"spec": patch});
        strategic(pod_type(), &mut once, &patch).unwrap();
        let mut twice = once.clone();
        strategic(pod_type(), &mut twice, &patch).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn apply_is_idempotent(live in any_spec(), first in any_spec(), second in any_spec()) {
        let mut live = pod(live);
        track(pod_type(), None, &mut live, &manager("creator", 1));
        let mut object = live;
        for (second, spec) in [(2, &first), (3, &second)] {
            let wanted = pod(spec.clone());
            object = apply(pod_type(), Some(&object), &wanted, &manager("a", second), true).unwrap();
            let again = apply(pod_type(), Some(&object), &wanted, &manager("a", second + 10), false).unwrap();
            prop_assert_eq!(&again, &object);
        }
    }

    #[test]
    fn an_applier_alone_gets_what_it_wants(first in any_spec(), second in any_spec()) {
        let object = apply(pod_type(), None, &pod(first), &manager("a", 1), false).unwrap();
        let object = apply(pod_type(), Some(&object), &pod(second.clone()), &manager("a", 2), false).unwrap();
        let fresh = apply(pod_type(), None, &pod(second), &manager("a", 2), false).unwrap();
        prop_assert_eq!(object["metadata"].get("managedFields").map(|list| &list[0]["fieldsV1"]), fresh["metadata"].get("managedFields").map(|list| &list[0]["fieldsV1"]));
        // In another order, maybe.
        let sorted = |object: &Value| {
            let mut object = without_managed(object);
            for container in object.pointer_mut("/spec/containers").and_then(Value::as_array_mut).into_iter().flatten() {
                for name in ["env", "ports"] {
                    if let Some(list) = container.get_mut(name).and_then(Value::as_array_mut) {
                        list.sort_by_key(Value::to_string);
                    }
                }
            }
            if let Some(list) = object.pointer_mut("/spec/containers").and_then(Value::as_array_mut) {
                list.sort_by_key(|item| item["name"].to_string());
            }
            object
        };
        prop_assert_eq!(sorted(&object), sorted(&fresh));
    }

    #[test]
    fn appliers_of_different_fields_commute(hostname in "[a-z]{1,3}", subdomain in "[a-z]{1,3}", image in "[a-z]{1,3}", value in "[a-z]{1,3}") {
        let base = pod(json!({"containers": [{"name": "c"}]}));
        let live = apply(pod_type(), None, &base, &manager("base", 1), false).unwrap();
        let one = pod(json!({"hostname": hostname, "containers": [{"name": "c", "image": image}, {"name": "d"}]}));
        let two = pod(json!({"subdomain": subdomain, "containers": [{"name": "c", "env": [{"name": "A", "value": value}]}]}));
        let both = |order: [(&str, &Value); 2]| {
            order.into_iter().fold(live.clone(), |live, (name, wanted)| {
                apply(pod_type(), Some(&live), wanted, &manager(name, 2), false).unwrap()
            })
        };
        let left = both([("one", &one), ("two", &two)]);
        let right = both([("two", &two), ("one", &one)]);
        prop_assert_eq!(without_times(&left), without_times(&right));
    }

    #[test]
    fn a_conflict_is_there_exactly_when_a_value_differs(live in any_spec(), wanted in any_spec()) {
        let first = apply(pod_type(), None, &pod(live.clone()), &manager("a", 1), false).unwrap();
        let outcome = apply(pod_type(), Some(&first), &pod(wanted.clone()), &manager("b", 2), false);
        match outcome {
            Err(ApplyError::Conflicts(conflicts)) => prop_assert!(!conflicts.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
            // Then everything that the first applied is still as it was.
            Ok(object) => {
                let again = apply(pod_type(), Some(&object), &pod(live), &manager("a", 3), false).unwrap();
                prop_assert_eq!(without_managed(&again)["spec"]["hostname"].clone(), without_managed(&object)["spec"]["hostname"].clone());
                prop_assert!(crate::tree::compare(pod_type(), &without_managed(&object), &without_managed(&again)).written().is_empty());
            }
        }
    }

    #[test]
    fn track_after_no_change_changes_nothing(spec in any_spec()) {
        let mut object = pod(spec);
        track(pod_type(), None, &mut object, &manager("a", 1));
        let mut same = object.clone();
        track(pod_type(), Some(&object), &mut same, &manager("b", 2));
        prop_assert_eq!(same, object);
    }

    #[test]
    fn nobody_owns_what_is_not_there(before in any_spec(), after in any_spec()) {
        let mut object = pod(before);
        track(pod_type(), None, &mut object, &manager("a", 1));
        let mut new = pod(after);
        track(pod_type(), Some(&object), &mut new, &manager("b", 2));
        let owned = crate::managed::Managed::decode(crate::managed::value_of(&new)).unwrap();
        let difference = crate::tree::compare(pod_type(), &without_managed(&new), &without_managed(&object));
        for entry in &owned.entries {
            prop_assert!(entry.fields.intersection(&difference.added).is_empty());
        }
    }
}
