//! Writes on the wire: what they keep, count and answer.

use http::Method;
use serde_json::{Value, json};

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": "node", "containers": [{"name": "app", "image": "app:1"}]}})
}

#[test]
fn creation_fills_in_what_is_the_servers() {
    let world = World::new();
    let body = json!({
        "metadata": {"generateName": "web-", "uid": "mine", "creationTimestamp": null, "generation": 7},
        "spec": {"containers": [{"name": "app", "image": "app:1", "resources": {}}]}, "status": {"phase": "Running"},
    });
    let reply = world.post(PODS, &body);
    assert_eq!(reply.status, 201, "{reply:?}");
    let pod = reply.json();
    let metadata = &pod["metadata"];
    assert_eq!((&pod["kind"], &pod["apiVersion"]), (&"Pod".into(), &"v1".into()));
    assert!(metadata["name"].as_str().unwrap().starts_with("web-"));
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_eq!(metadata["generation"], 1);
    assert!(metadata["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(metadata["managedFields"][0]["operation"], "Update");
    assert_eq!(pod["status"]["phase"], "Pending");
    let yaml = "metadata:\n  name: written-as-yaml\ndata:\n  a: 'yes'\n";
    let reply = world.call(Method::POST, MAPS, &[("content-type", "application/yaml")], yaml);
    assert_eq!((reply.status.as_u16(), &reply.json()["data"]["a"]), (201, &"yes".into()));
}

#[test]
fn dry_runs_leave_nothing() {
    let world = World::new();
    let before = world.store.revision();
    let reply = world.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "x"}}));
    assert_eq!((reply.status.as_u16(), &reply.json()["metadata"]["name"]), (201, &"x".into()));
    assert_eq!(world.store.revision(), before);
    world.config_map("x", &json!({"a": "1"}));
    let before = world.store.revision();
    let again = world.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "x"}}));
    assert_eq!(again.status, 409);
    let merge = [("content-type", "application/merge-patch+json")];
    let patched = world.call(Method::PATCH, &format!("{MAPS}/x?dryRun=All"), &merge, r#"{"data":{"a":"2"}}"#);
    assert_eq!(patched.json()["data"]["a"], "2");
    for (path, body) in [("x?dryRun=All", ""), ("x", r#"{"dryRun":["All"]}"#), ("x?dryRun=All", "{}")] {
        assert_eq!(world.call(Method::DELETE, &format!("{MAPS}/{path}"), &[], body).status, 200);
    }
    assert_eq!(world.store.revision(), before);
    assert_eq!(world.get(&format!("{MAPS}/x")).json()["data"]["a"], "1");
}

#[test]
fn a_write_that_changes_nothing_is_none() {
    let world = World::new();
    let stored = world.config_map("x", &json!({"a": "1"})).json();
    let before = world.store.revision();
    let reply = world.call(Method::PUT, &format!("{MAPS}/x"), &[], &stored.to_string());
    assert_eq!(reply.json()["metadata"]["resourceVersion"], stored["metadata"]["resourceVersion"]);
    let merge = [("content-type", "application/merge-patch+json")];
    assert_eq!(world.call(Method::PATCH, &format!("{MAPS}/x"), &merge, "{}").status, 200);
    assert_eq!(world.store.revision(), before);
}

#[test]
fn status_and_spec_keep_to_their_paths() {
    let world = World::new();
    assert_eq!(world.post(PODS, &pod("web")).status, 201);
    let merge = [("content-type", "application/merge-patch+json")];
    let both = json!({"spec": {"containers": [{"name": "app", "image": "app:9"}]}, "status": {"message": "hello"}});
    let reply = world.call(Method::PATCH, &format!("{PODS}/web/status"), &merge, &both.to_string());
    assert_eq!(reply.status, 200, "{reply:?}");
    let pod = reply.json();
    assert_eq!((&pod["spec"]["containers"][0]["image"], &pod["status"]["message"]), (&"app:1".into(), &"hello".into()));
    assert_eq!(pod["metadata"]["generation"], 1);
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let reply = world.call(Method::PATCH, &format!("{PODS}/web"), &strategic, &both.to_string());
    let pod = reply.json();
    assert_eq!(pod["spec"]["containers"][0]["image"], "app:9", "{pod}");
    assert_eq!((&pod["metadata"]["generation"], &pod["status"]["message"]), (&2.into(), &"hello".into()));
    let managers = pod["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry| entry["subresource"] == "status"), "{managers:?}");
    assert_eq!(world.get(&format!("{PODS}/web/status")).json()["kind"], "Pod");
}

#[test]
fn graceful_deletion_only_gets_shorter() {
    let world = World::new();
    world.post(PODS, &pod("web"));
    let delete = |body: Value| world.call(Method::DELETE, &format!("{PODS}/web"), &[], &body.to_string()).json();
    let seconds = |pod: &Value| pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let until =
        |pod: &Value| -> jiff::Timestamp { pod["metadata"]["deletionTimestamp"].as_str().unwrap().parse().unwrap() };
    let first = delete(json!({"propagationPolicy": "Background"}));
    assert_eq!((first["kind"].as_str(), seconds(&first)), (Some("Pod"), Some(30)));
    assert_eq!(first["metadata"]["generation"], 2);
    let longer = delete(json!({"gracePeriodSeconds": 60}));
    assert_eq!(longer["metadata"], first["metadata"]);
    let shorter = delete(json!({"gracePeriodSeconds": 5}));
    assert_eq!(seconds(&shorter), Some(5));
    assert_eq!((until(&first) - until(&shorter)).get_seconds(), 25);
    assert_eq!(seconds(&delete(json!({}))), Some(5));
    assert_eq!(world.get(&format!("{PODS}/web")).status, 200);
    let forced = delete(json!({"gracePeriodSeconds": 0}));
    assert_eq!(forced["kind"], "Pod");
}

#[test]
fn finalizers_hold_an_object() {
    let world = World::new();
    let body = json!({"metadata": {"name": "x", "finalizers": ["example.com/hold"]}});
    let created = world.post(MAPS, &body);
    assert_eq!(created.status, 201, "{created:?}");
    let reply = world.call(Method::DELETE, &format!("{MAPS}/x"), &[], "");
    let held = reply.json();
    assert_eq!((reply.status.as_u16(), held["kind"].as_str()), (200, Some("ConfigMap")));
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let merge = [("content-type", "application/merge-patch+json")];
    let other = world.call(Method::PATCH, &format!("{MAPS}/x"), &merge, r#"{"data":{"a":"1"}}"#);
    assert_eq!(other.status, 200);
    // A deletion is not taken back.
    let kept = world.call(Method::PATCH, &format!("{MAPS}/x"), &merge, r#"{"metadata":{"deletionTimestamp":null}}"#);
    assert!(kept.json()["metadata"]["deletionTimestamp"].is_string());
    let freed = world.call(Method::PATCH, &format!("{MAPS}/x"), &merge, r#"{"metadata":{"finalizers":null}}"#);
    assert_eq!(freed.status, 200);
    assert_eq!(world.get(&format!("{MAPS}/x")).status, 404);
}

#[test]
fn deletion_answers_with_what_was_deleted() {
    let world = World::new();
    let uid = world.config_map("x", &json!({})).json()["metadata"]["uid"].clone();
    let gone = world.call(Method::DELETE, &format!("{MAPS}/x"), &[], "").json();
    assert_eq!(gone["status"], "Success");
    assert_eq!(gone["details"], json!({"name": "x", "kind": "configmaps", "uid": uid}));
    for name in ["a", "b", "c"] {
        world.post(
            MAPS,
            &json!({"metadata": {"name": name, "labels": {"keep": if name == "c" { "yes" } else { "no" }}}}),
        );
    }
    let gone = world.call(Method::DELETE, &format!("{MAPS}?labelSelector=keep%3Dno"), &[], "").json();
    assert_eq!((gone["kind"].as_str(), gone["items"].as_array().unwrap().len()), (Some("ConfigMapList"), 2));
    assert_eq!(world.get(MAPS).json()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn namespaces_wait_until_they_are_finalized() {
    let world = World::new();
    assert_eq!(world.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).status, 201);
    let ending = world.call(Method::DELETE, "/api/v1/namespaces/n", &[], "").json();
    assert_eq!((ending["kind"].as_str(), ending["status"]["phase"].as_str()), (Some("Namespace"), Some("Terminating")));
    let mut emptied = world.get("/api/v1/namespaces/n").json();
    emptied["spec"]["finalizers"] = json!([]);
    let reply = world.call(Method::PUT, "/api/v1/namespaces/n/finalize", &[], &emptied.to_string());
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(world.get("/api/v1/namespaces/n").status, 404);
}

#[test]
fn evictions_bindings_tokens_and_reviews() {
    let world = World::new();
    let mut unbound = pod("web");
    unbound["spec"].as_object_mut().unwrap().remove("nodeName");
    world.post(PODS, &unbound);
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "node"}});
    let reply = world.post(&format!("{PODS}/web/binding"), &binding);
    assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (201, &"Success".into()), "{reply:?}");
    assert_eq!(world.get(&format!("{PODS}/web")).json()["spec"]["nodeName"], "node");
    assert_eq!(world.post(&format!("{PODS}/web/binding"), &binding).status, 409);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"},
                          "deleteOptions": {"gracePeriodSeconds": 3}});
    assert_eq!(world.post(&format!("{PODS}/web/eviction"), &eviction).status, 201);
    assert_eq!(world.get(&format!("{PODS}/web")).json()["metadata"]["deletionGracePeriodSeconds"], 3);
    let token =
        world.post("/api/v1/namespaces/default/serviceaccounts/default/token", &json!({"spec": {"audiences": ["x"]}}));
    assert_eq!(token.json()["status"]["token"], "token-of-default", "{token:?}");
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let reply = world.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).json();
    assert_eq!((&reply["status"]["allowed"], &reply["spec"]), (&true.into(), &review["spec"]));
    let rules =
        world.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &json!({"spec": {"namespace": "x"}}));
    assert_eq!(rules.json()["status"]["resourceRules"][0]["verbs"][0], "*");
}

