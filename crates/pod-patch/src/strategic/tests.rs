use serde_json::json;

use super::*;

fn patched(kind: (&str, &str, &str), target: Value, patch: Value) -> Result<Value, PatchError> {
    let ty = Type::of_kind(kind.0, kind.1, kind.2).unwrap();
    let mut result = target.clone();
    let outcome = strategic(ty, &mut result, &patch);
    if outcome.is_err() {
        assert_eq!(result, target, "a patch that fails changes nothing");
    }
    outcome.map(|()| result)
}

/// A pod's spec, patched.
fn pod(spec: Value, patch: Value) -> Result<Value, PatchError> {
    let mut pod = patched(("", "v1", "Pod"), json!({"spec": spec}), json!({"spec": patch}))?;
    Ok(pod["spec"].take())
}

fn pods(table: Vec<(&str, Value, Value, Value)>) {
    for (name, spec, patch, expected) in table {
        assert_eq!(pod(spec, patch), Ok(expected), "{name}");
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn merges_lists_by_key() {
    pods(vec![
        (
            "an item with the key is merged, another stands where the patch has it",
            json!({"containers": [{"name": "a", "image": "x", "tty": true}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "y"}, {"name": "c", "stdin": null}]}),
            json!({"containers": [{"name": "a", "image": "y", "tty": true}, {"name": "c"}, {"name": "b"}]}),
        ),
        (
            "lists within items merge as well, by keys of their own",
            json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80, "name": "http"}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
        ),
        (
            "a list without strategy is replaced",
            json!({"containers": [{"name": "a", "command": ["x", "y"]}], "tolerations": [{"key": "a"}]}),
            json!({"containers": [{"name": "a", "command": ["z"]}], "tolerations": [{"key": "b"}]}),
            json!({"containers": [{"name": "a", "command": ["z"]}], "tolerations": [{"key": "b"}]}),
        ),
        (
            "null removes, also where there is nothing",
            json!({"hostname": "h", "containers": [{"name": "a", "image": "x"}]}),
            json!({"hostname": null, "nodeName": null, "containers": [{"name": "a", "image": null}]}),
            json!({"containers": [{"name": "a"}]}),
        ),
        (
            "maps merge, and a new one comes without its nulls",
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"a": null, "c": "3"}, "securityContext": {"runAsUser": 1, "runAsGroup": null}}),
            json!({"nodeSelector": {"b": "2", "c": "3"}, "securityContext": {"runAsUser": 1}}),
        ),
        (
            "a value of another kind replaces",
            json!({"containers": {"name": "a"}, "hostname": {}}),
            json!({"containers": [{"name": "a"}], "hostname": "h"}),
            json!({"containers": [{"name": "a"}], "hostname": "h"}),
        ),
        (
            "unknown fields pass",
            json!({"containers": [{"name": "a", "what": {"b": 1}}]}),
            json!({"what": [1], "containers": [{"name": "a", "what": {"c": 2}}]}),
            json!({"what": [1], "containers": [{"name": "a", "what": {"b": 1, "c": 2}}]}),
        ),
    ]);
}

#[test]
fn obeys_directives() {
    pods(vec![
        (
            "delete an item",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "z", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "replace a list",
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "a"}]}),
            json!({"containers": [{"name": "a"}]}),
        ),
        (
            "replace an object",
            json!({"securityContext": {"runAsUser": 1, "runAsGroup": 2}}),
            json!({"securityContext": {"$patch": "replace", "fsGroup": 3, "runAsUser": null}}),
            json!({"securityContext": {"fsGroup": 3}}),
        ),
        (
            "empty an object; where there is none, none comes",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "delete"}, "dnsConfig": {"$patch": "delete"}}),
            json!({"securityContext": {}}),
        ),
        (
            "directives where there is nothing leave no trace",
            json!({}),
            json!({"containers": [{"$patch": "replace"}, {"name": "a", "$setElementOrder/ports": [], "resources": {"$retainKeys": ["limits"], "limits": {}}},
                {"name": "b", "$patch": "delete"}]}),
            json!({"containers": [{"name": "a", "resources": {"limits": {}}}]}),
        ),
        (
            "retain keys: the kind of a volume changes",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"$setElementOrder/volumes": [{"name": "v"}], "volumes": [{"$retainKeys": ["hostPath", "name"], "name": "v", "hostPath": {"path": "/x"}, "emptyDir": null}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
        ),
    ]);
}

