//! Address translation: one table per pod network.
//!
//! ```text
//! table ip outrigger {
//!   map host_ports      { proto . address . port : pod address . pod port }   a port at one address of the host
//!   map any_host_ports  { proto . port           : pod address . pod port }   a port at all of them
//!   set hairpin         { pod address . pod address }                         pods that have host ports
//!
//!   guard        prerouting, raw    drop what claims to be from or for 127.0.0.0/8 and did not come through lo
//!   prerouting   nat                to an address of the host: translate by the maps
//!   output       nat                the same for what the host itself sends
//!   postrouting  nat                masquerade what leaves the pod network, what comes from 127.0.0.0/8,
//!                                   and what a pod sent to itself through a host port
//! }
//! ```
//!
//! The guard keeps 127.0.0.1 private although the pods' links must route it (`route_localnet`): without it a pod, or a
//! neighbour on the host's network, could reach services that listen on the host's loopback only (CVE-2020-8558).
//!
//! The table's comment carries the version of this layout; a table of another version is replaced in one step.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nft::{
    AddressType, Batch, Chain, ChainType, Element, Family, Field, Flows, Hook, Kind, Netfilter, Priority, Rule, Set,
    Table, Target, Test, Value,
};

use crate::{Config, HostPort, Protocol, record::Record};

const LAYOUT: &str = "outrigger pod network, layout 1";
/// `lo` has this index in every network namespace.
const LOOPBACK: Value = Value::InterfaceIndex(1);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The table of one pod network.
#[derive(Debug)]
pub(crate) struct Translation {
    cidr: Ipv4Net,
    table: Table,
    host_ports: Set,
    any_host_ports: Set,
    hairpin: Set,
}

impl Translation {
    pub(crate) fn of(cidr: Ipv4Net) -> Self {
        let table = Table::new(Family::Ip, table_name(cidr)).comment(LAYOUT);
        let target = [Kind::Ipv4Address, Kind::Port];
        Self {
            cidr,
            host_ports: Set::map(&table, "host_ports", [Kind::Protocol, Kind::Ipv4Address, Kind::Port], target),
            any_host_ports: Set::map(&table, "any_host_ports", [Kind::Protocol, Kind::Port], target),
            hairpin: Set::new(&table, "hairpin", [Kind::Ipv4Address, Kind::Ipv4Address]),
            table,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.table.name
    }

    /// Whether the table is there as this version makes it.
    pub(crate) fn is_installed(&self, netfilter: &Netfilter) -> Result<bool, Error> {
        Ok(netfilter.tables(Family::Ip)?.iter().any(|info| info.table == self.table))
    }

    /// Makes the table anew, with the ports of all these pods.
    pub(crate) fn install<'a>(
        &self,
        netfilter: &Netfilter,
        pods: impl IntoIterator<Item = &'a Record>,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        // Deleting needs it to exist.
        batch.add_table(&self.table);
        batch.delete_table(&self.table);
        batch.add_table(&self.table);
        for set in [&self.host_ports, &self.any_host_ports, &self.hairpin] {
            batch.add_set(set);
        }
        self.add_rules(&mut batch);
        for pod in pods.into_iter().filter(|pod| pod.cidr == self.cidr) {
            self.add_pod(&mut batch, pod);
        }
        Ok(netfilter.commit(&batch)?)
    }

    /// Publishes a pod's ports in the table that is there.
    pub(crate) fn publish(&self, netfilter: &Netfilter, pod: &Record) -> Result<(), Error> {
        let mut batch = Batch::new();
        self.add_pod(&mut batch, pod);
        Ok(netfilter.commit(&batch)?)
    }

    /// Takes back what leads to a pod's address; that there is nothing, or no table, is fine.
    pub(crate) fn withdraw(&self, netfilter: &Netfilter, address: Ipv4Addr) -> Result<(), Error> {
        let mut batch = Batch::new();
        for map in [&self.host_ports, &self.any_host_ports] {
            let leads_there = |element: &Element| matches!(&element.target, Target::Values(values) if values.first() == Some(&address.into()));
            let elements: Vec<_> = elements(netfilter, map)?.into_iter().filter(leads_there).collect();
            batch.delete_elements(map, &elements);
        }
        let itself = Element::new([address.into(), address.into()]);
        if elements(netfilter, &self.hairpin)?.contains(&itself) {
            batch.delete_elements(&self.hairpin, &[itself]);
        }
        Ok(netfilter.commit(&batch)?)
    }

