//! Connections to service addresses: spread, refused, following their backends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use pod_service::{Balancer, Frontend, Protocol};

use crate::world::{Space, host_with};

fn frontend(protocol: Protocol, address: &str, backends: &[&str]) -> Frontend {
    let backends = backends.iter().map(|backend| backend.parse().unwrap()).collect();
    Frontend { protocol, address: address.parse().unwrap(), backends }
}

fn apply(host: &Space, balancer: &mut Balancer, frontends: Vec<Frontend>) {
    host.inside(|| balancer.apply(frontends.into_iter().collect()).unwrap());
}

#[test]
fn connections_are_spread_over_the_backends_and_refused_without_any() {
    let (one, two, client) = (Space::new(), Space::new(), Space::new());
    let host = host_with(&[&one, &two, &client]);
    one.serve("one");
    two.serve("two");
    let mut balancer = Balancer::new("", "10.96.0.0/16".parse().unwrap());
    let both = ["10.89.0.2:8080", "10.89.0.3:8080"];
    let web = |backends: &[&str]| {
        vec![frontend(Protocol::Tcp, "10.96.0.7:80", backends), frontend(Protocol::Tcp, "10.96.0.8:80", &both[..1])]
    };

    apply(&host, &mut balancer, web(&both));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..100 {
        *counts.entry(client.call("10.96.0.7:80").unwrap()).or_default() += 1;
    }
    // Both see the client's own address; chance is fair within reason.
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["one 10.89.0.4", "two 10.89.0.4"]);
    assert!(counts.values().all(|count| *count > 20), "{counts:?}");

    // From the host, and from a backend to itself (masqueraded, since an answer to oneself does not come back).
    assert!(host.call("10.96.0.8:80").unwrap().starts_with("one "));
    assert_eq!(one.call("10.96.0.8:80").unwrap(), "one 10.89.0.1");

    // One backend goes, then the other; ports nobody serves are refused, not timed out.
    apply(&host, &mut balancer, web(&both[1..]));
    let said: BTreeSet<_> = (0..10).map(|_| client.call("10.96.0.7:80").unwrap()).collect();
    assert_eq!(said.into_iter().collect::<Vec<_>>(), ["two 10.89.0.4"]);
    apply(&host, &mut balancer, web(&[]));
    for (from, to) in
        [(&client, "10.96.0.7:80"), (&client, "10.96.0.7:81"), (&client, "10.96.9.9:80"), (&host, "10.96.0.7:80")]
    {
        assert_eq!(from.call(to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
    }

    assert!(host.inside(|| balancer.remove().unwrap()));
    assert!(!host.inside(|| balancer.remove().unwrap()));
    host.run("test -z \"$(nft list ruleset)\"");
}

#[test]
fn udp_senders_follow_when_their_backend_goes() {
    let (one, two, client) = (Space::new(), Space::new(), Space::new());
    let host = host_with(&[&one, &two, &client]);
    one.serve("one");
    two.serve("two");
    let mut balancer = Balancer::new("t", "10.96.0.0/16".parse().unwrap());
    let dns = |backend: &str| vec![frontend(Protocol::Udp, "10.96.0.7:53", &[backend])];
    let socket = client.inside(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let ask = || {
        let mut buffer = [0; 16];
        socket.send_to(b"?", "10.96.0.7:53").unwrap();
        let (length, _) = socket.recv_from(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    apply(&host, &mut balancer, dns("10.89.0.2:8080"));
    assert_eq!(ask(), "one");
    apply(&host, &mut balancer, dns("10.89.0.3:8080"));
    assert_eq!(ask(), "two");
    host.inside(|| balancer.remove().unwrap());
}
