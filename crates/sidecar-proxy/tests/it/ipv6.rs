//! The other family of addresses: listeners, clients as rules and applications see them, endpoints, and names that have
//! addresses nobody here can reach.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

use crate::harness::{Client, Upstream, World, ok};
use crate::redirect::Network;

fn seen_by(listener: &str) -> Upstream {
    Upstream::on(TcpListener::bind(listener).unwrap(), |seen| {
        let field = |name: &str| seen.field(name).unwrap_or("-").to_owned();
        ok(&format!("{} {}", field("x-forwarded-for"), field("host")))
    })
}

fn at(host: &str, world: &mut World, listener: &str) -> Client {
    let port = world.listener(listener).port();
    Client::connect(format!("{host}:{port}").parse().unwrap())
}

fn get(client: &mut Client, host: &str, lines: &str) -> (u16, String) {
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"));
    let answer = client.answer();
    (answer.status(), answer.body)
}

#[test]
fn clients_of_both_families_are_who_they_are() {
    let upstream = seen_by("[::1]:0");
    let spec = format!(
        "listeners:
- {{name: both, address: ':0'}}
- {{name: six, address: '[::1]:0'}}
- {{name: told, address: '[::]:0', proxyProtocol: true}}
trustedProxies: ['127.0.0.0/8', '::1', 'fd00:77::/32']
routes:
- name: literal
  hosts: ['[fd00::1]']
  filters: [{{respond: {{status: 202}}}}]
- name: all
  filters:
  - rules:
    - {{name: ten, networks: ['10.0.0.0/8', 'fd00:10::/32'], action: deny}}
    - {{name: mapped, networks: ['::ffff:192.0.2.0/120'], action: deny, status: 410}}
  backends: [{{name: app}}]
backends:
- {{name: app, endpoints: ['{}']}}
",
        upstream.address
    );
    let mut world = World::with(&spec);
    let mut four = at("127.0.0.1", &mut world, "both");
    assert_eq!(get(&mut four, "a", ""), (200, "127.0.0.1 a".to_owned()), "not ::ffff:127.0.0.1");
    for (listener, host) in [("both", "[::1]"), ("six", "[::1]")] {
        let mut six = at(host, &mut world, listener);
        assert_eq!(get(&mut six, "[fd00::2]:80", ""), (200, "::1 [fd00::2]:80".to_owned()));
        for host in ["[fd00::1]", "[fd00::1]:8080", "[FD00::1]"] {
            assert_eq!(get(&mut six, host, "").0, 202, "{host}");
        }
        for host in ["[fd00::1", "fd00::1]", "[]", "[fd00::1]8080"] {
            let mut six = at("[::1]", &mut world, listener);
            assert_eq!(get(&mut six, host, "").0, 400, "{host}");
        }
    }
    // Whoever is behind proxies, however they write it.
    for (list, status) in [
        ("10.1.2.3", 403),
        ("::ffff:10.1.2.3", 403),
        ("[::ffff:10.1.2.3]:99", 403),
        ("10.1.2.3:99", 403),
        ("fd00:10::9", 403),
        ("[fd00:10::9]:99", 403),
        ("fd00:10::9, [fd00:77::1]:5", 403),
        ("192.0.2.7", 410),
        ("::ffff:192.0.2.7", 410),
        ("fd00:10::9, fd00:78::1", 200),
        ("198.51.100.1", 200),
    ] {
        for mut client in [at("127.0.0.1", &mut world, "both"), at("[::1]", &mut world, "both")] {
            assert_eq!(get(&mut client, "a", &format!("X-Forwarded-For: {list}\r\n")).0, status, "{list}");
        }
    }
    let v2 = |from: &[u8; 16]| {
        let rest = [&from[..], &[0xfd; 16], &[1, 2, 0, 80]].concat();
        [b"\r\n\r\n\0\r\nQUIT\n", &[0x21, 0x21, 0, 36][..], &rest].concat()
    };
    let mapped: [u8; 16] = "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let plain: [u8; 16] = "fd00:99::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    for (header, status, from) in [
        (b"PROXY TCP6 ::ffff:10.0.0.1 fd00::1 1 80\r\n".to_vec(), 403, ""),
        (b"PROXY TCP6 fd00:99::7 fd00::1 1 80\r\n".to_vec(), 200, "fd00:99::7 a"),
        (v2(&mapped), 403, ""),
        (v2(&plain), 200, "fd00:99::7 a"),
    ] {
        let mut client = at("[::1]", &mut world, "told");
        client.send(&header);
        let (got, body) = get(&mut client, "a", "");
        assert_eq!(got, status);
        assert!(status != 200 || body == from, "{body}");
    }
}

/// Answers every question for a name's addresses with one of each family.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut room = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut room) {
            let mut answer = room[..length].to_vec();
            let kind = answer[length - 3];
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            let address: Vec<u8> = match kind {
                1 => vec![127, 0, 0, 1],
                _ => [&[0xfd, 0, 0, 9][..], &[0; 11], &[9]].concat(),
            };
            answer.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, address.len() as u8]);
            answer.extend_from_slice(&address);
            let _ = socket.send_to(&answer, from);
        }
    });
    at
}

#[test]
fn addresses_without_a_way_to_them_are_left_out() {
    let network = Network::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            // It has the loopback alone: there is no way to fd00:9::9.
            network.enter();
            let upstream = seen_by("127.0.0.1:0");
            let port = upstream.address.port();
            let spec = format!(
                "listeners: [{{name: in, address: '127.0.0.1:0'}}]
nameServers: ['{}']
routes: [{{name: all, retries: {{attempts: 0}}, backends: [{{name: app}}]}}]
backends: [{{name: app, endpoints: ['app.test.:{port}'], passiveHealth: {{failures: 0}}}}]
",
                name_server()
            );
            let world = World::with(&spec);
            let mut client = world.client();
            (0..6).for_each(|_| assert_eq!(get(&mut client, "a", "").0, 200));
            let page = world.ask("/metrics");
            let endpoints = page.matches("outrigger_proxy_backend_endpoint_healthy{").count();
            assert_eq!(endpoints, 1, "{page}");
        });
    });
}
