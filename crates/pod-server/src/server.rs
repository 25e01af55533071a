//! One request from its head to its answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use jiff::Timestamp;
use pod_api::failure::Failure;
use pod_api::resource::Surroundings;
use pod_store::{Key, Store};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::body::{self, Body};
use crate::identity::{self, Tokens, User};
use crate::machine::Machine;
use crate::negotiate::{self, Wanted};
use crate::query::Query;
use crate::route::{self, Route, Target, Verb};
use crate::{create, delete, discovery, list, metrics, openapi, patch, special, stream, update, watch as watching};

/// Watches at a time. Each holds a place in the store's history and up to a page of unsent bytes.
const WATCHES: usize = 1024;

/// What `/version` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `1`
    pub major: String,
    /// `35`
    pub minor: String,
    /// `v1.35.0+outrigger-0.1.0`
    pub git_version: String,
    pub git_commit: String,
    /// RFC 3339
    pub build_date: String,
}

/// What a server is made of.
pub struct Config {
    pub store: Store,
    pub machine: Arc<dyn Machine>,
    /// With a client certificate verifier that lets clients without one through; ALPN is set here.
    pub tls: rustls::ServerConfig,
    pub tokens: Tokens,
    pub version: Version,
    pub now: fn() -> Timestamp,
    /// `None`: Services that need an address are refused.
    pub cluster_address: Option<ClusterAddress>,
}

/// A cluster address for a Service: the asked one, or with `""` any; kept for it, or (false) only looked for. The text says
/// why there is none.
pub type ClusterAddress = Arc<dyn Fn(&str, bool) -> Result<String, String> + Send + Sync>;

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The API server; clones are the same one.
#[derive(Clone)]
pub struct Server(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) tokens: Tokens,
    pub(crate) version: Version,
    pub(crate) now: fn() -> Timestamp,
    cluster_address: Option<ClusterAddress>,
    /// True once the server is to end: watches finish, connections close when they are idle.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) watches: Arc<Semaphore>,
    /// Held from looking at other objects (quotas and what counts towards them, addresses of services) until the write that
    /// depends on them is made: the next one must see it.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) usage: metrics::Samples,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("version", &self.0.version).finish_non_exhaustive()
    }
}

/// A request on a resource, digested; what every verb is given.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) wanted: Wanted,
}

impl Server {
    pub fn new(config: Config) -> Self {
        let mut tls = config.tls;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self(Arc::new(Shared {
            store: config.store,
            machine: config.machine,
            tls: Arc::new(tls),
            tokens: config.tokens,
            version: config.version,
            now: config.now,
            cluster_address: config.cluster_address,
            closing: watch::Sender::new(false),
            watches: Arc::new(Semaphore::new(WATCHES)),
            turn: tokio::sync::Mutex::default(),
            usage: metrics::Samples::default(),
        }))
    }

