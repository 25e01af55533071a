//! Service addresses in nftables: one table per node.
//!
//! ```text
//! table ip outrigger-services {
//!   map services  { proto . service address . port : goto balance-N }       N = how many backends it has
//!   map backends  { proto . service address . port . i : address . port }   i < N
//!   set hairpin   { address . address }                                     backends
//!
//!   prerouting  nat     what pods send: verdict by `services`
//!   output      nat     what the host itself sends: the same
//!   balance-N           destination by `backends`, i at random below N
//!   postrouting nat     masquerade what a backend sent to itself through a service
//!   forward, postfilter filter  refuse what is still for a service address: no backend, no such port
//! }
//! ```
//!
//! Connections stay with their backend (conntrack); only new ones are balanced. The whole table is replaced in one
//! transaction whenever anything changes, so there is no moment without it and nothing to keep in step.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use nft::{
    Batch, Chain, ChainType, Element, Family, Field, Flows, Hook, Kind, Netfilter, Priority, Reject, Rule, Set, Table,
    Test, Value, Verdict,
};

/// A transport protocol that can be balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// One port of one service address, and who answers there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    pub protocol: Protocol,
    /// Address and port that clients use.
    pub address: SocketAddrV4,
    /// Without any, connections are refused.
    pub backends: BTreeSet<SocketAddrV4>,
}

/// Why the kernel's table is not as asked.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} the table `{table}` of services")]
pub struct BalanceError {
    what: &'static str,
    table: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl BalanceError {
    fn is_not_found(&self) -> bool {
        let refused = self.source.downcast_ref::<nft::CommitError>();
        refused.and_then(nft::CommitError::kind) == Some(std::io::ErrorKind::NotFound)
    }
}

/// The table of one node.
#[derive(Debug)]
pub struct Balancer {
    table: Table,
    /// Every service address is in it; whatever else is sent there is refused.
    cidr: Ipv4Net,
    netfilter: Option<Netfilter>,
    /// What the kernel has.
    applied: Option<BTreeSet<Frontend>>,
}

impl Balancer {
    /// `tag` tells the nodes of one machine apart; empty for the default one. Nothing is changed yet.
    pub fn new(tag: &str, cidr: Ipv4Net) -> Self {
        Self { table: Table::new(Family::Ip, table_name(tag)), cidr: cidr.trunc(), netfilter: None, applied: None }
    }

    /// Makes the table as asked, in one step; cheap when it is so already. Also the first call after a crash, with what an
    /// earlier process left there.
    pub fn apply(&mut self, frontends: BTreeSet<Frontend>) -> Result<(), BalanceError> {
        if self.applied.as_ref() == Some(&frontends) {
            return Ok(());
        }
        let mut batch = Batch::new();
        // Deleting needs it to exist.
        batch.add_table(&self.table);
        batch.delete_table(&self.table);
        batch.add_table(&self.table);
        fill(&mut batch, &self.table, self.cidr, &frontends);
        self.commit("replace", &batch)?;
        self.forget_lost(&frontends);
        self.applied = Some(frontends);
        Ok(())
    }

