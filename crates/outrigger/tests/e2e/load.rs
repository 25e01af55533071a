//! Clients that never stop asking, over TLS, and count exactly what went wrong. They behave as a load balancer does: they
//! make no new connections to what is not ready, and go when they are told that an answer was the last.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::world::eventually;

/// Requests on one connection before the client makes another, by client.
const LIVES: [u64; 4] = [1, 7, 60, u64::MAX];
/// Nobody waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    tls: Arc<ClientConfig>,
    stop: AtomicBool,
    /// Whether the target was ready when it was last asked.
    ready: AtomicBool,
    /// Whether a connection that cannot be made is tried again.
    patient: AtomicBool,
    refused: AtomicU64,
    served: AtomicU64,
    /// Answers by their first word.
    answers: Mutex<BTreeMap<String, u64>>,
    /// Issuers' serial numbers, as they were seen first.
    serials: Mutex<Vec<Vec<u8>>>,
    failures: Mutex<Vec<String>>,
}

type Connection = BufReader<StreamOwned<ClientConnection, TcpStream>>;

impl Load {
    /// `ready` is where the target says whether it is.
    pub(crate) fn start(clients: usize, target: SocketAddr, ready: SocketAddr, authority: &CertificateDer<'_>) -> Load {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut tls = tls.with_no_client_auth();
        // A resumed session shows the certificate it began with.
        tls.resumption = rustls::client::Resumption::disabled();
        let shared = Arc::new(Shared {
            target,
            tls: Arc::new(tls),
            stop: AtomicBool::new(false),
            ready: AtomicBool::new(true),
            patient: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            served: AtomicU64::new(0),
            answers: Mutex::default(),
            serials: Mutex::default(),
            failures: Mutex::default(),
        });
        let mut threads: Vec<_> = (0..clients)
            .map(|client| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.ask_on(client))
            })
            .collect();
        let watcher = Arc::clone(&shared);
        threads.push(thread::spawn(move || watcher.watch(ready)));
        Load { shared, threads }
    }

    pub(crate) fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Waits for `more` answers, and for all that was asked before to be over.
    pub(crate) fn go_on(&self, more: u64) {
        let before = self.served();
        eventually("answers", || self.served() >= before + more || self.has_failed());
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.shared.failures.lock().unwrap().is_empty()
    }

    /// Answers by their first word since the last call.
    pub(crate) fn answers(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.shared.answers.lock().unwrap())
    }

    /// Different certificates that were shown so far.
    pub(crate) fn certificates(&self) -> usize {
        self.shared.serials.lock().unwrap().len()
    }

    /// From now on connections that cannot be made are no failures but are tried again.
    pub(crate) fn be_patient(&self, patient: bool) {
        self.shared.patient.store(patient, Ordering::Relaxed);
    }

    /// Connections that had to be tried again.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub(crate) fn assert_no_failure(&self, when: &str) {
        // Not while others wait for it: they would fail, too.
        let failures = self.shared.failures.lock().unwrap().clone();
        let some = &failures[..failures.len().min(10)];
        assert!(
            failures.is_empty(),
            "{when}: {} failure(s) after {} answers: {some:#?}",
            failures.len(),
            self.served()
        );
    }

    /// Waits until the clients have gone because the target is not ready any more.
    pub(crate) fn end(mut self) {
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.assert_no_failure("until the end");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A client that panicked has said why.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn watch(&self, at: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let ready = is_ready(at);
            self.ready.store(ready, Ordering::Relaxed);
            if !ready && !self.patient.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn may_connect(&self) -> bool {
        if self.patient.load(Ordering::Relaxed) {
            return !self.stop.load(Ordering::Relaxed);
        }
        self.ready.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed)
    }

    fn ask_on(&self, client: usize) {
        let mut number = 0;
        while self.may_connect() {
            let mut connection = match self.connect() {
                Ok(connection) => connection,
                Err(_) if self.patient.load(Ordering::Relaxed) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Err(error) => {
                    self.failures.lock().unwrap().push(format!("client {client} cannot connect: {error}"));
                    continue;
                }
            };
            for life in 0..LIVES[client % LIVES.len()] {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                number += 1;
                match ask(&mut connection, &format!("/{client}/{number}")) {
                    Ok((word, close)) => {
                        *self.answers.lock().unwrap().entry(word).or_default() += 1;
                        self.served.fetch_add(1, Ordering::Relaxed);
                        if close {
                            break;
                        }
                    }
                    Err(error) => {
                        let text = format!("client {client}, request {life} of its connection: {error}");
                        self.failures.lock().unwrap().push(text);
                        break;
                    }
                }
            }
        }
    }

    /// A connection that has shaken hands: the other side has taken it.
    fn connect(&self) -> std::io::Result<Connection> {
        let mut socket = TcpStream::connect_timeout(&self.target, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let shown = tls.peer_certificates().unwrap()[0].to_vec();
        let mut serials = self.serials.lock().unwrap();
        if !serials.contains(&shown) {
            serials.push(shown);
        }
        drop(serials);
        Ok(BufReader::new(StreamOwned::new(tls, socket)))
    }
}

/// One exchange; the first word of the answer's body, and whether it was the connection's last.
fn ask(connection: &mut Connection, path: &str) -> Result<(String, bool), String> {
    let failed = |what: &str, error: std::io::Error| format!("{path}: failed to {what}: {error}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).map_err(|error| failed("send", error))?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = connection.read_line(&mut head).map_err(|error| failed("read the head", error))?;
        if read == 0 {
            return Err(format!("{path}: the connection ended after {} bytes of the head", head.len()));
        }
    }
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let length: Option<usize> = field("content-length").and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    connection.read_exact(&mut body).map_err(|error| failed("read the body", error))?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let (word, rest) = body.split_once(' ').unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200 ") || rest != format!("{path}\n") {
        return Err(format!("{path}: {} with {body:?}", head.lines().next().unwrap_or_default()));
    }
    Ok((word.to_owned(), field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))))
}

fn is_ready(at: SocketAddr) -> bool {
    plain(at, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// A page that is served without TLS.
pub(crate) fn plain(at: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
