//! Whether there is a way to an address at all. Names and services often have addresses of both families, pods often one:
//! what cannot be reached would be tried, fail and be left out again and again (RFC 6724 §6, rule 1).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Of addresses of both families those of a family that can be reached from here; all, if neither can.
pub(super) fn reachable<T>(list: Vec<T>, address: impl Fn(&T) -> Option<IpAddr>) -> Vec<T> {
    let of = |four: bool| list.iter().filter_map(&address).filter(move |ip| ip.is_ipv4() == four);
    if of(true).next().is_none() || of(false).next().is_none() {
        return list;
    }
    let ways = [of(false).any(has_way), of(true).any(has_way)];
    match ways {
        [true, true] | [false, false] => list,
        [_, four] => list.into_iter().filter(|one| address(one).is_none_or(|ip| ip.is_ipv4() == four)).collect(),
    }
}

/// Asks the routes, and sends nothing: that is what connecting is with UDP.
fn has_way(to: IpAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let tried = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(SocketAddr::new(to, 9)));
    match tried.map_err(|error| error.kind()) {
        Err(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable) => false,
        // There is no such family here.
        Err(ErrorKind::Unsupported) => false,
        // Whatever else is wrong says nothing about the way.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_is_left_as_it_is() {
        let list: Vec<IpAddr> = ["192.0.2.1", "127.0.0.1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(reachable(list.clone(), |ip| Some(*ip)), list);
        assert!(has_way(Ipv4Addr::LOCALHOST.into()));
    }
}