    /// Removes the table. False if there was none.
    pub fn remove(&mut self) -> Result<bool, BalanceError> {
        let mut batch = Batch::new();
        batch.delete_table(&self.table);
        self.applied = None;
        match self.commit("remove", &batch) {
            Err(error) if error.is_not_found() => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn commit(&mut self, what: &'static str, batch: &Batch) -> Result<(), BalanceError> {
        let table = self.table.name.clone();
        let fail = |source: Box<dyn std::error::Error + Send + Sync>| BalanceError { what, table, source };
        // One socket is kept: closing it after a deletion waits for the kernel.
        let netfilter = match self.netfilter.take() {
            Some(netfilter) => netfilter,
            None => match Netfilter::open() {
                Ok(netfilter) => netfilter,
                Err(error) => return Err(fail(error.into())),
            },
        };
        let outcome = netfilter.commit(batch);
        self.netfilter = Some(netfilter);
        outcome.map_err(|error| fail(error.into()))
    }

    /// UDP senders that go on keep their translation for as long as they send: those of a backend that is gone, and those
    /// that were sent nowhere while there was none, are taken back. (TCP ends with the backend.) Best effort: kernels that
    /// cannot forget selectively refuse, and the flows end by their timeout of 30 s.
    fn forget_lost(&self, now: &BTreeSet<Frontend>) {
        let (Some(before), Some(netfilter)) = (&self.applied, &self.netfilter) else { return };
        let udp = |frontends: &BTreeSet<Frontend>| -> BTreeSet<Ipv4Addr> {
            let udp = frontends.iter().filter(|frontend| frontend.protocol == Protocol::Udp);
            udp.flat_map(|frontend| frontend.backends.iter().map(|backend| *backend.ip())).collect()
        };
        for lost in udp(before).difference(&udp(now)) {
            let _ = netfilter.forget(Flows::AnsweredBy(nft::Protocol::UDP, *lost));
        }
        let served = |frontends: &BTreeSet<Frontend>| -> BTreeSet<u16> {
            let udp = frontends.iter().filter(|frontend| frontend.protocol == Protocol::Udp);
            udp.filter(|frontend| !frontend.backends.is_empty()).map(|frontend| frontend.address.port()).collect()
        };
        for port in served(now).difference(&served(before)) {
            let _ = netfilter.forget(Flows::ToPort(nft::Protocol::UDP, *port));
        }
    }
}

fn fill(batch: &mut Batch, table: &Table, cidr: Ipv4Net, frontends: &BTreeSet<Frontend>) {
    let at = [Kind::Protocol, Kind::Ipv4Address, Kind::Port];
    let services = Set::verdict_map(table, "services", at);
    let which = [Kind::Protocol, Kind::Ipv4Address, Kind::Port, Kind::Mark];
    let backends = Set::map(table, "backends", which, [Kind::Ipv4Address, Kind::Port]);
    let hairpin = Set::new(table, "hairpin", [Kind::Ipv4Address, Kind::Ipv4Address]);
    // The chains come before the map that leads to them.
    let counts: BTreeSet<usize> = frontends.iter().map(|frontend| frontend.backends.len()).filter(|n| *n > 0).collect();
    let balances: Vec<(u32, Chain)> = counts
        .iter()
        .filter_map(|count| Some((u32::try_from(*count).ok()?, Chain::new(table, format!("balance-{count}")))))
        .collect();
    for (_, chain) in &balances {
        batch.add_chain(chain);
    }
    for set in [&services, &backends, &hairpin] {
        batch.add_set(set);
    }
    add_rules(batch, table, cidr, [&services, &backends, &hairpin], &balances);

    let mut own = BTreeSet::new();
    for frontend in frontends.iter().filter(|frontend| !frontend.backends.is_empty()) {
        let key =
            || vec![protocol(frontend.protocol), (*frontend.address.ip()).into(), Value::Port(frontend.address.port())];
        let balance = Verdict::Goto(format!("balance-{}", frontend.backends.len()));
        batch.add_elements(&services, &[Element::new(key()).to_verdict(balance)]);
        let targets: Vec<Element> = (0u32..)
            .zip(&frontend.backends)
            .map(|(index, backend)| {
                let mut key = key();
                key.push(Value::Mark(index));
                Element::new(key).to([(*backend.ip()).into(), Value::Port(backend.port())])
            })
            .collect();
        batch.add_elements(&backends, &targets);
        own.extend(frontend.backends.iter().map(|backend| *backend.ip()));
    }
    let own: Vec<Element> = own.into_iter().map(|ip| Element::new([ip.into(), ip.into()])).collect();
    batch.add_elements(&hairpin, &own);
}

fn add_rules(
    batch: &mut Batch,
    table: &Table,
    cidr: Ipv4Net,
    [services, backends, hairpin]: [&Set; 3],
    balances: &[(u32, Chain)],
) {
    use ChainType::{Filter, Nat};
    let at = [Field::Protocol, Field::Ipv4Destination, Field::DestinationPort];
    for (count, chain) in balances {
        let which = [at[0], at[1], at[2], Field::Random(*count)];
        batch.add_rule(&Rule::new(chain).destination_nat_map(which, backends));
    }
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        let chain = Chain::base(table, name, Nat, hook, Priority::DESTINATION_NAT);
        batch.add_chain(&chain);
        batch.add_rule(&Rule::new(&chain).verdict_of(at, services));
    }
    let postrouting = Chain::base(table, "postrouting", Nat, Hook::Postrouting, Priority::SOURCE_NAT);
    batch.add_chain(&postrouting);
    let to_itself = Rule::new(&postrouting).in_set([Field::Ipv4Source, Field::Ipv4Destination], hairpin);
    batch.add_rule(&to_itself.masquerade());
    // Translation comes first in both hooks: what still carries a service address has no backend.
    for (name, hook) in [("forward", Hook::Forward), ("refuse", Hook::Output)] {
        let chain = Chain::base(table, name, Filter, hook, Priority::FILTER);
        batch.add_chain(&chain);
        let unserved = Rule::new(&chain).test(Field::Ipv4Destination, Test::within(cidr.network(), cidr.prefix_len()));
        let tcp = unserved.clone().test(Field::Protocol, Test::is(nft::Protocol::TCP));
        batch.add_rule(&tcp.reject(Reject::TcpReset));
        batch.add_rule(&unserved.reject(Reject::PortUnreachable));
    }
}

fn protocol(protocol: Protocol) -> Value {
    match protocol {
        Protocol::Tcp => nft::Protocol::TCP.into(),
        Protocol::Udp => nft::Protocol::UDP.into(),
    }
}

fn table_name(tag: &str) -> String {
    if tag.is_empty() { "outrigger-services".to_owned() } else { format!("outrigger-services-{tag}") }
}
