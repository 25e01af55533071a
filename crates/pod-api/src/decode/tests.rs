use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde_json::{Value, json};

use super::decode;
use crate::problem::Findings;

fn pod(value: Value) -> (Option<Pod>, Vec<String>) {
    let mut findings = Findings::default();
    let pod = decode::<Pod>(&value, true, &mut findings);
    (pod, lines(findings))
}

fn lines(findings: Findings) -> Vec<String> {
    findings.0.into_iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
}

#[test]
fn every_misfit_is_found_in_one_pass() {
    let (pod, lines) = pod(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "x", "labels": {"a.b/c": 1, "empty": null}, "creationTimestamp": null},
        "spec": {
            "hostNetwork": "yes",
            "terminationGracePeriodSecond": 1,
            "containers": [
                {"name": "a", "command": "sh", "args": ["-c", null], "ports": [{"containerPort": "80", "hostPort": 3000000000u32}]},
                {"name": "b", "imagePullPollicy": "Always", "zzz": null, "qqq": {}, "resources": {"limits": {"cpu": 1, "memory": [1]}}},
                7,
            ],
        },
    }));
    let expected = [
        "metadata.labels[a.b/c]: Invalid type: expected string, got integer 1 (write it in quotes)",
        "spec.containers[0].args[1]: Invalid type: expected string, got null",
        "spec.containers[0].command: Invalid type: expected array, got string \"sh\"",
        "spec.containers[0].ports[0].containerPort: Invalid type: expected integer, got string \"80\"",
        "spec.containers[0].ports[0].hostPort: Invalid value: 3000000000: must be between -2147483648 and 2147483647, inclusive",
        "spec.containers[1].imagePullPollicy: unknown field, did you mean \"imagePullPolicy\"?",
        "spec.containers[1].qqq: unknown field",
        "spec.containers[1].resources.limits.memory: Invalid type: expected quantity, got array",
        "spec.containers[2]: Invalid type: expected object, got integer 7",
        "spec.hostNetwork: Invalid type: expected boolean, got string \"yes\"",
        "spec.terminationGracePeriodSecond: unknown field, did you mean \"terminationGracePeriodSeconds\"?",
    ];
    assert_eq!(lines, expected);
    let pod = pod.unwrap();
    assert_eq!(pod.metadata.labels.unwrap()["empty"], "");
    assert_eq!(pod.spec.unwrap().containers[1].resources.as_ref().unwrap().limits.as_ref().unwrap()["cpu"].0, "1");
}

#[test]
fn a_value_only_its_type_can_refuse_is_placed_and_the_rest_still_read() {
    let (pod, lines) = pod(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "x", "creationTimestamp": "yesterday", "deletionTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"port": true}}}], "bogus": 1},
    }));
    let paths: Vec<_> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        ["spec.bogus", "metadata.creationTimestamp", "spec.containers[0].livenessProbe.tcpSocket.port"],
        "{lines:#?}"
    );
    assert_eq!(pod.unwrap().metadata.name.as_deref(), Some("x"));
}

#[test]
fn what_is_secret_is_not_repeated() {
    let mut findings = Findings::default();
    let value =
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "hunter2!", "b": 12345}, "stringData": {"c": 1}});
    assert!(decode::<Secret>(&value, false, &mut findings).is_some());
    let text = lines(findings).join("\n");
    assert!(text.contains("data.a") && text.contains("data.b") && text.contains("stringData.c"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("12345"), "{text}");
}

#[test]
fn the_root_itself_can_be_wrong() {
    let mut findings = Findings::default();
    decode::<ConfigMap>(&json!([1]), true, &mut findings);
    assert_eq!(lines(findings), [": Invalid type: expected object, got array"]);
}
