use serde_json::json;

use super::*;
use crate::field_set::{codec, path_text};

fn pod() -> Type {
    Type::of_kind("", "v1", "Pod").unwrap()
}

fn texts(set: &FieldSet) -> Vec<String> {
    set.paths().iter().map(|path| path_text(path)).collect()
}

#[test]
fn collects_leaves_items_and_empty_objects() {
    let set = collect(
        pod(),
        &json!({
            "metadata": {"labels": {"app": "web"}, "annotations": {}, "finalizers": ["a/b"]},
            "spec": {
                "containers": [{"name": "web", "ports": [{"containerPort": 80}], "command": ["x"], "env": [], "resources": {}}],
                "tolerations": [],
                "nodeSelector": {"a": "b"},
                "hostname": null
            }
        }),
    );
    assert_eq!(
        codec::encode(&set),
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:annotations": {}, "f:finalizers": {"v:\"a/b\"": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:command": {}, "f:resources": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
                "f:tolerations": {},
                "f:nodeSelector": {},
                "f:hostname": {}
            }
        })
    );
}

#[test]
fn compares_by_key_and_takes_atomic_parts_whole() {
    let old = json!({"spec": {
        "containers": [{"name": "a", "image": "x"}, {"name": "b"}],
        "tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}, "hostname": "h"
    }});
    let new = json!({"spec": {
        "containers": [{"name": "c", "image": "z"}, {"name": "a", "image": "y"}],
        "tolerations": [{"key": "b"}], "nodeSelector": {"a": "c"}, "subdomain": "s"
    }});
    let difference = compare(pod(), &old, &new);
    assert_eq!(
        texts(&difference.modified),
        [".spec.nodeSelector", ".spec.tolerations", ".spec.containers[name=\"a\"].image"]
    );
    assert_eq!(
        texts(&difference.added),
        [
            ".spec.subdomain",
            ".spec.containers[name=\"c\"]",
            ".spec.containers[name=\"c\"].image",
            ".spec.containers[name=\"c\"].name"
        ]
    );
    assert_eq!(
        texts(&difference.removed),
        [".spec.hostname", ".spec.containers[name=\"b\"]", ".spec.containers[name=\"b\"].name"]
    );
    assert_eq!(compare(pod(), &old, &old), super::compare::Comparison::default());
}

#[test]
fn compares_twins_together() {
    let spec = |list: Value| json!({"metadata": {"finalizers": list}});
    let path = [".metadata.finalizers[=\"a\"]".to_owned()];
    for (old, new, which) in [
        (json!(["a"]), json!(["a", "a"]), "added"),
        (json!(["a", "a"]), json!(["b"]), "removed"),
        (json!(["a", "a"]), json!(["a", "a", "a"]), "modified"),
    ] {
        let difference = compare(pod(), &spec(old), &spec(new));
        let set = match which {
            "added" => &difference.added,
            "removed" => &difference.removed,
            _ => &difference.modified,
        };
        assert_eq!(texts(set), path, "{which}");
    }
}

#[test]
fn combines_and_keeps_the_order_wanted() {
    for (live, wanted, expected) in [
        ("a b c", "", "a b c"),
        ("", "a b", "a b"),
        ("a b c", "c a", "b c a"),
        ("a x b", "a b", "a x b"),
        ("a x b", "a n b", "a x n b"),
        ("x a", "n a", "x n a"),
        ("a x", "a n", "a x n"),
        ("a b x", "n", "a b x n"),
    ] {
        let list = |names: &str| -> Value { names.split_whitespace().map(|name| json!({"name": name})).collect() };
        let spec = |names: &str| json!({"spec": {"containers": list(names)}});
        let out = combine(Some(pod()), Some(&spec(live)), Some(&spec(wanted))).unwrap();
        assert_eq!(out, spec(expected), "{live} with {wanted}");
    }
    let out = combine(
        Some(pod()),
        Some(
            &json!({"spec": {"hostname": "h", "nodeSelector": {"a": "b"}, "containers": [{"name": "a", "image": "x"}]}}),
        ),
        Some(
            &json!({"spec": {"hostname": null, "nodeSelector": {"c": "d"}, "containers": [{"name": "a", "tty": true}], "securityContext": {}}}),
        ),
    );
    assert_eq!(
        out.unwrap(),
        json!({"spec": {"nodeSelector": {"c": "d"}, "containers": [{"name": "a", "image": "x", "tty": true}], "securityContext": {}}})
    );
}

#[test]
fn removes_members_and_what_that_empties() {
    let value = json!({"metadata": {"labels": {"a": "1"}, "name": "x"}, "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
    let set = codec::decode(&json!({
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}, "k:{\"name\":\"b\"}": {".": {}, "f:image": {}}}}
    }));
    assert_eq!(
        remove(Some(pod()), &value, &set.unwrap()),
        Some(json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}]}}))
    );
}

#[test]
fn a_blank_object_has_the_parts_that_always_exist() {
    let blank = blank(pod());
    assert_eq!(blank["spec"], json!({"containers": null}));
    assert!(blank["metadata"].is_object() && blank["status"].is_object());
}

#[test]
fn finds_what_does_not_fit() {
    for (value, expected) in [
        (json!({"spec": {"what": 1}}), ".spec.what: field not declared in schema"),
        (json!({"spec": {"hostname": 1}}), ".spec.hostname: expected string, got 1"),
        (json!({"spec": {"containers": {}}}), ".spec.containers: expected list, got map[]"),
        (json!({"spec": []}), ".spec: expected map, got []"),
        (
            json!({"spec": {"containers": [{"name": "a", "env": [{"name": "A"}, {"name": "A"}]}]}}),
            ".spec.containers[name=\"a\"].env: duplicate entries for key [name=\"A\"]",
        ),
        (
            json!({"spec": {"containers": [{}]}}),
            ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "command": [1]}]}}),
            ".spec.containers[name=\"a\"].command[0]: expected string, got 1",
        ),
        (
            json!({"spec": {"hostNetwork": "x", "activeDeadlineSeconds": "y"}}),
            ".spec.activeDeadlineSeconds: expected numeric (int or float), got y; .spec.hostNetwork: expected boolean, got x",
        ),
        (
            json!({"spec": {"hostname": null, "containers": [{"name": "a", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}}),
            "",
        ),
    ] {
        assert_eq!(misfits(pod(), &value).join("; "), expected, "{value}");
    }
}
