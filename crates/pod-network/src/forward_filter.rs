//! A way through a forward chain that drops.
//!
//! Docker and ufw set the policy of iptables' FORWARD chain to drop, and a verdict of drop is final whatever our own
//! table says: next to them no pod would reach the world, without a word. Where that chain drops, three rules at its
//! start let pods out, answers in, and callers of host ports in, and nobody else. They are removed with the last pod.
//!
//! Only chains kept in nftables are seen (iptables-nft, the default since Debian 10, Ubuntu 20.10, RHEL 8), and only
//! this one is known; iptables-legacy and firewalld are left to the administrator.

use ipnet::Ipv4Net;
use nft::{Batch, Chain, ConntrackState, ConntrackStatus, Family, Field, Hook, Netfilter, Policy, Rule, Table, Test};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Makes the way if there is a chain that drops and it has none yet.
pub(crate) fn open(netfilter: &Netfilter, cidr: Ipv4Net) -> Result<(), Error> {
    if !drops(netfilter)? || !own_rules(netfilter, cidr)?.is_empty() {
        return Ok(());
    }
    let (network, prefix) = (cidr.network(), cidr.prefix_len());
    let rule = || Rule::new(&chain()).comment(comment(cidr));
    let into = || rule().test(Field::Ipv4Destination, Test::within(network, prefix));
    let answers = ConntrackState::ESTABLISHED | ConntrackState::RELATED;
    let mut batch = Batch::new();
    batch.insert_rule(&rule().test(Field::Ipv4Source, Test::within(network, prefix)).accept());
    batch.insert_rule(&into().test(Field::ConntrackState, Test::any_bit(answers)).accept());
    batch.insert_rule(&into().test(Field::ConntrackStatus, Test::any_bit(ConntrackStatus::DESTINATION_NAT)).accept());
    Ok(netfilter.commit(&batch)?)
}

/// Closes it again; that there is none is fine.
pub(crate) fn close(netfilter: &Netfilter, cidr: Ipv4Net) -> Result<(), Error> {
    let mut batch = Batch::new();
    for handle in own_rules(netfilter, cidr)? {
        batch.delete_rule(&chain(), handle);
    }
    Ok(netfilter.commit(&batch)?)
}

fn drops(netfilter: &Netfilter) -> Result<bool, Error> {
    let wanted = chain();
    Ok(netfilter.chains(Family::Ip)?.into_iter().map(|info| info.chain).any(|chain| {
        chain.table == wanted.table
            && chain.name == wanted.name
            && chain.base.is_some_and(|base| base.hook == Hook::Forward && base.policy == Policy::Drop)
    }))
}

fn own_rules(netfilter: &Netfilter, cidr: Ipv4Net) -> Result<Vec<u64>, Error> {
    let comment = comment(cidr);
    let rules = netfilter.rules(&chain())?.into_iter();
    Ok(rules.filter(|rule| rule.comment.as_ref() == Some(&comment)).map(|rule| rule.handle).collect())
}

/// iptables' FORWARD chain.
fn chain() -> Chain {
    Chain::new(&Table::new(Family::Ip, "filter"), "FORWARD")
}

fn comment(cidr: Ipv4Net) -> String {
    format!("outrigger pods {cidr}")
}
