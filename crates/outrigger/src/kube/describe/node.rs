//! The node: its conditions, what it has, and what its pods ask of it.

use std::collections::BTreeMap;

use pod_api::quantity::{self, Amount, Format};
use pod_client::Call;
use pod_client::query::Query;
use serde_json::Value;

use super::page::Page;
use crate::kube::value::{self, is_true, items, members, text};
use crate::kube::{Node, Outcome};

pub(super) async fn describe(page: &mut Page, node: &Node, object: &Value) -> Outcome<()> {
    let name = value::name(object);
    page.field(0, "Name", name);
    let mut roles: Vec<&str> = members(object, "metadata.labels")
        .into_iter()
        .filter_map(|(label, value)| match label {
            "kubernetes.io/role" => value.as_str(),
            label => label.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    page.field(0, "Roles", if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") });
    page.labels_and_annotations(object);
    let created = page.time(&object["metadata"]["creationTimestamp"]);
    page.field(0, "CreationTimestamp", created);
    taints(page, items(object, "spec.taints"));
    page.field(0, "Unschedulable", is_true(object, "spec.unschedulable"));
    lease(page, node, name).await;
    conditions(page, items(object, "status.conditions"));
    page.line(0, "Addresses:");
    for address in items(object, "status.addresses") {
        page.field(1, text(address, "type"), text(address, "address"));
    }
    for (title, path) in [("Capacity", "status.capacity"), ("Allocatable", "status.allocatable")] {
        let resources = members(object, path);
        if !resources.is_empty() {
            page.line(0, format!("{title}:"));
            resources.into_iter().for_each(|(name, amount)| page.field(1, name, value::scalar(amount)));
        }
    }
    system(page, object);
    let pods = pods(node, name).await?;
    asked(page, object, &pods);
    Ok(())
}

fn taints(page: &mut Page, taints: &[Value]) {
    let mut taints: Vec<&Value> = taints.iter().collect();
    taints.sort_by_key(|taint| (text(taint, "effect"), text(taint, "key")));
    let lines = taints.into_iter().map(|taint| match text(taint, "value") {
        "" => format!("{}:{}", text(taint, "key"), text(taint, "effect")),
        value => format!("{}={value}:{}", text(taint, "key"), text(taint, "effect")),
    });
    page.list("Taints", lines.collect());
}

async fn lease(page: &mut Page, node: &Node, name: &str) {
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/";
    match node.client.json(Call::get(format!("{path}{}", pod_client::query::encode(name)))).await {
        Ok(lease) => {
            page.line(0, "Lease:");
            page.field(1, "HolderIdentity", lease["spec"]["holderIdentity"].as_str().unwrap_or("<unset>"));
            for (title, field) in [("AcquireTime", "acquireTime"), ("RenewTime", "renewTime")] {
                let time = match &lease["spec"][field] {
                    Value::Null => "<unset>".to_owned(),
                    time => page.time(time),
                };
                page.field(1, title, time);
            }
        }
        Err(error) => page.field(0, "Lease", format!("Failed to get lease: {error}")),
    }
}

fn conditions(page: &mut Page, conditions: &[Value]) {
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for one in conditions {
        let (beat, change) = (page.time(&one["lastHeartbeatTime"]), page.time(&one["lastTransitionTime"]));
        let (kind, status) = (text(one, "type"), text(one, "status"));
        let (reason, message) = (text(one, "reason"), text(one, "message"));
        page.line(1, format!("{kind} \t{status} \t{beat} \t{change} \t{reason} \t{message}"));
    }
}

fn system(page: &mut Page, object: &Value) {
    page.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        page.field(1, title, text(&object["status"]["nodeInfo"], field));
    }
    page.maybe(0, "PodCIDR", text(object, "spec.podCIDR"));
    let ranges: Vec<&str> = items(object, "spec.podCIDRs").iter().filter_map(Value::as_str).collect();
    page.maybe(0, "PodCIDRs", &ranges.join(","));
    page.maybe(0, "ProviderID", text(object, "spec.providerID"));
}

async fn pods(node: &Node, name: &str) -> Outcome<Vec<Value>> {
    let kind = node.kind("pods").await?;
    let selector = format!("spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed");
    let path = Query::new(kind.list_path(None)).with("fieldSelector", &selector).with("limit", "500");
    let list = node.client.json(Call::get(path.into_string())).await?;
    Ok(items(&list, "items").to_vec())
}

// === what pods ask for ===

/// Amounts by resource, each written as its first one was.
type Amounts = BTreeMap<String, (Amount, Format)>;

fn read(list: &Value) -> Amounts {
    let parse = |(name, value): (&str, &Value)| Some((name.to_owned(), quantity::parse(value.as_str()?).ok()?));
    members_of(list).into_iter().filter_map(parse).collect()
}

fn members_of(list: &Value) -> Vec<(&str, &Value)> {
    list.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, (amount, format)) in more {
        let entry = sum.entry(name.clone()).or_insert((Amount::default(), *format));
        entry.0 = entry.0 + *amount;
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, (amount, format)) in other {
        let entry = most.entry(name.clone()).or_insert((*amount, *format));
        if *amount > entry.0 {
            *entry = (*amount, *format);
        }
    }
}

/// Mains and sidecars together, or the init container that asks for most, whichever is more.
fn of_pod(pod: &Value, which: &str) -> Amounts {
    let mut sum = Amounts::new();
    for container in items(pod, "spec.containers") {
        add(&mut sum, &of_container(pod, container, which, "status.containerStatuses"));
    }
    let (mut sidecars, mut init) = (Amounts::new(), Amounts::new());
    for container in items(pod, "spec.initContainers") {
        if text(container, "restartPolicy") == "Always" {
            let own = of_container(pod, container, which, "status.initContainerStatuses");
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut init, &sidecars);
        } else {
            let mut own = read(&container["resources"][which]);
            add(&mut own, &sidecars);
            raise(&mut init, &own);
        }
    }
    raise(&mut sum, &init);
    for (name, amount) in read(&pod["spec"]["overhead"]) {
        if which == "requests" || sum.get(&name).is_some_and(|(amount, _)| !amount.is_zero()) {
            add(&mut sum, &Amounts::from([(name, amount)]));
        }
    }
    sum
}

