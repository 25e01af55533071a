use serde_json::json;

use super::*;

fn set(fields: serde_json::Value) -> FieldSet {
    codec::decode(&fields).unwrap()
}

#[test]
fn reads_and_writes_what_the_api_server_writes() {
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:containers": {
            "k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:ports": {
                ".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}
            }}
        }, "f:finalizers": {"v:\"a/b\"": {}}, "f:x": {"i:0": {}}}
    });
    assert_eq!(codec::encode(&set(fields.clone())), fields);
    let texts: Vec<String> = set(fields).paths().iter().map(|path| path_text(path)).collect();
    assert_eq!(
        texts,
        [
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.containers[name=\"web\"]",
            ".spec.containers[name=\"web\"].image",
            ".spec.containers[name=\"web\"].ports",
            ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.finalizers[=\"a/b\"]",
            ".spec.x[0]",
        ]
    );
}

#[test]
fn skips_steps_of_the_future_and_refuses_nonsense() {
    assert!(set(json!({"z:what": {"f:a": {}}})).is_empty());
    assert!(set(serde_json::Value::Null).is_empty());
    for (fields, reason) in [
        (json!({"spec": {}}), "missing colon: spec"),
        (json!({"k:1": {}}), "k:1: expected an object"),
        (json!({"f:a": 1}), "f:a: expected an object"),
        (json!([]), "fieldsV1 is no object"),
    ] {
        assert_eq!(codec::decode(&fields).unwrap_err(), reason);
    }
    assert!(codec::decode(&json!({"v:{": {}})).is_err());
}

#[test]
fn operates_on_members_only() {
    let all = set(json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}}));
    let part = set(json!({"f:a": {".": {}, "f:b": {}}}));
    let leaf = set(json!({"f:a": {"f:c": {}}}));
    assert_eq!(all.difference(&part), leaf);
    assert_eq!(all.intersection(&leaf), leaf);
    assert_eq!(part.clone().union(&leaf), all);
    assert_eq!(all.clone().without(&["a", "b"]), set(json!({"f:a": {".": {}, "f:c": {}}})));
    assert!(all.clone().without(&["a"]).is_empty());
    assert!(leaf.clone().without(&["a", "c"]).is_empty());
    assert_eq!(all.difference(&set(json!({"f:a": {}}))), set(json!({"f:a": {"f:b": {}, "f:c": {}}})));
    let path = [Element::field("a"), Element::field("b")];
    assert!(all.contains(&path) && !leaf.contains(&path) && !leaf.contains(&path[..1]));
}

#[test]
fn takes_a_number_by_its_value() {
    let whole = set(json!({"k:{\"containerPort\":80}": {}}));
    assert_eq!(whole, set(json!({"k:{\"containerPort\":80.0}": {}})));
    assert_ne!(whole, set(json!({"k:{\"containerPort\":80.5}": {}})));
    assert_ne!(set(json!({"v:9007199254740993": {}})), set(json!({"v:9007199254740992": {}})));
}
