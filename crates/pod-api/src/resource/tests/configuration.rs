//! ConfigMaps, Secrets, namespaces, events and the small kinds.

use serde_json::{Value, json};

use super::{created, patched, plural, refused, row, updated};
use crate::resource::Part;

#[test]
fn secrets_fold_their_text_into_data() {
    let stored = created(
        "secrets",
        json!({"metadata": {"name": "s"}, "stringData": {"a": "new"}, "data": {"a": "b2xk", "b": "AA=="}}),
    );
    assert_eq!(stored["data"], json!({"a": "bmV3", "b": "AA=="}));
    assert_eq!((stored.get("stringData"), &stored["type"]), (None, &json!("Opaque")));
    assert_eq!(row("secrets", &stored), "s | Opaque | 2 | <unknown>");
    let secret = plural("secrets").1.strategy;
    assert_eq!(secret.field(&stored, "type").as_deref(), Some("Opaque"));
    let tls = patched(&stored, &json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}));
    assert_eq!(
        updated("secrets", &stored, tls, "").unwrap_err(),
        "type: Invalid value: \"kubernetes.io/tls\": field is immutable"
    );
    let message = refused("secrets", json!({"metadata": {"name": "s"}, "data": {"a": "hunter2!"}}));
    assert!(message.contains("data.a") && !message.contains("hunter2"), "{message}");
}

#[test]
fn what_is_immutable_stays() {
    for (kind, data) in [("configmaps", json!({"a": "1"})), ("secrets", json!({"a": "MQ=="}))] {
        let open = created(kind, json!({"metadata": {"name": "c"}, "data": data}));
        let closed = updated(kind, &open, patched(&open, &json!({"immutable": true})), "").unwrap();
        let labelled = patched(&closed, &json!({"metadata": {"labels": {"a": "b"}}}));
        assert!(updated(kind, &closed, labelled, "").is_ok());
        let refusal = updated(kind, &closed, patched(&closed, &json!({"data": {"a": "Mg=="}})), "").unwrap_err();
        assert_eq!(refusal, "data: Forbidden: field is immutable when `immutable` is set");
        let refusal = updated(kind, &closed, patched(&closed, &json!({"immutable": null})), "").unwrap_err();
        assert_eq!(refusal, "immutable: Forbidden: field is immutable when `immutable` is set");
    }
}

#[test]
fn names_and_owners_are_checked() {
    let table = [
        (json!({"name": "A"}), "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of"),
        (json!({}), "metadata.name: Required value: name or generateName is required"),
        (
            json!({"name": "a", "labels": {"x y": ""}}),
            "metadata.labels: Invalid value: \"x y\": name part must consist",
        ),
        (
            json!({"name": "a", "annotations": {"k": "x".repeat(256 << 10)}}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (json!({"name": "a", "finalizers": ["x y"]}), "metadata.finalizers[0]: Invalid value: \"x y\""),
        (
            json!({"name": "a", "finalizers": ["own"]}),
            "metadata.finalizers[0]: Invalid value: \"own\": name is neither a standard finalizer name nor is it fully qualified",
        ),
        (
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]}),
            "metadata.ownerReferences[0].uid: Invalid value: \"\": uid must not be empty",
        ),
    ];
    for (metadata, expected) in table {
        for kind in ["configmaps", "serviceaccounts"] {
            let message = refused(kind, json!({"metadata": metadata}));
            assert!(message.contains(expected), "{kind}: {message}");
        }
    }
}

#[test]
fn a_namespace_waits_until_it_is_empty() {
    let stored = created("namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "x"}}));
    assert_eq!(
        stored,
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        })
    );
    let strategy = plural("namespaces").1.strategy;
    assert_eq!(strategy.graceful_deletion(&stored, None), Some(0));
    let mut going = stored.clone();
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    strategy.prepare_deletion(&mut going);
    assert_eq!(row("namespaces", &going), "a | Terminating | <unknown>");
    assert!(!strategy.is_removable(&going));
    let emptied = patched(&going, &json!({"spec": {"finalizers": []}}));
    let mut through_object = emptied.clone();
    strategy.prepare_update(&mut through_object, &going, Part::Object);
    assert_eq!(through_object["spec"], stored["spec"], "only `finalize` takes finalizers away");
    assert!(strategy.is_removable(&updated("namespaces", &going, emptied, "finalize").unwrap()));
    let refusal =
        updated("namespaces", &stored, patched(&stored, &json!({"status": {"phase": "Terminating"}})), "status");
    assert!(refusal.unwrap_err().contains("may only be 'Active' if `deletionTimestamp` is empty"));
    let message = refused("namespaces", json!({"metadata": {"name": "a.b"}}));
    assert!(message.contains("a lowercase RFC 1123 label must consist of"), "{message}");
}

