use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::context::{NodeInfo, Objects};

/// `path mode content` lines of a volume in a pod with one config map, one secret and two labels.
fn listing(volume: Value) -> Result<Vec<String>, String> {
    let mut volume = volume;
    volume["name"] = json!("v");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "front", "app": "web"}},
        "spec": {"containers": [{"name": "app", "resources": {"limits": {"memory": "64Mi"}}}]},
    }))
    .unwrap();
    let config_map = serde_json::from_value(json!({
        "metadata": {"name": "settings", "namespace": "shop"},
        "data": {"a.conf": "A", "b.conf": "B"}, "binaryData": {"c.bin": "Q0M="},
    }));
    let secret = serde_json::from_value(json!({
        "metadata": {"name": "keys", "namespace": "shop"}, "data": {"key": "S0VZ", "a.conf": "c2VjcmV0"},
    }));
    let objects = Objects::new([config_map.unwrap()], [secret.unwrap()]);
    let node = NodeInfo {
        name: "n".to_owned(),
        host_ips: Vec::new(),
        cpu_millis: 2000,
        memory_bytes: 1 << 30,
        ephemeral_bytes: 1 << 30,
    };
    let cx = PodContext { pod: &pod, uid: "u", pod_ips: &[], node: &node, objects: &objects, hostname: "web" };
    let volume: Volume = serde_json::from_value(volume).unwrap();
    let files = files(&volume, &cx).map_err(|error| error.to_string())?;
    let line = |file: &FileEntry| format!("{} {:o} {}", file.path, file.mode, String::from_utf8_lossy(&file.data));
    Ok(files.iter().map(line).collect())
}

#[test]
fn whole_objects() {
    assert_eq!(
        listing(json!({"configMap": {"name": "settings"}})).unwrap(),
        ["a.conf 644 A", "b.conf 644 B", "c.bin 644 CC"]
    );
    assert_eq!(
        listing(json!({"secret": {"secretName": "keys", "defaultMode": 0o400}})).unwrap(),
        ["a.conf 400 secret", "key 400 KEY"]
    );
}

#[test]
fn items_pick_rename_and_set_modes() {
    let volume = json!({"configMap": {
        "name": "settings", "defaultMode": 0o600,
        "items": [{"key": "b.conf", "path": "etc/./b", "mode": 0o755}, {"key": "c.bin", "path": "c"}],
    }});
    assert_eq!(listing(volume).unwrap(), ["c 600 CC", "etc/b 755 B"]);
}

#[test]
fn missing_things_fail_in_upstreams_words_unless_optional() {
    for (volume, message) in [
        (json!({"configMap": {"name": "x"}}), "configmap \"x\" not found"),
        (json!({"secret": {"secretName": "x"}}), "secret \"x\" not found"),
        (
            json!({"configMap": {"name": "settings", "items": [{"key": "k", "path": "k"}]}}),
            "configmap references non-existent config key: k",
        ),
        (
            json!({"secret": {"secretName": "keys", "items": [{"key": "k", "path": "k"}]}}),
            "references non-existent secret key: k",
        ),
        (
            json!({"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "y"}}]}}),
            "[configmap \"x\" not found, secret \"y\" not found]",
        ),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
            "projected volume source serviceAccountToken is not supported",
        ),
        (json!({"emptyDir": {}}), "volume v is not of a type made from Kubernetes data"),
    ] {
        assert_eq!(listing(volume.clone()).unwrap_err(), message, "{volume}");
    }
    assert!(listing(json!({"configMap": {"name": "x", "optional": true}})).unwrap().is_empty());
    let keys = json!([{"key": "nope", "path": "n"}, {"key": "key", "path": "k"}]);
    let volume = json!({"secret": {"secretName": "keys", "optional": true, "items": keys}});
    assert_eq!(listing(volume).unwrap(), ["k 644 KEY"]);
    let error = ContentError::ConfigMap("x".to_owned());
    assert_eq!(error.event_text("v"), "MountVolume.SetUp failed for volume \"v\" : configmap \"x\" not found");
}

#[test]
fn downward_files() {
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let volume = json!({"downwardAPI": {"items": [
        field("labels", "metadata.labels"), field("annotations", "metadata.annotations"),
        field("app", "metadata.labels['app']"), field("id/uid", "metadata.uid"), field("name", "metadata.name"),
        {"path": "memory", "mode": 0o440,
            "resourceFieldRef": {"containerName": "app", "resource": "limits.memory", "divisor": "1Mi"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu"}},
    ]}});
    assert_eq!(
        listing(volume).unwrap(),
        [
            "annotations 644 ",
            "app 644 web",
            "cpu 644 2",
            "id/uid 644 u",
            "labels 644 app=\"web\"\ntier=\"front\"",
            "memory 440 64",
            "name 644 web",
        ]
    );
    let bad = json!({"downwardAPI": {"items": [field("ip", "status.podIP")]}});
    assert_eq!(listing(bad).unwrap_err(), "unsupported fieldPath: status.podIP");
    let unnamed = json!({"downwardAPI": {"items": [{"path": "m", "resourceFieldRef": {"resource": "limits.memory"}}]}});
    assert_eq!(listing(unnamed).unwrap_err(), "container  not found");
}

#[test]
fn later_projections_win() {
    let volume = json!({"projected": {"defaultMode": 0o440, "sources": [
        {"configMap": {"name": "settings", "items": [{"key": "a.conf", "path": "a.conf"}]}},
        {"secret": {"name": "keys"}},
        {"downwardAPI": {"items": [{"path": "labels/app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}},
    ]}});
    assert_eq!(listing(volume).unwrap(), ["a.conf 440 secret", "key 440 KEY", "labels/app 440 web"]);
}

#[test]
fn paths_cannot_leave_the_volume_or_meet_the_writers_names() {
    let at =
        |path: &str| listing(json!({"configMap": {"name": "settings", "items": [{"key": "a.conf", "path": path}]}}));
    assert_eq!(at("/abs").unwrap_err(), "invalid path: must be relative path: /abs");
    assert_eq!(at("a/../../b").unwrap_err(), "invalid path: must not contain '..': a/../../b");
    assert_eq!(at("..data").unwrap_err(), "invalid path: must not start with '..': ..data");
    assert_eq!(at("./..data").unwrap_err(), "invalid path: must not start with '..': ./..data");
    assert_eq!(at("").unwrap_err(), "invalid path: must not be empty");
    assert_eq!(at("a/..b").unwrap(), ["a/..b 644 A"]);
    let items = json!([{"key": "a.conf", "path": "d"}, {"key": "b.conf", "path": "d/e/f"}]);
    let nested = listing(json!({"configMap": {"name": "settings", "items": items}}));
    assert_eq!(nested.unwrap_err(), "path d/e/f lies below d, which is a file");
}
