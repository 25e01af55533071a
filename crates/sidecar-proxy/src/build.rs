//! From the checked document to the plan the workers follow. What the last plan had and the new one has too goes on:
//! sockets, backends with their health and pools, counters.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use daemon::BuildError;
use dataplane::backend::{Address, Backend, Carrier, Session};
use dataplane::crowd::Crowd;
use dataplane::filter::Filter;
use dataplane::head::Bounds;
use dataplane::log::Writer;
use dataplane::passage::Passages;
use dataplane::plan::{Forwarded, Listener, Plan, Serves, Settings};
use dataplane::retry::{Conditions, Retry};
use dataplane::route::{self, Changes, RouteCounters, Table, Target, Targets};
use dataplane::sock;
use regex::bytes::Regex;

use crate::config::{self, Spec, Text};
use crate::discovery::Watches;

pub(crate) mod filter;
mod room;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;

pub use telemetry::status_class;

/// What goes on from one plan to the next.
#[derive(Debug)]
pub struct Kept {
    /// What counters have room for; it only grows.
    pub workers: usize,
    /// Bytes the process may use, if there is a limit.
    memory: Option<u64>,
    /// Descriptors it may have open.
    descriptors: u64,
    /// Clients, of all workers.
    here: Arc<AtomicUsize>,
    /// Their owner: whoever accepts has a share besides, for as long as it accepts.
    sockets: HashMap<String, Arc<OwnedFd>>,
    backends: Vec<Arc<Backend>>,
    /// Where endpoints are found.
    pub watches: Watches,
    counters: HashMap<String, Arc<[RouteCounters]>>,
    log: Option<(Option<String>, Writer)>,
    tickets: tls::Tickets,
    gates: filter::Gates,
}

impl Kept {
    /// `sockets` by address: those of a process that is to be followed. `memory`: bytes, `None` without a limit.
    pub fn new(memory: Option<u64>, descriptors: u64, sockets: Vec<(String, OwnedFd)>) -> Kept {
        Kept {
            workers: 0,
            memory,
            descriptors,
            here: Arc::default(),
            sockets: sockets.into_iter().map(|(address, socket)| (address, Arc::new(socket))).collect(),
            backends: Vec::new(),
            watches: Watches::default(),
            counters: HashMap::new(),
            log: None,
            tickets: tls::Tickets::new(),
            gates: filter::Gates::new(),
        }
    }
}

impl Kept {
    /// From now on these are asked how they are.
    fn take_backends(&mut self, backends: &[Arc<Backend>]) {
        backends.iter().for_each(|backend| backend.publish());
        self.backends = backends.to_vec();
    }

    /// Another process listens now.
    pub fn forget_sockets(&mut self) {
        self.sockets.clear();
    }

    /// Listening sockets by address.
    pub fn sockets(&self) -> impl Iterator<Item = (&str, &Arc<OwnedFd>)> {
        self.sockets.iter().map(|(address, socket)| (address.as_str(), socket))
    }
}

/// As many as CPUs may be used, by affinity and quota, if the document does not say.
pub fn workers(spec: &Spec) -> usize {
    match spec.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => usize::from(count),
    }
}