    pub fn machine(&self) -> &Arc<dyn Machine> {
        &self.0.machine
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.now)()
    }

    /// Turns true when open streams are to end.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }

    /// The stored object as JSON, if there is one.
    pub(crate) fn find(&self, stored_as: &str, namespace: &str, name: &str) -> Option<Value> {
        let object = self.0.store.get(&key(stored_as, namespace, name))?;
        serde_json::from_slice(&object.json).ok()
    }

    /// Runs what looks at other objects. `dry`: nothing may be kept for who asks.
    pub(crate) fn among<T>(&self, dry: bool, act: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let find = |resource: &str, namespace: &str, name: &str| self.find(resource, namespace, name);
        let list = |resource: &str, namespace: &str| {
            let listed = self.0.store.list(resource, Some(namespace).filter(|namespace| !namespace.is_empty()));
            listed.items.iter().filter_map(|object| serde_json::from_slice(&object.json).ok()).collect()
        };
        let take = self.0.cluster_address.as_deref().map(|take| move |asked: &str| take(asked, !dry));
        let cluster_address = take.as_ref().map(|take| take as &dyn Fn(&str) -> Result<String, String>);
        act(&Surroundings { now: self.now(), find: &find, list: &list, cluster_address })
    }

    /// Answers one request, whatever happens in it.
    pub(crate) async fn answer(&self, request: Request<Incoming>, certificate: Option<&User>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let unread = request.version() < http::Version::HTTP_2 && !request.body().is_end_stream();
        let mut refused = false;
        let mut response = match AssertUnwindSafe(self.dispatch(request, certificate)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => {
                refused = true;
                body::refuse(&failure)
            }
            // The panic's text is on stderr; the client has no use for it.
            Err(_) => body::refuse(&Failure::internal("the request could not be handled")),
        };
        let headers = response.headers_mut();
        headers.entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        if refused && unread {
            // Refused before the body was read, the connection ends with the answer; a client that is not told would put its
            // next request on it (RFC 9112 §9.6).
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        if head {
            *response.body_mut() = body::full(bytes::Bytes::new());
        }
        response
    }

    async fn dispatch(
        &self,
        request: Request<Incoming>,
        certificate: Option<&User>,
    ) -> Result<Response<Body>, Failure> {
        let route = route::of(request.uri().path());
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        // Open to everybody who reaches the socket.
        match route {
            Route::Health if reads => return Ok(health(request.uri().path(), &query)),
            Route::Version if reads => return Ok(body::json(StatusCode::OK, &version(&self.0.version))),
            _ => {}
        }
        let Some(user) = identity::of(request.headers(), certificate, &self.0.tokens) else {
            return Ok(unauthorized());
        };
        let document = !matches!(route, Route::Object(_) | Route::Review(_) | Route::Unknown);
        if document && !reads {
            return Err(route::not_allowed());
        }
        match route {
            Route::Health | Route::Version | Route::Unknown => Err(Failure::unknown_path()),
            Route::Index => Ok(discovery::index()),
            Route::CoreVersions => discovery::groups(request.headers(), true),
            Route::Groups => discovery::groups(request.headers(), false),
            Route::Group(group) => discovery::group(&group),
            Route::Resources(group, version) => discovery::resources(&group, &version),
            Route::OpenApiIndex => openapi::index(),
            Route::OpenApiV2 => openapi::v2(request.headers()),
            Route::OpenApiV3(path) => openapi::v3(&path, &query, request.headers()),
            Route::Metrics { nodes, namespace, name } => {
                metrics::answer(self, nodes, namespace.as_deref(), name.as_deref(), &query, request.headers())
            }
            Route::Review(plural) => special::review(&plural, &user, request).await,
            Route::Object(target) => self.object(target, query, request).await,
        }
    }

    async fn object(
        &self,
        target: Target,
        query: Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let verb = target.verb(request.method())?;
        if let Some(which @ ("log" | "exec" | "attach" | "portforward")) = target.sub.as_deref() {
            let pod = self.find(target.resource.stored_as, target.namespace(), target.name());
            let pod = pod.ok_or_else(|| Failure::not_found(&target.full_name(), target.name()))?;
            return Ok(stream::serve(self, pod, which, request).await);
        }
        let watches = verb == Verb::List && query.flag("watch")?.unwrap_or(false);
        let (parts, content) = request.into_parts();
        let wanted = negotiate::objects(parts.headers.get(ACCEPT), watches)?;
        let ask = Ask { target, query, headers: parts.headers, wanted };
        match verb {
            Verb::Get => list::one(self, &ask),
            Verb::List if watches => watching::serve(self, &ask),
            Verb::List => list::many(self, &ask),
            Verb::Create if ask.target.sub.is_some() => special::create(self, &ask, content).await,
            Verb::Create => create::serve(self, &ask, content).await,
            Verb::Update => update::serve(self, &ask, content).await,
            Verb::Patch => patch::serve(self, &ask, content).await,
            Verb::Delete => delete::one(self, &ask, content).await,
            Verb::DeleteCollection => delete::many(self, &ask, content).await,
        }
    }
}

pub(crate) fn key(stored_as: &str, namespace: &str, name: &str) -> Key {
    Key { resource: stored_as.into(), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn unauthorized() -> Response<Body> {
    let mut response = body::refuse(&Failure::new(401, "Unauthorized", "Unauthorized"));
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"outrigger\""));
    response
}

/// There is one check: who answers is well.
fn health(path: &str, query: &Query) -> Response<Body> {
    let which = path.trim_matches('/').split('/').next().unwrap_or_default();
    let verbose = query.flag("verbose").ok().flatten().unwrap_or(false);
    let text = if verbose { format!("[+]ping ok\n{which} check passed\n") } else { "ok".to_owned() };
    body::answer(StatusCode::OK, HeaderValue::from_static("text/plain; charset=utf-8"), text)
}

fn version(version: &Version) -> Value {
    serde_json::json!({
        "major": version.major, "minor": version.minor, "gitVersion": version.git_version,
        "gitCommit": version.git_commit, "gitTreeState": "clean", "buildDate": version.build_date,
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", architecture()),
        "emulationMajor": version.major, "emulationMinor": version.minor,
        "minCompatibilityMajor": version.major, "minCompatibilityMinor": version.minor,
    })
}

/// Go's word for it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `Content-Type` without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let whole = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    whole.split(';').next().unwrap_or_default().trim()
}