    /// Deletes the table. False if there was none.
    pub(crate) fn remove(&self, netfilter: &Netfilter) -> Result<bool, Error> {
        let mut batch = Batch::new();
        batch.delete_table(&self.table);
        match netfilter.commit(&batch) {
            Err(error) if error.kind() == Some(std::io::ErrorKind::NotFound) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    fn add_pod(&self, batch: &mut Batch, pod: &Record) {
        let ip = pod.attachment.ip;
        for port in &pod.ports {
            let (map, key) = match port.address() {
                Some(address) => (&self.host_ports, vec![protocol(port), address.into(), Value::Port(port.host_port)]),
                None => (&self.any_host_ports, vec![protocol(port), Value::Port(port.host_port)]),
            };
            batch.add_elements(map, &[Element::new(key).to([ip.into(), Value::Port(port.container_port)])]);
        }
        if !pod.ports.is_empty() {
            batch.add_elements(&self.hairpin, &[Element::new([ip.into(), ip.into()])]);
        }
    }

    fn add_rules(&self, batch: &mut Batch) {
        use ChainType::{Filter, Nat};
        let chain = |name: &str, kind, hook, priority| Chain::base(&self.table, name, kind, hook, priority);
        let guard = chain("guard", Filter, Hook::Prerouting, Priority::RAW);
        let prerouting = chain("prerouting", Nat, Hook::Prerouting, Priority::DESTINATION_NAT);
        let output = chain("output", Nat, Hook::Output, Priority::DESTINATION_NAT);
        let postrouting = chain("postrouting", Nat, Hook::Postrouting, Priority::SOURCE_NAT);
        for chain in [&guard, &prerouting, &output, &postrouting] {
            batch.add_chain(chain);
        }
        for field in [Field::Ipv4Source, Field::Ipv4Destination] {
            let elsewhere = Rule::new(&guard).test(Field::InputInterfaceIndex, Test::is_not(LOOPBACK));
            batch.add_rule(&elsewhere.test(field, Test::within(Ipv4Addr::LOCALHOST, 8)).drop());
        }
        for chain in [&prerouting, &output] {
            let to_host = Rule::new(chain).test(Field::DestinationType, Test::is(AddressType::LOCAL));
            let at_one = [Field::Protocol, Field::Ipv4Destination, Field::DestinationPort];
            let at_any = [Field::Protocol, Field::DestinationPort];
            batch.add_rule(&to_host.clone().destination_nat_map(at_one, &self.host_ports));
            batch.add_rule(&to_host.destination_nat_map(at_any, &self.any_host_ports));
        }
        let (network, prefix) = (self.cidr.network(), self.cidr.prefix_len());
        let leaving = Rule::new(&postrouting);
        batch.add_rule(
            &leaving
                .clone()
                .test(Field::Ipv4Source, Test::within(network, prefix))
                .test(Field::Ipv4Destination, Test::not_within(network, prefix))
                .masquerade(),
        );
        batch.add_rule(
            &leaving
                .clone()
                .test(Field::Ipv4Source, Test::within(Ipv4Addr::LOCALHOST, 8))
                .test(Field::Ipv4Destination, Test::within(network, prefix))
                .masquerade(),
        );
        batch.add_rule(&leaving.in_set([Field::Ipv4Source, Field::Ipv4Destination], &self.hairpin).masquerade());
    }
}

/// After ports were published: UDP senders that were sending there before are translated from now on.
///
/// The kernel walks its whole table of connections for this, about a millisecond, so it is only asked for UDP. Best
/// effort here and below: kernels that cannot forget selectively refuse, and the flows then end by their own timeout
/// (30 s) once the sender pauses.
pub(crate) fn forget_flows_to(netfilter: &Netfilter, ports: &[HostPort]) {
    for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        let _ = netfilter.forget(Flows::ToPort(nft::Protocol::UDP, port.host_port));
    }
}

/// After ports were withdrawn: UDP senders that go on are no longer translated to this pod.
pub(crate) fn forget_flows_of(netfilter: &Netfilter, address: Ipv4Addr, ports: &[HostPort]) {
    if ports.iter().any(|port| port.protocol == Protocol::Udp) {
        let _ = netfilter.forget(Flows::AnsweredBy(nft::Protocol::UDP, address));
    }
}

/// `outrigger` for the default network; others, for engines beside it, are told apart by the network.
fn table_name(cidr: Ipv4Net) -> String {
    if cidr == Config::default().cidr {
        "outrigger".to_owned()
    } else {
        format!("outrigger-{}-{}", cidr.network(), cidr.prefix_len())
    }
}

/// The networks whose tables exist.
pub(crate) fn installed_networks(netfilter: &Netfilter) -> Result<Vec<Ipv4Net>, Error> {
    let network = |name: &str| match name.strip_prefix("outrigger")? {
        "" => Some(Config::default().cidr),
        rest => rest.strip_prefix('-')?.replacen('-', "/", 1).parse().ok(),
    };
    Ok(netfilter.tables(Family::Ip)?.iter().filter_map(|info| network(&info.table.name)).collect())
}

fn elements(netfilter: &Netfilter, set: &Set) -> Result<Vec<Element>, Error> {
    match netfilter.elements(set) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => Ok(other?),
    }
}

fn protocol(port: &HostPort) -> Value {
    match port.protocol {
        Protocol::Tcp => nft::Protocol::TCP.into(),
        Protocol::Udp => nft::Protocol::UDP.into(),
        Protocol::Sctp => nft::Protocol::SCTP.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_by_their_network() {
        assert_eq!(table_name(Config::default().cidr), "outrigger");
        assert_eq!(table_name("10.90.0.0/20".parse().unwrap()), "outrigger-10.90.0.0-20");
    }
}
