//! Who reaches whom, and under which address.

use std::{net::UdpSocket, time::Duration};

use super::world::{World, at, tcp, udp};

#[test]
fn pods_reach_each_other_the_host_and_the_world() {
    let world = World::new();
    let (a, a_ip) = world.pod("3f2a9c01-0000", &[]);
    let (b, b_ip) = world.pod("b", &[]);
    assert_eq!((a_ip.as_str(), b_ip.as_str()), ("10.89.0.2", "10.89.0.3"));
    assert_eq!(a.run("ip -br -4 addr show dev eth0").split_whitespace().nth(2), Some("10.89.0.2/32"));
    assert_eq!(
        a.run("ip route"),
        "default via 10.89.0.1 dev eth0 proto static \n10.89.0.1 dev eth0 proto static scope link \n"
    );
    assert!(a.run("ip link show dev eth0").contains("mtu 1400"), "the uplink's MTU");
    assert!(world.host.run("ip link show dev or3f2a9c01").contains("pod 3f2a9c01-0000"));

    a.serve("0.0.0.0:80");
    b.serve("0.0.0.0:80");
    world.host.serve("0.0.0.0:81");
    world.outside.serve("0.0.0.0:82");
    assert_eq!(a.call("10.89.0.3:80").unwrap(), a_ip, "pod to pod");
    assert_eq!(b.call("10.89.0.2:80").unwrap(), b_ip);
    assert_eq!(a.call("127.0.0.1:80").unwrap(), "127.0.0.1", "pod to itself");
    assert_eq!(a.call("10.89.0.2:80").unwrap(), a_ip);
    assert_eq!(world.host.call("10.89.0.2:80").unwrap(), "10.89.0.1", "host to pod, from the gateway address");
    assert_eq!(a.call("10.89.0.1:81").unwrap(), a_ip, "pod to host, by the gateway");
    assert_eq!(a.call("203.0.113.1:81").unwrap(), a_ip, "pod to host, by its own address");
    assert_eq!(a.call("203.0.113.2:82").unwrap(), "203.0.113.1", "pod to world, masqueraded");
}

#[test]
fn a_host_port_is_reached_from_everywhere() {
    let world = World::new();
    let (a, a_ip) = world.pod("a", &[tcp(8080, 80)]);
    let (b, b_ip) = world.pod("b", &[]);
    a.serve("0.0.0.0:80");
    assert_eq!(world.outside.call("203.0.113.1:8080").unwrap(), "203.0.113.2", "from the world, with its own address");
    assert_eq!(world.host.call("203.0.113.1:8080").unwrap(), "203.0.113.1", "from the host by its address");
    assert_eq!(world.host.call("127.0.0.1:8080").unwrap(), "10.89.0.1", "from the host by loopback");
    assert_eq!(b.call("203.0.113.1:8080").unwrap(), b_ip, "from another pod");
    assert_eq!(b.call("10.89.0.1:8080").unwrap(), b_ip, "from another pod by the gateway");
    assert_eq!(a.call("203.0.113.1:8080").unwrap(), "10.89.0.1", "from the pod itself");
    assert_eq!(a_ip, "10.89.0.2");
    // Others' ports are not touched.
    world.outside.serve("0.0.0.0:8080");
    assert_eq!(world.host.call("203.0.113.2:8080").unwrap(), "203.0.113.1");
    world.detach("a");
    assert!(world.outside.is_cut_off("203.0.113.1:8080"));
}

#[test]
fn a_host_port_at_one_address_is_not_reached_by_another() {
    let world = World::new();
    let (private, _) = world.pod("private", &[at("127.0.0.1", tcp(8080, 80))]);
    let (public, _) = world.pod("public", &[at("203.0.113.1", tcp(8080, 80))]);
    private.serve("0.0.0.0:80");
    assert_eq!(world.host.call("127.0.0.1:8080").unwrap(), "10.89.0.1");
    assert!(world.outside.is_cut_off("203.0.113.1:8080"), "nobody listens in the public pod yet");
    public.serve("0.0.0.0:80");
    assert_eq!(world.outside.call("203.0.113.1:8080").unwrap(), "203.0.113.2");
}

