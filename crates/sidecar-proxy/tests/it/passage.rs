//! Connections that are passed on by the name their TLS asks for, and by weight: the client speaks to the upstream itself.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned, version};

use crate::harness::{PATIENCE, World, eventually};
use crate::tls::{Authority, Stream, config, connect, der, shown};

/// A TLS server with this certificate.
pub(crate) fn server(pair: &(String, String)) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).unwrap().with_no_client_auth();
    let chain = CertificateDer::pem_slice_iter(pair.0.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

/// What it is sent, it sends back.
fn echo(pair: &(String, String)) -> SocketAddr {
    let config = server(pair);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
                let mut piece = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Two upstreams, and a proxy before them.
struct Two {
    authority: Authority,
    a: (String, String),
    b: (String, String),
    world: World,
}

const BY_NAME: &str = "[{hosts: [a.test], backends: [{name: a}]}, {hosts: ['*.b.test'], backends: [{name: b}]}]";

fn two(routes: &str, listener: &str, more: &str) -> Two {
    let authority = Authority::new();
    let (a, b) = (authority.issue(&["a.test", "other.test"], None), authority.issue(&["*.b.test"], None));
    let spec = format!(
        "listeners:
- {{name: tls, address: \"127.0.0.1:0\", {listener}tcpRoutes: {routes}}}
backends:
- {{name: a, endpoints: [\"{}\"]}}
- {{name: b, endpoints: [\"{}\"]}}
accessLog: {{path: ROOT/log, names: short}}
workers: 1
{more}",
        echo(&a),
        echo(&b)
    );
    Two { authority, a, b, world: World::with(&spec) }
}

impl Two {
    fn log(&self) -> String {
        std::fs::read_to_string(self.world.path("log")).unwrap_or_default()
    }

    /// Waits for a line of the log that has all of this.
    fn logged(&self, parts: &[&str]) {
        eventually("the line", || self.log().lines().any(|line| parts.iter().all(|part| line.contains(part))));
    }
}

fn exchange(stream: &mut Stream, size: usize) {
    let bytes: Vec<u8> = (0..size).map(|at| (at / 251 + at * 7) as u8).collect();
    let mut back = vec![0; size];
    // In pieces that fit into what the kernel holds: nobody reads while this writes.
    for (piece, room) in bytes.chunks(32 << 10).zip(back.chunks_mut(32 << 10)) {
        stream.write_all(piece).unwrap();
        stream.read_exact(room).unwrap();
    }
    assert!(back == bytes);
}

#[test]
fn the_name_chooses_the_upstream_and_its_certificate_is_seen() {
    let two = two(BY_NAME, "", "");
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let client = config(&two.authority, None, versions);
        for (name, pair) in [("a.test", &two.a), ("x.b.test", &two.b), ("y.x.b.test", &two.b)] {
            let mut stream = connect(two.world.address(), name, &client);
            if name.matches('.').count() > 2 {
                // It goes there; that the certificate is not for it, is the client's to find out.
                let error = stream.write_all(b"x").unwrap_err().to_string();
                assert!(error.contains("certificate not valid for name"), "{error}");
                continue;
            }
            exchange(&mut stream, 1_000_000);
            assert!(shown(&stream) == der(pair), "{name}");
        }
        // Names nobody has, and none at all.
        let mut nameless = (*client).clone();
        nameless.enable_sni = false;
        for (name, client) in [("b.test", client), ("a.test", Arc::new(nameless))] {
            let error = connect(two.world.address(), name, &client).write_all(b"x").unwrap_err().to_string();
            assert!(error.contains("UnrecognisedName"), "{name}: {error}");
        }
    }
    two.logged(&["\"host\":\"a.test\"", "\"backend\":\"a\"", "\"tries\":1", "\"requestBytes\":10", "\"parse_us\""]);
    two.logged(&["\"host\":\"x.b.test\"", "\"backend\":\"b\""]);
    two.logged(&["\"host\":\"b.test\"", "\"error\":\"no_route\"", "\"tries\":0"]);
    assert_eq!(two.world.metric("outrigger_proxy_tls_handshake_failures_total "), 4);
    eventually("the end", || two.world.metric("outrigger_proxy_connections_active") == 0);
}

/// What a client sends first, in pieces of `piece` bytes; then it goes on as usual.
fn in_pieces(two: &Two, fragment: Option<usize>, piece: usize) -> Stream {
    let mut config = (*config(&two.authority, None, &[&version::TLS13])).clone();
    config.max_fragment_size = fragment;
    let name = ServerName::try_from("a.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut hello).unwrap();
    }
    let mut socket = TcpStream::connect(two.world.address()).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for piece in hello.chunks(piece) {
        socket.write_all(piece).unwrap();
        // So that most of them are read by themselves; none has to be.
        std::thread::sleep(Duration::from_millis(1));
    }
    StreamOwned::new(client, socket)
}

#[test]
fn a_hello_may_come_in_any_pieces() {
    let two = two(BY_NAME, "", "");
    for (fragment, piece) in [(None, 1), (Some(32), 7), (Some(40), 10_000), (None, 100)] {
        let mut stream = in_pieces(&two, fragment, piece);
        exchange(&mut stream, 100);
        assert!(shown(&stream) == der(&two.a));
    }
}

#[test]
fn a_route_without_names_takes_the_rest() {
    let two = two("[{hosts: ['*.b.test'], backends: [{name: b}]}, {backends: [{name: a}]}]", "", "");
    let client = config(&two.authority, None, &[&version::TLS13]);
    let mut nameless = (*client).clone();
    nameless.enable_sni = false;
    for (name, client, pair) in
        [("x.b.test", &client, &two.b), ("other.test", &client, &two.a), ("a.test", &Arc::new(nameless), &two.a)]
    {
        let mut stream = connect(two.world.address(), name, client);
        exchange(&mut stream, 100);
        assert!(shown(&stream) == der(pair), "{name}");
    }
}

#[test]
fn what_does_not_begin_with_tls_ends() {
    let two = two(BY_NAME, "", "timeouts: {head: 1s}\n");
    let mut socket = TcpStream::connect(two.world.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    let mut said = Vec::new();
    socket.read_to_end(&mut said).unwrap();
    assert_eq!(said, [21, 3, 3, 0, 2, 2, 10]);
    two.logged(&["\"error\":\"refused\"", "\"tries\":0"]);
    // Nothing, and half of something, are waited for as long as for a head.
    let mut silent = TcpStream::connect(two.world.address()).unwrap();
    let mut slow = TcpStream::connect(two.world.address()).unwrap();
    slow.write_all(&[22, 3, 1, 2]).unwrap();
    for socket in [&mut silent, &mut slow] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        said.clear();
        socket.read_to_end(&mut said).unwrap();
        assert!(said.is_empty());
    }
    two.logged(&["\"error\":\"client_timeout\""]);
    // One that leaves in the middle.
    drop(TcpStream::connect(two.world.address()).unwrap().write_all(&[22, 3, 1, 2, 0, 1]));
    eventually("the end", || two.world.metric("outrigger_proxy_connections_active") == 0);
}

#[test]
fn behind_another_proxy_the_name_stands_after_its_header() {
    let two = two(BY_NAME, "proxyProtocol: true, ", "");
    let client = config(&two.authority, None, &[&version::TLS13]);
    let mut stream = connect(two.world.address(), "a.test", &client);
    stream.sock.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 1000 443\r\n").unwrap();
    exchange(&mut stream, 100);
    drop(stream);
    two.logged(&["\"client\":\"192.0.2.7\"", "\"host\":\"a.test\"", "\"endpoint\":\"127.0.0.1:"]);
}

#[test]
fn openssl_sees_the_upstream() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        return println!("NOT RUN: no openssl");
    }
    let two = two(BY_NAME, "", "");
    let said = |name: &str, more: &str| {
        let address = two.world.address();
        let line =
            format!("echo hello | timeout 20 openssl s_client -connect {address} -servername {name} {more} 2>&1");
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let certificate = said("x.b.test", &format!("-showcerts {version}"));
        let body = two.b.0.lines().nth(1).unwrap();
        assert!(certificate.contains(body), "{certificate}");
        let refused = said("nobody.test", version);
        assert!(refused.contains("unrecognized name"), "{refused}");
    }
}

#[test]
fn weights_share_connections_and_a_reload_moves_names() {
    let who = |name: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let _ = socket.write_all(name.as_bytes());
            }
        });
        address
    };
    let spec = |weights: (u32, u32)| {
        format!(
            "listeners:
- name: raw
  address: \"127.0.0.1:0\"
  tcpRoutes: [{{backends: [{{name: one, weight: {}}}, {{name: two, weight: {}}}]}}]
backends:
- {{name: one, endpoints: [\"{}\"]}}
- {{name: two, endpoints: [\"{}\"]}}
",
            weights.0,
            weights.1,
            who("one"),
            who("two")
        )
    };
    let world = World::with(&spec((1, 3)));
    let count = || {
        let mut came = BTreeMap::<String, usize>::new();
        for _ in 0..200 {
            let mut said = String::new();
            TcpStream::connect(world.address()).unwrap().read_to_string(&mut said).unwrap();
            *came.entry(said).or_default() += 1;
        }
        came
    };
    let came = count();
    // By chance; 200 draws leave this range once in a million times.
    assert!(came.len() == 2 && (20..85).contains(&came["one"]), "{came:?}");
    world.reload(&spec((1, 0)));
    assert_eq!(count(), BTreeMap::from([("one".to_owned(), 200)]));
}

#[test]
fn what_fits_together_badly_is_refused() {
    let said = |listener: &str| {
        let world = World::new();
        let path = world.configure(&format!(
            "listeners:\n- name: l\n  address: \":1\"\n{listener}\nbackends: [{{name: a, endpoints: [\"h:1\"]}}, {{name: o, endpoints: [], originalDestination: true}}]"
        ));
        let output =
            Command::new(env!("CARGO_BIN_EXE_outrigger-proxy")).arg("--check").arg("--config").arg(&path).output();
        String::from_utf8(output.unwrap().stderr).unwrap().replace(path.to_str().unwrap(), "F")
    };
    for (listener, expected) in [
        (
            "  tcpRoutes: [{backends: [{name: b}]}]",
            "F:7:36: spec.listeners[0].tcpRoutes[0].backends[0].name: there is no backend `b`",
        ),
        (
            "  tcpRoutes: [{backends: [{name: a, requestHeaders: {set: {A: b}}}]}]",
            "backends[0].requestHeaders: is of no use here: what is passed on is not HTTP",
        ),
        ("  tcpRoutes: [{backends: []}]", "F:7:18: spec.listeners[0].tcpRoutes[0].backends: needs a backend"),
        ("  tcp: a\n  tcpRoutes: [{backends: [{name: a}]}]", "F:8:5: spec.listeners[0].tcpRoutes: excludes tcp"),
        (
            "  tcpRoutes: [{hosts: ['*.'], backends: [{name: a}]}]",
            "F:7:26: spec.listeners[0].tcpRoutes[0].hosts[0]: must be",
        ),
        (
            "  tcpRoutes: [{hosts: ['a:1'], backends: [{name: a}]}]",
            "tcpRoutes[0].hosts[0]: must be a lower-case host name",
        ),
        (
            "  tcpRoutes: [{backends: [{name: a}]}, {backends: [{name: a}]}]",
            "tcpRoutes[1]: another route of the listener `l` has no hosts",
        ),
        ("  tcpRoutes: [{backends: [{name: o}]}]", "backends[0].name: goes to original destinations"),
        (
            "  tls: {certificates: [{certFile: c, keyFile: k}]}\n  tcpRoutes: [{hosts: [a], backends: [{name: a}]}]",
            "hosts: excludes tls",
        ),
    ] {
        let said = said(listener);
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}
