//! `outrigger-proxy redirect`: the pod's traffic goes through the proxy without the application knowing. An init step with
//! NET_ADMIN runs it once; the proxy itself needs no capability. One table of nftables in the pod's network namespace:
//!
//! ```text
//! prerouting  from other pods      tcp, not an excluded port               ▶ inbound port
//! output      from the application tcp, not by the proxy itself, not local ▶ outbound port
//! ```
//! A transaction replaces the whole table, so that running it again, or with other flags, leaves what was asked for last.

use std::ffi::OsString;
use std::net::IpAddr;

use daemon::Exit;
use nft::{
    AddressType, Batch, Chain, ChainType, CommitError, Family, Field, Hook, Netfilter, OpenError, Priority, Protocol,
    Rule, Table, Test, Value,
};

use crate::command::{Usage, complain, flags, say};

pub(crate) const USAGE: (&str, &str) = (
    "redirect [--inbound-port PORT] [--outbound-port PORT] …",
    "an init step: send the pod's traffic through a transparent listener",
);

const HELP: &str = "outrigger-proxy redirect: sends the pod's TCP traffic through the proxy (nftables; needs NET_ADMIN)

Run it in an init container, before the proxy; again changes nothing, or what the flags change.

Usage: outrigger-proxy redirect [FLAGS]
       outrigger-proxy redirect --remove

