//! TLS both ways: names, versions, client certificates, and a swap of the files while connections are open.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{PATIENCE, Upstream, World, eventually, ok};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate whose subject is its issuer's for one that has signed itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its own certificate and key.
    fn own(&self) -> (String, String) {
        (self.pem(), self.issuer.key().serialize_pem())
    }

    /// Chain and key.
    pub(crate) fn issue(&self, names: &[&str], uri: Option<&str>) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn config(
    authority: &Authority,
    client: Option<&(String, String)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    Arc::new(match client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    })
}

pub(crate) fn connect(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Stream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket)
}

/// The answer to a GET whose body is one short piece.
pub(crate) fn get(stream: &mut Stream, more: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") || !answer.ends_with(b".") {
        match stream.read(&mut piece)? {
            0 => break,
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    Ok(String::from_utf8(answer).unwrap())
}

pub(crate) fn spec(upstream: SocketAddr, tls: &str) -> String {
    format!(
        "listeners:\n- name: https\n  address: \"127.0.0.1:0\"\n  tls: {tls}\nroutes:\n- {{name: all, backends: [{{name: app}}]}}\nbackends:\n- {{name: app, endpoints: [\"{upstream}\"]}}\n"
    )
}

pub(crate) fn write_pair(directory: &Path, name: &str, (chain, key): &(String, String)) {
    fs::write(directory.join(format!("{name}.crt")), chain).unwrap();
    fs::write(directory.join(format!("{name}.key")), key).unwrap();
}

/// The certificate a server shows for a name.
pub(crate) fn shown(stream: &Stream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

pub(crate) fn der(pair: &(String, String)) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap().to_vec()
}

#[test]
fn names_choose_certificates_and_large_bodies_go_through() {
    let authority = Authority::new();
    let (a, b) = (authority.issue(&["a.test"], None), authority.issue(&["*.b.test"], None));
    let upstream = Upstream::start(|seen| {
        ok(&format!("{}{}.", seen.field("x-forwarded-proto").unwrap(), "x".repeat(seen.body.len())))
    });
    let mut world = World::new();
    write_pair(&world.path(""), "a", &a);
    write_pair(&world.path(""), "b", &b);
    world.start(&spec(
        upstream.address,
        "{certificates: [{certFile: ROOT/a.crt, keyFile: ROOT/a.key}, {certFile: ROOT/b.crt, keyFile: ROOT/b.key}]}",
    ));
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let client = config(&authority, None, versions);
        for (name, pair) in [("a.test", &a), ("x.b.test", &b)] {
            let mut stream = connect(world.address(), name, &client);
            for _ in 0..3 {
                assert!(get(&mut stream, "").unwrap().ends_with("https."));
            }
            assert!(shown(&stream) == der(pair), "{name}");
            let size = 500_000;
            stream
                .write_all(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").as_bytes())
                .unwrap();
            stream.write_all(&vec![b'x'; size]).unwrap();
            let mut answer = Vec::new();
            let mut piece = [0; 16384];
            while !answer.ends_with(b".") {
                let length = stream.read(&mut piece).unwrap();
                assert!(length > 0);
                answer.extend_from_slice(&piece[..length]);
            }
            assert!(answer.len() > size);
        }
    }
    // Whoever does not speak TLS learns that, and leaves a mark.
    let mut plain = TcpStream::connect(world.address()).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"));
    eventually("the count", || world.metric("outrigger_proxy_tls_handshake_failures_total") == 1);
}

#[test]
fn a_swapped_secret_is_taken_over_and_open_connections_go_on() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["a.test"], None), authority.issue(&["a.test"], None));
    let upstream = Upstream::start(|_| ok("fine."));
    let mut world = World::new();
    for (version, pair) in [("..1", &old), ("..2", &new)] {
        fs::create_dir(world.path(version)).unwrap();
        write_pair(&world.path(version), "tls", pair);
    }
    symlink("..1", world.path("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), world.path(name)).unwrap();
    }
    world.start(&spec(upstream.address, "{certificates: [{certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}]}"));
    let client = config(&authority, None, rustls::ALL_VERSIONS);
    let mut before = connect(world.address(), "a.test", &client);
    get(&mut before, "").unwrap();
    assert!(shown(&before) == der(&old));
    symlink("..2", world.path("..tmp")).unwrap();
    fs::rename(world.path("..tmp"), world.path("..data")).unwrap();
    eventually("the new certificate", || {
        // Without a session to resume, which would show nothing.
        let fresh = config(&authority, None, rustls::ALL_VERSIONS);
        let mut stream = connect(world.address(), "a.test", &fresh);
        get(&mut stream, "").unwrap();
        shown(&stream) == der(&new)
    });
    assert!(get(&mut before, "").unwrap().ends_with("fine."));
}

