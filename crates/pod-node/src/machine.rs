//! The machine as a Node object and its Lease, as a kubelet keeps them (`pkg/kubelet/nodestatus/setters.go`,
//! `pkg/kubelet/kubelet_node_status.go`).

use jiff::Timestamp;
use pod_api::context::NodeInfo;
use pod_store::{Change, Durability, Key, Store, WriteError};
use serde_json::{Map, Value, json};

use crate::fit::Room;
use crate::object::{self, key, modify};
use crate::{Config, moment};

/// A kubelet's `maxPods`.
const MOST_PODS: usize = 110;
/// A kubelet's `nodeStatusMaxImages`.
const MOST_IMAGES: usize = 50;
const LEASE_SECONDS: i64 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Type, status, reason, message.
const CONDITIONS: [[&str; 4]; 4] = [
    ["MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
    ["DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
    ["PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"],
    ["Ready", "True", "KubeletReady", "kubelet is posting ready status"],
];

pub(crate) fn room(info: &NodeInfo) -> Room {
    Room { cpu_millis: info.cpu_millis, memory: info.memory_bytes, pods: MOST_PODS }
}

pub(crate) fn node_key(info: &NodeInfo) -> Key {
    key("nodes", "", &info.name)
}

/// Creates the node, or brings what is the machine's in it up to date: labels, taints and cordons that people gave it stay.
pub(crate) async fn publish(
    store: &Store,
    info: &NodeInfo,
    config: &Config,
    images: Option<Value>,
    now: Timestamp,
) -> Result<(), WriteError> {
    let facts = Facts::read();
    let fresh = |node: Value| Some(described(node, info, config, &facts, images.clone(), now));
    if modify(store, &node_key(info), "", Durability::Lazy, fresh).await?.is_some() {
        return Ok(());
    }
    let metadata = object::metadata("", &info.name, now).map_err(WriteError::Disk)?;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}});
    object::ensure(store, node_key(info), described(node, info, config, &facts, images.clone(), now)).await
}

/// What the machine says of itself.
struct Facts {
    machine_id: String,
    system_uuid: String,
    boot_id: String,
    kernel: String,
    os_image: String,
    architecture: &'static str,
    swap_bytes: Option<i64>,
}

impl Facts {
    fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let release = file("/etc/os-release");
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let memory = file("/proc/meminfo");
        let swap = memory.lines().find_map(|line| line.strip_prefix("SwapTotal:"));
        let swap = swap.and_then(|text| text.split_whitespace().next()?.parse::<i64>().ok()).map(|kib| kib * 1024);
        Self {
            machine_id: file("/etc/machine-id"),
            system_uuid: file("/sys/class/dmi/id/product_uuid"),
            boot_id: file("/proc/sys/kernel/random/boot_id"),
            kernel: file("/proc/sys/kernel/osrelease"),
            os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
            architecture: architecture(std::env::consts::ARCH),
            swap_bytes: swap.filter(|bytes| *bytes > 0),
        }
    }
}

/// As Go names it.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn described(
    mut node: Value,
    info: &NodeInfo,
    config: &Config,
    facts: &Facts,
    images: Option<Value>,
    now: Timestamp,
) -> Value {
    let labels = [
        ("beta.kubernetes.io/arch", facts.architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", facts.architecture),
        ("kubernetes.io/hostname", &info.name),
        ("kubernetes.io/os", "linux"),
    ];
    if !node["metadata"]["labels"].is_object() {
        node["metadata"]["labels"] = Value::Object(Map::new());
    }
    for (name, value) in labels {
        node["metadata"]["labels"][name] = value.into();
    }
    if !node["spec"].is_object() {
        node["spec"] = json!({});
    }
    if !config.pod_cidr.is_empty() {
        node["spec"]["podCIDR"] = config.pod_cidr.as_str().into();
        node["spec"]["podCIDRs"] = json!([config.pod_cidr]);
    }
    node["spec"]["providerID"] = format!("outrigger://{}", info.name).into();
    let capacity = json!({
        "cpu": (info.cpu_millis / 1000).to_string(),
        "memory": format!("{}Ki", info.memory_bytes / 1024),
        "ephemeral-storage": format!("{}Ki", info.ephemeral_bytes / 1024),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": MOST_PODS.to_string(),
    });
    let mut addresses: Vec<Value> = Vec::new();
    addresses.extend(info.host_ips.iter().map(|address| json!({"type": "InternalIP", "address": address.to_string()})));
    addresses.push(json!({"type": "Hostname", "address": info.name}));
    let mut node_info = json!({
        "machineID": facts.machine_id,
        "systemUUID": facts.system_uuid,
        "bootID": facts.boot_id,
        "kernelVersion": facts.kernel,
        "osImage": facts.os_image,
        "containerRuntimeVersion": concat!("outrigger://", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": config.version,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": facts.architecture,
    });
    if let Some(bytes) = facts.swap_bytes {
        node_info["swap"] = json!({"capacity": bytes});
    }
    let images = images.unwrap_or_else(|| node["status"]["images"].take());
    let conditions = conditions(object::items(&node, "/status/conditions"), now);
    let mut status = json!({
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions,
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "nodeInfo": node_info,
    });
    if images.as_array().is_some_and(|images| !images.is_empty()) {
        status["images"] = images;
    }
    node["status"] = status;
    node
}

fn conditions(known: &[Value], now: Timestamp) -> Vec<Value> {
    let foreign = known.iter().filter(|condition| !CONDITIONS.iter().any(|own| condition["type"] == own[0])).cloned();
    let own = CONDITIONS.iter().map(|[kind, status, reason, message]| {
        let same = known.iter().find(|condition| condition["type"] == *kind && condition["status"] == *status);
        let since = same.map(|condition| condition["lastTransitionTime"].clone());
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": moment::seconds(now),
            "lastTransitionTime": since.unwrap_or_else(|| moment::seconds(now).into()),
        })
    });
    foreign.chain(own).collect()
}

