//! A service's EndpointSlices (discovery.k8s.io/v1): listed, then watched from there on. A watch that ends goes on where it
//! was; when that is too long ago (410) everything is listed anew.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::backend::Address;
use serde_json::Value;

use super::Instance;
use super::http::{Line, Response, Server, encode};
use super::watch::{Said, Source};
use super::way::reachable;

/// The API's answers are not longer.
const MOST: usize = 8 << 20;
/// The API ends a watch after this many seconds.
const WATCH: u32 = 290;
/// What has ended is begun again after this time: it may always end at once.
const REST: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Slices {
    pub(super) server: Server,
    /// Read again for each connection: tokens are renewed.
    pub(super) token_file: Option<String>,
    pub(super) namespace: String,
    pub(super) service: String,
    /// Its name or number; without, the first.
    pub(super) port: Option<String>,
    pub(super) known: BTreeMap<String, Value>,
    /// Where the watch goes on; without, everything is listed.
    pub(super) version: Option<String>,
    pub(super) open: Option<Open>,
}

/// A watch that is under way.
pub(super) struct Open(Response);

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

impl Slices {
    fn get(&self, more: &str) -> io::Result<Response> {
        let label = encode(&format!("kubernetes.io/service-name={}", self.service));
        let target = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector={label}{more}",
            encode(&self.namespace)
        );
        let fields = match &self.token_file {
            Some(path) => format!("Authorization: Bearer {}\r\n", std::fs::read_to_string(path)?.trim()),
            None => String::new(),
        };
        self.server.get(&target, &fields)
    }

    fn list(&mut self) -> io::Result<()> {
        let response = self.get("")?;
        if response.status != 200 {
            return Err(io::Error::other(format!("the API answered the list with {}", response.status)));
        }
        let list: Value = serde_json::from_slice(&response.body(MOST)?)?;
        self.known.clear();
        for slice in list["items"].as_array().into_iter().flatten() {
            self.known.insert(name_of(slice), slice.clone());
        }
        self.version = list["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        let version = self.version.as_deref().unwrap_or_default();
        let more =
            format!("&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH}&resourceVersion={}", encode(version));
        let response = self.get(&more)?;
        match response.status {
            200 => self.open = Some(Open(response)),
            410 => self.version = None,
            status => return Err(io::Error::other(format!("the API answered the watch with {status}"))),
        }
        Ok(())
    }

    /// Takes note of an event; whether the list may have changed.
    fn take(&mut self, event: &Value) -> bool {
        let object = &event["object"];
        let changed = match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => {
                self.known.insert(name_of(object), object.clone());
                true
            }
            Some("DELETED") => self.known.remove(&name_of(object)).is_some(),
            Some("BOOKMARK") => false,
            // Whatever it is, 410 most likely: only a new list is safe.
            _ => {
                self.version = None;
                self.open = None;
                return false;
            }
        };
        if let Some(version) = object["metadata"]["resourceVersion"].as_str() {
            self.version = Some(version.to_owned());
        }
        changed
    }

    /// Before the next list, if the API has just refused to go on from the last one.
    fn rest(&self) -> Duration {
        if self.version.is_none() { REST } else { Duration::ZERO }
    }

    /// A service of both families has slices of both, with the same pods.
    fn reachable(&self) -> Vec<Instance> {
        reachable(instances(&self.known, self.port.as_deref()), |one| match &one.address {
            Address::Tcp(address) => Some(address.ip()),
            Address::Unix(_) => None,
        })
    }
}

