//! Where requests go: endpoints, what is known of their health, and the bounds of one backend. A backend whose endpoints
//! change is a new [`Backend`] that shares with the one before whatever stays: endpoints with their health and counters,
//! and what is counted over all of them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::announce::Version;
use crate::balance::{Entry, Table, hash};
use crate::clock::{self, SECOND};
use crate::count::{Counter, Histogram, Throttle};
use crate::head::Field;
use crate::pool::Wish;

mod affinity;
mod health;
mod session;

pub use affinity::{Affinity, Sticky};
pub use health::{Health, Passive, State};
pub use session::{Carrier, Session};

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How the next endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    /// The fewest requests in flight.
    LeastRequest,
    /// Of two taken by chance, the one whose expected wait is shorter.
    PeakEwma,
    /// By a key of the request, see [`Table::ring`].
    Ring,
    /// By a key of the request, see [`Table::maglev`].
    Maglev,
}

/// What a backend may be burdened with; 0: without bound. Workers look at each other's counts without a lock, so that each
/// may be one too high for a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections to all endpoints together.
    pub connections: u64,
    pub endpoint_connections: u64,
    /// Requests in flight at one endpoint.
    pub endpoint_requests: u64,
    /// Requests that wait for room, over all workers; 0: none waits.
    pub pending: u64,
    /// Nanoseconds a request waits at most.
    pub pending_timeout: u64,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub balance: Balance,
    pub connect_timeout: u64,
    /// A pooled connection that was idle longer is not used again.
    pub idle_timeout: u64,
    /// Idle connections kept per endpoint and worker.
    pub idle_most: usize,
    /// Requests in flight, over all workers; 0: any number.
    pub requests_most: u64,
    pub limits: Limits,
    /// Retries per hundred requests, besides ten a second.
    pub retry_percent: u32,
    pub passive: Option<Passive>,
    /// When fewer of a hundred endpoints are good, health is not believed and all are used; 0: only when none is.
    pub panic_percent: u32,
    /// Nanoseconds in which a new endpoint comes to its full share; 0: at once.
    pub slow_start: u64,
    /// While this many of a hundred near endpoints are good, no request goes further.
    pub near_percent: u32,
    pub affinity: Affinity,
    pub sticky: Option<Sticky>,
    pub tls: Option<Outward>,
    /// HTTP/2 is spoken from the first byte (over TLS: by ALPN).
    pub http2: bool,
    /// HTTP/1.1 is spoken, too, even if nothing says so.
    pub http1: bool,
    /// Every connection begins with where its client comes from; it serves that client only.
    pub announce: Option<Version>,
    /// Connections go where their client wanted to go; the only endpoint stands for all of them.
    pub original: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            balance: Balance::RoundRobin,
            connect_timeout: 5 * SECOND,
            idle_timeout: 60 * SECOND,
            idle_most: 256,
            requests_most: 0,
            limits: Limits::default(),
            retry_percent: 20,
            passive: None,
            panic_percent: 0,
            slow_start: 0,
            near_percent: 70,
            affinity: Affinity::default(),
            sticky: None,
            tls: None,
            http2: false,
            http1: false,
            announce: None,
            original: false,
        }
    }
}

/// TLS towards a backend.
#[derive(Clone)]
pub struct Outward {
    pub config: Arc<ClientConfig>,
    /// For a connection of HTTP/1.1 to a backend that else speaks HTTP/2.
    pub http1: Option<Arc<ClientConfig>>,
    pub name: ServerName<'static>,
}

impl fmt::Debug for Outward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outward").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub struct Endpoint {
    pub address: Address,
    pub name: String,
    pub health: Health,
    /// One for each worker.
    pub counters: Box<[EndpointCounters]>,
    /// Connections now, over all workers.
    pub connections: AtomicU64,
    /// The same in every process.
    pub key: u64,
}

impl Endpoint {
    /// Requests in flight, over all workers.
    pub fn active(&self) -> u64 {
        self.counters.iter().map(|counters| counters.active.value()).sum()
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
pub struct EndpointCounters {
    pub requests: Counter,
    pub active: Counter,
    pub connects: Counter,
    pub connect_failures: Counter,
    /// Answers with 5xx, resets and timeouts.
    pub failures: Counter,
    pub latency: Histogram,
}

/// An endpoint as somebody has named or found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub address: Address,
    /// As people are shown it.
    pub name: String,
    /// Its share; 0: only what sticks to it.
    pub weight: u32,
    /// In our own zone, or the zone does not matter.
    pub near: bool,
}

impl Found {
    pub fn new(address: Address, name: &str) -> Found {
        Found { address, name: name.to_owned(), weight: 1, near: true }
    }
}

/// What the present list says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub weight: u32,
    pub near: bool,
}

