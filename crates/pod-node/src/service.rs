//! Services: slices kept true to the ready pods, and slices made into the kernel's table and names.
//!
//! ```text
//!   services, pods ──▶ slice ──▶ endpointslices, endpoints   (in the store)
//!   services, endpointslices ──▶ view ──▶ Balancer (nftables), Zone (DNS)
//! ```
//!
//! The second half reads what is in the store, so that slices people write for a service without a selector count too.

mod slice;
mod variables;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use pod_api::names::ClusterDns;
use pod_service::Balancer;
use pod_service::dns::{Resolver, Zone};
use pod_store::{Change, ChangeKind, Durability, Store, WriteError};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::object::{self, key, text};
use crate::watch::{Word, follow};
use crate::{PodKey, moment};
use slice::{Backend, MANAGER, MANAGER_LABEL, SERVICE_LABEL};

pub(crate) const SERVICES: &str = "services";
pub(crate) const SLICES: &str = "endpointslices.discovery.k8s.io";
const ENDPOINTS: &str = "endpoints";
/// The letters of generated names (`apimachinery/pkg/util/rand`).
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The addresses of services.
#[derive(Debug, Clone)]
pub struct Network {
    /// Cluster addresses are taken from it.
    pub cidr: Ipv4Net,
    /// Where pods reach the node itself: names are answered there.
    pub gateway: Ipv4Addr,
    /// `cluster.local`
    pub domain: String,
    /// Tells the tables of several nodes on one machine apart; empty for the default one.
    pub tag: String,
}

impl Network {
    /// The address of the name server, as pods are told it: the tenth of the network, by custom.
    pub fn name_server(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.cidr.network().to_bits() + 10)
    }
}

/// Removes what a node's services have in the kernel. False if there was nothing.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_table(tag: &str) -> Result<bool, pod_service::BalanceError> {
    Balancer::new(tag, Ipv4Net::default()).remove()
}

/// Gives cluster addresses to new services. Shared by all threads.
#[derive(Debug)]
pub struct Addresses {
    store: Store,
    network: Network,
    /// Given, but perhaps not stored yet.
    promised: Mutex<BTreeMap<Ipv4Addr, Instant>>,
}

/// What could not be brought about is tried again after so long, or with the next change.
const AGAIN: Duration = Duration::from_secs(5);
/// A request that got an address has long been stored, or refused, by then.
const PROMISE: Duration = Duration::from_secs(30);

impl Addresses {
    pub fn new(store: Store, network: Network) -> Self {
        Self { store, network, promised: Mutex::default() }
    }

    /// The address asked for, or with an empty `asked` any that is free. `keep`: nobody else gets it for a while; without it,
    /// as for a dry run, nothing is noted.
    ///
    /// # Errors
    /// Why there is none, in the API server's words.
    pub fn take(&self, asked: &str, keep: bool) -> Result<String, String> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        promised.retain(|_, given| given.elapsed() < PROMISE);
        let services = self.store.list(SERVICES, None).items;
        let mut taken: BTreeSet<Ipv4Addr> =
            services.iter().filter_map(|item| view::cluster_address(&object::value(item))).collect();
        // Who asks for an address by name after a service of that name was refused or deleted shall have it at once.
        if asked.is_empty() {
            taken.extend(promised.keys());
        }
        let address = allocate(&self.network, asked, &taken)?;
        if keep {
            promised.insert(address, Instant::now());
        }
        Ok(address.to_string())
    }
}