impl Source for Slices {
    fn ask(&mut self) -> io::Result<Said> {
        let now = Duration::ZERO;
        if self.version.is_none() {
            self.open = None;
            self.list()?;
            return Ok(Said { list: Some(self.reachable()), wait: now });
        }
        if self.open.is_none() {
            self.open()?;
            return Ok(Said { list: None, wait: self.rest() });
        }
        let line = self.open.as_mut().map(|open| open.0.next_line(MOST));
        match line {
            Some(Ok(Line::Whole(line))) => {
                let changed = self.take(&serde_json::from_slice(&line)?);
                Ok(Said { list: changed.then(|| self.reachable()), wait: self.rest() })
            }
            Some(Ok(Line::Waits)) | None => Ok(Said { list: None, wait: now }),
            Some(Ok(Line::End)) => {
                self.open = None;
                Ok(Said { list: None, wait: REST })
            }
            Some(Err(error)) => {
                self.open = None;
                Err(error)
            }
        }
    }
}

fn name_of(slice: &Value) -> String {
    slice["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Those that are ready; if none is, those that end but still serve, as kube-proxy does (KEP-1669).
fn instances(slices: &BTreeMap<String, Value>, port: Option<&str>) -> Vec<Instance> {
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for slice in slices.values() {
        let Some(port) = port_of(slice, port) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let conditions = &endpoint["conditions"];
            // What is not said is so (EndpointConditions).
            let is_ready = conditions["ready"].as_bool().unwrap_or(true);
            let serves = conditions["serving"].as_bool().unwrap_or(is_ready);
            let Some(instance) = instance(endpoint, port) else { continue };
            if is_ready {
                ready.push(instance);
            } else if serves && conditions["terminating"].as_bool() == Some(true) {
                ending.push(instance);
            }
        }
    }
    let mut list = if ready.is_empty() { ending } else { ready };
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list
}

fn instance(endpoint: &Value, port: u16) -> Option<Instance> {
    // All addresses of one endpoint are the same; clients take the first (EndpointSlice).
    let ip: IpAddr = endpoint["addresses"][0].as_str()?.parse().ok()?;
    let address = SocketAddr::new(ip, port);
    let pod = endpoint["targetRef"]["name"].as_str();
    let name = pod.map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"));
    let mut instance = Instance::new(Address::Tcp(address), name);
    instance.zone = endpoint["zone"].as_str().map(str::to_owned);
    for (label, value) in [("pod", pod), ("node", endpoint["nodeName"].as_str())] {
        if let Some(value) = value {
            instance.labels.insert(label.to_owned(), value.to_owned());
        }
    }
    Some(instance)
}

fn port_of(slice: &Value, wanted: Option<&str>) -> Option<u16> {
    let ports = slice["ports"].as_array()?;
    let number = |port: &Value| port["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let found = match wanted {
        None => ports.first(),
        Some(wanted) => ports.iter().find(|port| {
            port["name"].as_str() == Some(wanted) || number(port).is_some_and(|port| port.to_string() == wanted)
        }),
    };
    found.and_then(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, endpoints: &Value) -> (String, Value) {
        let ports = serde_json::json!([{"name": "metrics", "port": 9}, {"name": "http", "port": 80}]);
        (name.to_owned(), serde_json::json!({"metadata": {"name": name}, "ports": ports, "endpoints": endpoints}))
    }

    #[test]
    fn conditions_ports_and_zones() {
        let endpoints = serde_json::json!([
            {"addresses": ["10.0.0.1"], "targetRef": {"name": "a"}, "zone": "x", "nodeName": "n"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false}},
        ]);
        let slices: BTreeMap<_, _> = [slice("one", &endpoints)].into();
        let list = instances(&slices, Some("http"));
        assert_eq!((list.len(), list[0].name.as_str()), (1, "a (10.0.0.1:80)"));
        assert_eq!((list[0].zone.as_deref(), list[0].labels["node"].as_str()), (Some("x"), "n"));
        assert_eq!(instances(&slices, Some("9"))[0].address.to_string(), "10.0.0.1:9");
        assert!(instances(&slices, Some("grpc")).is_empty());
        let ending = serde_json::json!([endpoints[1], endpoints[2]]);
        let list = instances(&[slice("one", &ending)].into(), Some("http"));
        assert_eq!((list.len(), list[0].address.to_string().as_str()), (1, "10.0.0.2:80"));
    }
}
