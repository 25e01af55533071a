//! Which addresses the services of a node have.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use pod_engine::Roots;
use pod_node::service::Network;

use crate::cli::Api;
use crate::exit::usage;

const DOMAIN: &str = "cluster.local";
/// The name server has the tenth address, and services need some more.
const LONGEST_PREFIX: u8 = 27;

/// The network asked for, or the root's own.
///
/// # Errors
/// It is too small, or pods have the same addresses.
pub(crate) fn of_services(roots: &Roots, arguments: &Api, pod_cidr: Ipv4Net) -> anyhow::Result<Network> {
    let cidr = arguments.service_cidr.unwrap_or_else(|| default_cidr(&roots.tag)).trunc();
    if cidr.prefix_len() > LONGEST_PREFIX {
        return Err(usage(format!("--service-cidr {cidr}: too small, /{LONGEST_PREFIX} is the least")));
    }
    if cidr.contains(&pod_cidr.network()) || pod_cidr.contains(&cidr.network()) {
        return Err(usage(format!("--service-cidr {cidr} and --pod-cidr {pod_cidr} share addresses")));
    }
    let gateway = Ipv4Addr::from_bits(pod_cidr.network().to_bits() + 1);
    Ok(Network { cidr, gateway, domain: DOMAIN.to_owned(), tag: roots.tag.clone() })
}

/// Several nodes on one machine (each with a root of its own) must not answer for each other's addresses: the tag, a hash
/// of the root, picks a /24.
fn default_cidr(tag: &str) -> Ipv4Net {
    match u32::from_str_radix(tag, 16) {
        Ok(hash) => {
            let base = Ipv4Addr::new(10, 112, 0, 0).to_bits() | (hash & 0xfff) << 8;
            Ipv4Net::new(Ipv4Addr::from_bits(base), 24).unwrap_or_default()
        }
        Err(_) => Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 16).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_usual_one_and_a_roots_its_own() {
        assert_eq!(default_cidr("").to_string(), "10.96.0.0/16");
        assert_eq!(default_cidr("f4bd5b3c").to_string(), "10.123.60.0/24");
    }
}
