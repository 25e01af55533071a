use serde_json::json;

use super::*;

fn spec(value: serde_json::Value) -> PodSpec {
    serde_json::from_value(value).unwrap()
}

fn requests(cpu: &str) -> serde_json::Value {
    json!({"requests": {"cpu": cpu}})
}

#[test]
fn shares_quota_and_weights() {
    for (millis, shares, linear, weight) in
        [(250, 256, 10, 35), (1000, 1024, 39, 100), (100, 102, 4, 17), (0, 2, 1, 1), (1, 2, 1, 1)]
    {
        assert_eq!(cpu_shares(millis), shares, "{millis}m");
        assert_eq!(cpu_weight_linear(shares), linear, "{millis}m");
        assert_eq!(cpu_weight(shares), weight, "{millis}m");
    }
    assert_eq!(cpu_shares(i64::MAX), 262_144);
    assert_eq!((cpu_weight(262_144), cpu_weight_linear(262_144)), (10_000, 10_000));
    assert_eq!((cpu_weight(2), cpu_weight(u64::MAX)), (1, 10_000));
    assert_eq!([500, 5, 1000, 0].map(cpu_quota_us), [50_000, 1000, 100_000, -1]);
}

#[test]
fn weight_never_falls_and_stays_in_the_kernels_range() {
    let mut last = 0;
    for shares in (2..262_144).step_by(61) {
        let weight = cpu_weight(shares);
        assert!((1..=10_000).contains(&weight) && weight >= last, "{shares} → {weight}");
        last = weight;
    }
}

#[test]
fn requests_default_to_limits() {
    let container = serde_json::from_value(json!({
        "name": "a",
        "resources": {"limits": {"cpu": "500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "0"}},
    }));
    let resources = ContainerResources::of(&container.unwrap()).unwrap();
    assert_eq!(resources.cpu_request_millis, Some(0));
    assert_eq!(resources.cpu_limit_millis, Some(500));
    assert_eq!(resources.memory_request, Some(67_108_864));
    assert_eq!(resources.ephemeral_storage_limit, None);
    assert_eq!(resources.hugepage_limits["2Mi"], 4 << 20);
}

#[test]
fn sidecars_add_up_and_plain_inits_count_by_their_peak() {
    let pod = spec(json!({
        "initContainers": [
            {"name": "init1", "resources": requests("500m")},
            {"name": "sidecar-a", "restartPolicy": "Always", "resources": requests("100m")},
            {"name": "init2", "resources": requests("800m")},
            {"name": "sidecar-b", "restartPolicy": "Always", "resources": requests("50m")},
        ],
        "containers": [{"name": "main", "resources": requests("600m")}],
    }));
    assert_eq!(pod_effective(&pod).unwrap().cpu_request_millis, 900);
}

#[test]
fn one_unlimited_sidecar_lifts_the_pods_limit() {
    let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    let mut value = json!({
        "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"limits": {"memory": "1Gi"}}}],
        "containers": [{"name": "m", "resources": limits}],
    });
    let resources = pod_effective(&spec(value.clone())).unwrap();
    assert_eq!((resources.cpu_limit_millis, resources.cgroup_cpu_limit_millis()), (Some(1000), None));
    assert_eq!(resources.cgroup_memory_limit(), Some(2 << 30));

    value["resources"] = json!({"limits": {"cpu": "2"}});
    value["overhead"] = json!({"cpu": "250m"});
    let resources = pod_effective(&spec(value)).unwrap();
    assert_eq!(resources.cgroup_cpu_limit_millis(), Some(2250));
    // The containers ask for 1 core, so the pod-level limit does not become a request.
    assert_eq!(resources.cpu_request_millis, 1250);
}

#[test]
fn pod_level_requests_replace_the_sum() {
    let resources = pod_effective(&spec(json!({
        "resources": {"requests": {"cpu": "2", "memory": "1Gi"}},
        "containers": [{"name": "m", "resources": requests("100m")}],
    })));
    let resources = resources.unwrap();
    assert_eq!((resources.cpu_request_millis, resources.memory_request), (2000, 1 << 30));
}

#[test]
fn an_unreadable_quantity_names_its_place() {
    let error = pod_effective(&spec(json!({"containers": [{"name": "m", "resources": requests("1x")}]}))).unwrap_err();
    assert_eq!(error.to_string(), "container \"m\" has an unreadable request of `cpu`: \"1x\"");
}
