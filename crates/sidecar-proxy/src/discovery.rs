//! Endpoints and where they come from. Whatever the source, what is found is a list of [`Instance`]s; [`select`] makes of it
//! what a backend uses.

use std::collections::BTreeMap;

use dataplane::backend::{Address, Found};
use dataplane::balance;

use crate::config;

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
