use serde_json::json;

use super::*;
use crate::conflict_message;
use crate::track::track;

fn pod() -> Type {
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

fn wanted(metadata: Value, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    object["metadata"]["name"] = json!("web");
    object
}

fn applied(live: Option<&Value>, wanted: &Value, name: &str, second: u32) -> Value {
    apply(pod(), live, wanted, &manager(name, second), false).unwrap()
}

fn refusal(live: Option<&Value>, wanted: &Value, name: &str) -> String {
    match apply(pod(), live, wanted, &manager(name, 9), false) {
        Err(error) => error.to_string(),
        Ok(object) => panic!("applied: {object}"),
    }
}

fn owners(object: &Value) -> Vec<(String, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            (format!("{} {} {}", text("manager"), text("operation"), &text("time")[17..19]), entry["fieldsV1"].clone())
        })
        .collect()
}

fn who(object: &Value) -> Vec<String> {
    owners(object).into_iter().map(|(who, _)| who).collect()
}

#[test]
fn creates_with_the_fields_that_were_applied() {
    let web = wanted(
        json!({"labels": {"app": "web"}}),
        json!({"containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]}),
    );
    let object = applied(None, &web, "kubectl", 1);
    assert_eq!(
        owners(&object),
        [(
            "kubectl Apply 01".to_owned(),
            json!({
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:name": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}
            })
        )]
    );
    // Again, later: nothing changes, not even the time.
    assert_eq!(applied(Some(&object), &web, "kubectl", 2), object);
}

#[test]
fn removes_what_is_no_longer_applied_and_nobody_else_owns() {
    let first = wanted(
        json!({"labels": {"app": "web", "tier": "front"}}),
        json!({"hostname": "h", "securityContext": {"runAsUser": 1}, "containers": [{"name": "web", "image": "nginx", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "s"}]}),
    );
    let mut live = applied(None, &first, "a", 1);
    // The server's defaults come along; nobody owns them.
    live["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
    live["spec"]["restartPolicy"] = json!("Always");
    let second = wanted(json!({"labels": {"app": "web"}}), json!({"containers": [{"name": "web", "image": "nginx"}]}));
    let object = applied(Some(&live), &second, "a", 2);
    assert_eq!(object["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(object["spec"], json!({"containers": [{"name": "web", "image": "nginx"}], "restartPolicy": "Always"}));
    assert_eq!(who(&object), ["a Apply 02"]);

    // What another applier wants as well stays, and becomes its own.
    let both = applied(Some(&live), &first, "b", 2);
    assert_eq!(who(&both), ["a Apply 01", "b Apply 02"]);
    let object = applied(Some(&both), &second, "a", 3);
    assert_eq!(object["spec"], live["spec"]);
    assert_eq!(object["metadata"]["labels"], live["metadata"]["labels"]);
    assert_eq!(who(&object), ["b Apply 02", "a Apply 03"]);
}

#[test]
fn what_is_applied_empty_stays_empty() {
    let volume = |source: Value| wanted(json!({}), json!({"volumes": [{"name": "v", "emptyDir": source}]}));
    let live = applied(None, &volume(json!({"medium": "Memory"})), "a", 1);
    let object = applied(Some(&live), &volume(json!({})), "a", 2);
    assert_eq!(object["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
}

#[test]
fn a_field_given_up_stays_if_an_updater_owns_it() {
    let mut live = applied(None, &wanted(json!({}), json!({"hostname": "h", "subdomain": "s"})), "a", 1);
    let before = live.clone();
    live["spec"]["hostname"] = json!("edited");
    track(pod(), Some(&before), &mut live, &manager("kubectl-edit", 2));
    let object = applied(Some(&live), &wanted(json!({}), json!({"subdomain": "s"})), "a", 3);
    assert_eq!(object["spec"], json!({"hostname": "edited", "subdomain": "s"}));
}

#[test]
fn refuses_to_change_what_others_own() {
    let live = applied(
        None,
        &wanted(json!({}), json!({"hostname": "h", "containers": [{"name": "web", "image": "nginx"}]})),
        "a",
        1,
    );
    let other = wanted(json!({}), json!({"containers": [{"name": "web", "image": "httpd"}]}));
    assert_eq!(
        refusal(Some(&live), &other, "b"),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.containers[name=\"web\"].image"
    );
    let more = wanted(json!({}), json!({"hostname": "i", "containers": [{"name": "web", "image": "httpd"}]}));
    assert_eq!(
        refusal(Some(&live), &more, "b"),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.hostname\n- .spec.containers[name=\"web\"].image"
    );
    // The same value is shared …
    let same = wanted(json!({}), json!({"containers": [{"name": "web", "image": "nginx"}]}));
    let shared = applied(Some(&live), &same, "b", 2);
    assert_eq!(shared["spec"], live["spec"]);
    assert_eq!(who(&shared), ["a Apply 01", "b Apply 02"]);
    // … and force takes it over.
    let forced = apply(pod(), Some(&live), &other, &manager("b", 2), true).unwrap();
    assert_eq!(forced["spec"]["containers"][0]["image"], "httpd");
    let of_a = &owners(&forced)[0].1;
    assert_eq!(
        of_a,
        &json!({"f:spec": {"f:hostname": {}, "f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}}}}})
    );
}

#[test]
fn an_object_that_nobody_owned_conflicts_with_nobody_in_particular() {
    let live = wanted(json!({"uid": "1"}), json!({"hostname": "h", "subdomain": "s"}));
    assert_eq!(
        refusal(Some(&live), &wanted(json!({}), json!({"hostname": "i"})), "a"),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.hostname"
    );
    let object = applied(Some(&live), &wanted(json!({}), json!({"hostname": "h"})), "a", 1);
    assert_eq!(who(&object), ["a Apply 01", "before-first-apply Update 01"]);
}

/// `kubectl apply`, then `kubectl apply --server-side` with a changed image.
#[test]
fn takes_over_what_kubectl_applied_from_the_client() {
    const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let config = wanted(json!({}), json!({"hostname": "h", "containers": [{"name": "web", "image": "nginx"}]}));
    let mut live = config.clone();
    live["metadata"]["annotations"] = json!({ANNOTATION: config.to_string()});
    track(pod(), None, &mut live, &manager("kubectl-client-side-apply", 1));

    let changed = wanted(json!({}), json!({"hostname": "h", "containers": [{"name": "web", "image": "httpd"}]}));
    let object = applied(Some(&live), &changed, "kubectl", 2);
    assert_eq!(object["spec"]["containers"][0]["image"], "httpd");
    let annotation = object["metadata"]["annotations"][ANNOTATION].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), changed);
    assert!(annotation.ends_with('\n'));
    assert_eq!(who(&object), ["kubectl Apply 02", "kubectl-client-side-apply Update 01"]);

    // Only kubectl, and only what nobody changed since.
    assert_eq!(
        refusal(Some(&live), &changed, "another"),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .spec.containers[name=\"web\"].image"
    );
    let before = live.clone();
    live["spec"]["hostname"] = json!("edited");
    track(pod(), Some(&before), &mut live, &manager("kubectl-edit", 2));
    assert_eq!(
        refusal(Some(&live), &changed, "kubectl"),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .spec.hostname"
    );
}

#[test]
fn keeps_what_the_server_keeps() {
    let mut live = applied(None, &wanted(json!({}), json!({"hostname": "h"})), "a", 1);
    live["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    live["metadata"]["uid"] = json!("1");
    live["status"] = json!({"phase": "Running"});
    let mut again = wanted(json!({"creationTimestamp": null}), json!({"hostname": "h"}));
    again["status"] = json!({});
    assert_eq!(applied(Some(&live), &again, "a", 2), live);
}

#[test]
fn refuses_what_is_no_object_of_the_type() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut object = wanted(json!({"namespace": "default"}), json!({"hostname": "h"}));
        change(&mut object);
        refusal(None, &object, "a")
    };
    assert_eq!(
        of(&|object| object["spec"]["what"] = json!(1)),
        "failed to create typed patch object (default/web; /v1, Kind=Pod): .spec.what: field not declared in schema"
    );
    assert_eq!(
        of(&|object| object["spec"]["containers"] = json!([{"name": "a", "image": 1}, {"name": "a"}])),
        "failed to create typed patch object (default/web; /v1, Kind=Pod): errors:\n  .spec.containers[name=\"a\"].image: expected string, got 1\n  .spec.containers: duplicate entries for key [name=\"a\"]"
    );
    assert_eq!(of(&|object| object["metadata"]["managedFields"] = json!([])), "metadata.managedFields must be nil");
    assert_eq!(
        of(&|object| object["apiVersion"] = json!("v2")),
        "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1"
    );
    assert_eq!(of(&|object| *object = json!([])), "error decoding YAML: the patch is not an object");
}

#[test]
fn applies_the_status_for_itself() {
    let live = applied(None, &wanted(json!({}), json!({"hostname": "h"})), "a", 1);
    let mut status = wanted(json!({}), json!({}));
    status["status"] = json!({"conditions": [{"type": "Gate", "status": "True"}]});
    let by = Manager { subresource: "status".to_owned(), ..manager("a", 2) };
    let object = apply(pod(), Some(&live), &status, &by, false).unwrap();
    assert_eq!(
        object["metadata"]["managedFields"][1],
        json!({"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:02Z", "subresource": "status", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"Gate\"}": {".": {}, "f:status": {}, "f:type": {}}}}}})
    );
    assert_eq!(object["spec"], live["spec"]);
}

#[test]
fn speaks_of_no_conflict_it_does_not_have() {
    assert_eq!(conflict_message(&[]), "Apply failed with 0 conflicts: ");
}

/// What takes a time that grows with the square of the length holds up the whole server: with such, these took minutes.
#[test]
fn long_lists_take_their_length() {
    let began = std::time::Instant::now();
    let map = Type::of_kind("", "v1", "ConfigMap").unwrap();
    let config = |prefix: &str, value: &str| {
        let data: Map<String, Value> = (0..20_000).map(|number| (format!("k{number}"), json!(value))).collect();
        let finalizers: Vec<String> = (0..20_000).map(|number| format!("{prefix}/{number}")).collect();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "finalizers": finalizers}, "data": data})
    };
    let live = apply(map, None, &config("a.b", "1"), &manager("one", 1), false).unwrap();
    let Err(ApplyError::Conflicts(conflicts)) = apply(map, Some(&live), &config("a.c", "2"), &manager("two", 2), false)
    else {
        panic!("no conflicts")
    };
    assert_eq!(conflicts.len(), 20_000);
    let merged = apply(map, Some(&live), &config("a.c", "1"), &manager("two", 2), false).unwrap();
    assert_eq!(merged["metadata"]["finalizers"].as_array().unwrap().len(), 40_000);
    let mut patched = live;
    let patch = json!({"metadata": {"finalizers": config("a.c", "1")["metadata"]["finalizers"]}});
    crate::strategic(map, &mut patched, &patch).unwrap();
    assert_eq!(patched["metadata"]["finalizers"].as_array().unwrap().len(), 40_000);
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