#[test]
fn merges_lists_of_scalars_as_sets() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let metadata = |patch: Value| json!({"metadata": patch});
    for (target, patch, expected) in [
        (json!(["a/1", "a/2"]), json!({"finalizers": ["a/3", "a/1"]}), json!(["a/3", "a/1", "a/2"])),
        (
            json!(["a/1", "a/2", "a/3"]),
            json!({"$deleteFromPrimitiveList/finalizers": ["a/2", "a/9"]}),
            json!(["a/1", "a/3"]),
        ),
        (
            json!(["a/1", "a/2"]),
            json!({"$deleteFromPrimitiveList/finalizers": ["a/1"], "$setElementOrder/finalizers": ["a/0", "a/2"], "finalizers": ["a/0"]}),
            json!(["a/0", "a/2"]),
        ),
        (
            json!(["a/1", "a/2", "a/3"]),
            json!({"$setElementOrder/finalizers": ["a/3", "a/1"]}),
            json!(["a/2", "a/3", "a/1"]),
        ),
    ] {
        assert_eq!(
            patched(("", "v1", "Pod"), finalizers(target), metadata(patch.clone())),
            Ok(finalizers(expected)),
            "{patch}"
        );
    }
    let untouched = json!({"metadata": {}});
    let patch = metadata(json!({"$deleteFromPrimitiveList/finalizers": ["a/1"]}));
    assert_eq!(patched(("", "v1", "Pod"), untouched.clone(), patch), Ok(untouched));
}

