//! A server of one's own on 127.0.0.1, with a machine that runs nothing, and clients for it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pod_server::machine::{Answer, ContainerRef, ContainerUsage, Session, StreamError, StreamRequest};
use pod_server::{Config, Issued, Machine, Server, Tokens, Version};
use pod_store::{Change, Durability, Key, Store};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

/// Cluster addresses given so far, in all worlds of this process.
pub(crate) static GIVEN: AtomicU64 = AtomicU64::new(0);

pub(crate) const TOKEN: &str = "an-admin-token";

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) address: std::net::SocketAddr,
    directory: TempDir,
    client: Arc<rustls::ClientConfig>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

/// An answer as a whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Uses CPU steadily and runs nothing.
struct Idle(AtomicU64);

impl Machine for Idle {
    fn exec(&self, target: ContainerRef, _: StreamRequest) -> Answer<Result<Session, StreamError>> {
        Box::pin(async move { Err(StreamError::NotRunning(target.container)) })
    }
    fn attach(&self, target: ContainerRef, _: StreamRequest) -> Answer<Result<Session, StreamError>> {
        Box::pin(async move { Err(StreamError::NotRunning(target.container)) })
    }
    fn dial(&self, _: String, _: String, _: String, _: u16) -> Answer<Result<std::net::TcpStream, String>> {
        Box::pin(async { Err("nothing runs here".to_owned()) })
    }
    fn log(&self, _: &ContainerRef, _: u32) -> PathBuf {
        PathBuf::from("/nonexistent")
    }
    fn usage(&self, _: &str, pod: &str, _: &str) -> Vec<ContainerUsage> {
        if pod == "panics" {
            panic!("a broken machine (this panic is part of a test)");
        }
        let cpu_nanoseconds = self.0.fetch_add(1_000_000, Ordering::Relaxed);
        vec![ContainerUsage { container: "app".into(), cpu_nanoseconds, memory_bytes: 34 << 20 }]
    }
    fn node_usage(&self) -> (u64, u64) {
        (self.0.load(Ordering::Relaxed), 1 << 30)
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "test-ca");
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let server_key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server_certificate = CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
        let mut admin = CertificateParams::new(Vec::new()).unwrap();
        admin.distinguished_name.push(DnType::CommonName, "test-admin");
        let admin_key = KeyPair::generate().unwrap();
        let admin_certificate = admin.signed_by(&admin_key, &issuer).unwrap();

        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let verifier =
            rustls::server::WebPkiClientVerifier::builder(Arc::clone(&roots)).allow_unauthenticated().build().unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server_certificate.der().clone()], key)
            .unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

        let store = Store::open(&directory.path().join("store")).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let issue = Arc::new(|request: &pod_server::TokenRequest| {
            let token = format!("token-of-{}", request.service_account);
            let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(request.expiration_seconds);
            Ok(Issued { token, expires, audiences: vec!["outrigger".into()] })
        });
        let server = Server::new(Config {
            store: store.clone(),
            machine: Arc::new(Idle(AtomicU64::new(0))),
            tls,
            tokens: Tokens { admin: vec![TOKEN.into()], verify: None, issue: Some(issue) },
            version: Version {
                major: "1".into(),
                minor: "35".into(),
                git_version: "v1.35.0".into(),
                git_commit: String::new(),
                build_date: "2026-01-01T00:00:00Z".into(),
            },
            now: jiff::Timestamp::now,
            cluster_address: Some(Arc::new(|asked, keep| {
                let next = if keep { GIVEN.fetch_add(1, Ordering::Relaxed) } else { GIVEN.load(Ordering::Relaxed) };
                Ok(if asked.is_empty() { format!("10.96.{}.{}", next / 250, next % 250 + 1) } else { asked.to_owned() })
            })),
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let ended = async move { drop(stopped.await) };
                server.serve(listener, ended).await.unwrap();
            });
        });
        let encode = |kind: &str, der: &[u8]| {
            use base64::Engine;
            let base64 = base64::engine::general_purpose::STANDARD;
            let pem = format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", base64.encode(der));
            base64.encode(pem)
        };
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {
                "server": format!("https://{address}"), "certificate-authority-data": encode("CERTIFICATE", ca_certificate.der()),
            }}],
            "users": [{"name": "x", "user": {
                "client-certificate-data": encode("CERTIFICATE", admin_certificate.der()),
                "client-key-data": encode("PRIVATE KEY", &admin_key.serialize_der()),
            }}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "default"}}],
        });
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = Self {
            store,
            address,
            directory,
            client: Arc::new(client),
            stop: Some(stop),
            thread: Some(thread),
            runtime,
        };
        world.seed(
            "namespaces",
            "",
            "default",
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "default", "uid": "d", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            }),
        );
        // What a node makes in every namespace; pods want it.
        world.seed(
            "serviceaccounts",
            "default",
            "default",
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": "default", "uid": "s"},
            }),
        );
        world
    }

    /// Writes an object past the server, as the node does.
    pub(crate) fn seed(&self, resource: &str, namespace: &str, name: &str, value: Value) {
        let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        let change = match self.store.get(&key) {
            None => Change::Create(value),
            Some(_) => Change::Replace { value, expected: None },
        };
        self.runtime.block_on(self.store.write(key, change, Durability::Synced)).unwrap();
    }

    /// Takes an object away past the server, as the node does.
    pub(crate) fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        self.runtime
            .block_on(self.store.write(key, Change::Delete { expected: None, last: None }, Durability::Synced))
            .unwrap();
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes too long") })
    }

    /// Sends a request with the admin's token, unless `headers` have another, over HTTP/1.1 or 2.
    pub(crate) async fn send(&self, second: bool, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        let tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let mut config = (*self.client).clone();
        config.alpn_protocols = vec![if second { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        if second {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
            tokio::spawn(connection);
            return sender.send_request(request).await.unwrap();
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        *request.method_mut() = method;
        *request.uri_mut() = format!("https://{}{path}", self.address).parse().unwrap();
        let token = format!("Bearer {TOKEN}").parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, token);
        if !body.is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
        }
        request.headers_mut().insert("host", self.address.to_string().parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        request
    }

    pub(crate) fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.block_on(async {
            let response = self.send(false, self.request(method, path, headers, body)).await;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            Reply { status: parts.status, headers: parts.headers, bytes }
        })
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, value: &Value) -> Reply {
        self.call(Method::POST, path, &[], &value.to_string())
    }

    /// A ConfigMap of `default`.
    pub(crate) fn config_map(&self, name: &str, data: &Value) -> Reply {
        self.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": name}, "data": data}))
    }

    /// The real kubectl; `None` if there is none, which is said aloud.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Option<Output> {
        self.kubectl_with(arguments, "", &[])
    }

    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Option<Output> {
        use std::io::Write;
        use std::process::Stdio;
        let mut child = match self.kubectl_command(arguments, environment).stdin(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("\n*** kubectl is not installed: THIS TEST WAS SKIPPED ***\n");
                return None;
            }
            Err(error) => panic!("kubectl does not start: {error}"),
        };
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Some(child.wait_with_output().unwrap())
    }

    pub(crate) fn kubectl_command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let home = self.directory.path();
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("HOME", home)
            .envs(environment.iter().copied())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command
    }

    /// Starts kubectl and leaves it running; `None` if there is none.
    pub(crate) fn start_kubectl(&self, arguments: &[&str]) -> Option<Running> {
        self.kubectl_command(arguments, &[]).spawn().ok().map(|child| Running(Some(child)))
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Asks the server to end and waits until it has.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

/// A command that does not outlive its test.
pub(crate) struct Running(Option<std::process::Child>);

impl Running {
    pub(crate) fn wait(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }

    /// Ends it, and gives what it has printed.
    pub(crate) fn kill(mut self) -> String {
        let mut child = self.0.take().unwrap();
        let _ = child.kill();
        String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Output of a command that must have succeeded.
pub(crate) fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {:?}\n{out}\n{err}", output.status, output.status.signal());
    out.into_owned()
}

/// Errors of a command that must have failed.
pub(crate) fn error(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "it succeeded:\n{out}\n{err}");
    err.into_owned()
}
