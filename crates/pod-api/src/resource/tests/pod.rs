//! Pods at their creation and in tables.

use serde_json::{Value, json};

use super::{World, created, plural, refused, row};

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": spec, "status": {"phase": "Running"}})
}

fn plain() -> Value {
    pod(json!({"containers": [{"name": "app", "image": "nginx", "env": [], "resources": {"limits": {"cpu": 1}}}]}))
}

#[test]
fn a_new_pod_is_stored_as_upstream_stores_it() {
    let stored = created("pods", plain());
    assert_eq!(
        stored,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "containers": [{
                    "name": "app", "image": "nginx", "imagePullPolicy": "Always",
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "serviceAccount": "default", "serviceAccountName": "default",
                "priority": 0, "preemptionPolicy": "PreemptLowerPriority",
                "tolerations": [
                    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                ],
            },
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        })
    );
    let mut again = stored.clone();
    plural("pods").1.strategy.default(&mut again);
    assert_eq!(again, stored, "defaulting twice changes nothing");
}

#[test]
fn admission_refuses_in_upstreams_words() {
    let with = |spec: Value| {
        let mut pod = plain();
        for (name, value) in spec.as_object().unwrap() {
            pod["spec"][name] = value.clone();
        }
        pod
    };
    assert_eq!(
        refused("pods", with(json!({"serviceAccountName": "robot"}))),
        "pods \"web\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
    let robot = json!({"metadata": {"name": "robot", "namespace": "default"}});
    let world = World::with(&[("serviceaccounts", robot)]);
    let stored = world.create("pods", with(json!({"serviceAccountName": "robot"}))).unwrap();
    assert_eq!(stored["spec"]["serviceAccount"], "robot");
    assert_eq!(
        refused("pods", with(json!({"priorityClassName": "gold"}))),
        "pods \"web\" is forbidden: no PriorityClass with name gold was found"
    );
    let stored = created("pods", with(json!({"priorityClassName": "system-node-critical"})));
    assert_eq!(stored["spec"]["priority"], 2_000_001_000);
    assert!(refused("pods", with(json!({"priority": 5}))).contains("the integer value of priority (5) must not be"));
    let tolerant = created("pods", with(json!({"tolerations": [{"operator": "Exists"}]})));
    assert_eq!(tolerant["spec"]["tolerations"], json!([{"operator": "Exists"}]));
}

#[test]
fn what_the_engine_cannot_do_is_said_once() {
    let hungry = pod(json!({"containers": [
        {"name": "app", "image": "x:1", "stdin": true, "tty": true, "resources": {"limits": {"example.com/gpu": 1}}},
    ]}));
    let failure = World::default().create("pods", hungry).unwrap_err();
    assert_eq!(
        failure.message,
        "Pod \"web\" is invalid: spec.containers[0].resources.limits[example.com/gpu]: Unsupported by outrigger: there are \
         no device plugins; give the container a device with a hostPath volume"
    );
    assert_eq!((failure.code, &failure.details["causes"][0]["reason"]), (422, &json!("FieldValueNotSupported")));
    let message = refused("pods", pod(json!({"containers": [{"name": "A", "image": ""}], "hostUsers": false})));
    assert!(message.contains("spec.containers[0].image: Required value"), "{message}");
    assert!(message.contains("spec.hostUsers: Unsupported by outrigger"), "{message}");
}

#[test]
fn types_that_do_not_fit_are_refused_and_not_lost() {
    let message = refused("pods", pod(json!({"containers": [{"name": "a", "image": 7}]})));
    assert!(message.contains("spec.containers[0].image: Invalid type: expected string, got integer 7"), "{message}");
}

#[test]
fn grace_follows_the_spec_the_wish_and_whether_anything_runs() {
    let strategy = plural("pods").1.strategy;
    let table = [
        (Some(30), Some("n"), "Running", None, Some(30)),
        (Some(30), Some("n"), "Running", Some(5), Some(5)),
        (Some(30), Some("n"), "Running", Some(0), None),
        (Some(30), Some("n"), "Running", Some(-7), Some(1)),
        (Some(-1), Some("n"), "Pending", None, Some(1)),
        (Some(0), Some("n"), "Running", None, None),
        (Some(30), None, "Pending", None, None),
        (Some(30), Some("n"), "Succeeded", None, None),
        (Some(30), Some("n"), "Failed", Some(9), None),
    ];
    for (own, node, phase, asked, expected) in table {
        let pod = json!({"spec": {"terminationGracePeriodSeconds": own, "nodeName": node}, "status": {"phase": phase}});
        assert_eq!(strategy.graceful_deletion(&pod, asked), expected, "{pod} {asked:?}");
    }
}

#[test]
fn rows_and_fields() {
    let mut pod = created("pods", plain());
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    pod["spec"]["nodeName"] = "box".into();
    assert_eq!(row("pods", &pod), "web | 0/1 | Pending | 0 | 10m | <none> | box | <none> | <none>");
    let strategy = plural("pods").1.strategy;
    assert_eq!(strategy.row_conditions(&pod), None);
    pod["status"] = json!({"phase": "Succeeded", "podIPs": [{"ip": "10.1.0.2"}]});
    let conditions = strategy.row_conditions(&pod).unwrap();
    assert_eq!(conditions[0]["message"], "The pod has completed successfully.");
    let fields = [
        ("spec.nodeName", Some("box")),
        ("status.phase", Some("Succeeded")),
        ("status.podIP", Some("10.1.0.2")),
        ("spec.hostNetwork", Some("false")),
        ("spec.restartPolicy", Some("Always")),
        ("status.nominatedNodeName", Some("")),
        ("spec.hostname", None),
    ];
    for (label, value) in fields {
        assert_eq!(strategy.field(&pod, label).as_deref(), value, "{label}");
    }
}

/// Not a test: what a table of a hundred pods costs. `cargo test -p pod-api --release --lib -- --ignored --nocapture costs`
#[test]
#[ignore = "a measurement"]
fn costs() {
    let mut pod = created("pods", plain());
    let status = json!({"name": "app", "ready": true, "started": true, "restartCount": 1, "image": "nginx", "imageID": "x",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "containerID": "outrigger://x"});
    pod["status"] = json!({
        "phase": "Running", "qosClass": "Burstable", "containerStatuses": [status, status], "initContainerStatuses": [status],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    let strategy = plural("pods").1.strategy;
    let start = std::time::Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(strategy.cells(&pod, super::now()));
    }
    println!("a row: {:?}", start.elapsed() / 1000);
    let start = std::time::Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(created("pods", plain()));
    }
    println!("a creation: {:?}", start.elapsed() / 1000);
}