/// A container that is being resized holds what it has until it has the new.
fn of_container(pod: &Value, container: &Value, which: &str, statuses: &str) -> Amounts {
    let mut own = read(&container["resources"][which]);
    let status = items(pod, statuses).iter().find(|status| status["name"] == container["name"]);
    let Some(status) = status.filter(|status| which == "requests" && status["resources"].is_object()) else {
        return own;
    };
    let infeasible = items(pod, "status.conditions")
        .iter()
        .any(|one| one["type"] == "PodResizePending" && one["reason"] == "Infeasible");
    if infeasible {
        own = Amounts::new();
    }
    raise(&mut own, &read(&status["resources"]["requests"]));
    raise(&mut own, &read(&status["allocatedResources"]));
    own
}

fn shown(amounts: &Amounts, name: &str) -> String {
    amounts.get(name).map_or_else(|| "0".to_owned(), |(amount, format)| amount.display(*format))
}

/// The amount with its share of what there is.
fn share(amounts: &Amounts, there: &Amounts, name: &str) -> String {
    let number = |amounts: &Amounts| {
        let amount = amounts.get(name).map(|(amount, _)| *amount).unwrap_or_default();
        if name == "cpu" { amount.millis() } else { amount.whole() }
    };
    let whole = number(there);
    let percent = if whole == 0 { 0.0 } else { number(amounts) as f64 / whole as f64 * 100.0 };
    format!("{} ({}%)", shown(amounts, name), percent as i64)
}

fn asked(page: &mut Page, object: &Value, pods: &[Value]) {
    let mut there = read(&object["status"]["allocatable"]);
    if there.is_empty() {
        there = read(&object["status"]["capacity"]);
    }
    page.line(0, format!("Non-terminated Pods:\t({} in total)", pods.len()));
    page.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    page.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for pod in pods {
        let (request, limit) = (of_pod(pod, "requests"), of_pod(pod, "limits"));
        let cells: Vec<String> = ["cpu", "memory"]
            .iter()
            .flat_map(|name| [share(&request, &there, name), share(&limit, &there, name)])
            .collect();
        let age = page.since(&pod["metadata"]["creationTimestamp"]);
        page.line(1, format!("{}\t{}\t\t{}\t{age}", value::namespace(pod), value::name(pod), cells.join("\t")));
        add(&mut requests, &request);
        add(&mut limits, &limit);
    }
    page.line(0, "Allocated resources:");
    page.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    page.line(1, "Resource\tRequests\tLimits");
    page.line(1, "--------\t--------\t------");
    let is_huge = |name: &&String| name.starts_with("hugepages-");
    let standard = ["cpu", "memory", "ephemeral-storage"].map(str::to_owned);
    for name in standard.iter().chain(there.keys().filter(is_huge)) {
        page.line(1, format!("{name}\t{}\t{}", share(&requests, &there, name), share(&limits, &there, name)));
    }
    let own = there.keys().filter(|name| !is_huge(name) && !standard.contains(name) && *name != "pods");
    for name in own {
        page.line(1, format!("{name}\t{}\t{}", shown(&requests, name), shown(&limits, name)));
    }
}
