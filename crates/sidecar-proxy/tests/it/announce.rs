//! The PROXY protocol, in and out: by hand, over TLS and TCP, and with HAProxy on either side.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::net::{AddressFamily, SocketType};

use crate::harness::{Client, PATIENCE, Port, Upstream, World, eventually, ok, simple_spec};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    [V2, &[command, kind], &u16::try_from(rest.len()).unwrap().to_be_bytes(), rest].concat()
}

fn echo_address() -> Upstream {
    Upstream::start(|seen| ok(seen.field("x-forwarded-for").unwrap()))
}

fn announced(upstream: SocketAddr) -> String {
    simple_spec(&[upstream], "timeouts: {head: 20s}\n").replace("127.0.0.1:0\"}", "127.0.0.1:0\", proxyProtocol: true}")
}

#[test]
fn what_a_connection_begins_with_says_where_it_comes_from() {
    let upstream = echo_address();
    let world = World::with(&announced(upstream.address));
    let four = [192, 0, 2, 9, 198, 51, 100, 2, 0, 5, 1, 187];
    let fields = [&four[..], &[0xea; 5000]].concat();
    let cases: [(Vec<u8>, &str); 7] = [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &four), "192.0.2.9"),
        (v2(0x21, 0x11, &fields), "192.0.2.9"),
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
        (v2(0x21, 0x00, &[0; 7]), "127.0.0.1"),
    ];
    for (header, address) in &cases {
        // At once with what follows, and byte by byte.
        let mut client = world.client();
        client.send([header, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]].concat());
        assert_eq!(client.answer().body, *address);
        assert_eq!(client.get("/").body, *address);
        let mut client = world.client();
        for byte in header.iter().take(200) {
            client.send([*byte]);
        }
        client.send(&header[header.len().min(200)..]);
        assert_eq!(client.get("/").body, *address);
    }
    for bad in [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), b"PROXY TCP4 x\r\n".to_vec(), v2(0x11, 0x11, &four)] {
        let mut client = world.client();
        client.send(&bad);
        assert!(client.is_closed());
    }
    // Somebody who says half of it and closes, and somebody who says nothing.
    let mut client = world.client();
    client.send("PROXY TCP4 192.0");
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_closed());
    assert_eq!(world.metric("outrigger_proxy_proxy_protocol_failures_total"), 3);
    eventually("the end of all connections", || world.metric("outrigger_proxy_connections_active") == 0);
}

/// Reads connections' beginnings up to an end of line or, of version 2, all of the header.
fn hear(listener: TcpListener, answer: &'static [u8]) -> Arc<Mutex<Vec<Vec<u8>>>> {
    let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let into = Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let into = Arc::clone(&into);
            std::thread::spawn(move || {
                let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
                let mut answered = 0;
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    all.extend_from_slice(&bytes[..length]);
                    let requests = all.windows(4).filter(|four| four == b"\r\n\r\n").count();
                    for _ in answered..requests {
                        let _ = stream.write_all(answer);
                    }
                    answered = answered.max(requests);
                }
                into.lock().unwrap().push(all);
            });
        }
    });
    heard
}

#[test]
fn backends_are_told_and_no_connection_serves_two_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = hear(listener, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let spec = simple_spec(&[address], "  proxyProtocol: v1\n");
    let world = World::with(&spec);
    let mut clients = [world.client(), world.client()];
    let ports: Vec<u16> = clients.iter().map(|one| one.stream.get_ref().local_addr().unwrap().port()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get("/").status(), 200);
        }
    }
    // With their clients gone the connections are of no use.
    drop(clients);
    eventually("the end of both", || heard.lock().unwrap().len() == 2);
    let mut texts: Vec<String> =
        heard.lock().unwrap().iter().map(|bytes| String::from_utf8(bytes.clone()).unwrap()).collect();
    texts.sort_by_key(|text| ports.iter().position(|port| text.contains(&format!(" {port} "))));
    for (text, port) in texts.iter().zip(&ports) {
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\nGET / ", world.address().port());
        assert!(text.starts_with(&line), "{text} is not {line}");
        assert_eq!(text.matches("PROXY ").count(), 1);
        assert_eq!(text.matches("GET / ").count(), 3);
    }
}