/// Makes the plan for so many workers; `kept` is changed only if everything is good.
pub fn build(spec: &Spec, workers: usize, kept: &mut Kept) -> Result<Plan, BuildError> {
    let mut sockets = HashMap::new();
    let mut tickets = tls::Tickets::new();
    kept.workers = kept.workers.max(workers);
    let mut watches = Watches::default();
    let backends = spec
        .backends
        .iter()
        .map(|one| upstream::build(one, spec, kept, &mut watches))
        .collect::<Result<Vec<_>, _>>()?;
    let mut listeners = Vec::new();
    for listener in &spec.listeners {
        let socket = match kept.sockets.get(&listener.address).or_else(|| sockets.get(&listener.address)) {
            Some(socket) => Arc::clone(socket),
            None => {
                let bound = bind(&listener.address, !listener.transparent).map_err(|error| {
                    BuildError::new(format!("listener `{}` at {}", listener.name, listener.address), error)
                })?;
                Arc::new(bound)
            }
        };
        sockets.insert(listener.address.clone(), Arc::clone(&socket));
        let tls =
            listener.tls.as_ref().map(|tls| tls::server(listener, tls, alpn(listener), (&kept.tickets, &mut tickets)));
        let tls = tls.transpose();
        let tls = tls.map_err(|error| BuildError::new(format!("TLS of the listener `{}`", listener.name), error))?;
        let serves = if listener.speaks_http() {
            Serves::Http(table(spec, &listener.name)?)
        } else {
            Serves::Tcp(passages(spec, listener))
        };
        listeners.push(Arc::new(Listener {
            name: listener.name.clone(),
            address: listener.address.clone(),
            socket: Arc::downgrade(&socket),
            outbound: listener.outbound,
            tls,
            serves,
            http1: listener.http1,
            http2: listener.http2,
            announced: listener.proxy_protocol,
            transparent: listener.transparent,
        }));
    }
    let mut counters = HashMap::new();
    let mut gates = filter::Gates::new();
    let mut routes = Vec::new();
    for one in &spec.routes {
        let fresh = || (0..kept.workers).map(|_| RouteCounters::default()).collect();
        let known = kept.counters.get(&one.name).filter(|own| own.len() >= kept.workers);
        let own = known.map_or_else(fresh, Arc::clone);
        counters.insert(one.name.clone(), Arc::clone(&own));
        let (filters, by_target) = filter::build(spec, one, &kept.gates, &mut gates)?;
        let targets = targets(spec, &one.backends, by_target);
        routes.push(Arc::new(build_route(one, filters, targets, own)));
    }
    let log = telemetry::log(spec, kept)?;
    let trusted = filter::checked_networks(&spec.trusted_proxies);
    kept.sockets = sockets;
    kept.tickets = tickets;
    kept.take_backends(&backends);
    kept.watches.keep(watches);
    kept.counters = counters;
    kept.gates = gates;
    kept.log = log.as_ref().map(|log| (spec.access_log.as_ref().and_then(|log| log.path.clone()), log.writer.clone()));
    let personal = backends.iter().any(|backend| backend.settings.is_personal());
    Ok(Plan {
        listeners,
        routes,
        backends,
        settings: settings(spec),
        crowd: Some(Crowd::new(room::clients(spec, workers, (kept.memory, kept.descriptors)), Arc::clone(&kept.here))),
        room: room::buffers(spec, workers, kept.memory),
        log,
        tracing: telemetry::tracing(spec),
        personal,
        trusted,
    })
}

/// The plan with the endpoints that are known now, and everything else as it was: whatever has happened to files meanwhile.
pub fn refresh(spec: &Spec, plan: &Plan, kept: &mut Kept) -> Result<Plan, BuildError> {
    let mut watches = Watches::default();
    // The document's order is the plan's.
    let both = spec.backends.iter().zip(&plan.backends);
    let backends = both.map(|(one, backend)| upstream::refresh(backend, one, spec, kept, &mut watches));
    let backends = backends.collect::<Result<Vec<_>, _>>()?;
    kept.take_backends(&backends);
    kept.watches.keep(watches);
    Ok(Plan { backends, ..plan.clone() })
}

/// What the TLS handshake offers, the preferred first.
fn alpn(listener: &config::Listener) -> Vec<Vec<u8>> {
    // What plain TCP carries is the client's and the backend's business.
    let http = listener.speaks_http();
    [(http && listener.http2, "h2"), (http && listener.http1, "http/1.1")]
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name.as_bytes().to_vec())
        .collect()
}

fn settings(spec: &Spec) -> Settings {
    Settings {
        bounds: Bounds { bytes: spec.limits.head.0 as usize, fields: spec.limits.fields as usize },
        connections_most: spec.limits.connections as usize,
        head_timeout: nanos(spec.timeouts.head),
        body_timeout: nanos(spec.timeouts.body),
        idle_timeout: nanos(spec.timeouts.idle),
        tunnel_timeout: nanos(spec.timeouts.tunnel),
        forwarded: match spec.forwarded {
            config::Forwarded::Append => Forwarded::Append,
            config::Forwarded::Replace => Forwarded::Replace,
            config::Forwarded::Pass => Forwarded::Pass,
        },
        upgrade: spec.web_socket,
        refuse_dots: spec.dot_segments == config::DotSegments::Refuse,
        refuse_ambiguous: spec.ambiguous_paths == config::AmbiguousPaths::Refuse,
    }
}

fn nanos(time: daemon::config::Seconds) -> u64 {
    u64::try_from(time.0.as_nanos()).unwrap_or(u64::MAX)
}

fn number(spec: &Spec, backend: &str) -> usize {
    // The check has seen that it is there.
    spec.backends.iter().position(|one| one.name == backend).unwrap_or(0)
}

// === addresses ===

/// Where a listener's address is; an empty host is every address.
pub fn listen_address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') {
            Ok(Address::Unix(PathBuf::from(path)))
        } else {
            Err("a socket's path must be absolute".to_owned())
        };
    }
    let whole = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    whole
        .parse::<SocketAddr>()
        .map(Address::Tcp)
        .map_err(|_| "must be `:PORT`, `ADDRESS:PORT` or `unix:/PATH`".to_owned())
}

