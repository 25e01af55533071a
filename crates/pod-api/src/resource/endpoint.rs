//! Endpoints and EndpointSlices: which addresses stand behind a Service, in the old form and the new one.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::view::{self, NONE, integer, items, text};
use super::{Column, Part, Strategy};
use crate::path::Path;
use crate::problem::Findings;
use crate::validate::{self, FieldError, format};

/// How many addresses or ports a cell shows.
const SHOWN: usize = 3;
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20_000;
const MAX_ADDRESSES: usize = 100;
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

#[derive(Debug)]
pub(super) struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in object.get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten() {
            for port in subset.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                view::fill(view::object(port, ""), "protocol", "TCP");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        for (index, subset) in items(object, "subsets").iter().enumerate() {
            let path = Path::of("subsets").index(index);
            if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
                findings.required(path.clone(), "must specify `addresses` or `notReadyAddresses`");
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (index, address) in items(subset, list).iter().enumerate() {
                    self::address(text(address, "ip"), path.field(list).index(index).field("ip"), &mut findings);
                }
            }
            let ports = items(subset, "ports");
            for (index, port) in ports.iter().enumerate() {
                let path = path.field("ports").index(index);
                let name = text(port, "name");
                if !name.is_empty() {
                    findings.each_invalid(&path.field("name"), name, format::dns_label(name));
                } else if ports.len() > 1 {
                    findings.required(path.field("name"), "");
                }
                if let Some(complaint) = format::port_number(integer(port, "port").unwrap_or(0)) {
                    findings.invalid(path.field("port"), port["port"].clone(), &complaint);
                }
                findings.one_of(path.field("protocol"), port["protocol"].as_str(), PROTOCOLS);
            }
        }
        validate::errors(findings)
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Endpoints", "Addresses and ports that are ready."), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut all = Vec::new();
        for subset in items(object, "subsets") {
            let addresses = items(subset, "addresses").iter().map(|address| text(address, "ip"));
            let ports = items(subset, "ports");
            if ports.is_empty() {
                all.extend(addresses.clone().map(str::to_owned));
            }
            for port in ports {
                all.extend(addresses.clone().map(|ip| with_port(ip, &port["port"])));
            }
        }
        vec![view::name(object), shown(&all, NONE).into(), view::age(object, now)]
    }
}

fn with_port(ip: &str, port: &Value) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// The first few, and how many more there are.
fn shown(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        count if count > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), count - SHOWN),
        _ => all.join(","),
    }
}

#[derive(Debug)]
pub(super) struct EndpointSlices;

impl Strategy for EndpointSlices {
    fn default(&self, object: &mut Value) {
        for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let port = view::object(port, "");
            port.entry("name").or_insert_with(|| "".into());
            view::fill(port, "protocol", "TCP");
        }
        // Upstream writes the lists also when they are empty.
        let members = view::object(object, "");
        for list in ["endpoints", "ports"] {
            members.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        let family = text(object, "addressType");
        match family {
            "" => findings.required(Path::of("addressType"), ""),
            "IPv4" | "IPv6" => {}
            other => findings.not_supported(Path::of("addressType"), other, &["IPv4", "IPv6"]),
        }
        let endpoints = items(object, "endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            findings.too_many(Path::of("endpoints"), endpoints.len(), MAX_ENDPOINTS);
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            self::endpoint(endpoint, family, &Path::of("endpoints").index(index), &mut findings);
        }
        slice_ports(items(object, "ports"), &mut findings);
        validate::errors(findings)
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if new["addressType"] != old["addressType"] {
            let mut findings = Findings::default();
            findings.invalid(Path::of("addressType"), new["addressType"].clone(), validate::IMMUTABLE_FIELD);
            errors.extend(validate::errors(findings));
        }
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("AddressType", "IPv4 or IPv6."),
                Column::text("Ports", "The ports of every endpoint."),
                Column::text("Endpoints", "The addresses, ready or not."),
                Column::AGE,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        const UNSET: &str = "<unset>";
        let ports: Vec<String> = items(object, "ports")
            .iter()
            .map(|port| match (integer(port, "port"), text(port, "name")) {
                (Some(number), _) => number.to_string(),
                (None, "") => "*".to_owned(),
                (None, name) => name.to_owned(),
            })
            .collect();
        let addresses: Vec<String> = items(object, "endpoints")
            .iter()
            .flat_map(|endpoint| items(endpoint, "addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        vec![
            view::name(object),
            text(object, "addressType").into(),
            shown(&ports, UNSET).into(),
            shown(&addresses, UNSET).into(),
            view::age(object, now),
        ]
    }
}

fn endpoint(endpoint: &Value, family: &str, path: &Path, findings: &mut Findings) {
    let addresses = items(endpoint, "addresses");
    let list = path.field("addresses");
    if addresses.is_empty() {
        findings.required(list.clone(), "must contain at least 1 address");
    }
    if addresses.len() > MAX_ADDRESSES {
        findings.too_many(list.clone(), addresses.len(), MAX_ADDRESSES);
    }
    for (index, address) in addresses.iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        let path = list.index(index);
        match (text.parse::<IpAddr>(), family) {
            (Ok(IpAddr::V6(_)), "IPv4") => findings.invalid(path, text, "must be an IPv4 address"),
            (Ok(IpAddr::V4(_)), "IPv6") => findings.invalid(path, text, "must be an IPv6 address"),
            _ => self::address(text, path, findings),
        }
    }
    if let Some(hostname) = endpoint["hostname"].as_str() {
        findings.each_invalid(&path.field("hostname"), hostname, format::dns_label(hostname));
    }
}

fn slice_ports(ports: &[Value], findings: &mut Findings) {
    let path = Path::of("ports");
    if ports.len() > MAX_PORTS {
        findings.too_many(path.clone(), ports.len(), MAX_PORTS);
    }
    let mut names = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            findings.each_invalid(&path.field("name"), name, format::dns_label(name));
        }
        if names.contains(&name) {
            findings.duplicate(path.field("name"), name);
        }
        names.push(name);
        findings.one_of(path.field("protocol"), port["protocol"].as_str(), PROTOCOLS);
        if let Some(complaint) = integer(port, "port").and_then(format::port_number) {
            findings.invalid(path.field("port"), port["port"].clone(), &complaint);
        }
    }
}

/// An address packets can be sent to from another pod (`ValidateNonSpecialIP`).
fn address(text: &str, path: Path, findings: &mut Findings) {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return findings.invalid(path, text, format::ip_address(text).unwrap_or_default());
    };
    if ip.is_unspecified() {
        findings.invalid(path.clone(), text, &format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        findings.invalid(path.clone(), text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    if link_local {
        findings.invalid(path.clone(), text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    let multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    if multicast {
        findings.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
