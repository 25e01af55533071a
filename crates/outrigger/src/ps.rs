//! `outrigger ps`: what `kubectl get pods` would show.

use jiff::Timestamp;
use pod_api::status::columns;
use pod_engine::record::Listed;
use serde_json::{Value, json};

use crate::cli::{Global, Output, Ps};
use crate::exit;
use crate::host;
use crate::manifest;
use crate::orphans;
use crate::stdout::print;
use crate::table;

pub(crate) fn run(global: &Global, arguments: &Ps) -> anyhow::Result<u8> {
    let roots = host::roots(global);
    let mut pods = manifest::known(&roots)?;
    if let Some(namespace) = &arguments.namespace {
        pods.retain(|pod| pod.record.namespace() == namespace);
    }
    orphans::tell(&roots, &[]);
    match arguments.output {
        Some(Output::Json) => print(serde_json::to_string_pretty(&list(&pods))? + "\n")?,
        _ if pods.is_empty() => eprintln!("No pods found."),
        output => {
            let namespaces = arguments.all_namespaces || pods.iter().any(|pod| pod.record.namespace() != "default");
            let namespaces = namespaces && (arguments.namespace.is_none() || arguments.all_namespaces);
            print(render(&pods, Timestamp::now(), namespaces, output == Some(Output::Wide)))?;
        }
    }
    Ok(exit::OK)
}

fn render(pods: &[Listed], now: Timestamp, namespaces: bool, wide: bool) -> String {
    let mut header = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["IP", "ORIGIN", "CONTAINERS", "IMAGES"]);
    }
    let row = |listed: &Listed| {
        let mut pod = listed.record.pod.clone();
        pod.status = Some(listed.status.clone());
        let cells = columns(&pod, now);
        let status = if orphans::is_orphan(listed) { format!("{} (no engine)", cells.status) } else { cells.status };
        let mut row = vec![cells.name, cells.ready, status, cells.restarts, cells.age];
        if namespaces {
            row.insert(0, listed.record.namespace().to_owned());
        }
        if wide {
            let spec = pod.spec.unwrap_or_default();
            let join = |read: fn(&k8s_openapi::api::core::v1::Container) -> String| {
                pod_api::role::containers(&spec).map(|(_, container)| read(container)).collect::<Vec<_>>().join(",")
            };
            row.push(cells.ip);
            row.push(listed.record.origin.clone().unwrap_or_else(|| "<none>".into()));
            row.push(join(|container| container.name.clone()));
            row.push(join(|container| container.image.clone().unwrap_or_default()));
        }
        row
    };
    table::render(&header, &pods.iter().map(row).collect::<Vec<_>>())
}

/// As `kubectl get pods -o json`.
fn list(pods: &[Listed]) -> Value {
    let item = |listed: &Listed| {
        let mut pod = listed.record.pod.clone();
        pod.status = Some(listed.status.clone());
        // Pods serialize; what does not would be a bug of the types.
        serde_json::to_value(pod).unwrap_or(Value::Null)
    };
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": ""},
        "items": pods.iter().map(item).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pod_engine::Roots;

    fn listed(namespace: &str, name: &str, owned: bool) -> Listed {
        let record = json!({
            "uid": "u", "objects": {"config_maps": {}, "secrets": {}}, "origin": null, "created": "2025-01-01T00:00:00Z", "cgroup": "/outrigger/podu",
            "offline": false, "detached": true,
            "pod": {"metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2025-01-01T00:00:00Z"},
                    "spec": {"initContainers": [{"name": "proxy", "image": "envoy", "restartPolicy": "Always"}],
                             "containers": [{"name": "app", "image": "alpine"}]}}});
        let status = |name| {
            json!({"name": name, "image": "i", "imageID": "", "ready": true, "started": true,
            "restartCount": 0, "state": {"running": {}}})
        };
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.1.2.3"}],
            "initContainerStatuses": [status("proxy")], "containerStatuses": [status("app")]});
        Listed {
            paths: Roots::system().pod(namespace, name),
            record: serde_json::from_value(record).expect("a record"),
            status: serde_json::from_value(status).expect("a status"),
            owned,
            owner: None,
        }
    }

    #[test]
    fn the_table_is_kubectls() {
        let now: Timestamp = "2025-01-01T00:01:30Z".parse().expect("a time");
        let pods = [listed("default", "web", true), listed("test", "db", false)];
        let expected = "\
NAMESPACE   NAME   READY   STATUS                RESTARTS   AGE
default     web    2/2     Running               0          90s
test        db     2/2     Running (no engine)   0          90s
";
        assert_eq!(render(&pods, now, true, false), expected);
        let expected = "\
NAME   READY   STATUS    RESTARTS   AGE   IP         ORIGIN   CONTAINERS   IMAGES
web    2/2     Running   0          90s   10.1.2.3   <none>   proxy,app    envoy,alpine
";
        assert_eq!(render(&pods[..1], now, false, true), expected);
    }

    #[test]
    fn json_is_a_list_of_pods_with_status() {
        let list = list(&[listed("default", "web", true)]);
        assert_eq!(list["kind"], "List");
        assert_eq!(list["items"][0]["kind"], "Pod");
        assert_eq!(list["items"][0]["status"]["phase"], "Running");
    }
}
