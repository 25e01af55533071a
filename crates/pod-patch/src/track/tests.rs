use serde_json::json;

use super::*;

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

fn status(name: &str, second: u32) -> Manager {
    Manager { subresource: "status".to_owned(), ..manager(name, second) }
}

fn tracked(before: Option<&Value>, mut new: Value, by: &Manager) -> Value {
    track(pod(), before, &mut new, by);
    new
}

fn created() -> Value {
    let web = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "1", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "nginx", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "restartPolicy": "Always"},
        "status": {"phase": "Pending", "qosClass": "BestEffort"}
    });
    tracked(None, web, &manager("kubectl-create", 1))
}

fn entries(object: &Value) -> Vec<(String, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            (
                format!("{} {}{} {}", text("manager"), text("operation"), text("subresource"), &text("time")[17..19]),
                entry["fieldsV1"].clone(),
            )
        })
        .collect()
}

/// What a cluster writes for `kubectl create`.
#[test]
fn a_creator_owns_what_was_written() {
    assert_eq!(
        created()["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:01Z", "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}
                    }},
                    "f:restartPolicy": {}
                }
            }
        }])
    );
}

#[test]
fn a_writer_takes_what_it_changes_and_frees_what_it_removes() {
    let before = created();
    let mut new = before.clone();
    new["spec"]["containers"][0]["image"] = json!("nginx:2");
    new["metadata"]["labels"] = json!({"tier": "front"});
    let new = tracked(Some(&before), new, &manager("kubectl-edit", 2));
    let owners = entries(&new);
    assert_eq!(owners[0].0, "kubectl-create Update 01");
    assert_eq!(owners[0].1.pointer("/f:metadata/f:labels"), Some(&json!({})), "{owners:?}");
    assert_eq!(owners[0].1.pointer("/f:spec/f:containers/k:{\"name\":\"web\"}/f:image"), None);
    assert_eq!(
        owners[1],
        (
            "kubectl-edit Update 02".to_owned(),
            json!({"f:metadata": {"f:labels": {"f:tier": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {"f:image": {}}}}})
        )
    );
    // Only removing takes nothing, and moves no time.
    let mut shorter = new.clone();
    shorter["spec"].as_object_mut().unwrap().remove("restartPolicy");
    let shorter = tracked(Some(&new), shorter, &manager("other", 3));
    let owners = entries(&shorter);
    assert_eq!(
        owners.iter().map(|(who, _)| who.as_str()).collect::<Vec<_>>(),
        ["kubectl-create Update 01", "kubectl-edit Update 02"]
    );
    assert_eq!(owners[0].1.pointer("/f:spec/f:restartPolicy"), None);
}

#[test]
fn nothing_changed_changes_nothing() {
    let before = created();
    let mut new = before.clone();
    new["metadata"]["resourceVersion"] = json!("2");
    let after = tracked(Some(&before), new.clone(), &manager("kubectl-edit", 9));
    assert_eq!(after, new);
    // A client that leaves managedFields out takes them from nobody.
    new["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(
        tracked(Some(&before), new, &manager("kubectl-edit", 9))["metadata"]["managedFields"],
        before["metadata"]["managedFields"]
    );
}

#[test]
fn keeps_subresources_apart() {
    let before = created();
    let mut new = before.clone();
    new["status"]["phase"] = json!("Running");
    new["metadata"]["managedFields"] = json!([]);
    new["spec"]["restartPolicy"] = json!("Never");
    let after = tracked(Some(&before), new.clone(), &status("kubelet", 2));
    let owners = entries(&after);
    assert_eq!(owners[1], ("kubelet Updatestatus 02".to_owned(), json!({"f:status": {"f:phase": {}}})));
    assert_eq!(owners[0].1, entries(&before)[0].1, "what is put back before it is stored changes no hands");
    // A write to the object itself says nothing of the status.
    let mut spec = after.clone();
    spec["status"]["phase"] = json!("Failed");
    assert_eq!(entries(&tracked(Some(&after), spec, &manager("kubectl", 3))), owners);
}

#[test]
fn lets_clients_edit_and_reset_the_entries() {
    let before = created();
    for reset in [json!([]), json!([{}])] {
        let mut new = before.clone();
        new["metadata"]["managedFields"] = reset;
        let after = tracked(Some(&before), new, &manager("kubectl-edit", 2));
        assert_eq!(after["metadata"].get("managedFields"), None);
        // From then on nothing is tracked, until the first apply.
        let mut more = after.clone();
        more["spec"]["hostname"] = json!("h");
        assert_eq!(tracked(Some(&after), more, &manager("kubectl-edit", 3))["metadata"].get("managedFields"), None);
    }
    // kubectl moves its client-side entry to server-side apply with a JSON patch.
    let mut new = before.clone();
    new["metadata"]["managedFields"][0]["manager"] = json!("kubectl");
    new["metadata"]["managedFields"][0]["operation"] = json!("Apply");
    let after = tracked(Some(&before), new.clone(), &manager("kubectl", 2));
    assert_eq!(after, new);
    // Nonsense counts as nothing said.
    let mut new = before.clone();
    new["metadata"]["managedFields"][0]["operation"] = json!("Steal");
    assert_eq!(tracked(Some(&before), new, &manager("kubectl", 2)), before);
}

#[test]
fn an_unnamed_writer_is_unknown() {
    let object = tracked(None, json!({"metadata": {"labels": {"a": "b"}}}), &manager("", 1));
    assert_eq!(entries(&object)[0].0, "unknown Update 01");
}

/// What clusters write for other kinds.
#[test]
fn a_creator_of_another_kind_owns_likewise() {
    for (kind, object, expected) in [
        (
            ("", "v1", "ConfigMap"),
            json!({"metadata": {"name": "c"}, "data": {"key": "value"}}),
            json!({"f:data": {".": {}, "f:key": {}}}),
        ),
        (
            ("", "v1", "Service"),
            json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]}}),
            json!({"f:spec": {"f:selector": {}, "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {
                ".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}}}}),
        ),
        (
            ("apps", "v1", "Deployment"),
            json!({"metadata": {"name": "d"}, "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web"}]}}
            }}),
            json!({"f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}}}}}
            }}),
        ),
    ] {
        let ty = Type::of_kind(kind.0, kind.1, kind.2).unwrap();
        let mut new = object;
        track(ty, None, &mut new, &manager("kubectl-create", 1));
        assert_eq!(entries(&new)[0].1, expected, "{kind:?}");
    }
}
