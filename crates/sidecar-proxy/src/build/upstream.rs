//! Backends: endpoints as the document names them or as they were found, and how they are used.

use std::sync::Arc;

use daemon::BuildError;
use dataplane::announce::Version;
use dataplane::backend::{self, Affinity, Backend, Balance, Found, Limits, Passive, Sticky};

use super::{Kept, hosts, nanos, tls};
use crate::config::{self, Spec};
use crate::discovery::{self, Watches};

/// The backend as it was, if nothing has changed; as it was with other endpoints, if only these have; or a new one.
pub(super) fn build(
    one: &config::Backend,
    spec: &Spec,
    kept: &Kept,
    watches: &mut Watches,
) -> Result<Arc<Backend>, BuildError> {
    let found = find(one, spec, kept, watches)?;
    let tls = one.tls.as_ref().map(|tls| tls::client(tls, &hosts(one), one.http2)).transpose();
    let (tls, fingerprint) =
        tls.map_err(|error| BuildError::new(format!("TLS of the backend `{}`", one.name), error))?.unzip();
    let sticky = one.sticky.as_ref().map(sticky).transpose();
    let sticky = sticky.map_err(|error| BuildError::new(format!("cookies of the backend `{}`", one.name), error))?;
    let identity = identity(one, &fingerprint.unwrap_or_default(), sticky.as_ref());
    if let Some(same) = kept.backends.iter().find(|one| one.identity == identity && one.has_room(kept.workers)) {
        return Ok(with(same, &found));
    }
    let settings = settings(one, tls, sticky);
    let backend = Arc::new(Backend::new(&one.name, &found, settings, kept.workers, identity));
    if let Some(health) = &one.active_health {
        crate::probe::start(&backend, health)
            .map_err(|error| BuildError::new(format!("health checks of the backend `{}`", one.name), error))?;
    }
    Ok(backend)
}

/// The backend with the endpoints that are known now. No file of its own is read.
pub(super) fn refresh(
    backend: &Arc<Backend>,
    one: &config::Backend,
    spec: &Spec,
    kept: &Kept,
    watches: &mut Watches,
) -> Result<Arc<Backend>, BuildError> {
    Ok(with(backend, &find(one, spec, kept, watches)?))
}

fn find(one: &config::Backend, spec: &Spec, kept: &Kept, watches: &mut Watches) -> Result<Vec<Found>, BuildError> {
    let instances = kept.watches.instances(one, spec, watches);
    let instances =
        instances.map_err(|error| BuildError::new(format!("endpoints of the backend `{}`", one.name), error))?;
    Ok(discovery::select(one, spec.zone.as_deref(), &instances))
}

fn with(known: &Arc<Backend>, found: &[Found]) -> Arc<Backend> {
    if known.has(found) { Arc::clone(known) } else { Arc::new(known.with(found)) }
}

/// All that makes it another backend: everything but where its endpoints are.
fn identity(one: &config::Backend, fingerprint: &str, sticky: Option<&Sticky>) -> String {
    let rest = config::Backend {
        endpoints: Vec::new(),
        members: Vec::new(),
        discover: Vec::new(),
        subset: None,
        ..one.clone()
    };
    format!("{rest:?} {fingerprint} {sticky:?} {:?}", one.tls.as_ref().map(|_| hosts(one)))
}

fn settings(one: &config::Backend, tls: Option<backend::Outward>, sticky: Option<Sticky>) -> backend::Settings {
    let passive = &one.passive_health;
    backend::Settings {
        balance: match one.balance {
            config::Balance::RoundRobin => Balance::RoundRobin,
            config::Balance::LeastRequest => Balance::LeastRequest,
            config::Balance::P2cEwma => Balance::PeakEwma,
            config::Balance::RingHash => Balance::Ring,
            config::Balance::Maglev => Balance::Maglev,
        },
        connect_timeout: nanos(one.connect_timeout),
        idle_timeout: nanos(one.idle_timeout),
        idle_most: one.idle_connections as usize,
        requests_most: u64::from(one.max_requests),
        limits: Limits {
            connections: u64::from(one.limits.connections),
            endpoint_connections: u64::from(one.limits.endpoint_connections),
            endpoint_requests: u64::from(one.limits.endpoint_requests),
            pending: u64::from(one.limits.pending),
            pending_timeout: nanos(one.limits.pending_timeout),
        },
        retry_percent: one.retry_percent,
        original: one.original_destination,
        // What one destination does says nothing about the others.
        passive: (passive.failures > 0 && !one.original_destination).then(|| Passive {
            failures: passive.failures,
            ejection: nanos(passive.ejection),
            most_percent: passive.max_ejected_percent,
        }),
        panic_percent: one.panic_percent,
        slow_start: nanos(one.slow_start),
        near_percent: one.zone_overflow_percent,
        affinity: affinity(one),
        sticky,
        tls,
        http2: one.http2,
        http1: one.http1,
        announce: one.proxy_protocol.map(|version| match version {
            config::ProxyProtocol::V1 => Version::One,
            config::ProxyProtocol::V2 => Version::Two,
        }),
    }
}

fn affinity(one: &config::Backend) -> Affinity {
    if !matches!(one.balance, config::Balance::RingHash | config::Balance::Maglev) {
        return Affinity::default();
    }
    let Some(on) = &one.hash_on else { return Affinity { client: true, ..Affinity::default() } };
    Affinity {
        header: on.header.as_ref().map(|name| name.as_bytes().to_vec()),
        cookie: on.cookie.as_ref().map(|name| name.as_bytes().to_vec()),
        path: on.path,
        client: on.client_address,
    }
}

fn sticky(one: &config::Sticky) -> std::io::Result<Sticky> {
    let secret = one.secret_file.as_ref().map(std::fs::read).transpose()?.unwrap_or_default();
    let age = if one.max_age.0.is_zero() { 0 } else { one.max_age.0.as_secs().max(1) };
    let attributes = attributes(&one.path, age, one.secure);
    Ok(Sticky { cookie: one.cookie.as_bytes().to_vec(), attributes, secret })
}

/// What follows a cookie's value; `age`: seconds, 0: until the client ends.
pub(super) fn attributes(path: &str, age: u64, secure: bool) -> Vec<u8> {
    let mut attributes = format!("; Path={path}; HttpOnly; SameSite=Lax");
    if age != 0 {
        attributes.push_str(&format!("; Max-Age={age}"));
    }
    if secure {
        attributes.push_str("; Secure");
    }
    attributes.into_bytes()
}
