//! Endpoints and where they come from. Whatever the source, what is found is a list of [`Instance`]s; [`select`] makes of it
//! what a backend uses.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::backend::{Address, Found};
use dataplane::balance;

use crate::config::{self, Discover, Spec};

mod consul;
mod dns;
mod file;
mod http;
mod kubernetes;
mod watch;
mod way;

pub use dns::Machine;
use dns::What;
pub use watch::{Bell, Watch};

/// A new source has this long for its first answer before the proxy goes on without.
const FIRST: Duration = Duration::from_secs(3);
/// Where a pod finds who it is (the service account's projected volume).
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Sources that are being watched, by what they are.
#[derive(Debug, Default)]
pub struct Watches {
    by_key: HashMap<String, Arc<Watch>>,
    pub bell: Arc<Bell>,
}

/// A `host:port` with an address, or a socket's path.
fn address(text: &str) -> Option<Address> {
    match text.strip_prefix("unix:") {
        Some(path) => path.starts_with('/').then(|| Address::Unix(PathBuf::from(path))),
        None => text.parse::<SocketAddr>().ok().map(Address::Tcp),
    }
}

impl Watches {
    /// Only those of `new` go on being watched.
    pub fn keep(&mut self, new: Watches) {
        self.by_key = new.by_key;
    }

    /// All that is known of a backend's endpoints. Of sources that were watched already what they said last; `new` is what goes
    /// on into the next plan.
    pub fn instances(&self, one: &config::Backend, spec: &Spec, new: &mut Watches) -> io::Result<Vec<Instance>> {
        let mut all = Vec::new();
        if one.original_destination {
            // It stands for wherever clients want to go.
            let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
            all.push(Instance::new(Address::Tcp(nowhere), "original".to_owned()));
        }
        let mut waited = Vec::new();
        let plain = one.endpoints.iter().map(|address| (address, None));
        for (text, member) in plain.chain(one.members.iter().map(|member| (&member.address, Some(member)))) {
            if let Some(address) = address(text) {
                all.push(described(Instance::new(address, text.clone()), member));
                continue;
            }
            let Some((host, port)) = text.rsplit_once(':') else { continue };
            let what = What::Host { host: host.to_owned(), port: port.parse().unwrap_or(0) };
            waited.push((self.watch(text, dns_source(what, one, spec), new)?, member));
        }
        for source in &one.discover {
            waited.push((self.discover(source, one, spec, new)?, None));
        }
        let until = Instant::now() + FIRST;
        for (watch, member) in waited {
            let found = watch.list(until).unwrap_or_default();
            all.extend(found.into_iter().map(|instance| described(instance, member)));
        }
        if all.is_empty() {
            daemon::warn!("no endpoint is known yet", backend = one.name);
        }
        Ok(all)
    }

    fn watch(
        &self,
        name: &str,
        source: impl watch::Source + std::fmt::Debug,
        new: &mut Watches,
    ) -> io::Result<Arc<Watch>> {
        let key = format!("{source:?}");
        if let Some(known) = new.by_key.get(&key).or_else(|| self.by_key.get(&key)).map(Arc::clone) {
            new.by_key.insert(key, Arc::clone(&known));
            return Ok(known);
        }
        let watch = Watch::start(name, source, Arc::clone(&self.bell))?;
        new.by_key.insert(key, Arc::clone(&watch));
        Ok(watch)
    }

    fn discover(
        &self,
        source: &Discover,
        one: &config::Backend,
        spec: &Spec,
        new: &mut Watches,
    ) -> io::Result<Arc<Watch>> {
        let wrong = |what: &str| io::Error::other(format!("{what} is not known"));
        match source {
            Discover::Srv(config::Text(name)) => {
                self.watch(name, dns_source(What::Service(name.clone()), one, spec), new)
            }
            Discover::File(config::Text(path)) => {
                self.watch(path, file::File { path: PathBuf::from(path), seen: None }, new)
            }
            Discover::Kubernetes(from) => {
                let in_pod = || {
                    Some(format!(
                        "https://{}:{}",
                        bracketed(&env("KUBERNETES_SERVICE_HOST")?),
                        env("KUBERNETES_SERVICE_PORT")?
                    ))
                };
                let url = from
                    .api
                    .clone()
                    .or_else(in_pod)
                    .ok_or_else(|| wrong("the API's address (`api`, or KUBERNETES_SERVICE_HOST)"))?;
                let own =
                    |name: &str| Some(format!("{ACCOUNT}/{name}")).filter(|path| std::path::Path::new(path).exists());
                let ca = from.ca_file.clone().or_else(|| own("ca.crt"));
                let namespace = from
                    .namespace
                    .clone()
                    .or_else(|| Some(std::fs::read_to_string(own("namespace")?).ok()?.trim().to_owned()));
                let slices = kubernetes::Slices {
                    server: http::Server::parse(&url, ca.as_deref()).ok_or_else(|| wrong(&url))?,
                    token_file: from.token_file.clone().or_else(|| own("token")),
                    namespace: namespace.ok_or_else(|| wrong("the namespace"))?,
                    service: from.service.clone(),
                    port: from.port.clone(),
                    known: BTreeMap::new(),
                    version: None,
                    open: None,
                };
                self.watch(&from.service, slices, new)
            }
            Discover::Consul(from) => {
                let consul = consul::Consul {
                    server: http::Server::parse(&from.address, from.ca_file.as_deref())
                        .ok_or_else(|| wrong(&from.address))?,
                    token_file: from.token_file.clone(),
                    service: from.service.clone(),
                    tag: from.tag.clone(),
                    datacenter: from.datacenter.clone(),
                    index: 0,
                };
                self.watch(&from.service, consul, new)
            }
        }
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn dns_source(what: What, one: &config::Backend, spec: &Spec) -> dns::Asked {
    dns::Asked { servers: name_servers(spec), what, every: one.resolve_every.0 }
}

/// The name servers of the document.
pub fn name_servers(spec: &Spec) -> Vec<SocketAddr> {
    spec.name_servers.iter().filter_map(|text| name_server(text)).collect()
}

/// A name server's address; the port is 53 if none is given.
pub fn name_server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)))
}