fn bind(text: &str, both: bool) -> std::io::Result<OwnedFd> {
    let address = listen_address(text).map_err(std::io::Error::other)?;
    match (sock::listen(&address, both), text.strip_prefix(':')) {
        // No IPv6 here.
        (Err(error), Some(port)) => {
            listen_address(&format!("0.0.0.0:{port}")).ok().map_or(Err(error), |any| sock::listen(&any, both))
        }
        (bound, _) => bound,
    }
}

/// Checks how an endpoint is written.
pub fn endpoint_name(text: &str) -> Result<(), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') { Ok(()) } else { Err("a socket's path must be absolute".to_owned()) };
    }
    let (host, port) = text.rsplit_once(':').ok_or("must be `HOST:PORT` or `unix:/PATH`")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let good = host.parse::<std::net::Ipv4Addr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
        || !host.is_empty() && host.chars().all(plain);
    match (good, port.parse::<u16>()) {
        (true, Ok(1..)) => Ok(()),
        _ => Err("must be `HOST:PORT` or `unix:/PATH`".to_owned()),
    }
}

// === routes ===

fn table(spec: &Spec, listener: &str) -> Result<Table, BuildError> {
    let mut entries = Vec::new();
    for (number, one) in spec.routes.iter().enumerate() {
        if !one.listeners.is_empty() && !one.listeners.iter().any(|name| name == listener) {
            continue;
        }
        let any = [config::Match { path: None, method: None, headers: [].into(), query: [].into() }];
        let matches = if one.matches.is_empty() { &any[..] } else { &one.matches[..] };
        let hosts = if one.hosts.is_empty() { &[String::new()][..] } else { &one.hosts[..] };
        for wanted in matches {
            // Once: its expressions are large, and clones share them.
            let mut wanted = build_match(wanted);
            if one.connect {
                wanted.method = Some(b"CONNECT".to_vec());
            }
            let by_host = hosts.iter().map(|host| route::Match {
                host: route::without_port(host.as_bytes()).to_vec(),
                port: route::port_of(host.as_bytes()).to_vec(),
                ..wanted.clone()
            });
            entries.extend(by_host.map(|wanted| (wanted, number)));
        }
    }
    Ok(Table::new(entries))
}

/// Where the connections of a listener go that does not speak HTTP.
fn passages(spec: &Spec, listener: &config::Listener) -> Passages {
    let whole = listener.tcp.iter().map(|name| (Vec::new(), Targets::plain([(number(spec, name), 1)])));
    let routes = listener.tcp_routes.iter().map(|one| {
        (one.hosts.iter().map(|host| host.as_bytes().to_vec()).collect(), targets(spec, &one.backends, Vec::new()))
    });
    Passages::new(whole.chain(routes))
}

fn build_path(path: &config::PathMatch) -> Option<route::Path> {
    // The check has compiled every expression once.
    match path {
        config::PathMatch::Exact(Text(exact)) => Some(route::Path::Exact(exact.as_bytes().to_vec())),
        config::PathMatch::Prefix(Text(prefix)) => Some(route::Path::Prefix(prefix.as_bytes().to_vec())),
        config::PathMatch::Regex(Text(pattern)) => Regex::new(pattern).ok().map(route::Path::Regex),
        config::PathMatch::Call(Text(method)) => Some(route::Path::Call(method.as_bytes().to_vec())),
    }
}

/// For every host.
fn build_match(wanted: &config::Match) -> route::Match {
    let text = |text: &config::TextMatch| match text {
        config::TextMatch::Exact(Text(exact)) => Some(route::Text::Exact(exact.as_bytes().to_vec())),
        config::TextMatch::Regex(Text(pattern)) => Regex::new(pattern).ok().map(route::Text::Regex),
    };
    route::Match {
        host: Vec::new(),
        port: Vec::new(),
        path: wanted.path.as_ref().and_then(build_path),
        method: wanted.method.as_ref().map(|method| method.as_bytes().to_vec()),
        headers: wanted
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.to_ascii_lowercase().into_bytes(), text(value)?)))
            .collect(),
        query: wanted.query.iter().filter_map(|(name, value)| Some((name.as_bytes().to_vec(), text(value)?))).collect(),
    }
}

