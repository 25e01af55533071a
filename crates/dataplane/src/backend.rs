//! Where requests go: endpoints, what is known of their health, and the bounds of one backend.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::announce::Version;
use crate::clock::SECOND;
use crate::count::{Counter, Histogram};

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
}

/// When an endpoint is left out because of what it answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passive {
    /// Failures in a row.
    pub failures: u32,
    /// Nanoseconds of the first ejection; the n-th is n times as long, up to ten.
    pub ejection: u64,
    /// Never are more of the endpoints left out than this many of a hundred.
    pub most_percent: u32,
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
    /// Retries per hundred requests, besides ten a second.
    pub retry_percent: u32,
    pub passive: Option<Passive>,
    pub tls: Option<Outward>,
    /// HTTP/2 is spoken from the first byte (over TLS: by ALPN).
    pub http2: bool,
    /// Every connection begins with where its client comes from; it serves that client only.
    pub announce: Option<Version>,
}

/// TLS towards a backend.
#[derive(Clone)]
pub struct Outward {
    pub config: Arc<ClientConfig>,
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

/// What all workers and the checker know together of an endpoint.
#[derive(Debug, Default)]
pub struct Health {
    /// Said by active checks.
    down: AtomicBool,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until: AtomicU64,
    /// The shortest time in nanoseconds after which the endpoint closed an idle connection; 0: not seen.
    idle_seen: AtomicU64,
}

impl Health {
    pub fn is_good(&self, now: u64) -> bool {
        !self.down.load(Ordering::Relaxed) && self.ejected_until.load(Ordering::Relaxed) <= now
    }
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }
    pub fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now
    }
    pub fn note_idle_close(&self, idle: u64) {
        // Below a second it is a restart or an overload, not a timeout.
        if idle > SECOND {
            let seen = self.idle_seen.load(Ordering::Relaxed);
            if seen == 0 || idle < seen {
                self.idle_seen.store(idle, Ordering::Relaxed);
            }
        }
    }
    /// How long a connection may be idle and still be used: a little less than what the endpoint was seen to bear.
    pub fn bears_idle(&self) -> u64 {
        match self.idle_seen.load(Ordering::Relaxed) {
            0 => u64::MAX,
            seen => seen - seen / 8,
        }
    }
}

/// A named group of endpoints.
#[derive(Debug)]
pub struct Backend {
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    pub settings: Settings,
    /// In flight now, counted only if there is a bound.
    pub in_flight: AtomicU64,
    /// What the configuration said, to be recognised after a reload.
    pub identity: String,
}

impl Backend {
    pub fn new(
        name: &str,
        addresses: Vec<(Address, String)>,
        settings: Settings,
        workers: usize,
        identity: String,
    ) -> Backend {
        let endpoints = addresses.into_iter().map(|(address, name)| Endpoint {
            address,
            name,
            health: Health::default(),
            counters: (0..workers).map(|_| EndpointCounters::default()).collect(),
        });
        let endpoints = endpoints.collect();
        Backend { name: name.to_owned(), endpoints, settings, in_flight: AtomicU64::new(0), identity }
    }

    /// Whether so many workers can count in it.
    pub fn has_room(&self, workers: usize) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.counters.len() >= workers)
    }

    /// Takes note of how a request ended.
    pub fn note(&self, endpoint: usize, good: bool, now: u64) {
        let health = &self.endpoints[endpoint].health;
        let Some(passive) = &self.settings.passive else { return };
        if good {
            if health.failures.load(Ordering::Relaxed) != 0 {
                health.failures.store(0, Ordering::Relaxed);
                health.ejections.store(0, Ordering::Relaxed);
            }
            return;
        }
        let failures = health.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures < passive.failures || health.is_ejected(now) {
            return;
        }
        let out = self.endpoints.iter().filter(|endpoint| endpoint.health.is_ejected(now)).count() + 1;
        if out * 100 > self.endpoints.len() * passive.most_percent as usize {
            return;
        }
        let times = health.ejections.fetch_add(1, Ordering::Relaxed).min(9) + 1;
        health.failures.store(0, Ordering::Relaxed);
        health.ejected_until.store(now + passive.ejection * u64::from(times), Ordering::Relaxed);
    }

    /// Room for one more request, which must be given back with [`Backend::leave`].
    pub fn enter(&self) -> bool {
        let most = self.settings.requests_most;
        if most == 0 {
            return true;
        }
        let entered =
            self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1));
        entered.is_ok()
    }

    pub fn leave(&self) {
        if self.settings.requests_most != 0 {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