/// Whether a server's address is written as it must be.
pub fn is_url(text: &str) -> bool {
    http::Server::parse(text, None).is_some()
}

fn described(mut instance: Instance, member: Option<&config::Member>) -> Instance {
    if let Some(member) = member {
        instance.weight = member.weight;
        instance.zone.clone_from(&member.zone);
        instance.labels.clone_from(&member.labels);
    }
    instance
}

/// An endpoint with all its source says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub address: Address,
    /// As people are shown it.
    pub name: String,
    pub weight: u32,
    pub zone: Option<String>,
    pub labels: BTreeMap<String, String>,
}

impl Instance {
    pub fn new(address: Address, name: String) -> Instance {
        Instance { address, name, weight: 1, zone: None, labels: BTreeMap::new() }
    }
}

/// What the backend uses of what was found: those with the labels it wants, a few of them if it wants few, each address once.
pub fn select(one: &config::Backend, zone: Option<&str>, instances: &[Instance]) -> Vec<Found> {
    let subset = one.subset.as_ref();
    let wanted = |instance: &&Instance| {
        subset.is_none_or(|subset| subset.labels.iter().all(|(name, value)| instance.labels.get(name) == Some(value)))
    };
    let mut chosen: Vec<&Instance> = Vec::new();
    for instance in instances.iter().filter(wanted) {
        if !chosen.iter().any(|other| other.address == instance.address) {
            chosen.push(instance);
        }
    }
    if let Some(subset) = subset.filter(|subset| subset.size > 0) {
        let who = subset.identity.clone().unwrap_or_else(host_name);
        let keys: Vec<u64> =
            chosen.iter().map(|instance| balance::hash(instance.address.to_string().as_bytes())).collect();
        let few = balance::subset(&keys, balance::hash(who.as_bytes()), subset.size as usize);
        chosen = few.into_iter().map(|index| chosen[index]).collect();
    }
    // Whose zone is not known is far, unless ours is not known either.
    let near = |instance: &Instance| zone.is_none_or(|zone| instance.zone.as_deref() == Some(zone));
    let found = chosen.into_iter().map(|instance| Found {
        address: instance.address.clone(),
        name: instance.name.clone(),
        weight: instance.weight,
        near: near(instance),
    });
    found.collect()
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(n: u8, zone: &str, version: &str) -> Instance {
        let address = Address::Tcp(std::net::SocketAddr::from(([10, 0, 0, n], 80)));
        let labels = [("version".to_owned(), version.to_owned())].into();
        Instance { zone: Some(zone.to_owned()), labels, ..Instance::new(address, n.to_string()) }
    }

    fn backend(yaml: &str) -> config::Backend {
        let text = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: Proxy\nspec:\n  listeners: [{{name: a, address: ':1'}}]\n  routes: [{{name: r, backends: [{{name: b}}]}}]\n  backends:\n  - {{name: b, endpoints: ['a:1'], {yaml}}}\n"
        );
        let loaded = daemon::config::load::<config::Spec>(&text, "Proxy", config::check);
        loaded.unwrap().spec.backends.remove(0)
    }

    #[test]
    fn labels_zone_and_number() {
        let all: Vec<Instance> = (1..=20)
            .map(|n| instance(n, if n % 2 == 0 { "a" } else { "b" }, if n <= 10 { "1" } else { "2" }))
            .collect();
        let labelled = select(&backend("subset: {labels: {version: '2'}}"), Some("a"), &all);
        assert_eq!(labelled.len(), 10);
        assert_eq!(labelled.iter().filter(|found| found.near).count(), 5);
        let one = select(&backend("subset: {size: 4, identity: me}"), None, &all);
        let other = select(&backend("subset: {size: 4, identity: you}"), None, &all);
        assert!(one.len() == 4 && other.len() == 4 && one != other && one.iter().all(|found| found.near));
        let twice = [all.clone(), all].concat();
        assert_eq!(select(&backend("slowStart: 1s"), None, &twice).len(), 20);
    }
}
