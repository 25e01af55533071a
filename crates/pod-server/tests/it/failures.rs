//! Every refusal: its code, reason and words.

use http::Method;
use serde_json::{Value, json};

use crate::world::{Reply, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[track_caller]
fn refused(reply: &Reply, code: u16, reason: &str, message: &str) -> Value {
    let status = reply.json();
    assert_eq!(reply.status.as_u16(), code, "{status}");
    assert_eq!((&status["kind"], &status["status"]), (&"Status".into(), &"Failure".into()));
    assert_eq!((status["code"].as_u64(), status["reason"].as_str()), (Some(code.into()), Some(reason)), "{status}");
    let found = status["message"].as_str().unwrap();
    assert!(found.contains(message), "`{found}` does not contain `{message}`");
    status["details"].clone()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}})
}

#[test]
fn what_is_not_there() {
    let world = World::new();
    let details = refused(&world.get(&format!("{PODS}/x")), 404, "NotFound", "pods \"x\" not found");
    assert_eq!(details, json!({"name": "x", "kind": "pods"}));
    let lease = world.get("/apis/events.k8s.io/v1/namespaces/default/events/x");
    let details = refused(&lease, 404, "NotFound", "events.events.k8s.io \"x\" not found");
    assert_eq!(details["group"], "events.k8s.io");
    for path in ["/api/v1/nothing", "/apis/x/v1/y", "/nothing", "/api/v2", "/api/v1/namespaces/default/pods/x/nothing"]
    {
        refused(&world.get(path), 404, "NotFound", "the server could not find the requested resource");
    }
    let put = world.call(Method::PUT, &format!("{MAPS}/x"), &[], r#"{"metadata":{"name":"x"}}"#);
    refused(&put, 404, "NotFound", "configmaps \"x\" not found");
    refused(&world.call(Method::DELETE, &format!("{MAPS}/x"), &[], ""), 404, "NotFound", "configmaps \"x\" not found");
    let nowhere = world.post("/api/v1/namespaces/nowhere/configmaps", &json!({"metadata": {"name": "x"}}));
    refused(&nowhere, 404, "NotFound", "namespaces \"nowhere\" not found");
    refused(&world.get(&format!("{PODS}/x/log")), 404, "NotFound", "pods \"x\" not found");
}

#[test]
fn what_is_in_the_way() {
    let world = World::new();
    let first = world.config_map("one", &json!({"a": "1"}));
    assert_eq!(first.status, 201);
    refused(&world.config_map("one", &json!({})), 409, "AlreadyExists", "configmaps \"one\" already exists");
    let mut stale = first.json();
    stale["data"]["a"] = "2".into();
    assert_eq!(world.call(Method::PUT, &format!("{MAPS}/one"), &[], &stale.to_string()).status, 200);
    let conflict = "Operation cannot be fulfilled on configmaps \"one\": the object has been modified; please apply your \
                    changes to the latest version and try again";
    stale["data"]["a"] = "3".into();
    refused(&world.call(Method::PUT, &format!("{MAPS}/one"), &[], &stale.to_string()), 409, "Conflict", conflict);
    let merge = [("content-type", "application/merge-patch+json")];
    let locked = r#"{"metadata":{"resourceVersion":"1"},"data":{"a":"4"}}"#;
    refused(&world.call(Method::PATCH, &format!("{MAPS}/one"), &merge, locked), 409, "Conflict", conflict);
    let other = r#"{"metadata":{"uid":"other"}}"#;
    refused(
        &world.call(Method::PATCH, &format!("{MAPS}/one"), &merge, other),
        409,
        "Conflict",
        "Precondition failed: UID",
    );
    for preconditions in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let options = json!({"preconditions": preconditions}).to_string();
        let deleted = world.call(Method::DELETE, &format!("{MAPS}/one"), &[], &options);
        refused(&deleted, 409, "Conflict", "Precondition failed: ");
    }
    let apply = [("content-type", "application/apply-patch+yaml")];
    let wanted = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"9"}}"#;
    let contested = world.call(Method::PATCH, &format!("{MAPS}/one?fieldManager=me"), &apply, wanted);
    let details = refused(&contested, 409, "Conflict", "Apply failed with 1 conflict: conflict with ");
    assert_eq!(details["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(details["causes"][0]["field"], ".data.a");
}

#[test]
fn what_is_not_valid() {
    let world = World::new();
    let mut nameless = pod("web");
    nameless["spec"]["containers"][0]["name"] = "".into();
    let reply = world.post(PODS, &nameless);
    let message = "Pod \"web\" is invalid: spec.containers[0].name: Required value";
    let details = refused(&reply, 422, "Invalid", message);
    assert_eq!((&details["name"], &details["kind"]), (&"web".into(), &"Pod".into()));
    assert_eq!(details["causes"][0]["reason"], "FieldValueRequired");
    assert_eq!(details["causes"][0]["field"], "spec.containers[0].name");
    let bad = world.config_map("Not_A_Name", &json!({}));
    assert_eq!(
        refused(&bad, 422, "Invalid", "metadata.name: Invalid value")["causes"][0]["reason"],
        "FieldValueInvalid"
    );
    let none = world.post(MAPS, &json!({"data": {}}));
    refused(&none, 422, "Invalid", "name or generateName is required");
    assert_eq!(world.post(PODS, &pod("web")).status, 201);
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let patch = r#"{"spec":{"containers":[{"name":"app","command":["x"]}]}}"#;
    let forbidden = world.call(Method::PATCH, &format!("{PODS}/web"), &strategic, patch);
    let details = refused(&forbidden, 422, "Invalid", "pod updates may not change fields other than");
    assert_eq!(details["causes"][0]["reason"], "FieldValueForbidden");
    let test = [("content-type", "application/json-patch+json")];
    let failing = r#"[{"op":"test","path":"/metadata/name","value":"other"}]"#;
    let reply = world.call(Method::PATCH, &format!("{PODS}/web"), &test, failing);
    refused(&reply, 422, "Invalid", "the server rejected our request due to an error in our request");
    for (query, message) in [
        ("dryRun=Some", "dryRun: Unsupported value: \"Some\": supported values: \"All\""),
        ("fieldValidation=Loose", "fieldValidation: Unsupported value: \"Loose\""),
    ] {
        refused(&world.post(&format!("{MAPS}?{query}"), &json!({"metadata": {"name": "q"}})), 422, "Invalid", message);
    }
    let apply = [("content-type", "application/apply-patch+yaml")];
    let reply = world.call(Method::PATCH, &format!("{MAPS}/q"), &apply, "{}");
    refused(&reply, 422, "Invalid", "fieldManager: Required value: is required for apply patch");
    let reply = world.call(Method::DELETE, &format!("{PODS}/web?propagationPolicy=Sideways"), &[], "");
    refused(&reply, 422, "Invalid", "propagationPolicy: Unsupported value: \"Sideways\"");
    let watch = world.get(&format!("{PODS}?watch=1&sendInitialEvents=true"));
    refused(&watch, 422, "Invalid", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
}

#[test]
fn what_cannot_be_read() {
    let world = World::new();
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap)";
    refused(&world.call(Method::POST, MAPS, &[], "{nonsense"), 400, "BadRequest", unrecognized);
    refused(&world.call(Method::POST, MAPS, &[], "[]"), 400, "BadRequest", unrecognized);
    let kind = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    refused(&world.post(MAPS, &kind), 400, "BadRequest", "Pod in version \"v1\" cannot be handled as a ConfigMap");
    let version = json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let message = "the API version in the data (v2) does not match the expected API version (v1)";
    refused(&world.post(MAPS, &version), 400, "BadRequest", message);
    let elsewhere = json!({"metadata": {"name": "x", "namespace": "other"}});
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    refused(&world.post(MAPS, &elsewhere), 400, "BadRequest", message);
    let wrong = json!({"metadata": {"name": "x"}, "data": {"a": 1}});
    refused(
        &world.post(MAPS, &wrong),
        400,
        "BadRequest",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: ",
    );
    world.config_map("one", &json!({}));
    let renamed = world.call(Method::PUT, &format!("{MAPS}/one"), &[], r#"{"metadata":{"name":"two"}}"#);
    refused(&renamed, 400, "BadRequest", "the name of the object (two) does not match the name on the URL (one)");
    let selectors = [
        ("labelSelector=a%3D%3D%3Db", "unable to parse requirement: found '=', expected: identifier"),
        ("fieldSelector=data.a%3Db", "\"data.a\" is not a known field selector"),
        ("resourceVersion=x", "invalid resource version"),
        ("limit=x", "invalid syntax"),
        ("continue=x", "continue key is not valid"),
    ];
    for (query, message) in selectors {
        refused(&world.get(&format!("{MAPS}?{query}")), 400, "BadRequest", message);
    }
    let reply = world.get(&format!("{PODS}?fieldSelector=spec.color%3Dred"));
    refused(&reply, 400, "BadRequest", "field label not supported: spec.color");
}

#[test]
fn strict_and_lenient_decoding() {
    let world = World::new();
    let body = r#"{"metadata":{"name":"x"},"foo":1,"data":{"a":"1","a":"2"}}"#;
    let reply = world.call(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &[], body);
    let message = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
                   duplicate field \"data.a\", unknown field \"foo\"";
    refused(&reply, 400, "BadRequest", message);
    let reply = world.call(Method::POST, MAPS, &[], body);
    assert_eq!(reply.status, 201);
    let warnings: Vec<_> = reply.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(warnings, [r#"299 - "duplicate field \"data.a\"""#, r#"299 - "unknown field \"foo\"""#]);
    assert!(reply.json()["foo"].is_null() && reply.json()["data"]["a"] == "2");
    let body = body.replace("\"x\"", "\"y\"");
    let reply = world.call(Method::POST, &format!("{MAPS}?fieldValidation=Ignore"), &[], &body);
    assert!(reply.status == 201 && !reply.headers.contains_key("warning"));
    let merge = [("content-type", "application/merge-patch+json")];
    let reply = world.call(Method::PATCH, &format!("{MAPS}/y?fieldValidation=Strict"), &merge, r#"{"bar":1}"#);
    refused(&reply, 422, "Invalid", "strict decoding error: unknown field \"bar\"");
}

#[test]
fn forms_and_methods_that_are_not_spoken() {
    let world = World::new();
    for (method, path) in [
        (Method::POST, "/api/v1/pods"),
        (Method::DELETE, "/api/v1/namespaces"),
        (Method::PUT, MAPS),
        (Method::OPTIONS, MAPS),
        (Method::POST, "/version"),
        (Method::GET, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        (Method::GET, "/api/v1/namespaces/default/pods/x/proxy/a/b"),
    ] {
        let reply = world.call(method, path, &[], "");
        let message = "the server does not allow this method on the requested resource";
        if path != "/version" {
            refused(&reply, 405, "MethodNotAllowed", message);
        } else {
            assert_eq!(reply.status, 405);
        }
    }
    let strange = world.call(Method::POST, MAPS, &[("content-type", "text/plain")], "x");
    refused(&strange, 415, "UnsupportedMediaType", "accepted media types include: application/json, application/yaml");
    let strange = world.call(Method::PATCH, &format!("{MAPS}/x"), &[("content-type", "application/json")], "{}");
    let message = "accepted media types include: application/json-patch+json, application/merge-patch+json, \
                   application/strategic-merge-patch+json, application/apply-patch+yaml";
    refused(&strange, 415, "UnsupportedMediaType", message);
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let reply = world.call(Method::GET, MAPS, &accept, "");
    refused(&reply, 406, "NotAcceptable", "only the following media types are accepted: application/json");
}

#[test]
fn what_is_forbidden_or_gone() {
    let world = World::new();
    world.seed(
        "namespaces",
        "",
        "ending",
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "ending", "uid": "e", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"},
        }),
    );
    let reply = world.post("/api/v1/namespaces/ending/configmaps", &json!({"metadata": {"name": "x"}}));
    let message = "configmaps \"x\" is forbidden: unable to create new content in namespace ending because it is being terminated";
    let details = refused(&reply, 403, "Forbidden", message);
    assert_eq!(details["causes"][0]["reason"], "NamespaceTerminating");
    refused(&world.call(Method::DELETE, "/api/v1/namespaces/default", &[], ""), 403, "Forbidden", "may not be deleted");
    let future = world.store.revision() + 1000;
    let reply = world.get(&format!("{MAPS}?resourceVersion={future}"));
    assert_eq!(reply.headers["retry-after"], "1");
    let details = refused(&reply, 504, "Timeout", &format!("Too large resource version: {future}, current: "));
    assert_eq!(details["causes"][0]["reason"], "ResourceVersionTooLarge");
    let reply = world.get(&format!("{MAPS}?resourceVersion={future}&resourceVersionMatch=Exact"));
    refused(&reply, 504, "Timeout", "Too large resource version");
    // A watch tells it within the stream.
    let reply = world.get(&format!("{MAPS}?resourceVersion={future}&watch=true"));
    let event: Value = serde_json::from_slice(&reply.bytes).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&"ERROR".into(), &410.into()));
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: "));
}