Flags:
  --inbound-port PORT       what comes from outside goes to the listener at this port
  --outbound-port PORT      what the application sends goes to the listener at this port
  --exclude-uid UID         not what this user sends: the proxy runs as it; may be repeated
  --exclude-gid GID         not what this group sends; may be repeated
  --exclude-mark MARK       not what has this mark; may be repeated
  --exclude-inbound PORTS   not these ports, such as 22 or 9000-9010 (7612, the proxy's health); may be repeated
  --exclude-outbound PORTS  not to these ports; may be repeated
  --exclude-network CIDR    not to these addresses; may be repeated
  --remove                  no longer
";

/// Named for whoever lists the rules.
const TABLE: &str = "outrigger-proxy";
/// Health and metrics: a probe must reach them also while the listener is not up.
const HEALTH: u16 = 7612;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Redirect {
    remove: bool,
    inbound: Option<u16>,
    outbound: Option<u16>,
    users: Vec<u32>,
    groups: Vec<u32>,
    marks: Vec<u32>,
    not_inbound: Vec<(u16, u16)>,
    not_outbound: Vec<(u16, u16)>,
    networks: Vec<(IpAddr, u8)>,
}

/// Why the rules are not there.
#[derive(Debug, thiserror::Error)]
enum RedirectError {
    #[error("netfilter cannot be reached")]
    Open(#[from] OpenError),
    #[error("the rules were refused; it needs the capability NET_ADMIN")]
    Commit(#[from] CommitError),
}

/// A whole run.
pub(crate) fn redirect(arguments: Vec<OsString>) -> Result<Exit, Usage> {
    let Some(wanted) = parse(arguments)? else {
        say(HELP);
        return Ok(Exit::Success);
    };
    match commit(&wanted) {
        Ok(()) => Ok(Exit::Success),
        Err(error) => {
            complain(&daemon::log::chain(&error));
            Ok(Exit::Failure)
        }
    }
}

const FLAGS: [&str; 8] = [
    "inbound-port",
    "outbound-port",
    "exclude-uid",
    "exclude-gid",
    "exclude-mark",
    "exclude-inbound",
    "exclude-outbound",
    "exclude-network",
];

fn parse(arguments: Vec<OsString>) -> Result<Option<Redirect>, Usage> {
    let mut wanted = Redirect { not_inbound: vec![(HEALTH, HEALTH)], ..Redirect::default() };
    let Some(flags) = flags(arguments, &FLAGS, &["remove"])? else { return Ok(None) };
    for (name, value) in flags {
        let wrong = |what: &str| format!("--{name}: `{value}` is no {what}");
        let range = || ports(&value).ok_or_else(|| wrong("port or range of ports"));
        match name {
            "inbound-port" => wanted.inbound = Some(port(&value).ok_or_else(|| wrong("port"))?),
            "outbound-port" => wanted.outbound = Some(port(&value).ok_or_else(|| wrong("port"))?),
            "exclude-uid" => wanted.users.push(value.parse().map_err(|_| wrong("user's number"))?),
            "exclude-gid" => wanted.groups.push(value.parse().map_err(|_| wrong("group's number"))?),
            "exclude-mark" => wanted.marks.push(mark(&value).ok_or_else(|| wrong("mark"))?),
            "exclude-inbound" => wanted.not_inbound.push(range()?),
            "exclude-outbound" => wanted.not_outbound.push(range()?),
            "exclude-network" => wanted.networks.push(network(&value).ok_or_else(|| wrong("network"))?),
            _ => wanted.remove = true,
        }
    }
    if wanted.remove {
        return Ok(Some(wanted));
    }
    if wanted.inbound.is_none() && wanted.outbound.is_none() {
        return Err("needs --inbound-port, --outbound-port or --remove".to_owned());
    }
    if wanted.outbound.is_some() && wanted.users.is_empty() && wanted.groups.is_empty() && wanted.marks.is_empty() {
        // Whatever the proxy sends would come back to it.
        return Err("--outbound-port needs --exclude-uid, --exclude-gid or --exclude-mark for the proxy".to_owned());
    }
    Ok(Some(wanted))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((port(first)?, port(last)?)).filter(|(first, last)| first <= last)
}

fn mark(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(most), |prefix| prefix.parse().ok())?;
    (prefix <= most).then_some((address, prefix))
}

fn commit(wanted: &Redirect) -> Result<(), RedirectError> {
    let table = Table::new(Family::Inet, TABLE);
    let mut batch = Batch::new();
    // Added so that it can be deleted whether or not it was there.
    batch.add_table(&table);
    batch.delete_table(&table);
    if !wanted.remove {
        fill(wanted, &table, &mut batch);
    }
    Ok(Netfilter::open()?.commit(&batch)?)
}

fn fill(wanted: &Redirect, table: &Table, batch: &mut Batch) {
    batch.add_table(table);
    let spare = |chain: &Chain, list: &[(u16, u16)], batch: &mut Batch| {
        for (first, last) in list {
            let of_port = Test::Between(Value::Port(*first), Value::Port(*last));
            batch.add_rule(&tcp(chain).test(Field::DestinationPort, of_port).accept());
        }
    };
    if let Some(port) = wanted.inbound {
        let chain = Chain::base(table, "inbound", ChainType::Nat, Hook::Prerouting, Priority::DESTINATION_NAT);
        batch.add_chain(&chain);
        // The containers of the pod talk to each other directly.
        let loopback = Test::Is(Value::InterfaceName("lo".into()));
        batch.add_rule(&Rule::new(&chain).test(Field::InputInterface, loopback).accept());
        spare(&chain, &wanted.not_inbound, batch);
        batch.add_rule(&tcp(&chain).redirect(Some(port)));
    }
    if let Some(port) = wanted.outbound {
        let chain = Chain::base(table, "outbound", ChainType::Nat, Hook::Output, Priority::DESTINATION_NAT);
        batch.add_chain(&chain);
        let own = |field: Field, value: Value| Rule::new(&chain).test(field, Test::Is(value)).accept();
        wanted.users.iter().for_each(|user| batch.add_rule(&own(Field::SocketUser, Value::UserId(*user))));
        wanted.groups.iter().for_each(|group| batch.add_rule(&own(Field::SocketGroup, Value::GroupId(*group))));
        wanted.marks.iter().for_each(|mark| batch.add_rule(&own(Field::Mark, Value::Mark(*mark))));
        batch.add_rule(&Rule::new(&chain).test(Field::DestinationType, Test::is(AddressType::LOCAL)).accept());
        for (address, prefix) in &wanted.networks {
            let rule = Rule::new(&chain);
            batch.add_rule(&match address {
                IpAddr::V4(address) => rule.test(Field::Ipv4Destination, Test::within(*address, *prefix)).accept(),
                IpAddr::V6(address) => rule.test(Field::Ipv6Destination, Test::within(*address, *prefix)).accept(),
            });
        }
        spare(&chain, &wanted.not_outbound, batch);
        batch.add_rule(&tcp(&chain).redirect(Some(port)));
    }
}

fn tcp(chain: &Chain) -> Rule {
    Rule::new(chain).test(Field::Protocol, Test::is(Protocol::TCP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Redirect>, Usage> {
        parse(line.split_whitespace().map(Into::into).collect())
    }

    #[test]
    fn flags() {
        let wanted = read(
            "--inbound-port 15006 --outbound-port=15001 --exclude-uid 1337 --exclude-mark 0x10 --exclude-inbound 9000-9010 \
             --exclude-network 10.0.0.0/8 --exclude-network fd00::1",
        );
        let wanted = wanted.unwrap().unwrap();
        assert_eq!((wanted.inbound, wanted.outbound), (Some(15006), Some(15001)));
        assert_eq!((wanted.users, wanted.marks), (vec![1337], vec![16]));
        assert_eq!(wanted.not_inbound, [(7612, 7612), (9000, 9010)]);
        assert_eq!(wanted.networks[1], ("fd00::1".parse().unwrap(), 128));
        assert!(read("--remove").unwrap().unwrap().remove);
        assert_eq!(read("--help"), Ok(None));
        for (line, message) in [
            ("", "needs --inbound-port, --outbound-port or --remove"),
            ("--outbound-port 1", "--outbound-port needs --exclude-uid, --exclude-gid or --exclude-mark for the proxy"),
            ("--inbound-port 0", "--inbound-port: `0` is no port"),
            ("--inbound-port", "--inbound-port needs a value"),
            ("--exclude-inbound 9-8", "--exclude-inbound: `9-8` is no port or range of ports"),
            ("--exclude-network 10.0.0.0/33", "--exclude-network: `10.0.0.0/33` is no network"),
            ("--exclude-nothing 1", "unknown flag --exclude-nothing"),
        ] {
            assert_eq!(read(line).unwrap_err(), message, "{line}");
        }
    }
}