fn build_retry(one: &config::Retries) -> Retry {
    let on = |which| one.on.contains(&which);
    Retry {
        times: one.attempts,
        on: Conditions {
            connect: on(config::RetryOn::Connect),
            refused: on(config::RetryOn::Refused),
            reset: on(config::RetryOn::Reset),
            timeout: on(config::RetryOn::Timeout),
        },
        statuses: one.statuses.iter().fold(0, |bits, status| bits | Retry::bit(*status)),
        least: nanos(one.min_backoff),
        backoff: nanos(one.backoff),
        backoff_most: nanos(one.max_backoff),
        per_try: nanos(one.per_try_timeout),
        hedge: nanos(one.hedge_after),
    }
}

fn session(one: &config::Session) -> Session {
    match one {
        config::Session::Cookie(cookie) => {
            let age = if cookie.permanent { cookie.lifetime.0.as_secs() } else { 0 };
            Session {
                carrier: Carrier::Cookie,
                name: cookie.name.as_bytes().to_vec(),
                attributes: upstream::attributes(&cookie.path, age, cookie.secure),
                lifetime: cookie.lifetime.0.as_secs(),
            }
        }
        config::Session::Header(header) => Session {
            carrier: Carrier::Header,
            name: header.name.to_ascii_lowercase().into_bytes(),
            attributes: Vec::new(),
            lifetime: header.lifetime.0.as_secs(),
        },
    }
}

/// `filters`: of each that has any, in the same order.
fn targets(spec: &Spec, list: &[config::Target], filters: Vec<Vec<Filter>>) -> Targets {
    let mut filters = filters.into_iter();
    let list = list.iter().map(|one| {
        let edits = |headers: &Option<config::Headers>| headers.as_ref().map(filter::edits).unwrap_or_default();
        let filters = filters.next().unwrap_or_default();
        let changed = one.request_headers.is_some() || one.response_headers.is_some() || !filters.is_empty();
        let changes = changed.then(|| {
            Box::new(Changes { request: edits(&one.request_headers), response: edits(&one.response_headers), filters })
        });
        Target { backend: number(spec, &one.name), weight: one.weight as usize, changes }
    });
    Targets::new(list.collect())
}

fn build_route(
    one: &config::Route,
    filters: Vec<Filter>,
    targets: Targets,
    counters: Arc<[RouteCounters]>,
) -> route::Route {
    route::Route {
        name: one.name.clone(),
        filters,
        targets,
        request_timeout: nanos(one.timeouts.request),
        backend_timeout: nanos(one.timeouts.backend),
        retry: build_retry(&one.retries),
        session: one.session.as_ref().map(session),
        body_most: if one.max_body.0 == 0 { u64::MAX } else { one.max_body.0 },
        connect: one.connect,
        always_timing: one.server_timing,
        counters,
    }
}

/// The host in an endpoint's address; `None`: it is a socket of the file system.
pub fn host_of(endpoint: &str) -> Option<&str> {
    if endpoint.starts_with("unix:") {
        return None;
    }
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}

/// Whatever the document names as an endpoint.
pub fn hosts(one: &config::Backend) -> Vec<String> {
    one.endpoints.iter().chain(one.members.iter().map(|member| &member.address)).cloned().collect()
}

/// What is written besides standard streams: listeners' sockets, and the access log, beside which a new one is made when it
/// was renamed. Where that leads to may be elsewhere, such as with /dev/stdout.
pub fn writes(spec: &Spec) -> Vec<PathBuf> {
    let sockets = spec.listeners.iter().filter_map(|listener| listener.address.strip_prefix("unix:"));
    let mut writes: Vec<_> = sockets.filter_map(|path| Some(Path::new(path).parent()?.to_owned())).collect();
    if let Some(path) = spec.access_log.as_ref().and_then(|log| log.path.as_ref()) {
        let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        let target = std::fs::canonicalize(&path).ok().filter(|target| *target != path);
        writes.extend(path.parent().map(PathBuf::from).into_iter().chain(target));
    }
    writes
}

/// Files whose change makes a new plan necessary.
pub fn files(spec: &Spec) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for tls in spec.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        files.extend(tls.certificates.iter().flat_map(|one| [&one.cert_file, &one.key_file]));
        files.extend(tls.certificates.iter().filter_map(|one| one.ocsp_file.as_ref()));
        files.extend(&tls.client_ca_file);
    }
    for tls in spec.backends.iter().filter_map(|backend| backend.tls.as_ref()) {
        files.extend([&tls.ca_file, &tls.cert_file, &tls.key_file].into_iter().flatten());
    }
    files.extend(spec.backends.iter().filter_map(|backend| backend.sticky.as_ref()?.secret_file.as_ref()));
    files.into_iter().map(PathBuf::from).chain(filter::files(spec)).collect()
}
