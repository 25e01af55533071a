//! What the host's own network looks like: its addresses, its way out, who else uses the pods' addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::LinkAttribute,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use crate::{link, record::is_link_name, route_socket::RouteSocket};

/// Any address that only a default route leads to; nothing is sent (RFC 5737, RFC 3849: documentation).
const FAR_AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const FAR_AWAY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// A route to fewer bits than this is a default route in disguise (VPNs split theirs in 0.0.0.0/1 and 128.0.0.0/1) and
/// claims no addresses.
const SHORTEST_CLAIM: u8 = 8;

/// The machine's primary addresses: for each of IPv4 and IPv6 the one it would use to talk to the world. Without a way
/// out any address of a link, at last 127.0.0.1. Never empty; IPv4 first.
pub fn host_ips() -> Vec<IpAddr> {
    let Ok(routes) = RouteSocket::open() else { return vec![Ipv4Addr::LOCALHOST.into()] };
    let source = |to| {
        way_to(&routes, to).ok().and_then(|route| {
            route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
                RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
                _ => None,
            })
        })
    };
    let mut addresses: Vec<IpAddr> = [FAR_AWAY, FAR_AWAY_IPV6].into_iter().filter_map(source).collect();
    if addresses.is_empty() {
        addresses.extend(first_address(&routes));
    }
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses
}

/// The MTU of the link that leads out, if one does.
pub(crate) fn uplink_mtu(routes: &RouteSocket) -> Option<u32> {
    let index = output_of(&way_to(routes, FAR_AWAY).ok()?)?;
    let link = link::find_index(routes, index).ok()?;
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// A network that shares addresses with `cidr` and the link it is reached through, unless that is one of `ours`.
pub(crate) fn overlap(routes: &RouteSocket, cidr: Ipv4Net, ours: &[String]) -> io::Result<Option<(Ipv4Net, String)>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    for message in routes.dump(Message::GetRoute(question))? {
        let Message::NewRoute(route) = message else { continue };
        let Some(taken) = destination_of(&route) else { continue };
        if taken.prefix_len() < SHORTEST_CLAIM || !(taken.contains(&cidr) || cidr.contains(&taken)) {
            continue;
        }
        let link = match output_of(&route) {
            Some(index) => link::find_index(routes, index).ok().as_ref().and_then(link::name),
            None => None,
        };
        let link = link.unwrap_or_else(|| "no link".to_owned());
        if !ours.contains(&link) {
            return Ok(Some((taken, link)));
        }
    }
    Ok(None)
}

fn way_to(routes: &RouteSocket, to: IpAddr) -> io::Result<RouteMessage> {
    let mut question = RouteMessage::default();
    question.header.address_family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    question.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
    question.attributes.push(RouteAttribute::Destination(to.into()));
    match routes.ask(Message::GetRoute(question))? {
        Message::NewRoute(route) => Ok(route),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn output_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn destination_of(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    Ipv4Net::new(address, route.header.destination_prefix_length).ok()
}

/// The first global address of a link that is no pod's.
fn first_address(routes: &RouteSocket) -> Option<IpAddr> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    let messages = routes.dump(Message::GetAddress(question)).ok()?;
    messages.into_iter().find_map(|message| {
        let Message::NewAddress(address) = message else { return None };
        let link = link::find_index(routes, address.header.index).ok().as_ref().and_then(link::name)?;
        if address.header.scope != AddressScope::Universe || is_link_name(&link) {
            return None;
        }
        address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        })
    })
}
