//! A Service and the endpoints behind it.

use pod_client::Call;
use pod_client::query::Query;
use serde_json::Value;

use super::page::Page;
use crate::kube::Node;
use crate::kube::value::{self, integer, items, members, text};

/// Endpoints that are shown.
const MOST: usize = 3;

pub(super) async fn describe(page: &mut Page, node: &Node, service: &Value) {
    let slices = slices(node, service).await.unwrap_or_default();
    let joined = |path: &str| {
        let words: Vec<&str> = items(service, path).iter().filter_map(Value::as_str).collect();
        words.join(",")
    };
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    page.head(service);
    let selector: Vec<String> = members(service, "spec.selector")
        .into_iter()
        .map(|(name, value)| format!("{name}={}", value::scalar(value)))
        .collect();
    page.field(0, "Selector", or_none(selector.join(",")));
    page.field(0, "Type", text(service, "spec.type"));
    page.maybe(0, "IP Family Policy", text(service, "spec.ipFamilyPolicy"));
    page.field(0, "IP Families", or_none(joined("spec.ipFamilies")));
    page.field(0, "IP", text(service, "spec.clusterIP"));
    page.field(0, "IPs", or_none(joined("spec.clusterIPs")));
    page.maybe(0, "External IPs", &joined("spec.externalIPs"));
    page.maybe(0, "Desired LoadBalancer IP", text(service, "spec.loadBalancerIP"));
    page.maybe(0, "External Name", text(service, "spec.externalName"));
    for port in items(service, "spec.ports") {
        self::port(page, port, &slices);
    }
    page.field(0, "Session Affinity", text(service, "spec.sessionAffinity"));
    page.maybe(0, "External Traffic Policy", text(service, "spec.externalTrafficPolicy"));
    page.maybe(0, "Internal Traffic Policy", text(service, "spec.internalTrafficPolicy"));
    page.maybe(0, "LoadBalancer Source Ranges", &joined("spec.loadBalancerSourceRanges"));
    page.maybe(0, "Traffic Distribution", text(service, "spec.trafficDistribution"));
}

fn port(page: &mut Page, port: &Value, slices: &[Value]) {
    let name = match text(port, "name") {
        "" => "<unset>",
        name => name,
    };
    let protocol = text(port, "protocol");
    page.line(0, format!("Port:\t{name}\t{}/{protocol}", integer(port, "port").unwrap_or(0)));
    page.field(0, "TargetPort", format!("{}/{protocol}", value::scalar(&port["targetPort"])));
    if let Some(node_port @ 1..) = integer(port, "nodePort") {
        page.line(0, format!("NodePort:\t{name}\t{node_port}/{protocol}"));
    }
    page.field(0, "Endpoints", endpoints(slices, text(port, "name")));
}

async fn slices(node: &Node, service: &Value) -> Option<Vec<Value>> {
    let kind = node.kind("endpointslices.discovery.k8s.io").await.ok()?;
    let path = Query::new(kind.list_path(Some(value::namespace(service))))
        .with("labelSelector", &format!("kubernetes.io/service-name={}", value::name(service)));
    let list = node.client.json(Call::get(path.into_string())).await.ok()?;
    Some(items(&list, "items").to_vec())
}

/// The addresses of a port that are ready.
fn endpoints(slices: &[Value], port_name: &str) -> String {
    if slices.is_empty() {
        return "<none>".to_owned();
    }
    let mut found = Vec::new();
    for slice in slices {
        let ready = items(slice, "endpoints").iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let addresses: Vec<&str> = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()).collect();
        let ports = items(slice, "ports");
        if ports.is_empty() {
            found.extend(addresses.iter().map(|address| (*address).to_owned()));
        }
        for port in ports.iter().filter(|port| text(port, "name") == port_name) {
            let number = integer(port, "port").unwrap_or(0);
            found.extend(addresses.iter().map(|address| match address.contains(':') {
                true => format!("[{address}]:{number}"),
                false => format!("{address}:{number}"),
            }));
        }
    }
    match found.len() {
        ..=MOST => found.join(","),
        count => format!("{} + {} more...", found[..MOST].join(","), count - MOST),
    }
}
