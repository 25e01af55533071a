//! Which addresses stand behind a service: from its selector and the pods to EndpointSlices and Endpoints. Pure.
//!
//! Source: `pkg/controller/endpointslice` (`podToEndpoint`) and `pkg/controller/endpoint` of Kubernetes 1.35.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::object::{items, text};

/// Who keeps the slices; others (made by people) are left alone.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub(crate) const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Endpoints of one slice, as upstream's `--max-endpoints-per-slice`.
const MOST_PER_SLICE: usize = 100;

/// What of a pod matters to services; kept instead of the pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Backend {
    pub(crate) namespace: String,
    pub(crate) name: String,
    uid: String,
    labels: Map<String, Value>,
    ip: String,
    node: String,
    hostname: String,
    subdomain: String,
    ready: bool,
    terminating: bool,
    /// Named ports of mains and sidecars: name and protocol to number.
    ports: Vec<(String, String, u64)>,
}

impl Backend {
    /// `None`: it has no address, or has ended.
    pub(crate) fn of(pod: &Value) -> Option<Self> {
        let ip = text(pod, "/status/podIP");
        if ip.is_empty() || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
            return None;
        }
        let is_ready = |condition: &&Value| condition["type"] == "Ready" && condition["status"] == "True";
        // Sidecars serve too; plain init containers are over.
        let sidecars =
            items(pod, "/spec/initContainers").iter().filter(|container| container["restartPolicy"] == "Always");
        let ports =
            items(pod, "/spec/containers").iter().chain(sidecars).flat_map(|container| items(container, "/ports"));
        let named = ports.filter_map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            Some((port["name"].as_str()?.to_owned(), protocol, port["containerPort"].as_u64()?))
        });
        Some(Self {
            namespace: text(pod, "/metadata/namespace").to_owned(),
            name: text(pod, "/metadata/name").to_owned(),
            uid: text(pod, "/metadata/uid").to_owned(),
            labels: pod.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default(),
            ip: ip.to_owned(),
            node: text(pod, "/spec/nodeName").to_owned(),
            hostname: text(pod, "/spec/hostname").to_owned(),
            subdomain: text(pod, "/spec/subdomain").to_owned(),
            ready: items(pod, "/status/conditions").iter().any(|condition| is_ready(&condition)),
            terminating: !text(pod, "/metadata/deletionTimestamp").is_empty(),
            ports: named.collect(),
        })
    }

    fn target(&self) -> Value {
        json!({"kind": "Pod", "namespace": self.namespace, "name": self.name, "uid": self.uid})
    }

    /// The service's ports as numbers of this pod; a name the pod does not have drops that port.
    fn resolve(&self, service: &Value) -> Vec<Value> {
        let resolve = |port: &Value| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let number = match &port["targetPort"] {
                Value::String(name) => {
                    self.ports.iter().find(|(known, of, _)| known == name && of == protocol).map(|port| port.2)
                }
                target => target.as_u64().filter(|number| *number > 0).or(port["port"].as_u64()),
            }?;
            let mut resolved =
                json!({"name": port["name"].as_str().unwrap_or_default(), "port": number, "protocol": protocol});
            if let Some(application) = port.get("appProtocol").filter(|value| value.is_string()) {
                resolved["appProtocol"] = application.clone();
            }
            Some(resolved)
        };
        items(service, "/spec/ports").iter().filter_map(resolve).collect()
    }
}

/// The pods a service selects; `None` if it has no selector and its endpoints are somebody else's.
pub(crate) fn selected<'a>(service: &Value, backends: impl Iterator<Item = &'a Backend>) -> Option<Vec<&'a Backend>> {
    let selector = service.pointer("/spec/selector")?.as_object().filter(|selector| !selector.is_empty())?;
    let namespace = text(service, "/metadata/namespace");
    let matches = |backend: &&Backend| {
        backend.namespace == namespace
            && selector.iter().all(|(label, wanted)| backend.labels.get(label) == Some(wanted))
    };
    Some(backends.filter(matches).collect())
}

