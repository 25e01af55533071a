//! Text nobody meant as a manifest, and manifests with something broken in them.

use std::fs;
use std::path::Path;

use pod_api::load::{Source, load};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Loading must return; problems must have a place and print.
fn try_load(text: &str) {
    let source = Source { name: "x".to_owned(), text: text.to_owned() };
    match load(&[source]) {
        Ok(manifest) => {
            for loaded in manifest.pods {
                assert!(loaded.pod.metadata.name.is_some_and(|name| !name.is_empty()));
            }
        }
        Err(problems) => {
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                assert!(problem.line >= 1 && problem.column >= 1 && !problem.message.is_empty(), "{problem:?}");
                // A lone carriage return ends a line in YAML.
                assert!(problem.line <= text.matches(['\n', '\r']).count() + 1, "{problem:?}");
            }
            assert!(!problems.to_string().is_empty());
        }
    }
}

#[test]
fn the_corpus_of_nasty_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        try_load(&String::from_utf8_lossy(&bytes));
        count += 1;
    }
    assert!(count >= 10);
}

/// A pod with most fields, as the seed of mutations.
fn seed() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {
            "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 5, "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["h"]}],
            "securityContext": {"runAsUser": 1, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}], "seccompProfile": {"type": "RuntimeDefault"}},
            "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots"}]},
            "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 1}],
            "initContainers": [{
                "name": "i", "image": "x:1", "restartPolicy": "Always", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                "startupProbe": {"httpGet": {"port": "http", "httpHeaders": [{"name": "A", "value": "b"}]}},
            }],
            "containers": [{
                "name": "a", "image": "b", "command": ["x"], "ports": [{"containerPort": 80, "name": "http"}],
                "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}, {"name": "F", "value": "g"}],
                "envFrom": [{"configMapRef": {"name": "c"}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": 0.5}},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}],
                "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}],
                "securityContext": {"privileged": false, "capabilities": {"add": ["NET_ADMIN"]}},
            }],
            "volumes": [
                {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "w", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}},
                {"name": "x", "configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 256}]}},
            ],
        },
    })
}

/// Puts `with` where the `at`-th value of the tree is, counting from the root.
fn replace(value: &mut Value, at: &mut usize, with: &Value) -> bool {
    if *at == 0 {
        *value = with.clone();
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, at, with)),
        Value::Object(members) => members.values_mut().any(|member| replace(member, at, with)),
        _ => false,
    }
}

fn strange_values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[-a-zA-Z0-9./:'\\[\\]_]{0,20}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null])),
        Just(json!([[{}]])),
        Just(json!({"name": {"x": 1}, "": null})),
        Just(json!("x".repeat(70_000))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        try_load(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn text_of_yaml_characters(text in "[-a: \\[\\]{},&*?|>'\"#%!<\n\t0.~@`\\\\\u{feff}\u{85}é]{0,80}") {
        try_load(&text);
    }

    #[test]
    fn lines_of_yaml_tokens(tokens in proptest::collection::vec(
        prop::sample::select(vec![
            "apiVersion: v1\n", "kind: Pod\n", "kind: List\n", "items:\n", "spec:\n", "  containers:\n", "  - name: a\n",
            "    image: b\n", "---\n", "...\n", "&a ", "*a", "<<: ", "[", "]", "{", "}", ",", "? ", ": ", "- ", "\n", "  ",
            "|\n", ">-\n", "'", "\"", "!!str ", "!!int ", "! ", "%YAML 1.1\n", "%TAG ! x:\n", "#", "\t", "null", "0644",
        ]), 0..40)) {
        try_load(&tokens.concat());
    }

    #[test]
    fn a_pod_with_one_or_two_values_replaced(
        first in 0usize..160, second in 0usize..160, one in strange_values(), two in strange_values(),
    ) {
        let mut pod = seed();
        replace(&mut pod, &mut { first }, &one);
        replace(&mut pod, &mut { second }, &two);
        try_load(&pod.to_string());
    }

    #[test]
    fn a_manifest_with_a_piece_cut_out(from in 0usize..2600, length in 0usize..40, insert in "[ \n:{}\\[\\]'\"a&*-]{0,3}") {
        let mut text: Vec<char> = include_str!("../manifests/native-sidecar.good.yaml").chars().collect();
        let from = from.min(text.len());
        let to = (from + length).min(text.len());
        text.splice(from..to, insert.chars());
        try_load(&text.into_iter().collect::<String>());
    }
}
