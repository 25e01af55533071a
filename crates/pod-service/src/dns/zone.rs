//! Which names there are, as data: no wire format, no clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::Protocol;

/// Everything below one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// `cluster.local`, lower case, without a dot at the end.
    pub domain: String,
    /// By namespace and name.
    pub services: BTreeMap<(String, String), Service>,
}

/// A service as its name is resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `None`: headless, the name is that of its endpoints.
    pub address: Option<Ipv4Addr>,
    pub ports: Vec<Port>,
    /// Those that are ready (or all, if the service publishes addresses that are not).
    pub endpoints: Vec<Endpoint>,
}

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub protocol: Protocol,
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    /// The pod's `hostname`, if its `subdomain` is the service: a name of its own.
    pub hostname: Option<String>,
    pub ports: Vec<Port>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Not below the domain: somebody else's.
    Elsewhere,
    /// Below it, and there is none.
    Nothing,
    /// It exists, with these addresses (maybe none: a headless service nobody serves, or a name that only has names below).
    Addresses(Vec<Ipv4Addr>),
    /// `_port._protocol` of a service: number and target.
    Services(Vec<(u16, String)>),
    /// `dns-version`
    Version,
}

/// The specification's version, answered for `dns-version.DOMAIN`.
pub(crate) const SPECIFICATION: &str = "1.1.0";

impl Zone {
    /// `name`: without the dot at the end, in any case.
    pub(crate) fn find(&self, name: &str) -> Found {
        let name = name.to_ascii_lowercase();
        let Some(inner) = self.below(&name) else { return Found::Elsewhere };
        let mut labels: Vec<&str> = inner.split('.').filter(|label| !label.is_empty()).collect();
        match labels.pop() {
            None => Found::Addresses(Vec::new()),
            Some("dns-version") if labels.is_empty() => Found::Version,
            Some("svc") => self.find_service(&labels),
            Some("pod") => self.find_pod(&labels),
            Some(_) => Found::Nothing,
        }
    }

    /// The name an address has: of a service, or of an endpoint that has a name.
    pub(crate) fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        self.services.iter().find_map(|((namespace, name), service)| {
            let full = self.full(namespace, name);
            if service.address == Some(address) {
                return Some(full);
            }
            let endpoint = service.endpoints.iter().find(|endpoint| endpoint.address == address)?;
            Some(format!("{}.{full}", endpoint.hostname.as_deref()?))
        })
    }

    /// What is left of the domain.
    fn below<'a>(&self, name: &'a str) -> Option<&'a str> {
        match name.strip_suffix(self.domain.as_str())? {
            "" => Some(""),
            inner => inner.strip_suffix('.'),
        }
    }

    fn full(&self, namespace: &str, name: &str) -> String {
        format!("{name}.{namespace}.svc.{}", self.domain)
    }

    /// `[[_port, _protocol] | [hostname]] service namespace`
    fn find_service(&self, labels: &[&str]) -> Found {
        let (before, namespace, name) = match labels {
            [] => return Found::Addresses(Vec::new()),
            [namespace] => return self.if_any(|there, _| there == *namespace),
            [before @ .., name, namespace] => (before, (*namespace).to_owned(), (*name).to_owned()),
        };
        let Some(service) = self.services.get(&(namespace.clone(), name.clone())) else { return Found::Nothing };
        let full = self.full(&namespace, &name);
        match before {
            [] => Found::Addresses(service.addresses()),
            [one] if one.starts_with('_') => service.if_any_port(|port| protocol_label(port.protocol) == *one),
            [hostname] => {
                let named = |endpoint: &&Endpoint| endpoint.label() == *hostname;
                let found: Vec<_> = service.endpoints.iter().filter(named).map(|endpoint| endpoint.address).collect();
                if found.is_empty() { Found::Nothing } else { Found::Addresses(found) }
            }
            [port, protocol] => {
                let (Some(port), protocol) = (port.strip_prefix('_'), *protocol) else { return Found::Nothing };
                let found = service.targets(&full, port, protocol);
                if found.is_empty() { Found::Nothing } else { Found::Services(found) }
            }
            _ => Found::Nothing,
        }
    }

    /// `10-89-0-3 namespace`: any address, as long as the namespace has something.
    fn find_pod(&self, labels: &[&str]) -> Found {
        match labels {
            [] => Found::Addresses(Vec::new()),
            [_namespace] => Found::Addresses(Vec::new()),
            [dashed, _namespace] => match dashed.replace('-', ".").parse() {
                Ok(address) => Found::Addresses(vec![address]),
                Err(_) => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    fn if_any(&self, matches: impl Fn(&str, &str) -> bool) -> Found {
        let any = self.services.keys().any(|(namespace, name)| matches(namespace, name));
        if any { Found::Addresses(Vec::new()) } else { Found::Nothing }
    }
}

impl Service {
    fn addresses(&self) -> Vec<Ipv4Addr> {
        match self.address {
            Some(address) => vec![address],
            None => self.endpoints.iter().map(|endpoint| endpoint.address).collect(),
        }
    }

    /// Targets of a headless service are its endpoints, by hostname or dashed address.
    fn targets(&self, full: &str, port: &str, protocol: &str) -> Vec<(u16, String)> {
        let fits = |candidate: &&Port| candidate.name == port && protocol_label(candidate.protocol) == protocol;
        if self.address.is_some() {
            return self.ports.iter().filter(fits).map(|port| (port.number, full.to_owned())).collect();
        }
        let of_endpoint = |endpoint: &Endpoint| {
            let target = format!("{}.{full}", endpoint.label());
            endpoint.ports.iter().find(fits).map(|port| (port.number, target))
        };
        self.endpoints.iter().filter_map(of_endpoint).collect()
    }

    fn if_any_port(&self, matches: impl Fn(&Port) -> bool) -> Found {
        let mut ports = self.ports.iter().chain(self.endpoints.iter().flat_map(|endpoint| &endpoint.ports));
        if ports.any(matches) { Found::Addresses(Vec::new()) } else { Found::Nothing }
    }
}

impl Endpoint {
    /// Below its service: the hostname, else the address with dashes (as CoreDNS names them).
    fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| self.address.to_string().replace('.', "-"))
    }
}

fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "_tcp",
        Protocol::Udp => "_udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let http = |number| Port { name: "http".into(), protocol: Protocol::Tcp, number };
        let endpoint = |last, hostname: Option<&str>| Endpoint {
            address: Ipv4Addr::new(10, 89, 0, last),
            hostname: hostname.map(str::to_owned),
            ports: vec![http(8080)],
        };
        let web = Service {
            address: Some(Ipv4Addr::new(10, 96, 0, 7)),
            ports: vec![http(80)],
            endpoints: vec![endpoint(3, None)],
        };
        let db = Service {
            address: None,
            ports: vec![http(80)],
            endpoints: vec![endpoint(4, Some("db-0")), endpoint(5, None)],
        };
        let services = [("web", web), ("db", db), ("empty", Service::default())];
        let services = services.map(|(name, service)| (("default".to_owned(), name.to_owned()), service));
        Zone { domain: "cluster.local".into(), services: services.into() }
    }

    #[test]
    fn names_of_services_pods_and_endpoints() {
        let find = |name: &str| match zone().find(name) {
            Found::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Found::Services(found) => {
                found.iter().map(|(port, to)| format!("{port}>{to}")).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        };
        for (name, expected) in [
            ("web.default.svc.cluster.local", "10.96.0.7"),
            ("WEB.Default.svc.CLUSTER.local", "10.96.0.7"),
            ("db.default.svc.cluster.local", "10.89.0.4 10.89.0.5"),
            ("db-0.db.default.svc.cluster.local", "10.89.0.4"),
            ("10-89-0-5.db.default.svc.cluster.local", "10.89.0.5"),
            ("db-1.db.default.svc.cluster.local", "Nothing"),
            ("empty.default.svc.cluster.local", ""),
            ("web.other.svc.cluster.local", "Nothing"),
            ("default.svc.cluster.local", ""),
            ("other.svc.cluster.local", "Nothing"),
            ("svc.cluster.local", ""),
            ("cluster.local", ""),
            ("_http._tcp.web.default.svc.cluster.local", "80>web.default.svc.cluster.local"),
            (
                "_http._tcp.db.default.svc.cluster.local",
                "8080>db-0.db.default.svc.cluster.local 8080>10-89-0-5.db.default.svc.cluster.local",
            ),
            ("_tcp.web.default.svc.cluster.local", ""),
            ("_http._udp.web.default.svc.cluster.local", "Nothing"),
            ("10-89-0-9.default.pod.cluster.local", "10.89.0.9"),
            ("no-address.default.pod.cluster.local", "Nothing"),
            ("web.default.cluster.local", "Nothing"),
            ("dns-version.cluster.local", "Version"),
            ("example.com", "Elsewhere"),
            ("notcluster.local", "Elsewhere"),
        ] {
            assert_eq!(find(name), expected, "{name}");
        }
    }

    #[test]
    fn addresses_have_names() {
        let zone = zone();
        assert_eq!(zone.name_of(Ipv4Addr::new(10, 96, 0, 7)).unwrap(), "web.default.svc.cluster.local");
        assert_eq!(zone.name_of(Ipv4Addr::new(10, 89, 0, 4)).unwrap(), "db-0.db.default.svc.cluster.local");
        assert_eq!(zone.name_of(Ipv4Addr::new(10, 89, 0, 5)), None);
    }
}