/// What stays the same however often the list of endpoints changes.
#[derive(Debug, Default)]
pub struct Common {
    /// The newest list, for whoever asks endpoints how they are.
    newest: Mutex<Vec<Arc<Endpoint>>>,
    /// In flight now, counted only if there is a bound.
    in_flight: AtomicU64,
    pub connections: AtomicU64,
    /// Requests that wait for room.
    pub pending: AtomicU64,
    /// Requests that were refused for want of room.
    pub overflows: AtomicU64,
    /// Requests that waited for room in vain.
    pub pending_timeouts: AtomicU64,
    /// What is said about TLS that failed.
    pub tls_failures: Throttle,
}

impl Common {
    /// The endpoints of the newest list.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A named group of endpoints.
#[derive(Debug)]
pub struct Backend {
    pub name: String,
    pub endpoints: Vec<Arc<Endpoint>>,
    pub seats: Vec<Seat>,
    /// Not all weights are the same.
    pub uneven: bool,
    /// No endpoint has any weight: then all have the same.
    pub weightless: bool,
    /// Some endpoints are near, some are not.
    pub zoned: bool,
    pub settings: Settings,
    pub common: Arc<Common>,
    /// What the configuration said, to be recognised after a reload.
    pub identity: String,
    /// For [`Balance::Ring`] and [`Balance::Maglev`].
    pub table: Option<Table>,
    /// What clients' cookies say, by endpoint.
    marks: Vec<[u8; 16]>,
    /// What routes' sessions say, by endpoint.
    sessions: Vec<session::Mark>,
    workers: usize,
}

impl Settings {
    /// Whether each connection serves one client only.
    pub fn is_personal(&self) -> bool {
        self.announce.is_some() || self.original
    }

    /// Whether an endpoint of HTTP/2 may be spoken to in HTTP/1.1: TLS agrees on one of them, without it somebody must know.
    pub fn may_speak_http1(&self) -> bool {
        self.http1 || self.tls.as_ref().is_some_and(|tls| tls.http1.is_some())
    }
}

impl Backend {
    pub fn new(name: &str, found: &[Found], settings: Settings, workers: usize, identity: String) -> Backend {
        let endpoints = found.iter().map(|one| Arc::new(endpoint(one, workers, 0))).collect();
        let backend = Backend::of(name, found, endpoints, settings, Arc::default(), (workers, identity));
        backend.publish();
        backend
    }

    /// The same backend with another list. Endpoints that stay are the same ones, with all that is known of them. Nobody
    /// else hears of it before [`Backend::publish`].
    #[must_use]
    pub fn with(&self, found: &[Found]) -> Backend {
        // A list that was empty has nothing to be compared with: all are as old as the backend.
        let since = if self.endpoints.is_empty() { 0 } else { clock::now() };
        let endpoints = found.iter().map(|one| {
            let same = self.endpoints.iter().find(|known| known.address == one.address && known.name == one.name);
            same.map_or_else(|| Arc::new(endpoint(one, self.workers, since)), Arc::clone)
        });
        let endpoints = endpoints.collect();
        let rest = (self.workers, self.identity.clone());
        Backend::of(&self.name, found, endpoints, self.settings.clone(), Arc::clone(&self.common), rest)
    }

    fn of(
        name: &str,
        found: &[Found],
        endpoints: Vec<Arc<Endpoint>>,
        settings: Settings,
        common: Arc<Common>,
        (workers, identity): (usize, String),
    ) -> Backend {
        let seats: Vec<Seat> = found.iter().map(|one| Seat { weight: one.weight, near: one.near }).collect();
        let entries = || -> Vec<Entry> {
            endpoints.iter().zip(&seats).map(|(one, seat)| Entry { key: one.key, weight: seat.weight }).collect()
        };
        let table = match settings.balance {
            Balance::Ring => Some(Table::ring(&entries())),
            Balance::Maglev => Some(Table::maglev(&entries())),
            _ => None,
        };
        let sticky = settings.sticky.as_ref();
        let marks = endpoints.iter().filter_map(|endpoint| Some(sticky?.mark(&endpoint.address))).collect();
        let sessions = endpoints.iter().map(|one| Session::mark(&one.address)).collect();
        Backend {
            name: name.to_owned(),
            uneven: seats.iter().any(|seat| seat.weight != seats[0].weight),
            weightless: seats.iter().all(|seat| seat.weight == 0),
            zoned: seats.iter().any(|seat| seat.near) && seats.iter().any(|seat| !seat.near),
            endpoints,
            seats,
            settings,
            common,
            identity,
            table,
            marks,
            sessions,
            workers,
        }
    }

    /// Makes its list the newest.
    pub fn publish(&self) {
        self.common.newest.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.endpoints);
    }

    /// Whether the list is this one.
    pub fn has(&self, found: &[Found]) -> bool {
        found.len() == self.endpoints.len()
            && found.iter().zip(&self.endpoints).zip(&self.seats).all(|((one, endpoint), seat)| {
                one.address == endpoint.address
                    && one.name == endpoint.name
                    && *seat == Seat { weight: one.weight, near: one.near }
            })
    }