#[test]
fn events_are_two_views_of_one_kind() {
    let world = World::new();
    let core = json!({
        "metadata": {"name": "e"}, "reason": "Started", "message": "hello", "type": "Normal", "count": 1,
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
        "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    });
    let reply = world.post("/api/v1/namespaces/default/events", &core);
    assert_eq!(reply.status, 201, "{reply:?}");
    let other = world.get("/apis/events.k8s.io/v1/namespaces/default/events/e").json();
    assert_eq!((&other["apiVersion"], &other["note"]), (&"events.k8s.io/v1".into(), &"hello".into()));
    assert_eq!(other["regarding"]["name"], "web");
    let list = world.get("/apis/events.k8s.io/v1/events").json();
    assert_eq!((list["kind"].as_str(), &list["items"][0]["note"]), (Some("EventList"), &"hello".into()));
    assert!(list["items"][0].get("kind").is_none());
    let by_field = world.get("/api/v1/events?fieldSelector=involvedObject.name%3Dweb%2Ctype!%3DWarning").json();
    assert_eq!(by_field["items"].as_array().unwrap().len(), 1);
}

#[test]
fn usage_is_a_rate_between_samples() {
    let world = World::new();
    world.post(PODS, &pod("web"));
    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
    let list = world.get(path).json();
    assert_eq!(
        (list["kind"].as_str(), &list["items"][0]["containers"][0]["name"]),
        (Some("PodMetricsList"), &"app".into())
    );
    assert_eq!(list["items"][0]["containers"][0]["usage"]["memory"], "34816Ki");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let later = world.get(&format!("{path}/web")).json();
    let cpu = later["containers"][0]["usage"]["cpu"].as_str().unwrap().to_owned();
    let nanocores: u64 = cpu.trim_end_matches('n').parse().unwrap();
    assert!((1..2_000_000).contains(&nanocores), "{cpu}");
    assert_eq!(world.get(&format!("{path}?labelSelector=app%3Dx")).json()["items"], json!([]));
    assert_eq!(world.get(&format!("{path}/none")).status, 404);
}