#[test]
fn a_key_that_was_gone_for_a_moment_is_taken_over_when_it_is_back() {
    let authority = Authority::new();
    let old = authority.issue(&["a.test"], None);
    let upstream = Upstream::start(|_| ok("fine."));
    let mut world = World::new();
    write_pair(&world.path(""), "tls", &old);
    world.start(&spec(upstream.address, "{certificates: [{certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}]}"));
    // Renewed with the same key, one file after the other.
    fs::rename(world.path("tls.key"), world.path("aside")).unwrap();
    let key = KeyPair::from_pem(&old.1).unwrap();
    let params = CertificateParams::new(vec!["a.test".to_owned(), "more.test".to_owned()]).unwrap();
    let new = (params.signed_by(&key, &authority.issuer).unwrap().pem(), old.1);
    fs::write(world.path("tls.crt"), &new.0).unwrap();
    eventually("the failure", || world.log().contains("not taken over"));
    fs::rename(world.path("aside"), world.path("tls.key")).unwrap();
    eventually("the new certificate", || {
        let fresh = config(&authority, None, rustls::ALL_VERSIONS);
        let mut stream = connect(world.address(), "a.test", &fresh);
        get(&mut stream, "").unwrap();
        shown(&stream) == der(&new)
    });
}

#[test]
fn clients_prove_who_they_are() {
    let (authority, others) = (Authority::new(), Authority::new());
    let server = authority.issue(&["a.test"], None);
    let known = authority.issue(&["client.test"], Some("spiffe://cluster/ns/a/sa/b"));
    let stranger = others.issue(&["client.test"], None);
    let upstream =
        Upstream::start(|seen| ok(&format!("[{}].", seen.field("x-forwarded-client-cert").unwrap_or("nobody"))));
    let mut world = World::new();
    write_pair(&world.path(""), "tls", &server);
    fs::write(world.path("ca.crt"), authority.pem()).unwrap();
    let tls = "{certificates: [{certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}], clientCaFile: ROOT/ca.crt}";
    world.start(&spec(upstream.address, tls));
    let ask = |client: Option<&(String, String)>| {
        let config = config(&authority, client, rustls::ALL_VERSIONS);
        get(&mut connect(world.address(), "a.test", &config), "X-Forwarded-Client-Cert: Hash=forged\r\n")
    };
    let answer = ask(Some(&known)).unwrap();
    assert!(answer.contains(";URI=spiffe://cluster/ns/a/sa/b;DNS=client.test]."), "{answer}");
    assert!(!answer.contains("forged"));
    for client in [None, Some(&stranger)] {
        // How a client learns of it depends on the version: an alert, or an end.
        assert!(ask(client).map_or(true, |answer| answer.is_empty()));
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn backends_over_tls() {
    let authority = Authority::new();
    let server = authority.issue(&["inner.test"], None);
    let client = authority.issue(&["proxy.test"], None);
    let upstream =
        Upstream::start(|seen| ok(&format!("{}.", seen.field("x-forwarded-client-cert").map_or("", |_| "proved"))));
    // The backend is another proxy, which wants a certificate.
    let mut inner = World::new();
    write_pair(&inner.path(""), "tls", &server);
    fs::write(inner.path("ca.crt"), authority.pem()).unwrap();
    inner.start(&spec(
        upstream.address,
        "{certificates: [{certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}], clientCaFile: ROOT/ca.crt}",
    ));
    let mut outer = World::new();
    write_pair(&outer.path(""), "tls", &client);
    fs::write(outer.path("ca.crt"), authority.pem()).unwrap();
    let backend = |name: &str| {
        format!(
            "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- {{name: all, backends: [{{name: app}}]}}\nbackends:\n- name: app\n  endpoints: [\"{}\"]\n  tls: {{serverName: {name}, caFile: ROOT/ca.crt, certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}}\n",
            inner.address()
        )
    };
    outer.start(&backend("inner.test"));
    let mut stream = outer.client();
    for _ in 0..5 {
        assert_eq!(stream.get("/").body, "proved.");
    }
    assert_eq!(inner.metric("outrigger_proxy_connections_total"), 1);
    outer.reload(&backend("other.test"));
    assert_eq!(stream.get("/").status(), 502);
}

/// Who says nothing of the end may have been cut off by anybody on the way (RFC 9112 §9.8).
#[test]
fn an_answer_that_only_the_end_ends_must_say_so() {
    let authority = Authority::new();
    let (chain, key) = authority.issue(&["app.test"], None);
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = Arc::new(server.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let app = thread::spawn(move || {
        for says in [false, true] {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut stream = StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&server)).unwrap(), stream);
            let mut got = [0; 4096];
            assert!(stream.read(&mut got).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall").unwrap();
            if says {
                stream.conn.send_close_notify();
            }
            stream.flush().unwrap();
            stream.sock.shutdown(Shutdown::Write).unwrap();
            // The proxy has taken note of it.
            while stream.sock.read(&mut got).is_ok_and(|length| length > 0) {}
        }
    });
    let mut world = World::new();
    fs::write(world.path("ca.crt"), authority.pem()).unwrap();
    world.start(&format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- {{name: all, backends: [{{name: app}}]}}\nbackends:\n- name: app\n  endpoints: [\"{address}\"]\n  tls: {{serverName: app.test, caFile: ROOT/ca.crt}}\n"
    ));
    for whole in [false, true] {
        let mut client = TcpStream::connect(world.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        let text = String::from_utf8(got).unwrap();
        assert!(text.contains("\r\n\r\n3\r\nall\r\n"), "{text}");
        assert_eq!(text.ends_with("0\r\n\r\n"), whole, "{text}");
    }
    app.join().unwrap();
}

#[test]
fn why_tls_with_a_backend_fails_is_said() {
    let authority = Authority::new();
    let upstream = Upstream::start(|_| ok("fine."));
    let mut inner = World::new();
    // As long as nobody looks closer, a CA's certificate is as good as any.
    write_pair(&inner.path(""), "tls", &authority.own());
    inner.start(&spec(upstream.address, "{certificates: [{certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}]}"));
    for http2 in [false, true] {
        let mut outer = World::new();
        fs::write(outer.path("ca.crt"), authority.pem()).unwrap();
        outer.start(&format!(
            "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- {{name: all, backends: [{{name: app}}]}}\nbackends:\n- name: app\n  http2: {http2}\n  endpoints: [\"{}\"]\n  tls: {{serverName: inner.test, caFile: ROOT/ca.crt}}\naccessLog: {{format: json, path: ROOT/access.log}}\n",
            inner.address()
        ));
        let mut client = outer.client();
        for _ in 0..3 {
            let answer = client.get("/");
            assert_eq!((answer.status(), answer.field("x-outrigger-failure")), (502, Some("tls_failed")));
        }
        let (said, why) = ("TLS with a backend failed", "its certificate is not trusted: it is a CA's");
        // Twice, if a period ended between them.
        assert!((1..=2).contains(&outer.log().matches(said).count()) && outer.log().contains(why), "{}", outer.log());
        eventually("the lines", || {
            let log = fs::read_to_string(outer.path("access.log")).unwrap();
            log.matches("\"error.type\":\"tls_failed\"").count() == 3
        });
    }
}

#[test]
fn health_is_asked_over_tls() {
    let authority = Authority::new();
    let upstream = Upstream::start(|_| ok("fine."));
    let inner = |name: &str| {
        let mut inner = World::new();
        write_pair(&inner.path(""), "tls", &authority.issue(&[name], None));
        inner.start(&spec(upstream.address, "{certificates: [{certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}]}"));
        inner
    };
    let (right, wrong) = (inner("inner.test"), inner("other.test"));
    let mut outer = World::new();
    fs::write(outer.path("ca.crt"), authority.pem()).unwrap();
    outer.start(&format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- {{name: all, backends: [{{name: app}}]}}\nbackends:\n- name: app\n  endpoints: [\"{}\", \"{}\"]\n  activeHealth: {{path: /healthz, interval: 100ms, timeout: 20s}}\n  tls: {{serverName: inner.test, caFile: ROOT/ca.crt}}\n",
        right.address(),
        wrong.address()
    ));
    let healthy = |one: &World| {
        let name =
            format!("outrigger_proxy_backend_endpoint_healthy{{backend=\"app\",endpoint=\"{}\"}}", one.address());
        outer.metric(&name)
    };
    // A certificate for another name is not well, whatever would be answered behind it.
    eventually("the checks", || healthy(&wrong) == 0);
    eventually("several answers", || upstream.count() > 3);
    assert!(upstream.seen.lock().unwrap().iter().all(|seen| seen.line() == "GET /healthz HTTP/1.1"));
    assert_eq!(healthy(&right), 1);
    let mut client = outer.client();
    (0..6).for_each(|_| assert_eq!(client.get("/").body, "fine."));
}

/// The endpoints' list and certificates do not hold each other back.
#[test]
fn endpoints_are_taken_over_while_a_certificate_is_broken() {
    let authority = Authority::new();
    let (a, b) = (Upstream::start(|_| ok("a.")), Upstream::start(|_| ok("b.")));
    let mut world = World::new();
    write_pair(&world.path(""), "tls", &authority.issue(&["a.test"], None));
    fs::write(world.path("list"), format!("['{}']", a.address)).unwrap();
    world.start(
        "listeners:\n- name: https\n  address: \"127.0.0.1:0\"\n  tls: {certificates: [{certFile: ROOT/tls.crt, keyFile: ROOT/tls.key}]}\nroutes:\n- {name: all, backends: [{name: app}]}\nbackends:\n- name: app\n  discover: [{file: ROOT/list}]\n",
    );
    let client = config(&authority, None, rustls::ALL_VERSIONS);
    let ask = || get(&mut connect(world.address(), "a.test", &client), "").unwrap();
    assert!(ask().ends_with("a."));
    fs::write(world.path("tls.crt"), "broken").unwrap();
    eventually("the complaint", || world.log().contains("certificates or addresses not taken over"));
    fs::write(world.path("new"), format!("['{}']", b.address)).unwrap();
    fs::rename(world.path("new"), world.path("list")).unwrap();
    eventually("the other endpoint", || ask().ends_with("b."));
}

#[test]
fn who_is_let_in_may_differ_by_listener() {
    let authority = Authority::new();
    let server = authority.issue(&["a.test"], None);
    let upstream = Upstream::start(|_| ok("in."));
    let mut world = World::new();
    write_pair(&world.path(""), "server", &server);
    fs::write(world.path("ca.crt"), authority.pem()).unwrap();
    world.start(&format!(
        "listeners:
- name: peers
  address: \"127.0.0.1:0\"
  tls: {{certificates: [{{certFile: ROOT/server.crt, keyFile: ROOT/server.key}}], clientCaFile: ROOT/ca.crt}}
- name: everybody
  address: \"127.0.0.2:0\"
  tls: {{certificates: [{{certFile: ROOT/server.crt, keyFile: ROOT/server.key}}]}}
routes:
- {{name: peers, listeners: [peers], filters: [{{identities: {{trustDomains: [friends.test]}}}}], backends: [{{name: app}}]}}
- {{name: everybody, listeners: [everybody], backends: [{{name: app}}]}}
backends: [{{name: app, endpoints: [\"{}\"]}}]
",
        upstream.address
    ));
    let (peers, everybody) = (world.listener("peers"), world.listener("everybody"));
    let friend = authority.issue(&[], Some("spiffe://friends.test/x"));
    let stranger = authority.issue(&[], Some("spiffe://strangers.test/x"));
    for (client, listener, status) in
        [(Some(&friend), peers, "200"), (Some(&stranger), peers, "403"), (None, everybody, "200")]
    {
        let config = config(&authority, client, rustls::ALL_VERSIONS);
        let mut stream = connect(listener, "a.test", &config);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}
