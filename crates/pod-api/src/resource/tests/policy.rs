//! Quotas, limit ranges and claims.

use serde_json::{Value, json};

use super::{World, created, patched, refused, row, updated};
use crate::resource::quota_used;

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "app", "image": "a:1", "resources": resources}]}})
}

fn quota(hard: Value) -> Value {
    created("resourcequotas", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}))
}

fn requests(cpu: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"memory": "64Mi"}})
}

#[test]
fn a_quota_counts_and_refuses() {
    let first = created("pods", pod("first", requests("700m")));
    let mut done = created("pods", pod("done", requests("5")));
    done["status"]["phase"] = "Succeeded".into();
    let hard = json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "count/pods": 10, "secrets": "0"});
    let world = World::with(&[("pods", first), ("pods", done), ("resourcequotas", quota(hard))]);
    let used = world.look(|cx| quota_used(&world.objects[2].1, cx.list));
    assert_eq!(
        used,
        json!({"pods": "1", "requests.cpu": "700m", "limits.memory": "64Mi", "count/pods": "2", "secrets": "0"})
    );

    assert!(world.create("pods", pod("second", requests("300m"))).is_ok());
    assert_eq!(
        world.refusal("pods", pod("second", requests("500m"))),
        "pods \"second\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=700m, limited: requests.cpu=1"
    );
    assert_eq!(
        world.refusal("pods", pod("second", json!({"requests": {"cpu": "1m"}}))),
        "pods \"second\" is forbidden: failed quota: q: must specify limits.memory for: app"
    );
    assert_eq!(
        world.refusal("secrets", json!({"metadata": {"name": "s"}})),
        "secrets \"s\" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=0, limited: secrets=0"
    );
    assert!(world.create("configmaps", json!({"metadata": {"name": "c"}})).is_ok());
}

#[test]
fn a_quota_counts_only_what_its_scopes_take_in() {
    let scoped = created(
        "resourcequotas",
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": 0}, "scopes": ["BestEffort"]}}),
    );
    let world = World::with(&[("resourcequotas", scoped)]);
    assert!(world.create("pods", pod("a", requests("1"))).is_ok());
    assert!(world.refusal("pods", pod("a", json!({}))).contains("exceeded quota: q, requested: pods=1"));
}

#[test]
fn quotas_are_checked_and_shown() {
    let table = [
        (json!({"gold": 1}), "spec.hard[gold]: Invalid value: \"gold\": must be a standard resource for quota"),
        (json!({"pods": "-1"}), "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"),
        (json!({"pods": "1.5"}), "spec.hard[pods]: Invalid value: \"1500m\": must be an integer"),
    ];
    for (hard, expected) in table {
        let message = refused("resourcequotas", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
        assert!(message.ends_with(expected), "{message}");
    }
    let quota = quota(json!({"pods": 4, "limits.cpu": "2000m", "requests.cpu": 1}));
    assert_eq!(row("resourcequotas", &quota), "q | pods: 0/4, requests.cpu: 0/1 | limits.cpu: 0/2 | <unknown>");
    let refusal = updated("resourcequotas", &quota, patched(&quota, &json!({"spec": {"scopes": ["BestEffort"]}})), "");
    assert!(refusal.unwrap_err().contains("spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"));
}

#[test]
fn a_limit_range_fills_in_and_refuses() {
    let range = created(
        "limitranges",
        json!({"metadata": {"name": "l"}, "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "min": {"cpu": "100m"}, "max": {"cpu": "1", "memory": "1Gi"},
             "maxLimitRequestRatio": {"cpu": "4"}},
            {"type": "Pod", "max": {"cpu": "1500m"}},
        ]}}),
    );
    let limits = &range["spec"]["limits"][0];
    assert_eq!(limits["default"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(limits["defaultRequest"], json!({"cpu": "500m", "memory": "1Gi"}));
    let world = World::with(&[("limitranges", range)]);
    let stored = world.create("pods", pod("a", json!({"requests": {"cpu": "200m"}}))).unwrap();
    let container = &stored["spec"]["containers"][0]["resources"];
    assert_eq!(
        container,
        &json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "200m", "memory": "1Gi"}})
    );
    assert_eq!(
        stored["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: memory request for container app; cpu, memory limit for container app"
    );
    let cpu = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
    let table = [
        (cpu("50m", "100m"), "minimum cpu usage per Container is 100m, but request is 50m"),
        (
            cpu("1", "2"),
            "[maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is 1500m, but limit is 2]",
        ),
        (cpu("100m", "900m"), "cpu max limit to request ratio per Container is 4, but provided ratio is 9.000000"),
    ];
    for (resources, expected) in table {
        let message = world.refusal("pods", pod("a", resources));
        assert_eq!(message, format!("pods \"a\" is forbidden: {expected}"));
    }
}

#[test]
fn limit_ranges_must_make_sense() {
    let table = [
        (
            json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
        ),
        (
            json!({"type": "Pod", "default": {"cpu": "1"}}),
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        (
            json!({"type": "Pods"}),
            "spec.limits[0].type: Invalid value: \"Pods\": must be a standard limit type or fully qualified",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}),
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
        ),
    ];
    for (item, expected) in table {
        let message = refused("limitranges", json!({"metadata": {"name": "l"}, "spec": {"limits": [item]}}));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_claim_is_bound_at_once() {
    let claim = |spec: Value| json!({"metadata": {"name": "data"}, "spec": spec});
    let plain = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}});
    let stored = created("persistentvolumeclaims", claim(plain.clone()));
    assert_eq!(stored["status"]["phase"], "Bound");
    assert_eq!(
        row("persistentvolumeclaims", &stored),
        "data | Bound | default-data | 1Gi | RWO |  | <unset> | <unknown> | Filesystem"
    );
    let grown = patched(&stored, &json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}));
    let stored = updated("persistentvolumeclaims", &stored, grown, "").unwrap();
    assert_eq!(stored["status"]["capacity"]["storage"], "2Gi");
    let smaller = patched(&stored, &json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}));
    assert!(updated("persistentvolumeclaims", &stored, smaller, "").unwrap_err().contains("can not be less than"));
    let table = [
        (json!({"accessModes": null}), "spec.accessModes: Required value: at least 1 access mode is required"),
        (json!({"volumeName": "pv"}), "spec.volumeName: Forbidden: there are no PersistentVolumes"),
        (
            json!({"volumeMode": "Block"}),
            "spec.volumeMode: Unsupported value: \"Block\": supported values: \"Filesystem\"",
        ),
        (json!({"resources": null}), "spec.resources[storage]: Required value"),
        (json!({"dataSource": {"kind": "x"}}), "spec.dataSource: Forbidden"),
    ];
    for (patch, expected) in table {
        let message = refused("persistentvolumeclaims", claim(patched(&plain, &patch)));
        assert!(message.contains(expected), "{message}");
    }
}
