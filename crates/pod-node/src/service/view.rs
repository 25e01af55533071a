//! What the kernel's table and the names are to be: from Services and EndpointSlices. Pure.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use pod_service::dns::{Endpoint, Port, Service, Zone};
use pod_service::{Frontend, Protocol};
use serde_json::Value;

use super::slice::SERVICE_LABEL;
use crate::object::{items, text};

/// A slice's service, if it has one.
pub(crate) fn service_of(slice: &Value) -> Option<(&str, &str)> {
    let name = slice.pointer("/metadata/labels")?.get(SERVICE_LABEL)?.as_str()?;
    Some((text(slice, "/metadata/namespace"), name))
}

/// `None` for headless services and those that are none of ours.
pub(crate) fn cluster_address(service: &Value) -> Option<Ipv4Addr> {
    text(service, "/spec/clusterIP").parse().ok()
}

/// Every port of every cluster address with the endpoints that are to be sent to: the ready ones; if there is none, those
/// that still serve while they terminate (KEP-1669).
pub(crate) fn frontends(service: &Value, slices: &[&Value]) -> Vec<Frontend> {
    let Some(address) = cluster_address(service) else { return Vec::new() };
    let of_port = |port: &Value| {
        let protocol = protocol(port)?;
        let number = number(&port["port"])?;
        let name = port["name"].as_str().unwrap_or_default();
        let targets = |wanted: fn(&Value) -> bool| -> BTreeSet<SocketAddrV4> {
            let of_slice = |slice: &&Value| {
                let target = items(slice, "/ports").iter().find(|port| {
                    port["name"].as_str().unwrap_or_default() == name && self::protocol(port) == Some(protocol)
                });
                target.and_then(|port| self::number(&port["port"]))
            };
            slices
                .iter()
                .filter_map(|slice| Some((slice, of_slice(slice)?)))
                .flat_map(|(slice, number)| {
                    addresses(slice, wanted).map(move |address| SocketAddrV4::new(address, number))
                })
                .collect()
        };
        let mut backends = targets(is_ready);
        if backends.is_empty() {
            backends = targets(is_draining);
        }
        Some(Frontend { protocol, address: SocketAddrV4::new(address, number), backends })
    };
    items(service, "/spec/ports").iter().filter_map(of_port).collect()
}

/// Adds the service's names.
pub(crate) fn name(zone: &mut Zone, service: &Value, slices: &[&Value]) {
    let headless = text(service, "/spec/clusterIP") == "None";
    let address = cluster_address(service);
    if !headless && address.is_none() {
        return;
    }
    let ports = |list: &[Value]| -> Vec<Port> {
        let port = |port: &Value| {
            let name = port["name"].as_str().unwrap_or_default().to_owned();
            Some(Port { name, protocol: protocol(port)?, number: number(&port["port"])? })
        };
        list.iter().filter_map(port).collect()
    };
    let endpoints = slices.iter().flat_map(|slice| {
        let ports = ports(items(slice, "/ports"));
        items(slice, "/endpoints").iter().filter(|endpoint| is_ready(endpoint)).flat_map(move |endpoint| {
            let hostname = endpoint["hostname"].as_str().map(str::to_owned);
            let of_address = |address: Ipv4Addr| Endpoint { address, hostname: hostname.clone(), ports: ports.clone() };
            parsed(endpoint).map(of_address).collect::<Vec<_>>()
        })
    });
    let known = Service { address, ports: ports(items(service, "/spec/ports")), endpoints: endpoints.collect() };
    let key = (text(service, "/metadata/namespace").to_owned(), text(service, "/metadata/name").to_owned());
    zone.services.insert(key, known);
}

fn addresses(slice: &Value, wanted: fn(&Value) -> bool) -> impl Iterator<Item = Ipv4Addr> {
    items(slice, "/endpoints").iter().filter(move |endpoint| wanted(endpoint)).flat_map(parsed)
}

fn parsed(endpoint: &Value) -> impl Iterator<Item = Ipv4Addr> {
    items(endpoint, "/addresses").iter().filter_map(|address| address.as_str()?.parse().ok())
}

/// A missing `ready` is read as true (discovery/v1 `EndpointConditions`).
fn is_ready(endpoint: &Value) -> bool {
    endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
}

fn is_draining(endpoint: &Value) -> bool {
    let is = |name: &str| endpoint["conditions"][name].as_bool() == Some(true);
    is("serving") && is("terminating")
}

fn protocol(port: &Value) -> Option<Protocol> {
    match port["protocol"].as_str().unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(endpoints: Value) -> Value {
        json!({
            "metadata": {"namespace": "default", "name": "web-abcde", "labels": {SERVICE_LABEL: "web"}},
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    }

    fn endpoint(ip: &str, ready: bool, terminating: bool) -> Value {
        json!({"addresses": [ip], "conditions": {"ready": ready, "serving": true, "terminating": terminating}})
    }

    #[test]
    fn the_ready_are_sent_to_and_the_draining_only_when_nobody_else_is_left() {
        let service = json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        });
        let told = |slice: &Value| {
            let found = frontends(&service, &[slice]);
            let backends: Vec<_> = found[0].backends.iter().map(ToString::to_string).collect();
            format!("{} -> {}", found[0].address, backends.join(" "))
        };
        let both = slice(json!([endpoint("10.89.0.2", true, false), endpoint("10.89.0.3", false, true)]));
        assert_eq!(told(&both), "10.96.0.7:80 -> 10.89.0.2:8080");
        assert_eq!(told(&slice(json!([endpoint("10.89.0.3", false, true)]))), "10.96.0.7:80 -> 10.89.0.3:8080");
        assert_eq!(told(&slice(json!([endpoint("10.89.0.3", false, false)]))), "10.96.0.7:80 -> ");
        assert_eq!(service_of(&both), Some(("default", "web")));
    }

    #[test]
    fn a_headless_service_has_names_and_no_address() {
        let service = json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
        });
        let slice = slice(json!([endpoint("10.89.0.2", true, false), endpoint("10.89.0.3", false, false)]));
        assert!(frontends(&service, &[&slice]).is_empty());
        let mut zone = Zone::default();
        name(&mut zone, &service, &[&slice]);
        let known = &zone.services[&("default".to_owned(), "web".to_owned())];
        assert_eq!((known.address, known.endpoints.len(), known.endpoints[0].ports[0].number), (None, 1, 8080));
    }
}