/// An address for a new service: the one asked for if it is free, else (`asked` empty) a free one. `taken`: those of the
/// services there are.
fn allocate(network: &Network, asked: &str, taken: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, String> {
    if asked.is_empty() {
        // The first ones are kept for those that ask for a fixed one (KEP-3070).
        let (first, last) = (network.cidr.network().to_bits(), network.cidr.broadcast().to_bits());
        let low = (first + 16).min(last);
        let free = |bits: &u32| !taken.contains(&Ipv4Addr::from_bits(*bits));
        let found = (low..last).find(free).or_else(|| (first + 1..low).find(free));
        return found.map(Ipv4Addr::from_bits).ok_or_else(|| "range is full".to_owned());
    }
    let address: Ipv4Addr =
        asked.parse().map_err(|_| format!("the provided IP ({asked}) is not a valid IPv4 address"))?;
    let inside =
        network.cidr.contains(&address) && address != network.cidr.network() && address != network.cidr.broadcast();
    if !inside {
        return Err(format!(
            "the provided network does not contain the provided IP ({address}). The range of valid IPs is {}",
            network.cidr
        ));
    }
    if taken.contains(&address) {
        return Err("provided IP is already allocated".to_owned());
    }
    Ok(address)
}

/// What a pod of this namespace is told about services: who answers their names, and, if it wants them, variables.
pub(crate) fn surroundings(
    network: &Network,
    store: &Store,
    namespace: &str,
    links: bool,
) -> (ClusterDns, Vec<(String, String)>) {
    let dns = ClusterDns { servers: vec![network.name_server().into()], domain: network.domain.clone() };
    if !links {
        return (dns, Vec::new());
    }
    let services: Vec<Value> =
        store.list(SERVICES, Some(namespace)).items.iter().map(|item| object::value(item)).collect();
    (dns, variables::of_services(services.iter()))
}

#[derive(Debug)]
enum Wake {
    Pods(Word),
    Services(Word),
    Slices(Word),
}

/// One task for all services.
#[derive(Debug)]
pub struct Services {
    store: Store,
    network: Network,
    balancer: Balancer,
    resolver: Resolver,
    pods: BTreeMap<PodKey, Backend>,
    services: BTreeMap<PodKey, Value>,
    slices: BTreeMap<PodKey, Value>,
}

impl Services {
    /// Nothing is changed in the kernel yet.
    pub fn new(store: Store, network: Network) -> Self {
        let ours = [network.name_server(), network.gateway];
        Self {
            balancer: Balancer::new(&network.tag, network.cidr),
            resolver: Resolver::new(
                Zone { domain: network.domain.clone(), ..Zone::default() },
                Path::new("/etc/resolv.conf"),
                &ours,
            ),
            store,
            network,
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
        }
    }

    /// Never ends. Inside a [`tokio::task::LocalSet`]. `complain` is told what went wrong; it goes on.
    pub async fn run(mut self, complain: fn(String)) {
        let address = SocketAddrV4::new(self.network.gateway, 53);
        match self.resolver.serve(address) {
            Ok((port, _)) => {
                if let Err(error) = self.ensure_name_service(port).await {
                    complain(pod_engine::chain(&error));
                }
            }
            Err(error) => complain(format!("{}; names of services are not answered", pod_engine::chain(&error))),
        }
        let (sender, mut words) = mpsc::unbounded_channel();
        follow(&self.store, SERVICES, &sender, Wake::Services);
        follow(&self.store, "pods", &sender, Wake::Pods);
        follow(&self.store, SLICES, &sender, Wake::Slices);
        // What the store or the kernel refused.
        let mut unfinished = false;
        loop {
            let patience = if unfinished { AGAIN } else { Duration::MAX };
            let mut changed = match tokio::time::timeout(patience, words.recv()).await {
                Ok(Some(word)) => self.hear(word),
                Ok(None) => return,
                Err(_) => true,
            };
            // What has arrived meanwhile is one round.
            while let Ok(word) = words.try_recv() {
                changed |= self.hear(word);
            }
            if !changed {
                continue;
            }
            unfinished = false;
            if let Err(error) = self.write_slices().await {
                complain(pod_engine::chain(&error));
                unfinished = true;
            }
            if let Err(error) = self.project() {
                complain(pod_engine::chain(&error));
                unfinished = true;
            }
        }
    }

    /// Whether anything that counts is different.
    fn hear(&mut self, wake: Wake) -> bool {
        match wake {
            Wake::Pods(Word::Listed(list)) => {
                let known = |object: &std::sync::Arc<pod_store::Object>| {
                    Backend::of(&object::value(object)).map(|backend| (name_of(object), backend))
                };
                let now: BTreeMap<_, _> = list.items.iter().filter_map(known).collect();
                std::mem::replace(&mut self.pods, now) != self.pods
            }
            Wake::Pods(Word::Changed(event)) => {
                let backend = match event.kind {
                    ChangeKind::Deleted => None,
                    _ => Backend::of(&object::value(&event.object)),
                };
                put(&mut self.pods, name_of(&event.object), backend)
            }
            Wake::Services(Word::Listed(list)) => {
                self.services = list.items.iter().map(|item| (name_of(item), object::value(item))).collect();
                true
            }
            Wake::Slices(Word::Listed(list)) => {
                self.slices = list.items.iter().map(|item| (name_of(item), object::value(item))).collect();
                true
            }
            Wake::Services(Word::Changed(event)) => {
                let value = (event.kind != ChangeKind::Deleted).then(|| object::value(&event.object));
                put(&mut self.services, name_of(&event.object), value)
            }
            Wake::Slices(Word::Changed(event)) => {
                let value = (event.kind != ChangeKind::Deleted).then(|| object::value(&event.object));
                put(&mut self.slices, name_of(&event.object), value)
            }
        }
    }

    /// The kernel's table and the names.
    fn project(&mut self) -> Result<(), pod_service::BalanceError> {
        let mut frontends = BTreeSet::new();
        let mut zone = Zone { domain: self.network.domain.clone(), ..Zone::default() };
        for ((namespace, name), service) in &self.services {
            let of_service = |slice: &&Value| view::service_of(slice) == Some((namespace, name));
            let slices: Vec<&Value> = self.slices.values().filter(of_service).collect();
            frontends.extend(view::frontends(service, &slices));
            view::name(&mut zone, service, &slices);
        }
        self.resolver.set_zone(zone);
        self.balancer.apply(frontends)
    }

    async fn write_slices(&mut self) -> Result<(), WriteError> {
        for (key, service) in self.services.clone() {
            let Some(selected) = slice::selected(&service, self.pods.values()) else { continue };
            let wanted = slice::slices(&service, &selected);
            let subsets = slice::subsets(&service, &selected);
            self.write_slices_of(&key, &service, wanted).await?;
            self.write_endpoints(&key, &service, subsets).await?;
        }
        // Of services that are gone. (Their owner reference says so too; this does not wait for anybody.)
        let ours = |slice: &Value| text(slice, "/metadata/labels/endpointslice.kubernetes.io~1managed-by") == MANAGER;
        let stale: Vec<PodKey> = self
            .slices
            .iter()
            .filter(|(key, slice)| {
                let service =
                    view::service_of(slice).and_then(|(_, name)| self.services.get(&(key.0.clone(), name.to_owned())));
                ours(slice) && service.is_none_or(|service| !is_owned_by(slice, service))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for (namespace, name) in stale {
            self.delete(key(SLICES, &namespace, &name)).await?;
            self.slices.remove(&(namespace, name));
        }
        Ok(())
    }

    /// The n-th slice has the n-th name, so that writing again changes nothing.
    async fn write_slices_of(&mut self, key: &PodKey, service: &Value, wanted: Vec<Value>) -> Result<(), WriteError> {
        let uid = text(service, "/metadata/uid");
        let count = wanted.len();
        for (index, mut slice) in wanted.into_iter().enumerate() {
            let name = format!("{}-{}", key.1, suffix(uid, index));
            let place = (key.0.clone(), name.clone());
            let known = self.slices.get(&place);
            if known.is_some_and(|known| {
                ["endpoints", "ports", "addressType"].iter().all(|field| known[*field] == slice[*field])
            }) {
                continue;
            }
            slice["apiVersion"] = "discovery.k8s.io/v1".into();
            slice["kind"] = "EndpointSlice".into();
            let labels = json!({SERVICE_LABEL: key.1, MANAGER_LABEL: MANAGER});
            let stored = self.put_object(SLICES, &place, service, labels, slice).await?;
            self.slices.insert(place, stored);
        }
        // Slices beyond what is needed now.
        let prefix = format!("{}-", key.1);
        let needed: BTreeSet<String> = (0..count).map(|index| format!("{prefix}{}", suffix(uid, index))).collect();
        let extra: Vec<PodKey> = self
            .slices
            .iter()
            .filter(|(place, slice)| {
                place.0 == key.0
                    && is_owned_by(slice, service)
                    && text(slice, "/metadata/labels/endpointslice.kubernetes.io~1managed-by") == MANAGER
                    && !needed.contains(&place.1)
            })
            .map(|(place, _)| place.clone())
            .collect();
        for place in extra {
            self.delete(object::key(SLICES, &place.0, &place.1)).await?;
            self.slices.remove(&place);
        }
        Ok(())
    }

    async fn write_endpoints(&self, key: &PodKey, service: &Value, subsets: Vec<Value>) -> Result<(), WriteError> {
        let known = self.store.get(&object::key(ENDPOINTS, &key.0, &key.1)).map(|known| object::value(&known));
        // Those of a service of the same name that was deleted go with it.
        let unchanged = known.as_ref().is_some_and(|known| {
            object::items(known, "/subsets") == subsets.as_slice() && !is_of_another(known, service)
        });
        if unchanged {
            return Ok(());
        }
        let value = json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": subsets});
        let labels = json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"});
        self.put_object(ENDPOINTS, key, service, labels, value).await?;
        Ok(())
    }

    /// Creates or replaces an object of the service's.
    async fn put_object(
        &self,
        resource: &str,
        place: &PodKey,
        service: &Value,
        labels: Value,
        mut value: Value,
    ) -> Result<Value, WriteError> {
        let place_key = key(resource, &place.0, &place.1);
        loop {
            let change = match self.store.get(&place_key) {
                Some(known) => {
                    let before = object::value(&known);
                    if is_of_another(&before, service) {
                        self.delete(place_key.clone()).await?;
                        continue;
                    }
                    value["metadata"] = before["metadata"].clone();
                    let generation = before.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1);
                    value["metadata"]["generation"] = (generation + 1).into();
                    Change::Replace { value: value.clone(), expected: Some(known.revision) }
                }
                None => {
                    let mut metadata =
                        object::metadata(&place.0, &place.1, jiff::Timestamp::now()).map_err(WriteError::Disk)?;
                    metadata["generation"] = 1.into();
                    metadata["labels"] = labels.clone();
                    metadata["ownerReferences"] = json!([{
                        "apiVersion": "v1", "kind": "Service", "name": text(service, "/metadata/name"),
                        "uid": text(service, "/metadata/uid"), "controller": true, "blockOwnerDeletion": true,
                    }]);
                    metadata["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": moment::seconds(jiff::Timestamp::now())});
                    value["metadata"] = metadata;
                    Change::Create(value.clone())
                }
            };
            match self.store.write(place_key.clone(), change, Durability::Lazy).await {
                Ok(stored) => return Ok(object::value(&stored)),
                Err(WriteError::Exists(_) | WriteError::Conflict(_) | WriteError::Missing) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn delete(&self, key: pod_store::Key) -> Result<(), WriteError> {
        let change = Change::Delete { expected: None, last: None };
        match self.store.write(key, change, Durability::Lazy).await {
            Ok(_) | Err(WriteError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `kube-dns`, as pods and people expect to find it.
    async fn ensure_name_service(&self, port: u16) -> Result<(), WriteError> {
        let address = self.network.name_server().to_string();
        let ports = json!([
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        ]);
        let service_key = key(SERVICES, "kube-system", "kube-dns");
        let mut metadata =
            object::metadata("kube-system", "kube-dns", jiff::Timestamp::now()).map_err(WriteError::Disk)?;
        metadata["labels"] = json!({"k8s-app": "kube-dns"});
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {
                "clusterIP": address, "clusterIPs": [address], "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "ports": ports, "sessionAffinity": "None", "type": "ClusterIP",
            },
            "status": {"loadBalancer": {}},
        });
        object::ensure(&self.store, service_key.clone(), service).await?;
        let Some(service) = self.store.get(&service_key).map(|stored| object::value(&stored)) else { return Ok(()) };
        let at = |name: &str, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "endpoints": [{"addresses": [self.network.gateway.to_string()], "conditions": {"ready": true}}],
            "ports": [at("dns", "UDP"), at("dns-tcp", "TCP")],
        });
        let place = ("kube-system".to_owned(), "kube-dns-outrigger".to_owned());
        let labels = json!({SERVICE_LABEL: "kube-dns", MANAGER_LABEL: "outrigger"});
        self.put_object(SLICES, &place, &service, labels, slice).await?;
        Ok(())
    }
}

fn name_of(object: &pod_store::Object) -> PodKey {
    (object.key.namespace.clone(), object.key.name.clone())
}

fn put<T: PartialEq>(map: &mut BTreeMap<PodKey, T>, key: PodKey, value: Option<T>) -> bool {
    match value {
        Some(value) if map.get(&key) == Some(&value) => false,
        Some(value) => {
            map.insert(key, value);
            true
        }
        None => map.remove(&key).is_some(),
    }
}

fn is_owned_by(object: &Value, owner: &Value) -> bool {
    let uid = text(owner, "/metadata/uid");
    object::items(object, "/metadata/ownerReferences").iter().any(|reference| reference["uid"] == uid)
}

/// Made for a service that had this one's name before. (What people made has no owner.)
fn is_of_another(object: &Value, service: &Value) -> bool {
    let mut owners = object::items(object, "/metadata/ownerReferences").iter();
    owners.any(|owner| owner["kind"] == "Service") && !is_owned_by(object, service)
}

/// Five letters that look like a generated name's and are always the same for one service and index.
fn suffix(uid: &str, index: usize) -> String {
    // FNV-1a.
    let bytes = uid.bytes().chain(index.to_le_bytes());
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut letter = || {
        let place = usize::try_from(hash % LETTERS.len() as u64).unwrap_or(0);
        hash /= LETTERS.len() as u64;
        char::from(LETTERS[place])
    };
    std::iter::repeat_with(&mut letter).take(5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            cidr: "10.96.0.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 89, 0, 1),
            domain: "cluster.local".to_owned(),
            tag: String::new(),
        }
    }

    #[test]
    fn addresses_are_given_once_and_only_from_the_network() {
        let taken = BTreeSet::from([Ipv4Addr::new(10, 96, 0, 16), Ipv4Addr::new(10, 96, 0, 10)]);
        let given = |asked: &str| allocate(&network(), asked, &taken).map(|address| address.to_string());
        assert_eq!(given("").unwrap(), "10.96.0.17");
        assert_eq!(given("10.96.0.200").unwrap(), "10.96.0.200");
        assert_eq!(given("10.96.0.10").unwrap_err(), "provided IP is already allocated");
        for outside in ["10.97.0.1", "10.96.0.0", "10.96.0.255"] {
            assert!(given(outside).unwrap_err().contains("10.96.0.0/24"), "{outside}");
        }
        let all: BTreeSet<_> = (1..255).map(|last| Ipv4Addr::new(10, 96, 0, last)).collect();
        assert_eq!(allocate(&network(), "", &all).unwrap_err(), "range is full");
        assert_eq!(network().name_server().to_string(), "10.96.0.10");
    }

    #[tokio::test]
    async fn endpoints_of_a_service_made_anew_are_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("objects")).unwrap();
        let services = Services::new(store.clone(), network());
        let place = ("default".to_owned(), "web".to_owned());
        let owner = || {
            let stored = store.get(&key(ENDPOINTS, "default", "web")).unwrap();
            text(&object::value(&stored), "/metadata/ownerReferences/0/uid").to_owned()
        };
        let subsets = vec![json!({"addresses": [{"ip": "10.89.0.2"}]})];
        for uid in ["first", "second"] {
            let service = json!({"metadata": {"namespace": "default", "name": "web", "uid": uid}});
            services.write_endpoints(&place, &service, subsets.clone()).await.unwrap();
            assert_eq!(owner(), uid);
        }
    }

    #[test]
    fn names_of_slices_are_stable() {
        assert_eq!(suffix("u", 0), suffix("u", 0));
        assert_ne!(suffix("u", 0), suffix("u", 1));
        assert!(suffix("u", 0).bytes().all(|letter| LETTERS.contains(&letter)));
    }
}
