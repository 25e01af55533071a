//! Against a real TLS server that demands client certificates.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::batch::{Batch, Record};
use crate::encode::Encoding;
use crate::sink::http::{Authorization, Compression, HttpOptions, HttpSink, Protocol, Secret};
use crate::sink::stream::Peer;
use crate::sink::syslog::{SyslogOptions, SyslogSink};
use crate::sink::{Failure, Sink};

pub(in crate::sink) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn issue(&self) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key.serialize_der())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }
}

fn pem(path: &Path, label: &str, der: &[u8]) {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    fs::write(path, format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))).unwrap();
}

/// Serves one certificate, changeable, to clients that `clients` has issued; counts connections that came through.
struct Server {
    port: u16,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    received: Arc<Mutex<Vec<u8>>>,
    shaken: Arc<AtomicUsize>,
}

pub(in crate::sink) fn config(server: &Authority, clients: &Authority) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), Arc::clone(&provider)).build().unwrap();
    let (certificate, key) = server.issue();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key).unwrap();
    Arc::new(builder.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).unwrap())
}

impl Server {
    /// With `http` it answers each request and then closes the connection.
    fn start(first: Arc<ServerConfig>, http: bool) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            config: Arc::new(Mutex::new(first)),
            received: Arc::default(),
            shaken: Arc::default(),
        };
        let (config, received, shaken) =
            (Arc::clone(&server.config), Arc::clone(&server.received), Arc::clone(&server.shaken));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let connection = ServerConnection::new(Arc::clone(&config.lock().unwrap())).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                let mut piece = [0; 4096];
                let mut seen = Vec::new();
                let mut counted = false;
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    if !std::mem::replace(&mut counted, true) {
                        shaken.fetch_add(1, Ordering::SeqCst);
                    }
                    seen.extend_from_slice(&piece[..length]);
                    received.lock().unwrap().extend_from_slice(&piece[..length]);
                    let whole = seen.ends_with(b"hello\"}\n");
                    if http && whole {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                        let _ = stream.write_all(answer).and_then(|()| stream.flush());
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                        break;
                    }
                }
            }
        });
        server
    }
}

pub(in crate::sink) struct World {
    directory: tempfile::TempDir,
    pub(in crate::sink) servers: Authority,
    pub(in crate::sink) clients: Authority,
}

impl World {
    pub(in crate::sink) fn new() -> World {
        let world =
            World { directory: tempfile::tempdir().unwrap(), servers: Authority::new(), clients: Authority::new() };
        world.trust(&world.servers);
        world.present(&world.clients);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn trust(&self, authority: &Authority) {
        pem(&self.path("ca.pem"), "CERTIFICATE", &authority.certificate);
    }

    fn present(&self, authority: &Authority) {
        let (certificate, key) = authority.issue();
        pem(&self.path("cert.pem"), "CERTIFICATE", &certificate);
        pem(&self.path("key.pem"), "PRIVATE KEY", &key);
    }

    pub(in crate::sink) fn tls(&self, client: bool) -> Tls {
        let client = client.then(|| (self.path("cert.pem"), self.path("key.pem")));
        Tls::new(TlsOptions { ca_file: Some(self.path("ca.pem")), client }).unwrap()
    }

    fn http(&self, port: u16, client: bool) -> HttpSink {
        fs::write(self.path("token"), "secret-1\n").unwrap();
        let options = HttpOptions {
            url: format!("https://localhost:{port}/in").parse().unwrap(),
            protocol: Protocol::Json(Encoding::NdJson),
            compression: Compression::None,
            headers: Vec::new(),
            authorization: Authorization::Bearer(Secret::File(self.path("token"))),
            timeout: Duration::from_secs(20),
        };
        HttpSink::new(options, Some(self.tls(client))).unwrap()
    }
}

fn batch() -> [Arc<Batch>; 1] {
    let mut batch = Batch::new(Arc::default(), 0);
    let (flags, severity) = (Default::default(), Default::default());
    batch.push(&Record { time: 0, flags, severity, body: b"hello", fields: b"" });
    [Arc::new(batch)]
}

#[test]
fn certificates_and_tokens_are_checked_and_read_again() {
    let world = World::new();
    let server = Server::start(config(&world.servers, &world.clients), true);
    let mut sink = world.http(server.port, true);
    sink.deliver(&batch()).unwrap();
    let failure = world.http(server.port, false).deliver(&batch()).unwrap_err();
    assert!(matches!(failure, Failure::Retry(..)), "no client certificate: {failure:?}");

    // The server moves to another authority; so do we, without a restart. The first connection was closed by the server.
    let others = Authority::new();
    *server.config.lock().unwrap() = config(&others, &world.clients);
    let failure = sink.deliver(&batch()).unwrap_err();
    assert!(matches!(&failure, Failure::Retry(text, _) if text.contains("invalid peer certificate")), "{failure:?}");
    world.trust(&others);
    fs::write(world.path("token"), "secret-2\n").unwrap();
    sink.deliver(&batch()).unwrap();

    // Client certificates of another authority are refused, broken files change nothing, good ones count again.
    world.present(&others);
    assert!(sink.deliver(&batch()).is_err());
    world.present(&world.clients);
    sink.deliver(&batch()).unwrap();
    fs::write(world.path("cert.pem"), "broken").unwrap();
    sink.deliver(&batch()).unwrap();
    assert_eq!(server.shaken.load(Ordering::SeqCst), 4);
    let text = String::from_utf8(server.received.lock().unwrap().clone()).unwrap().to_lowercase();
    assert_eq!((text.matches("bearer secret-1").count(), text.matches("bearer secret-2").count()), (1, 3));
}

#[test]
fn syslog_over_tls() {
    let world = World::new();
    let server = Server::start(config(&world.servers, &world.clients), false);
    let peer = Peer { host: "localhost".to_owned(), port: server.port, timeout: Duration::from_secs(20) };
    let options = SyslogOptions { peer, facility: 1, host: "h".to_owned(), app: "a".to_owned() };
    let mut sink = SyslogSink::new(options, Some(world.tls(true)));
    for _ in 0..3 {
        sink.deliver(&batch()).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let text = String::from_utf8(server.received.lock().unwrap().clone()).unwrap();
        if text.matches("<14>1 1970-01-01T00:00:00.000000Z h a - - ").count() == 3 && text.ends_with("] hello") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.shaken.load(Ordering::SeqCst), 1, "one connection for all");
}
