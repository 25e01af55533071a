//! A service's instances as Consul knows them: `/v1/health/service/`, with blocking queries.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::backend::Address;
use serde_json::Value;

use super::Instance;
use super::http::{Response, Server, encode};
use super::watch::{Said, Source};

const MOST: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Consul {
    pub(super) server: Server,
    pub(super) token_file: Option<String>,
    pub(super) service: String,
    pub(super) tag: Option<String>,
    pub(super) datacenter: Option<String>,
    /// What was seen last; 0: nothing.
    pub(super) index: u64,
}

impl Consul {
    fn get(&self) -> io::Result<Response> {
        let mut target = format!("/v1/health/service/{}?passing=1", encode(&self.service));
        for (name, value) in [("tag", &self.tag), ("dc", &self.datacenter)] {
            if let Some(value) = value {
                target.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        if self.index > 0 {
            // Shorter than our patience with a silent connection.
            target.push_str(&format!("&index={}&wait=3s", self.index));
        }
        let fields = match &self.token_file {
            Some(path) => format!("X-Consul-Token: {}\r\n", std::fs::read_to_string(path)?.trim()),
            None => String::new(),
        };
        self.server.get(&target, &fields)
    }
}

impl Source for Consul {
    fn ask(&mut self) -> io::Result<Said> {
        let response = self.get()?;
        if response.status != 200 {
            self.index = 0;
            return Err(io::Error::other(format!("Consul answered with {}", response.status)));
        }
        let index = response.field("x-consul-index").and_then(|index| index.parse::<u64>().ok());
        let body: Value = serde_json::from_slice(&response.body(MOST)?)?;
        // An index that goes back starts anew ("Blocking Queries", Implementation Details); without one there is no waiting.
        let before = std::mem::replace(&mut self.index, index.unwrap_or(0));
        if self.index < before {
            self.index = 0;
        }
        let wait = if index.is_some() { Duration::from_millis(20) } else { Duration::from_secs(5) };
        Ok(Said { list: Some(instances(&body)), wait })
    }
}

fn instances(body: &Value) -> Vec<Instance> {
    let list = body.as_array().into_iter().flatten().filter_map(|entry| {
        let (service, node) = (&entry["Service"], &entry["Node"]);
        let own = service["Address"].as_str().filter(|address| !address.is_empty());
        let ip: IpAddr = own.or(node["Address"].as_str())?.parse().ok()?;
        let address = SocketAddr::new(ip, u16::try_from(service["Port"].as_u64()?).ok()?);
        let id = service["ID"].as_str().unwrap_or_default();
        let mut instance = Instance::new(Address::Tcp(address), format!("{id} ({address})"));
        let weight = service["Weights"]["Passing"].as_u64().unwrap_or(1);
        instance.weight = u32::try_from(weight).unwrap_or(1).min(1000);
        for (name, value) in service["Meta"].as_object().into_iter().flatten() {
            instance.labels.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
        }
        let zone = service["Locality"]["Zone"].as_str().or(node["Locality"]["Zone"].as_str());
        instance.zone = zone.map(str::to_owned).or_else(|| instance.labels.get("zone").cloned());
        Some(instance)
    });
    let mut list: Vec<Instance> = list.collect();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_weights_and_meta() {
        let body = serde_json::json!([
            {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "b", "Address": "", "Port": 80, "Weights": {"Passing": 3}}},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "a", "Address": "10.0.0.1", "Port": 81, "Meta": {"zone": "x"}}},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "c", "Address": "not.an.address", "Port": 81}},
        ]);
        let list = instances(&body);
        assert_eq!(
            list.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            ["a (10.0.0.1:81)", "b (10.0.0.9:80)"]
        );
        assert_eq!((list[0].zone.as_deref(), list[1].weight), (Some("x"), 3));
    }
}