/// An event as the core group has it.
fn event() -> Value {
    json!({
        "metadata": {"name": "web.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web", "fieldPath": "spec.containers{app}"},
        "reason": "Started", "message": "Container started\n", "type": "Normal",
        "source": {"component": "kubelet", "host": "box"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z", "count": 3,
    })
}

#[test]
fn events_are_one_thing_in_two_groups() {
    let stored = created("events", event());
    let shown =
        "60s | Normal | Started | pod/web | spec.containers{app} | kubelet, box | Container started | 10m | 3 | web.1";
    assert_eq!(row("events", &stored), shown);
    let other = plural("events.k8s.io/events").1.strategy;
    let mut view = stored.clone();
    other.from_stored(&mut view);
    assert_eq!((&view["regarding"]["name"], &view["note"]), (&json!("web"), &json!("Container started\n")));
    assert_eq!((&view["deprecatedCount"], &view["apiVersion"]), (&json!(3), &json!("events.k8s.io/v1")));
    assert_eq!(row("events.k8s.io/events", &view), shown);
    assert_eq!(other.field(&view, "regarding.name").as_deref(), Some("web"));
    let mut back = view.clone();
    other.to_stored(&mut back);
    assert_eq!(back, stored);

    let series = patched(&stored, &json!({"series": {"count": 9, "lastObservedTime": "2026-01-01T00:09:30.000000Z"}}));
    assert!(row("events", &series).starts_with("30s | Normal") && row("events", &series).ends_with("| 9 | web.1"));
    let strategy = plural("events").1.strategy;
    let fields = [("involvedObject.name", "web"), ("reason", "Started"), ("source", "kubelet"), ("type", "Normal")];
    for (label, value) in fields {
        assert_eq!(strategy.field(&stored, label).as_deref(), Some(value));
    }
    assert_eq!(strategy.field(&stored, "message"), None);
}

#[test]
fn new_events_must_say_who_and_what() {
    let elsewhere = patched(&event(), &json!({"metadata": {"namespace": "b"}}));
    assert!(
        refused("events", elsewhere)
            .contains("involvedObject.namespace: Invalid value: \"default\": does not match event.namespace")
    );
    let new = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:09:00.000000Z", "type": "Normal", "reason": "R",
        "action": "A", "reportingController": "example.com/c", "reportingInstance": "c-1", "note": "n",
        "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
    });
    let stored = created("events.k8s.io/events", new.clone());
    assert_eq!(
        row("events.k8s.io/events", &stored),
        "60s | Normal | R | pod/web |  | example.com/c, c-1 | n | 60s | 1 | e"
    );
    let table = [
        (json!({"eventTime": null}), "eventTime: Required value"),
        (json!({"reportingController": null}), "reportingController: Required value"),
        (json!({"type": "Odd"}), "type: Invalid value: \"\": has invalid value: Odd"),
        (json!({"deprecatedCount": 1}), "deprecatedCount: Invalid value: 1: needs to be unset"),
        (json!({"note": "x".repeat(1025)}), "note: Invalid value: \"\": can have at most 1024 characters"),
    ];
    for (patch, expected) in table {
        let message = refused("events.k8s.io/events", patched(&new, &patch));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn nodes_leases_templates_and_controllers() {
    let node = json!({
        "metadata": {"name": "box", "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Linux", "kernelVersion": "6.1"},
        },
    });
    assert_eq!(
        row("nodes", &node),
        "box | Ready,SchedulingDisabled | control-plane,worker | <unknown> | v1.35.0 | 10.0.0.1 | <none> | Linux | 6.1 | <unknown>"
    );
    assert!(refused("nodes", node.clone()).starts_with("nodes \"box\" is forbidden: there is one node"));
    assert!(updated("nodes", &node, patched(&node, &json!({"spec": {"unschedulable": null}})), "").is_ok());
    let refusal = updated("nodes", &node, patched(&node, &json!({"spec": {"podCIDR": "10.0.0.0/8"}})), "");
    assert_eq!(refusal.unwrap_err(), ": Forbidden: node updates may only change labels, taints, or capacity");

    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 0}});
    assert!(refused("coordination.k8s.io/leases", lease.clone()).ends_with("Invalid value: 0: must be greater than 0"));
    let lease = created("coordination.k8s.io/leases", patched(&lease, &json!({"spec": {"leaseDurationSeconds": 5}})));
    assert_eq!(row("coordination.k8s.io/leases", &lease), "l | me | <unknown>");

    let template = json!({"metadata": {"name": "t"}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }});
    let stored = created("podtemplates", template.clone());
    assert_eq!(stored["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(row("podtemplates", &stored), "t | c | i | a=b");
    let bad = patched(&template, &json!({"template": {"spec": {"restartPolicy": "Sometimes"}}}));
    assert!(refused("podtemplates", bad).contains("template.spec.restartPolicy: Unsupported value: \"Sometimes\""));

    let controller = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 2, "selector": {"a": "b"}, "template": template["template"]}});
    assert!(
        refused("replicationcontrollers", controller.clone()).contains("nothing here keeps replicas of a pod running")
    );
    assert_eq!(row("replicationcontrollers", &controller), "rc | 2 | 0 | 0 | <unknown> | c | i | a=b");
}
