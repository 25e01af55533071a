use serde_json::{Value, json};

use super::*;

/// What defaulting adds or changes, as JSON paths with values would be too long: the whole spec, compared.
fn defaulted(spec: Value) -> Value {
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "x-"}, "spec": spec});
    let mut pod: Pod = crate::decode::decode(&value, true, &mut Default::default()).unwrap();
    super::pod(&mut pod);
    serde_json::to_value(pod.spec).unwrap()
}

#[test]
fn a_minimal_pod_gets_what_the_api_server_writes() {
    let spec = defaulted(json!({"containers": [{"name": "a", "image": "nginx"}]}));
    assert_eq!(
        spec,
        json!({
            "containers": [{
                "name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        })
    );
}

#[test]
fn every_defaulted_field_is_filled_where_it_is_absent() {
    let spec = defaulted(json!({
        "hostNetwork": true, "serviceAccount": "robot",
        "volumes": [
            {"name": "a"}, {"name": "b", "configMap": {"name": "c"}}, {"name": "c", "hostPath": {"path": "/x"}},
            {"name": "d", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "e", "projected": {"sources": [
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                {"serviceAccountToken": {"path": "t"}},
            ]}},
            {"name": "f", "image": {"reference": "r.io:5000/x"}},
        ],
        "initContainers": [{
            "name": "s", "image": "x:1", "restartPolicy": "Always", "ports": [{"containerPort": 1}],
            "startupProbe": {"httpGet": {"port": 1}, "periodSeconds": 1},
            "livenessProbe": {"grpc": {"port": 1}, "timeoutSeconds": 0},
            "lifecycle": {"preStop": {"httpGet": {"port": 1, "scheme": "HTTPS"}}},
        }],
        "containers": [{
            "name": "a", "image": "x@sha256:00",
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "100m"}},
        }],
    }));
    assert_eq!(spec["serviceAccountName"], "robot");
    assert_eq!(spec["volumes"][0], json!({"name": "a", "emptyDir": {}}));
    assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 420);
    assert_eq!(spec["volumes"][2]["hostPath"]["type"], "");
    assert_eq!(spec["volumes"][3]["secret"]["defaultMode"], 256);
    let sources = &spec["volumes"][4]["projected"]["sources"];
    assert_eq!(sources[0]["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(sources[1]["serviceAccountToken"]["expirationSeconds"], 3600);
    assert_eq!(spec["volumes"][5]["image"]["pullPolicy"], "Always");
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar["ports"][0], json!({"containerPort": 1, "hostPort": 1, "protocol": "TCP"}));
    assert_eq!(
        sidecar["startupProbe"],
        json!({
            "httpGet": {"port": 1, "path": "/", "scheme": "HTTP"},
            "periodSeconds": 1, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
        })
    );
    assert_eq!(sidecar["livenessProbe"]["grpc"]["service"], "");
    assert_eq!(sidecar["livenessProbe"]["timeoutSeconds"], 1);
    assert_eq!(sidecar["lifecycle"]["preStop"]["httpGet"], json!({"port": 1, "path": "/", "scheme": "HTTPS"}));
    let main = &spec["containers"][0];
    assert_eq!(main["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(main["resources"]["requests"], json!({"cpu": "100m", "memory": "1Gi"}));
}

#[test]
fn pull_policy_follows_tag_and_digest() {
    let table = [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:aa", "IfNotPresent"),
        ("nginx:latest@sha256:aa", "Always"),
    ];
    for (image, policy) in table {
        assert_eq!(pull_policy(image), policy, "{image}");
    }
}

#[test]
fn generated_names_are_short_and_differ() {
    let mut names: Vec<String> = (0..50).map(|_| generated_name("web-")).collect();
    assert!(names.iter().all(|name| name.len() == 9 && name.starts_with("web-")), "{names:?}");
    names.sort();
    names.dedup();
    assert!(names.len() > 45);
    assert_eq!(generated_name(&"x".repeat(100)).len(), 63);
}

#[test]
fn string_data_wins_over_data() {
    let mut secret = Secret {
        data: Some([("a".to_owned(), ByteString(b"old".to_vec()))].into()),
        string_data: Some([("a".to_owned(), "new".to_owned())].into()),
        ..Default::default()
    };
    super::secret(&mut secret);
    assert_eq!(secret.data.unwrap()["a"].0, b"new");
    assert_eq!((secret.string_data, secret.type_.as_deref()), (None, Some("Opaque")));
}
