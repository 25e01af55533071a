//! What of a pod may change, and through which door.

use serde_json::{Value, json};

use super::{created, patched, updated};

/// A Burstable pod with an init container, a sidecar and a main.
fn pod() -> Value {
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}});
    let mut pod = created(
        "pods",
        json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
            "activeDeadlineSeconds": 100,
            "initContainers": [
                {"name": "init", "image": "i:1", "resources": resources},
                {"name": "side", "image": "s:1", "restartPolicy": "Always", "resources": resources},
            ],
            "containers": [{"name": "app", "image": "a:1", "resources": resources}],
        }}),
    );
    pod["spec"]["nodeName"] = "box".into();
    pod["status"] = json!({"phase": "Running", "qosClass": "Burstable", "observedGeneration": 1, "conditions": [
        {"type": "Ready", "status": "True", "observedGeneration": 1},
    ]});
    pod
}

/// The pod with one of its containers changed.
fn with(list: &str, index: usize, patch: Value) -> Value {
    let mut pod = pod();
    let container = patched(&pod["spec"][list][index], &patch);
    pod["spec"][list][index] = container;
    pod
}

#[test]
fn images_deadlines_and_more_tolerations_may_change() {
    let taken = [
        with("containers", 0, json!({"image": "a:2"})),
        with("initContainers", 1, json!({"image": "s:2"})),
        patched(&pod(), &json!({"spec": {"activeDeadlineSeconds": 50}})),
        patched(&pod(), &json!({"metadata": {"labels": {"app": "other"}}})),
        // The same amounts in other words, and what admission filled in left out.
        with("containers", 0, json!({"resources": {"requests": {"cpu": "0.1"}}})),
        patched(
            &pod(),
            &json!({"spec": {"nodeName": null, "serviceAccountName": null, "priority": null, "tolerations": null}}),
        ),
    ];
    for new in taken {
        let mut expected = new.clone();
        let stored = updated("pods", &pod(), new, "").unwrap_or_else(|refusal| panic!("{refusal}"));
        expected["spec"]["tolerations"] = stored["spec"]["tolerations"].clone();
        assert_eq!(stored["spec"]["containers"][0]["image"], expected["spec"]["containers"][0]["image"]);
        assert_eq!(stored["spec"]["nodeName"], "box");
    }
    let mut tolerant = pod();
    tolerant["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "x", "operator": "Exists"}));
    assert!(updated("pods", &pod(), tolerant, "").is_ok());
}

#[test]
fn nothing_else_may() {
    let refusal = updated("pods", &pod(), patched(&pod(), &json!({"spec": {"hostname": "h"}})), "").unwrap_err();
    assert_eq!(
        refusal,
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
         `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
         tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n\
         + spec.hostname: \"h\"\n"
    );
    let table = [
        (with("containers", 0, json!({"image": ""})), "spec.containers[0].image: Required value"),
        (with("containers", 0, json!({"args": ["x"]})), "+ spec.containers[0].args: [\"x\"]"),
        (
            with("containers", 0, json!({"resources": {"requests": {"cpu": "200m"}}})),
            "- spec.containers[0].resources.requests.cpu: \"100m\"\n+ spec.containers[0].resources.requests.cpu: \"200m\"",
        ),
        (
            patched(
                &pod(),
                &json!({"spec": {"containers": [{"name": "a", "image": "b"}, {"name": "b", "image": "b"}]}}),
            ),
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
        (
            patched(&pod(), &json!({"spec": {"activeDeadlineSeconds": 101}})),
            "spec.activeDeadlineSeconds: Invalid value: 101: must be less than or equal to previous value",
        ),
        (
            patched(&pod(), &json!({"spec": {"activeDeadlineSeconds": null}})),
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
        ),
        (
            patched(&pod(), &json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "e"}]}})),
            "+ spec.ephemeralContainers: [{",
        ),
    ];
    for (new, expected) in table {
        let refusal = updated("pods", &pod(), new, "").unwrap_err();
        assert!(refusal.contains(expected), "{refusal}\n--- expected\n{expected}");
    }
    let mut old = pod();
    old["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "x", "operator": "Exists"}));
    let refusal = updated("pods", &old, pod(), "").unwrap_err();
    assert!(refusal.contains("existing toleration can not be modified except its tolerationSeconds"), "{refusal}");
}

#[test]
fn a_negative_grace_may_become_one() {
    let old = patched(&pod(), &json!({"spec": {"terminationGracePeriodSeconds": -1}}));
    let new = |seconds: i64| patched(&old, &json!({"spec": {"terminationGracePeriodSeconds": seconds}}));
    assert!(updated("pods", &old, new(1), "").is_ok());
    assert!(updated("pods", &old, new(2), "").is_err());
}

#[test]
fn a_resize_changes_cpu_and_memory_of_what_keeps_running() {
    let resources = |list: &str| json!({"resources": {list: {"cpu": "200m", "memory": "100Mi"}}});
    for new in [with("containers", 0, resources("requests")), with("initContainers", 1, resources("requests"))] {
        let mut meddled = new.clone();
        meddled["spec"]["hostname"] = "ignored".into();
        meddled["metadata"]["labels"] = json!({"app": "ignored"});
        meddled["status"]["phase"] = "Failed".into();
        let stored = updated("pods", &pod(), meddled, "resize").unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(stored, new);
    }
    let storage = json!({"resources": {"requests": {"ephemeral-storage": "1Gi"}}});
    let table = [
        (
            with("initContainers", 0, resources("requests")),
            "spec: Forbidden: resources for non-sidecar init containers are immutable",
        ),
        (with("containers", 0, storage.clone()), "spec: Forbidden: only cpu and memory resources are mutable"),
        (
            with("initContainers", 1, storage),
            "spec: Forbidden: only cpu and memory resources for sidecar containers are mutable",
        ),
        (
            with("containers", 0, json!({"resources": {"requests": {"cpu": null}}})),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            with("containers", 0, json!({"resources": {"limits": {"memory": null}}})),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            with(
                "containers",
                0,
                json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}),
            ),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            with("containers", 0, json!({"resources": {"requests": {"memory": "256Mi"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"256Mi\": must be less than or equal to memory limit of 128Mi",
        ),
        (with("containers", 0, json!({"name": "x"})), "containers may not be renamed or reordered on resize"),
    ];
    for (new, expected) in table {
        let refusal = updated("pods", &pod(), new, "resize").unwrap_err();
        assert!(refusal.contains(expected), "{refusal}\n--- expected\n{expected}");
    }
    let guaranteed =
        json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}});
    let mut old = created(
        "pods",
        json!({"metadata": {"name": "g"}, "spec": {"containers": [
            {"name": "a", "image": "a:1", "resources": guaranteed["resources"]},
        ]}}),
    );
    let mut new = old.clone();
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "500m".into();
    let refusal = updated("pods", &old, new.clone(), "resize").unwrap_err();
    assert_eq!(refusal, "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing");
    // Smaller memory limits are tried since 1.34.
    new = old.clone();
    for list in ["limits", "requests"] {
        new["spec"]["containers"][0]["resources"][list]["memory"] = "512Mi".into();
    }
    old = updated("pods", &old, new, "resize").unwrap();
    assert_eq!(old["spec"]["containers"][0]["resources"]["limits"]["memory"], "512Mi");
}

#[test]
fn ephemeral_containers_are_only_added() {
    let add = |container: Value| patched(&pod(), &json!({"spec": {"ephemeralContainers": [container]}}));
    let debugger =
        json!({"name": "debug", "image": "busybox", "stdin": true, "tty": true, "targetContainerName": "app"});
    let mut new = add(debugger.clone());
    new["spec"]["containers"][0]["image"] = "ignored".into();
    let old = updated("pods", &pod(), new, "ephemeralcontainers").unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(old["spec"]["containers"], pod()["spec"]["containers"]);
    let stored = &old["spec"]["ephemeralContainers"][0];
    assert_eq!((&stored["imagePullPolicy"], &stored["resources"]), (&json!("Always"), &json!({})));
    assert_eq!(stored["targetContainerName"], "app");

    let table = [
        (patched(&debugger, &json!({"targetContainerName": "no"})), "[0].targetContainerName: Not found: \"no\""),
        (patched(&debugger, &json!({"name": "app"})), "[0].name: Duplicate value: \"app\""),
        (
            patched(&debugger, &json!({"ports": [{"containerPort": 1}], "lifecycle": {}})),
            "[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            patched(&debugger, &json!({"volumeDevices": [{"name": "x", "devicePath": "/x"}]})),
            "[0].volumeDevices: Unsupported by outrigger",
        ),
    ];
    for (container, expected) in table {
        let refusal = updated("pods", &pod(), add(container), "ephemeralcontainers").unwrap_err();
        assert!(refusal.contains(expected), "{refusal}\n--- expected\n{expected}");
    }
    let refusal = updated("pods", &old, pod(), "ephemeralcontainers").unwrap_err();
    assert!(refusal.contains("existing ephemeral containers \"debug\" may not be removed"), "{refusal}");
    let mut changed = old.clone();
    changed["spec"]["ephemeralContainers"][0]["image"] = "alpine".into();
    let refusal = updated("pods", &old, changed, "ephemeralcontainers").unwrap_err();
    assert!(refusal.contains("existing ephemeral containers \"debug\" may not be changed\n- spec"), "{refusal}");
    // An ordinary update of a pod that has one.
    assert!(updated("pods", &old, patched(&old, &json!({"metadata": {"labels": {"a": "b"}}})), "").is_ok());
}

#[test]
fn a_status_changes_nothing_but_itself() {
    let mut new = pod();
    new["spec"]["hostname"] = "ignored".into();
    new["metadata"]["labels"]["seen"] = "yes".into();
    new["metadata"]["ownerReferences"] = json!([{"kind": "x"}]);
    new["status"] = json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": "False"}, {"type": "example.com/gate", "status": "True"},
    ]});
    let stored = updated("pods", &pod(), new, "status").unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(stored["spec"], pod()["spec"]);
    assert_eq!(stored["metadata"]["labels"], json!({"app": "web", "seen": "yes"}));
    assert_eq!(stored["metadata"].get("ownerReferences"), None);
    assert_eq!(
        stored["status"],
        json!({"phase": "Running", "qosClass": "Burstable", "observedGeneration": 1, "conditions": [
            {"type": "Ready", "status": "False", "observedGeneration": 1},
            {"type": "example.com/gate", "status": "True", "observedGeneration": null},
        ]})
        .as_object()
        .map(|status| {
            let mut status = status.clone();
            status["conditions"][1].as_object_mut().unwrap().remove("observedGeneration");
            Value::Object(status)
        })
        .unwrap()
    );
    let table = [
        (
            json!({"status": {"qosClass": "BestEffort"}}),
            "status.qosClass: Invalid value: \"BestEffort\": field is immutable",
        ),
        (
            json!({"status": {"conditions": [{"type": "a b", "status": "True"}]}}),
            "metadata.conditions[0].Type: Invalid value",
        ),
    ];
    for (patch, expected) in table {
        let refusal = updated("pods", &pod(), patched(&pod(), &patch), "status").unwrap_err();
        assert!(refusal.starts_with(expected), "{refusal}");
    }
    let ended = |state: Value| {
        let patch = json!({"spec": {"restartPolicy": "Never"}, "status": {"containerStatuses": [{"name": "app", "state": state}]}});
        patched(&pod(), &patch)
    };
    let refusal =
        updated("pods", &ended(json!({"terminated": {"exitCode": 1}})), ended(json!({"running": {}})), "status");
    assert_eq!(
        refusal.unwrap_err(),
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    );
}