#[test]
fn the_hosts_loopback_stays_private() {
    let world = World::new();
    let (pod, _) = world.pod("a", &[tcp(8080, 80)]);
    world.host.serve("127.0.0.9:9000");
    // A pod that sends 127.0.0.9 down its link instead of to itself.
    pod.run(
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; \
         ip rule add pref 2 lookup local; ip rule del pref 0; \
         ip rule add pref 1 to 127.0.0.9 lookup 100; ip route add 127.0.0.9 via 10.89.0.1 dev eth0 table 100",
    );
    assert!(pod.is_cut_off("127.0.0.9:9000"));
    // The attack works where nothing guards against it.
    world.host.run("nft flush chain ip outrigger guard");
    assert_eq!(pod.call("127.0.0.9:9000").unwrap(), "10.89.0.2");
}

#[test]
fn pods_get_through_a_forward_chain_that_drops() {
    let world = World::new();
    // As Docker and ufw leave it.
    world.host.run(
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
                    add rule ip filter FORWARD ip saddr 9.9.9.9 accept'",
    );
    world.outside.run("ip route add 10.89.0.0/16 via 203.0.113.1");
    let before = world.traces();
    let (a, a_ip) = world.pod("a", &[tcp(8080, 80)]);
    let (b, b_ip) = world.pod("b", &[]);
    a.serve("0.0.0.0:80");
    b.serve("0.0.0.0:80");
    assert!(world.gets_out(&a));
    assert_eq!(a.call(&format!("{b_ip}:80")).unwrap(), a_ip);
    assert_eq!(world.outside.call("203.0.113.1:8080").unwrap(), "203.0.113.2");
    assert!(world.outside.is_cut_off(&format!("{a_ip}:80")), "not published, not let in");
    world.detach("a");
    assert!(world.gets_out(&b));
    world.detach("b");
    assert_eq!(world.traces(), before);
}

#[test]
fn a_pod_cannot_speak_in_anothers_name() {
    let world = World::new();
    let (a, _) = world.pod("a", &[]);
    let (_b, _) = world.pod("b", &[]);
    world.host.run(
        "nft 'add table ip t; add chain ip t c { type filter hook input priority 0; }; \
                    add rule ip t c ip saddr 10.89.0.3 udp dport 9 counter'",
    );
    a.run("ip addr add 10.89.0.3/32 dev eth0");
    a.inside(|| UdpSocket::bind("10.89.0.3:0").unwrap().send_to(b"x", "10.89.0.1:9").unwrap());
    assert!(world.host.run("nft list chain ip t c").contains("packets 0"));
}

#[test]
fn udp_flows_move_with_the_port() {
    let world = World::new();
    let receive = |socket: &UdpSocket| {
        let mut buffer = [0; 16];
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.recv_from(&mut buffer).map(|(length, from)| (buffer[..length].to_vec(), from))
    };
    let sender = world.outside.inside(|| UdpSocket::bind("203.0.113.2:5000").unwrap());
    let send = || sender.send_to(b"hello", "203.0.113.1:5353").unwrap();
    for id in ["first", "second"] {
        // Someone who sends before the port exists, and goes on sending while it changes hands.
        send();
        let (pod, _) = world.pod(id, &[udp(5353, 53)]);
        let socket = pod.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        send();
        let (data, from) = receive(&socket).unwrap();
        assert_eq!((data.as_slice(), from.to_string().as_str()), (&b"hello"[..], "203.0.113.2:5000"), "{id}");
        socket.send_to(b"back", from).unwrap();
        let (data, from) = receive(&sender).unwrap();
        assert_eq!((data.as_slice(), from.to_string().as_str()), (&b"back"[..], "203.0.113.1:5353"));
        world.detach(id);
    }
}