    /// Where the request should go, by what it says: a key, and the endpoint its cookie speaks of.
    pub fn wish(&self, bytes: &[u8], fields: &[Field], path: &[u8], client: &[u8]) -> Wish {
        let key = self.settings.affinity.key(bytes, fields, path, client);
        let sticky = self.settings.sticky.as_ref();
        let value = sticky.and_then(|sticky| affinity::cookie(bytes, fields, &sticky.cookie));
        let stuck = value.and_then(|value| self.marks.iter().position(|mark| mark == value));
        Wish { avoid: None, key, stuck }
    }

    /// Whether what requests say decides where they go.
    pub fn wishes(&self) -> bool {
        self.settings.sticky.is_some() || self.settings.affinity.is_wanted()
    }

    /// The line that makes the client come back to the endpoint.
    pub fn stick(&self, endpoint: usize, out: &mut Vec<u8>) {
        let (Some(sticky), Some(mark)) = (&self.settings.sticky, self.marks.get(endpoint)) else { return };
        for part in [b"Set-Cookie: ", &sticky.cookie[..], b"=", mark, &sticky.attributes, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }

    /// The endpoint a session's mark speaks of.
    pub fn session_at(&self, mark: &[u8]) -> Option<usize> {
        self.sessions.iter().position(|one| one == mark)
    }

    /// The line that begins a session with the endpoint.
    pub fn begin_session(&self, session: &Session, endpoint: usize, wall: u64, out: &mut Vec<u8>) {
        if let Some(mark) = self.sessions.get(endpoint) {
            session.put(mark, wall, out);
        }
    }

    /// What a request without a host asks for: the first endpoint, as it was named.
    pub fn host(&self) -> Option<&str> {
        self.endpoints.first()?.name.split(' ').next()
    }

    /// Whether so many workers can count in it.
    pub fn has_room(&self, workers: usize) -> bool {
        self.workers >= workers
    }

    /// Where the endpoint is in the list.
    pub fn number_of(&self, endpoint: &Arc<Endpoint>) -> Option<usize> {
        self.endpoints.iter().position(|other| Arc::ptr_eq(other, endpoint))
    }

    /// Takes note of how a request ended.
    pub fn note(&self, endpoint: usize, good: bool, now: u64) {
        let health = &self.endpoints[endpoint].health;
        let Some(passive) = &self.settings.passive else { return };
        if good {
            return if health.is_ejected(now) { health.recover(now) } else { health.note_good() };
        }
        if health.is_ejected(now) || !health.note_bad(passive) {
            return;
        }
        let out = self.endpoints.iter().filter(|endpoint| !endpoint.health.is_good(now)).count();
        let out = out + usize::from(health.is_good(now));
        if out * 100 <= self.endpoints.len() * passive.most_percent as usize {
            health.eject(passive, now);
        }
    }

    /// Room for one more request, which must be given back with [`Backend::leave`].
    pub fn enter(&self) -> bool {
        let most = self.settings.requests_most;
        if most == 0 {
            return true;
        }
        let count = &self.common.in_flight;
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1)).is_ok()
    }

    pub fn leave(&self) {
        if self.settings.requests_most != 0 {
            self.common.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether a request may have to wait for room.
    pub fn is_bounded(&self) -> bool {
        let limits = &self.settings.limits;
        self.settings.requests_most + limits.connections + limits.endpoint_connections + limits.endpoint_requests > 0
    }

    /// Whether one more connection to the endpoint may be made.
    pub fn may_connect(&self, endpoint: usize) -> bool {
        let limits = &self.settings.limits;
        let below = |count: &AtomicU64, most: u64| most == 0 || count.load(Ordering::Relaxed) < most;
        below(&self.endpoints[endpoint].connections, limits.endpoint_connections)
            && below(&self.common.connections, limits.connections)
    }

    /// A connection begins (`true`) or ends.
    pub fn count_connection(&self, endpoint: usize, begins: bool) {
        for count in [&self.endpoints[endpoint].connections, &self.common.connections] {
            if begins {
                count.fetch_add(1, Ordering::Relaxed);
            } else {
                count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the endpoint may have one more request.
    pub fn may_take(&self, endpoint: usize) -> bool {
        let most = self.settings.limits.endpoint_requests;
        most == 0 || self.endpoints[endpoint].active() < most
    }

    /// So few endpoints are good that health is not believed.
    pub fn panics(&self, now: u64) -> bool {
        let percent = self.settings.panic_percent as usize;
        if percent == 0 {
            return false;
        }
        let good = self.endpoints.iter().filter(|endpoint| endpoint.health.is_good(now)).count();
        good * 100 < self.endpoints.len() * percent
    }
}

fn endpoint(found: &Found, workers: usize, since: u64) -> Endpoint {
    Endpoint {
        key: hash(found.address.to_string().as_bytes()),
        address: found.address.clone(),
        name: found.name.clone(),
        health: Health::since(since),
        counters: (0..workers).map(|_| EndpointCounters::default()).collect(),
        connections: AtomicU64::new(0),
    }
}
