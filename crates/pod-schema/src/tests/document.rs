//! The OpenAPI documents: what `kubectl` looks for is there, and they are closed.

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::*;

const GROUPS: [&str; 8] = [
    "api/v1",
    "apis/authentication.k8s.io/v1",
    "apis/authorization.k8s.io/v1",
    "apis/coordination.k8s.io/v1",
    "apis/discovery.k8s.io/v1",
    "apis/events.k8s.io/v1",
    "apis/metrics.k8s.io/v1beta1",
    "apis/policy/v1",
];

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).expect("gzip");
    text
}

fn v3(group: &str) -> Value {
    let bytes = openapi_v3(group).unwrap_or_else(|| panic!("{group} has a document"));
    serde_json::from_slice(&inflate(bytes)).expect("JSON")
}

fn v2() -> Value {
    serde_json::from_slice(&inflate(openapi_v2())).expect("JSON")
}

/// Calls `see` with every object in a value.
fn each_object<'v>(value: &'v Value, see: &mut dyn FnMut(&'v serde_json::Map<String, Value>)) {
    match value {
        Value::Object(entries) => {
            see(entries);
            entries.values().for_each(|value| each_object(value, see));
        }
        Value::Array(items) => items.iter().for_each(|value| each_object(value, see)),
        _ => {}
    }
}

fn assert_closed(document: &Value, prefix: &str, schemas: &Value) {
    each_object(document, &mut |entries| {
        if let Some(Value::String(reference)) = entries.get("$ref") {
            let name = reference.strip_prefix(prefix).unwrap_or_else(|| panic!("{reference} is in {prefix}"));
            assert!(schemas[name].is_object(), "{reference} leads nowhere");
        }
    });
}

#[test]
fn the_index_names_all_documents_with_their_hashes() {
    let index: Value = serde_json::from_str(openapi_v3_index()).expect("JSON");
    let paths = index["paths"].as_object().expect("paths");
    assert!(paths.keys().eq(GROUPS.iter()), "{:?}", paths.keys());
    for group in GROUPS {
        let hash = openapi_v3_hash(group).expect("hash");
        assert_eq!(paths[group]["serverRelativeURL"], format!("/openapi/v3/{group}?hash={hash}"));
    }
    assert_eq!(openapi_v3("apis/apps/v1"), None);
    assert_eq!(openapi_v3_hash("api/v2"), None);
    assert_ne!(openapi_v2_hash(), "");
}

#[test]
fn every_reference_leads_somewhere() {
    for group in GROUPS {
        let document = v3(group);
        assert_eq!(document["openapi"], "3.0.0");
        assert_closed(&document, "#/components/schemas/", &document["components"]["schemas"]);
    }
    let document = v2();
    assert_eq!(document["swagger"], "2.0");
    assert_closed(&document, "#/definitions/", &document["definitions"]);
}

#[test]
fn operation_ids_are_unique() {
    let document = v2();
    let mut ids = BTreeSet::new();
    each_object(&document["paths"], &mut |entries| {
        if let Some(id) = entries.get("operationId") {
            assert!(ids.insert(id.to_string()), "{id} twice");
        }
    });
    assert!(ids.len() > 100, "{}", ids.len());
}

#[test]
fn kubectl_finds_server_side_validation_for_every_kind_that_can_be_patched() {
    for (group, version, kind, path) in [
        ("", "v1", "Pod", "/api/v1/namespaces/{namespace}/pods/{name}"),
        ("", "v1", "Node", "/api/v1/nodes/{name}"),
        ("", "v1", "Namespace", "/api/v1/namespaces/{name}"),
        (
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}",
        ),
    ] {
        let root = path.trim_start_matches('/').split("/n").next().expect("root");
        for document in [v3(root), v2()] {
            let patch = &document["paths"][path]["patch"];
            let gvk = serde_json::json!({"group": group, "version": version, "kind": kind});
            assert_eq!(patch["x-kubernetes-group-version-kind"], gvk, "{path}");
            assert_eq!(patch["x-kubernetes-action"], "patch");
            let parameters = patch["parameters"].as_array().expect("parameters");
            for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
                assert!(parameters.iter().any(|one| one["name"] == name && one["in"] == "query"), "{path} {name}");
            }
        }
    }
}

