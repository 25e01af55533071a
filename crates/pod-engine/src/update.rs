//! What of a pod cannot change while it lives: its sandbox and volumes are made once.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::Value;

/// Fields of the spec that the sandbox or the volumes were made from.
const FIXED: [&str; 14] = [
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostUsers",
    "shareProcessNamespace",
    "hostname",
    "hostnameOverride",
    "subdomain",
    "setHostnameAsFQDN",
    "dnsPolicy",
    "dnsConfig",
    "volumes",
    "securityContext.sysctls",
    "securityContext.fsGroup",
];

/// Paths of the fields in which the two differ and which a live pod cannot take over.
pub(crate) fn sandbox_differences(old: &Pod, new: &Pod) -> Vec<String> {
    let (old, new) = (old.spec.clone().unwrap_or_default(), new.spec.clone().unwrap_or_default());
    let value = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    let (old_value, new_value) = (value(&old), value(&new));
    let mut differing: Vec<String> = FIXED
        .iter()
        .filter(|path| at(&old_value, path) != at(&new_value, path))
        .map(|path| format!("spec.{path}"))
        .collect();
    if host_ports(&old) != host_ports(&new) {
        differing.push("hostPort of a container".into());
    }
    differing
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

fn host_ports(spec: &PodSpec) -> Vec<(Option<String>, i32, i32, Option<String>)> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mut ports: Vec<_> = ports
        .filter_map(|port| Some((port.host_ip.clone(), port.host_port?, port.container_port, port.protocol.clone())))
        .collect();
    ports.sort();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn only_what_the_sandbox_is_made_of_counts() {
        let old = pod(json!({"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
        let image =
            pod(json!({"containers": [{"name": "a", "image": "y"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
        assert_eq!(sandbox_differences(&old, &image), Vec::<String>::new());
        let other = pod(json!({
            "hostNetwork": true,
            "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80, "hostPort": 8080}]}],
        }));
        assert_eq!(sandbox_differences(&old, &other), ["spec.hostNetwork", "spec.volumes", "hostPort of a container"]);
    }
}
