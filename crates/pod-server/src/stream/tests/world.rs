//! A server that has one pod, and kubectl for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use super::super::{Context, answer};
use super::machine::Local;
use crate::body::{self, Body};

pub(super) struct World {
    pub(super) address: SocketAddr,
    scheme: &'static str,
    directory: TempDir,
    pod: Arc<Mutex<Option<Value>>>,
    revision: Arc<AtomicU64>,
    upgrades: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// `app` runs in its third attempt, `waiting` has not begun, `stopped` is known to the machine as not running.
fn pod() -> Value {
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    let last = json!({"terminated": {"exitCode": 1, "containerID": "x://1"}});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "here", "containers": [
            {"name": "app", "image": "i", "stdin": true}, {"name": "waiting", "image": "i"}, {"name": "stopped", "image": "i"},
        ]},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "app", "restartCount": 2, "ready": true, "image": "i", "imageID": "", "state": running, "lastState": last},
            {"name": "waiting", "restartCount": 0, "ready": false, "image": "i", "imageID": "", "state": {"waiting": {"reason": "ImagePullBackOff"}}, "lastState": {}},
        ]},
    })
}

impl World {
    pub(super) fn new() -> Self {
        Self::over(None)
    }

    pub(super) fn with_tls() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder().with_no_client_auth();
        Self::over(Some(Arc::new(tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap())))
    }

    fn over(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
        let directory = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (pod, revision) = (Arc::new(Mutex::new(Some(pod()))), Arc::new(AtomicU64::new(1)));
        let (stop, stopped) = oneshot::channel();
        let (stored, upgrades) = (pod.clone(), Arc::new(Mutex::new(Vec::new())));
        let seen = upgrades.clone();
        let current = {
            let (pod, revision) = (pod.clone(), revision.clone());
            Arc::new(move || {
                let json = pod.lock().unwrap().as_ref()?.to_string().into_bytes().into_boxed_slice();
                let key = crate::server::key("pods", "default", "web");
                let revision = revision.load(Ordering::SeqCst);
                Some(Arc::new(pod_store::Object { key, revision, uid: String::new(), labels: Vec::new(), json }))
            })
        };
        let machine = Arc::new(Local { logs: directory.path().join("logs") });
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (_closing, closing) = watch::channel(false);
            let cx = Context { machine, current, closing };
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::spawn(async move {
                    loop {
                        let (connection, _) = listener.accept().await.unwrap();
                        connection.set_nodelay(true).unwrap();
                        let (cx, stored, seen) = (cx.clone(), stored.clone(), seen.clone());
                        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                            let upgrade = request.headers().get(http::header::UPGRADE);
                            seen.lock().unwrap().extend(upgrade.map(|to| to.to_str().unwrap().to_lowercase()));
                            let (cx, pod) = (cx.clone(), stored.lock().unwrap().clone());
                            async move { Ok::<_, Infallible>(respond(cx, pod, request).await) }
                        });
                        let acceptor = acceptor.clone();
                        tokio::spawn(async move {
                            let serving = hyper::server::conn::http1::Builder::new();
                            let Some(acceptor) = acceptor else {
                                let _ =
                                    serving.serve_connection(TokioIo::new(connection), service).with_upgrades().await;
                                return;
                            };
                            let Ok(connection) = acceptor.accept(connection).await else { return };
                            let _ = serving.serve_connection(TokioIo::new(connection), service).with_upgrades().await;
                        });
                    }
                });
                let _ = stopped.await;
            });
        });
        Self { address, scheme, directory, pod, revision, upgrades, stop: Some(stop), thread: Some(thread) }
    }

    /// What is served from now on.
    pub(super) fn change(&self, change: impl FnOnce(&mut Option<Value>)) {
        change(&mut self.pod.lock().unwrap());
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    /// What the requests since the last call wanted to be upgraded to.
    pub(super) fn upgrades(&self) -> Vec<String> {
        std::mem::take(&mut *self.upgrades.lock().unwrap())
    }

    /// A container's log file of an attempt; its directory is there.
    pub(super) fn log(&self, container: &str, attempt: u32) -> PathBuf {
        let directory = self.directory.path().join("logs").join(container);
        std::fs::create_dir_all(&directory).unwrap();
        directory.join(format!("{attempt}.log"))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// kubectl with a deadline, ready to run. `spdy`: without its WebSockets.
    pub(super) fn kubectl(&self, spdy: bool) -> Command {
        // GNU timeout takes its child along when it is killed itself.
        let mut command = Command::new("timeout");
        let server = format!("--server={}://{}", self.scheme, self.address);
        let cache = format!("--cache-dir={}", self.directory.path().join("cache").display());
        command.args(["--kill-after=1", "60", "kubectl", &server, &cache, "--namespace=default"]);
        if self.scheme == "https" {
            // Without credentials it would ask for some, over TLS.
            command.args(["--insecure-skip-tls-verify", "--token=t"]);
        }
        command.env("KUBECONFIG", "/dev/null").env("HOME", self.directory.path());
        if spdy {
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false").env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Code, standard output and standard error.
    pub(super) fn run(&self, spdy: bool, arguments: &[&str]) -> (i32, String, String) {
        let output = self.kubectl(spdy).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn respond(cx: Context, pod: Option<Value>, request: Request<Incoming>) -> Response<Body> {
    let ok = |value: Value| body::json(StatusCode::OK, &value);
    let path = request.uri().path().to_owned();
    match (path.as_str(), pod) {
        ("/api", _) => ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ("/apis", _) => ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        ("/api/v1", _) => ok(json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"], "shortNames": ["po"]},
        ]})),
        ("/api/v1/namespaces/default/pods/web", Some(pod)) => ok(pod),
        (path, Some(pod)) => match path.strip_prefix("/api/v1/namespaces/default/pods/web/") {
            Some(which) => answer(cx, &pod, which, request).await,
            None => body::refuse(&pod_api::failure::Failure::unknown_path()),
        },
        (_, None) => body::refuse(&pod_api::failure::Failure::not_found("pods", "web")),
    }
}