#[test]
fn what_cannot_be_done_is_not_offered() {
    let document = v3("api/v1");
    let methods = |path: &str| -> Vec<String> {
        let item = document["paths"][path].as_object().unwrap_or_else(|| panic!("{path} is there"));
        item.keys().filter(|key| *key != "parameters").cloned().collect()
    };
    assert_eq!(methods("/api/v1/pods"), ["get"]);
    assert_eq!(methods("/api/v1/namespaces"), ["get", "post"], "namespaces are deleted one by one");
    assert_eq!(methods("/api/v1/namespaces/{namespace}/pods"), ["delete", "get", "post"]);
    assert_eq!(methods("/api/v1/namespaces/{namespace}/pods/{name}"), ["delete", "get", "patch", "put"]);
    assert_eq!(methods("/api/v1/namespaces/{namespace}/pods/{name}/exec"), ["get", "post"]);
    assert_eq!(methods("/api/v1/namespaces/{namespace}/pods/{name}/log"), ["get"]);
    assert_eq!(methods("/api/v1/namespaces/{namespace}/pods/{name}/eviction"), ["post"]);
    assert_eq!(methods("/api/v1/namespaces/{namespace}/pods/{name}/resize"), ["get", "patch", "put"]);
    assert_eq!(methods("/api/v1/namespaces/{name}/finalize"), ["put"]);
    assert_eq!(document["paths"]["/api/v1/persistentvolumes"], Value::Null);
    let metrics = v3("apis/metrics.k8s.io/v1beta1");
    assert_eq!(metrics["paths"]["/apis/metrics.k8s.io/v1beta1/nodes"]["post"], Value::Null);
}

#[test]
fn schemas_have_upstreams_form() {
    let schemas = v3("api/v1")["components"]["schemas"].clone();
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    assert_eq!(pod["required"], Value::Null);
    let metadata = &pod["properties"]["metadata"];
    assert_eq!(metadata["allOf"][0]["$ref"], "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    assert_eq!(metadata["default"], serde_json::json!({}));
    assert!(metadata["description"].is_string());
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
    let containers = &spec["containers"];
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], serde_json::json!(["name"]));
    assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(spec["nodeSelector"]["x-kubernetes-map-type"], "atomic");
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"];
    assert_eq!((&port["protocol"]["default"], &port["containerPort"]["format"]), (&"TCP".into(), &"int32".into()));
    assert_eq!(schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
    assert_eq!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.Time"]["format"], "date-time");
}

#[test]
fn all_schemas_and_their_fields_are_described() {
    for group in GROUPS {
        let document = v3(group);
        for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
            assert!(schema["description"].is_string(), "{name}");
        }
    }
}

#[test]
fn the_protobuf_form_is_made_of_whole_fields() {
    let bytes = inflate(openapi_v2_protobuf());
    let mut rest = bytes.as_slice();
    let mut fields = Vec::new();
    while let Some((&tag, after)) = rest.split_first() {
        assert_eq!(tag & 7, 2, "the document has messages and strings only");
        let (mut length, mut shift, mut bytes) = (0_usize, 0, after.iter());
        for byte in bytes.by_ref() {
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        fields.push((tag >> 3, length));
        rest = &bytes.as_slice()[length..];
    }
    let numbers: Vec<u8> = fields.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 8, 9], "swagger, info, paths, definitions");
    assert!(fields[3].1 > 100_000, "definitions");
}

#[test]
fn documents_are_small() {
    let all: usize = GROUPS.iter().filter_map(|group| openapi_v3(group)).map(<[u8]>::len).sum();
    let sizes = [all, openapi_v2().len(), openapi_v2_protobuf().len()];
    assert!(sizes.iter().all(|size| *size < 192 * 1024), "{sizes:?}");
}