/// Live items, the order asked for, items of the patch: the order that comes out.
#[test]
fn keeps_what_only_the_server_has_in_its_place() {
    for (live, order, change, expected) in [
        ("a b c", "c b a", "", "c b a"),
        ("a b c", "a c", "", "a b c"),
        ("a x b y", "b a", "", "x b a y"),
        ("a b", "a n b", "n", "a n b"),
        ("s a b", "b n a", "n", "s b n a"),
        ("a b s", "n a b", "n", "n a b s"),
        ("a s b", "a b n", "n b", ""),
        ("", "b a", "b a", "b a"),
        ("a s b t c", "c a", "c", "s b t c a"),
        ("a b", "", "b", "a b"),
    ] {
        let list = |names: &str, keep: bool| -> Vec<Value> {
            let item = |name: &str| if keep { json!({"name": name, "image": "i"}) } else { json!({"name": name}) };
            names.split_whitespace().map(item).collect()
        };
        let mut patch = json!({"$setElementOrder/containers": list(order, false)});
        if !change.is_empty() {
            patch["containers"] = Value::Array(list(change, true));
        }
        let spec = if live.is_empty() { json!({}) } else { json!({"containers": list(live, true)}) };
        match pod(spec, patch) {
            Ok(spec) => {
                assert_eq!(names(&spec["containers"]).join(" "), expected, "{live} by {order} with {change}");
            }
            Err(error) => {
                assert_eq!(expected, "", "{error}");
                assert!(error.to_string().starts_with("The order in patch list:\n[map["), "{error}");
            }
        }
    }
    // Without an order, the order of the patch holds for its own items.
    let spec = pod(
        json!({"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]}),
        json!({"containers": [{"name": "b", "tty": true}, {"name": "a", "tty": true}]}),
    );
    assert_eq!(names(&spec.unwrap()["containers"]), ["s", "b", "a"]);
}

#[test]
fn refuses_with_the_words_of_the_api_server() {
    for (patch, expected) in [
        (json!({"containers": [{"image": "x"}]}), "map: map[image:x] does not contain declared merge key: name"),
        (
            json!({"containers": [{"$patch": "delete"}]}),
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            json!({"containers": [{"$patch": "merge", "name": "a"}]}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"containers": [{"$patch": "purge", "name": "a"}]}),
            "unknown patch type: purge in map: map[$patch:purge name:a]",
        ),
        (json!({"securityContext": {"$patch": "merge"}}), "unknown patch type: merge in map: map[$patch:merge]"),
        (json!({"dnsConfig": {"$patch": 1}}), "unknown patch type: 1 in map: map[$patch:1]"),
        (json!({"containers": ["a"]}), "list element types are not identical: map[name:a] and a"),
        (json!({"$setElementOrder/containers": "a"}), "invalid patch format of setElementOrder list"),
        (json!({"$setElementOrder": []}), "invalid patch format of setElementOrder list"),
        (
            json!({"$setElementOrder/containers": [{"image": "x"}], "containers": [{"name": "a"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (json!({"$deleteFromPrimitiveList/x": "a"}), "invalid patch format of primitive list"),
        (json!({"$deleteFromPrimitiveList": ["a"]}), "invalid patch format of primitive list"),
        (json!({"securityContext": {"$retainKeys": ["a"], "runAsUser": 1}}), "invalid patch format of retainKeys"),
        (json!({"securityContext": {"$retainKeys": "a"}}), "invalid patch format of retainKeys"),
    ] {
        let spec = json!({"containers": [{"name": "a"}], "securityContext": {"runAsUser": 1}});
        assert_eq!(pod(spec, patch.clone()), Err(PatchError::Malformed(expected.to_owned())), "{patch}");
    }
    let error = patched(("", "v1", "Pod"), json!({}), json!([])).unwrap_err();
    assert_eq!(error.to_string(), "json: cannot unmarshal array into Go value of type map[string]interface {}");
}

/// Bodies that `kubectl` 1.32 sends.
#[test]
fn takes_what_kubectl_sends() {
    let live = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "old", "other": "1"}, "labels": {"app": "web"}},
        "spec": {
            "containers": [
                {"name": "web", "image": "nginx:1.25", "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                 "env": [{"name": "OLD", "value": "1"}], "volumeMounts": [{"mountPath": "/token", "name": "token", "readOnly": true}]},
                {"name": "injected", "image": "proxy"}
            ],
            "volumes": [{"name": "token", "emptyDir": {}}]
        }
    });
    // apply: an image changes, an env is removed, another comes.
    let apply = json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
        "spec": {
            "$setElementOrder/containers": [{"name": "web"}],
            "containers": [{
                "$setElementOrder/env": [{"name": "NEW"}],
                "env": [{"name": "NEW", "value": "2"}, {"$patch": "delete", "name": "OLD"}],
                "image": "nginx:1.26", "name": "web"
            }]
        }
    });
    let result = patched(("", "v1", "Pod"), live.clone(), apply).unwrap();
    let web = &result["spec"]["containers"][0];
    assert_eq!(web["image"], "nginx:1.26");
    assert_eq!(web["env"], json!([{"name": "NEW", "value": "2"}]));
    assert_eq!(web["volumeMounts"], live["spec"]["containers"][0]["volumeMounts"]);
    assert_eq!(result["spec"]["containers"][1], live["spec"]["containers"][1]);
    assert_eq!(
        result["metadata"]["annotations"],
        json!({"kubectl.kubernetes.io/last-applied-configuration": "new", "other": "1"})
    );

    // set image, debug, label --overwrite through a strategic patch, and an edit that adds a toleration
    let set = json!({"spec": {"$setElementOrder/containers": [{"name": "web"}, {"name": "injected"}], "containers": [{"image": "nginx:1.27", "name": "web"}]}});
    let result = patched(("", "v1", "Pod"), live.clone(), set).unwrap();
    assert_eq!(result["spec"]["containers"][0]["image"], "nginx:1.27");
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debugger-x", "image": "busybox", "stdin": true, "tty": true, "targetContainerName": "web", "resources": {}}]}});
    let result = patched(("", "v1", "Pod"), live.clone(), debug.clone()).unwrap();
    assert_eq!(result["spec"]["ephemeralContainers"], debug["spec"]["ephemeralContainers"]);
    let resize = json!({"spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": "100m"}}}]}});
    let result = patched(("", "v1", "Pod"), live.clone(), resize).unwrap();
    assert_eq!(result["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "100m"}}));
    let condition = json!({"status": {"conditions": [{"type": "example.com/gate", "status": "True"}]}});
    let result = patched(("", "v1", "Pod"), live, condition).unwrap();
    assert_eq!(result["status"]["conditions"], json!([{"type": "example.com/gate", "status": "True"}]));
}

#[test]
fn empties_its_result_of_nothing_else() {
    let deep = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
    assert!(patched(("", "v1", "Pod"), json!({}), deep).is_err());
    let data = patched(("", "v1", "ConfigMap"), json!({"data": {"a": "1"}}), json!({"data": {"b": ""}})).unwrap();
    assert_eq!(data, json!({"data": {"a": "1", "b": ""}}));
}