#[test]
fn streams_of_many_clients_cannot_be_announced() {
    let address = "127.0.0.1:1".parse().unwrap();
    let said = crate::config::problems(&simple_spec(&[address], "  http2: true\n  proxyProtocol: v2\n"));
    let text = "13:20: spec.backends[0].proxyProtocol: is not supported with http2: clients share such connections, and it names only one";
    assert_eq!(said, [text]);
    let said = crate::config::problems(&simple_spec(&[address], "  proxyProtocol: v3\n"));
    assert_eq!(said, ["12:20: spec.backends[0].proxyProtocol: must be one of v1, v2"]);
}

#[test]
fn tcp_passes_it_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = hear(listener, b"");
    let spec = format!(
        "listeners:\n- {{name: tcp, address: \"127.0.0.1:0\", tcp: app, proxyProtocol: true}}\nbackends:\n- {{name: app, endpoints: [\"{address}\"], proxyProtocol: v2}}\n"
    );
    let world = World::with(&spec);
    let mut client = world.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 5 443\r\nhello");
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    eventually("the bytes", || heard.lock().unwrap().len() == 1);
    let expected = [&v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0, 5, 1, 187]), &b"hello"[..]].concat();
    assert_eq!(heard.lock().unwrap()[0], expected);
}

/// A peer on a port of its own.
struct Haproxy {
    child: Child,
}

impl Haproxy {
    fn start(world: &World, name: &str, port: u16, config: &str) -> Option<Haproxy> {
        let path = world.path(name);
        std::fs::write(
            &path,
            format!("defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n{config}"),
        )
        .unwrap();
        let child = Command::new("haproxy").arg("-db").arg("-f").arg(&path).stderr(Stdio::null()).spawn();
        let Ok(child) = child else {
            println!("NOT RUN: there is no haproxy");
            return None;
        };
        eventually("haproxy", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Haproxy { child })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client whose address is not everybody's.
fn client_from(from: &str, to: SocketAddr) -> Client {
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &from).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client { stream: std::io::BufReader::new(stream) }
}

#[test]
fn haproxy_in_front_and_behind() {
    for (their, ours) in [("send-proxy", "v1"), ("send-proxy-v2 proxy-v2-options crc32c", "v2")] {
        let upstream = echo_address();
        let reserved = (Port::reserve(), Port::reserve());
        let (front, behind) = (reserved.0.address.port(), reserved.1.address.port());
        let back = format!(
            "frontend in\n bind 127.0.0.1:{behind} accept-proxy\n option forwardfor\n default_backend app\nbackend app\n server a {}\n",
            upstream.address
        );
        let mut world = World::new();
        let Some(_behind) = Haproxy::start(&world, "behind.cfg", behind, &back) else { return };
        let told = format!("127.0.0.1:{behind}").parse().unwrap();
        // The address must come from the protocol, not from a field.
        world.start(
            &announced(told)
                .replace(
                    "endpoints:",
                    &format!("proxyProtocol: {ours}\n  activeHealth: {{interval: 200ms, timeout: 20s}}\n  endpoints:"),
                )
                .replace("timeouts:", "forwarded: pass\ntimeouts:"),
        );
        let config = format!("listen in\n bind 127.0.0.1:{front}\n server us {} {their}\n", world.address());
        let Some(_front) = Haproxy::start(&world, "front.cfg", front, &config) else { return };
        for from in ["127.0.0.7", "127.0.0.8", "127.0.0.7"] {
            let mut client = client_from(from, format!("127.0.0.1:{front}").parse().unwrap());
            for _ in 0..2 {
                let answer = client.get("/");
                assert_eq!((answer.status(), answer.body.as_str()), (200, from), "{their}");
            }
        }
        eventually("a good endpoint", || world.ask("/readyz?verbose").contains("good"));
    }
}