/// One slice per set of resolved ports and [`MOST_PER_SLICE`] pods; without names and metadata of their own.
pub(crate) fn slices(service: &Value, backends: &[&Backend]) -> Vec<Value> {
    let publish_all = service.pointer("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true));
    let mut by_ports: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for backend in backends {
        let ports = backend.resolve(service);
        let mut endpoint = json!({
            "addresses": [backend.ip],
            "conditions": {
                "ready": publish_all || (backend.ready && !backend.terminating),
                "serving": backend.ready,
                "terminating": backend.terminating,
            },
            "nodeName": backend.node,
            "targetRef": backend.target(),
        });
        if !backend.hostname.is_empty() && backend.subdomain == text(service, "/metadata/name") {
            endpoint["hostname"] = backend.hostname.as_str().into();
        }
        let entry = by_ports.entry(Value::from(ports.clone()).to_string()).or_insert_with(|| (ports, Vec::new()));
        entry.1.push(endpoint);
    }
    let slice =
        |ports: &[Value], endpoints: &[Value]| json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    // A service without pods keeps one slice that says so, as upstream's placeholder.
    if by_ports.is_empty() {
        return vec![slice(&[], &[])];
    }
    by_ports
        .values()
        .flat_map(|(ports, endpoints)| endpoints.chunks(MOST_PER_SLICE).map(|chunk| slice(ports, chunk)))
        .collect()
}

/// Addresses with the same ports.
#[derive(Debug, Default)]
struct Subset {
    ports: Vec<Value>,
    ready: Vec<Value>,
    waiting: Vec<Value>,
}

impl Subset {
    fn into_json(self) -> Value {
        let mut subset = json!({});
        for (field, list) in [("addresses", self.ready), ("notReadyAddresses", self.waiting), ("ports", self.ports)] {
            if !list.is_empty() {
                subset[field] = list.into();
            }
        }
        subset
    }
}

/// The older form: one subset per set of ports.
pub(crate) fn subsets(service: &Value, backends: &[&Backend]) -> Vec<Value> {
    let publish_all = service.pointer("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true));
    let mut by_ports: BTreeMap<String, Subset> = BTreeMap::new();
    for backend in backends.iter().filter(|backend| !backend.terminating || publish_all) {
        let mut ports = backend.resolve(service);
        for port in &mut ports {
            if port["name"] == ""
                && let Some(port) = port.as_object_mut()
            {
                port.remove("name");
            }
        }
        let address = json!({"ip": backend.ip, "nodeName": backend.node, "targetRef": backend.target()});
        let entry =
            by_ports.entry(Value::from(ports.clone()).to_string()).or_insert(Subset { ports, ..Subset::default() });
        if publish_all || backend.ready { entry.ready.push(address) } else { entry.waiting.push(address) }
    }
    by_ports.into_values().map(Subset::into_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ip: &str, change: impl FnOnce(&mut Value)) -> Backend {
        let mut pod = json!({
            "metadata": {"namespace": "default", "name": name, "uid": format!("u-{name}"), "labels": {"app": "web", "v": "1"}},
            "spec": {
                "nodeName": "n", "hostname": name, "subdomain": "web",
                "containers": [{"name": "a", "ports": [{"name": "http", "containerPort": 8080}]}],
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "ports": [{"name": "admin", "containerPort": 9901, "protocol": "TCP"}]},
                    {"name": "i", "ports": [{"name": "never", "containerPort": 1}]},
                ],
            },
            "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut pod);
        Backend::of(&pod).unwrap()
    }

    fn service(ports: Value) -> Value {
        json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}})
    }

    #[test]
    fn a_pod_counts_from_its_address_to_its_end() {
        assert_eq!(Backend::of(&json!({"status": {"phase": "Pending"}})), None);
        assert_eq!(Backend::of(&json!({"status": {"phase": "Failed", "podIP": "10.89.0.2"}})), None);
    }

    #[test]
    fn the_selector_chooses_in_its_namespace() {
        let (one, other) =
            (pod("a", "10.89.0.2", |_| ()), pod("b", "10.89.0.3", |pod| pod["metadata"]["namespace"] = "x".into()));
        let all = [one, other];
        let names = |service: &Value| {
            selected(service, all.iter()).map(|found| found.iter().map(|pod| pod.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(&service(json!([]))), Some(vec!["a".to_owned()]));
        let mut more = service(json!([]));
        more["spec"]["selector"]["v"] = "2".into();
        assert_eq!(names(&more), Some(vec![]));
        more["spec"]["selector"] = json!({});
        assert_eq!(names(&more), None);
    }

    #[test]
    fn slices_tell_who_is_ready_and_resolve_named_ports_of_mains_and_sidecars() {
        let pods = [
            pod("a", "10.89.0.2", |_| ()),
            pod("b", "10.89.0.3", |pod| pod["status"]["conditions"][0]["status"] = "False".into()),
            pod("c", "10.89.0.4", |pod| {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 8081.into();
            }),
        ];
        let pods: Vec<_> = pods.iter().collect();
        let service = service(json!([
            {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
            {"name": "admin", "port": 81, "targetPort": "admin", "protocol": "TCP"},
            {"name": "never", "port": 82, "targetPort": "never", "protocol": "TCP"},
        ]));
        let told: Vec<String> = slices(&service, &pods)
            .iter()
            .flat_map(|slice| {
                let ports: Vec<_> = items(slice, "/ports").iter().map(|port| port["port"].to_string()).collect();
                let ports = ports.join(",");
                items(slice, "/endpoints")
                    .iter()
                    .map(move |endpoint| {
                        let is = |name: &str| endpoint["conditions"][name].as_bool().unwrap();
                        format!(
                            "{}:{ports} {} ready={} serving={} terminating={}",
                            endpoint["addresses"][0].as_str().unwrap(),
                            endpoint["hostname"].as_str().unwrap(),
                            is("ready"),
                            is("serving"),
                            is("terminating"),
                        )
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(
            told,
            [
                "10.89.0.2:8080,9901 a ready=true serving=true terminating=false",
                "10.89.0.3:8080,9901 b ready=false serving=false terminating=false",
                "10.89.0.4:8081,9901 c ready=false serving=true terminating=true",
            ]
        );
        let subsets = subsets(&service, &pods);
        assert_eq!(subsets.len(), 1);
        assert_eq!(subsets[0]["addresses"][0]["ip"], "10.89.0.2");
        assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "10.89.0.3");
    }

    #[test]
    fn no_pods_is_said_with_an_empty_slice() {
        assert_eq!(slices(&service(json!([])), &[]), [json!({"addressType": "IPv4", "endpoints": [], "ports": []})]);
        assert!(subsets(&service(json!([])), &[]).is_empty());
    }
}
