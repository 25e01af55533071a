//! Which address a pod gets: the lowest free one.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

/// The first address of the network: the host's, on every link.
pub(crate) fn gateway(cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(cidr.network().to_bits() + 1)
}

/// The lowest address that is neither the network's, the gateway's, the broadcast's nor in use.
///
/// One that was just given back may be given out at once: every pod has a link of its own, so no neighbour remembers
/// the hardware address of the one before.
pub(crate) fn lowest_free(cidr: Ipv4Net, in_use: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let in_use: BTreeSet<_> = in_use.iter().copied().collect();
    let last = cidr.broadcast().to_bits().checked_sub(1)?;
    (gateway(cidr).to_bits() + 1..=last).map(Ipv4Addr::from_bits).find(|address| !in_use.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_gap_is_taken_and_the_ends_are_left_out() {
        let small = network("10.89.0.0/29");
        let at = |last| Ipv4Addr::new(10, 89, 0, last);
        assert_eq!(gateway(small), at(1));
        assert_eq!(lowest_free(small, &[]), Some(at(2)));
        assert_eq!(lowest_free(small, &[at(2), at(4)]), Some(at(3)));
        assert_eq!(lowest_free(small, &[at(2), at(3), at(4), at(5)]), Some(at(6)));
        assert_eq!(lowest_free(small, &[at(2), at(3), at(4), at(5), at(6)]), None);
        assert_eq!(lowest_free(network("10.0.0.0/30"), &[]), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(lowest_free(network("0.0.0.0/0"), &[]), Some(Ipv4Addr::new(0, 0, 0, 2)));
    }

    #[test]
    fn addresses_of_other_networks_do_not_matter() {
        let other = [Ipv4Addr::new(10, 90, 0, 2)];
        assert_eq!(lowest_free(network("10.89.0.0/16"), &other), Some(Ipv4Addr::new(10, 89, 0, 2)));
    }
}
