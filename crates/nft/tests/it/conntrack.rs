//! Forgotten flows are gone, others stay.

use std::net::{Ipv4Addr, UdpSocket};

use nft::*;

use crate::world::{in_private_network, run};

#[test]
fn only_the_flows_asked_for_are_forgotten() {
    in_private_network(|| {
        let netfilter = Netfilter::open().unwrap();
        // Connection tracking begins with the first rule that needs it.
        run("nft 'add table ip t; add chain ip t c { type filter hook input priority 0; }; \
             add rule ip t c ct state new counter'");
        let receivers: Vec<_> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ports: Vec<u16> = receivers.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        receivers.iter().for_each(|receiver| exchange(&sender, receiver));
        assert_eq!(new_flows(), 2);
        netfilter.forget(Flows::ToPort(Protocol::UDP, ports[0])).unwrap();
        netfilter.forget(Flows::ToPort(Protocol::TCP, ports[1])).unwrap();
        receivers.iter().for_each(|receiver| exchange(&sender, receiver));
        assert_eq!(new_flows(), 3, "one of the two was tracked anew");
        netfilter.forget(Flows::AnsweredBy(Protocol::UDP, Ipv4Addr::new(10, 0, 0, 1))).unwrap();
        exchange(&sender, &receivers[0]);
        assert_eq!(new_flows(), 3);
        netfilter.forget(Flows::AnsweredBy(Protocol::UDP, Ipv4Addr::LOCALHOST)).unwrap();
        exchange(&sender, &receivers[0]);
        assert_eq!(new_flows(), 4);
    });
}

/// There and back: a flow counts as new until it is answered.
fn exchange(sender: &UdpSocket, receiver: &UdpSocket) {
    sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
    let (_, from) = receiver.recv_from(&mut [0]).unwrap();
    receiver.send_to(b"y", from).unwrap();
    sender.recv_from(&mut [0]).unwrap();
}

/// How many packets began a flow.
fn new_flows() -> u64 {
    let listed = run("nft list chain ip t c");
    listed.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}
