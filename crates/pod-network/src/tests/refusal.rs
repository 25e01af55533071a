//! What is refused, in which words, and that nothing is left of it.

use std::{net::TcpListener, path::Path};

use super::world::{Space, World, at, tcp, udp};
use crate::{AttachError, Config, HostPort, Network, Protocol};

/// Attaches, expecting a refusal that leaves no trace.
fn refused(world: &World, ports: &[HostPort]) -> String {
    let before = world.traces();
    let pod = Space::new();
    let error = world.host.inside(|| world.network.attach("refused", &pod.path(), ports)).unwrap_err();
    assert_eq!(world.traces(), before);
    assert_eq!(pod.run("ip -br link | wc -l"), "1\n", "only lo");
    error.to_string()
}

#[test]
fn ports_of_others_are_refused_with_the_owner_named() {
    let world = World::new();
    let _socket = world.host.inside(|| TcpListener::bind("0.0.0.0:8081").unwrap());
    let _other = world.host.inside(|| std::net::UdpSocket::bind("127.0.0.1:8082").unwrap());
    let me = format!("process {} ", std::process::id());
    let taken = refused(&world, &[tcp(8081, 80)]);
    assert!(taken.starts_with(&format!("host port 8081/TCP is already in use by {me}")), "{taken}");
    let taken = refused(&world, &[at("203.0.113.1", tcp(8081, 80))]);
    assert!(taken.starts_with("host port 203.0.113.1:8081/TCP is already in use by process"), "{taken}");
    assert!(refused(&world, &[udp(8082, 80)]).contains("8082/UDP is already in use by process"));
    assert!(refused(&world, &[at("9.9.9.9", tcp(1, 1))]).contains("this machine has no such address"));
    assert!(refused(&world, &[HostPort { protocol: Protocol::Sctp, ..tcp(1, 1) }]).contains("SCTP"));
    assert!(refused(&world, &[tcp(1, 1), at("127.0.0.1", tcp(1, 2))]).contains("asked for twice"));

    let (_pod, _) = world.pod("web", &[tcp(8080, 80), udp(8081, 80)]);
    assert_eq!(refused(&world, &[tcp(8080, 1)]), "host port 8080/TCP is already in use by pod web");
    assert_eq!(
        refused(&world, &[at("127.0.0.1", tcp(8080, 1))]),
        "host port 127.0.0.1:8080/TCP is already in use by pod web"
    );
    // Same number, other protocol.
    let (_pod, _) = world.pod("dns", &[udp(8080, 53)]);
}

#[test]
fn a_connection_going_out_from_the_port_does_not_occupy_it() {
    let world = World::new();
    world.outside.serve("0.0.0.0:80");
    let _connection = world.host.inside(|| std::net::TcpStream::connect("203.0.113.2:80").unwrap());
    let port = _connection.local_addr().unwrap().port();
    let (_pod, _) = world.pod("a", &[tcp(port, 80)]);
}

#[test]
fn networks_the_machine_already_reaches_are_refused() {
    let world = World::new();
    for (route, taken) in [("10.89.7.0/24", "10.89.7.0/24"), ("10.0.0.0/8", "10.0.0.0/8")] {
        world.host.run(&format!("ip route add {route} via 203.0.113.2"));
        let error = refused(&world, &[]);
        assert_eq!(
            error,
            format!(
                "the pod network 10.89.0.0/16 overlaps {taken}, which this machine already reaches through uplink\n\
                 hint: choose another network for pods"
            )
        );
        world.host.run(&format!("ip route del {route}"));
    }
    // The halves of a VPN's default route claim nothing.
    world.host.run("ip route add 0.0.0.0/1 via 203.0.113.2");
    let (_pod, _) = world.pod("a", &[]);
}

#[test]
fn unusable_namespaces_are_refused() {
    let world = World::new();
    let before = world.traces();
    let attach = |path: &Path| world.host.inside(|| world.network.attach("x", path, &[])).unwrap_err();
    assert!(matches!(attach(Path::new("/proc/0/ns/net")), AttachError::Namespace { .. }));
    assert!(matches!(attach(&world.host.path()), AttachError::HostNamespace(_)));
    // One that has an eth0 already: the link is made last of all that can fail, and everything before is undone.
    let crowded = Space::new();
    crowded.run("ip link add eth0 type veth peer name other");
    let error = attach(&crowded.path());
    assert!(error.to_string().starts_with("failed to make the link `or"), "{error}");
    assert_eq!(world.traces(), before);
    for id in ["", "..", "a/b", &"x".repeat(200)] {
        assert!(matches!(world.network.attach(id, &crowded.path(), &[]), Err(AttachError::PodId(_))), "{id}");
    }
}

#[test]
fn a_foreign_link_of_our_name_survives() {
    let world = World::new();
    world.host.run("ip link add or3f2a9c01 type veth peer name foreign");
    let (_pod, _) = world.pod("3f2a9c01-0000", &[]);
    world.detach("3f2a9c01-0000");
    world.host.run("ip link show or3f2a9c01");
}

#[test]
fn a_full_network_and_senseless_networks_are_refused() {
    let world = World::new();
    let open = |cidr: &str| Network::open(world.directory.path(), Config { cidr: cidr.parse().unwrap(), mtu: None });
    let tiny = open("10.99.0.0/30").unwrap();
    let pods = [Space::new(), Space::new()];
    world.host.inside(|| {
        assert_eq!(tiny.attach("a", &pods[0].path(), &[]).unwrap().ip.to_string(), "10.99.0.2");
        let error = tiny.attach("b", &pods[1].path(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "all addresses of the pod network 10.99.0.0/30 are in use");
    });
    for cidr in ["10.0.0.0/31", "127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/0"] {
        assert!(open(cidr).is_err(), "{cidr}");
    }
}