/// `status.images`: the largest ones, with the names people know them by.
pub(crate) fn images(store: &pod_image::Store) -> Value {
    let mut images = store.list().unwrap_or_default();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    let listed = images.iter().take(MOST_IMAGES).map(|image| {
        let names: Vec<&String> = image.repo_digests.iter().chain(&image.names).take(5).collect();
        json!({"names": names, "sizeBytes": image.size})
    });
    listed.collect()
}

/// The heartbeat (KEP-589): ten seconds apart, as a kubelet's.
pub(crate) async fn renew_lease(store: &Store, info: &NodeInfo, now: Timestamp) -> Result<(), WriteError> {
    let key = key("leases.coordination.k8s.io", LEASE_NAMESPACE, &info.name);
    let renewed = |mut lease: Value| {
        lease["spec"] = spec(info, now);
        Some(lease)
    };
    if modify(store, &key, "", Durability::Lazy, renewed).await?.is_some() {
        return Ok(());
    }
    let mut metadata = object::metadata(LEASE_NAMESPACE, &info.name, now).map_err(WriteError::Disk)?;
    if let Some(node) = store.get(&node_key(info)) {
        metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node", "name": info.name, "uid": node.uid}]);
    }
    let lease =
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec(info, now)});
    match store.write(key, Change::Create(lease), Durability::Lazy).await {
        Ok(_) | Err(WriteError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn spec(info: &NodeInfo, now: Timestamp) -> Value {
    json!({"holderIdentity": info.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": moment::micros(now)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_gave_the_node_stays() {
        let info = NodeInfo {
            name: "box".into(),
            host_ips: vec!["10.0.0.1".parse().unwrap()],
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
            ephemeral_bytes: 1 << 30,
        };
        let config = Config {
            version: "v1.35.0".into(),
            root_ca: String::new(),
            offline: true,
            pids_limit: None,
            services: None,
            pod_cidr: "10.89.0.0/16".into(),
            port: 6550,
        };
        let node = json!({"metadata": {"name": "box", "labels": {"disk": "ssd"}}, "spec": {"unschedulable": true},
            "status": {"images": [{"names": ["a"]}], "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}, {"type": "Mine"}]}});
        let now: Timestamp = "2025-01-02T00:00:00Z".parse().unwrap();
        let node = described(node, &info, &config, &Facts::read(), None, now);
        assert_eq!(node["metadata"]["labels"]["disk"], "ssd");
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "box");
        assert_eq!(node["spec"]["unschedulable"], true);
        assert_eq!(node["status"]["images"][0]["names"][0], "a");
        assert_eq!(node["status"]["conditions"][0]["type"], "Mine");
        let ready = &node["status"]["conditions"][4];
        assert_eq!(
            (&ready["lastTransitionTime"], &ready["lastHeartbeatTime"]),
            (&json!("2025-01-01T00:00:00Z"), &json!("2025-01-02T00:00:00Z"))
        );
        assert_eq!(node["status"]["capacity"]["memory"], "1048576Ki");
    }
}
