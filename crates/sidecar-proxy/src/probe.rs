//! Asking endpoints whether they are well. A thread for each backend that wants it; it ends when its backend is gone. The
//! endpoints of one round are asked side by side, so that one that hangs does not keep the others waiting.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::backend::{Address, Backend, Common, Endpoint, Settings};
use dataplane::pool::Dice;
use dataplane::timed::Timed;
use dataplane::{clock, handshake};

use crate::config::ActiveHealth;

mod question;

/// Endpoints asked side by side.
const SIDE_BY_SIDE: usize = 8;
/// TLS needs some stack.
const STACK: usize = 128 << 10;

pub fn start(backend: &Arc<Backend>, health: &ActiveHealth) -> io::Result<()> {
    let checker = Checker {
        backend: backend.name.clone(),
        settings: backend.settings.clone(),
        health: health.clone(),
        runs: HashMap::new(),
    };
    let common = Arc::downgrade(&backend.common);
    let builder = thread::Builder::new().name("health".to_owned()).stack_size(STACK);
    builder.spawn(move || checker.watch(&common)).map(drop)
}

struct Checker {
    backend: String,
    settings: Settings,
    health: ActiveHealth,
    /// Whether the last check was good, and how many in a row were the same.
    runs: HashMap<Address, (bool, u32)>,
}

impl Checker {
    fn watch(mut self, common: &Weak<Common>) {
        let mut dice = Dice::new(clock::now());
        loop {
            let Some(endpoints) = common.upgrade().map(|common| common.endpoints()) else { return };
            self.runs.retain(|address, _| endpoints.iter().any(|endpoint| endpoint.address == *address));
            for some in endpoints.chunks(SIDE_BY_SIDE) {
                for (endpoint, good) in some.iter().zip(self.ask_all(some)) {
                    self.note(endpoint, good);
                }
            }
            pause(self.health.interval.0, &mut dice, common);
        }
    }

    fn ask_all(&self, endpoints: &[Arc<Endpoint>]) -> Vec<io::Result<bool>> {
        if let [only] = endpoints {
            return vec![self.ask(&only.address)];
        }
        thread::scope(|scope| {
            let asked: Vec<_> = endpoints
                .iter()
                .map(|endpoint| {
                    let builder = thread::Builder::new().name("health".to_owned()).stack_size(STACK);
                    builder.spawn_scoped(scope, || self.ask(&endpoint.address))
                })
                .collect();
            let answers = asked.into_iter().map(|asked| match asked?.join() {
                Ok(answer) => answer,
                Err(_) => Err(io::Error::other("the check panicked")),
            });
            answers.collect()
        })
    }

    fn note(&mut self, endpoint: &Endpoint, answer: io::Result<bool>) {
        let now = clock::now();
        let now_good = matches!(answer, Ok(true));
        let (good, length) = self.runs.entry(endpoint.address.clone()).or_insert((true, 0));
        *length = if now_good == *good { length.saturating_add(1) } else { 1 };
        *good = now_good;
        let down = endpoint.health.is_down();
        let backend = &self.backend;
        if now_good && *length >= self.health.successes {
            if down {
                endpoint.health.set_down(false, now);
                daemon::info!("an endpoint is well again", backend = backend, endpoint = endpoint.name);
            }
            endpoint.health.recover(now);
        } else if !down && !now_good && *length >= self.health.failures {
            endpoint.health.set_down(true, now);
            let why = |error: io::Error| handshake::reason(&error).unwrap_or_else(|| error.to_string());
            let reason = answer.map_or_else(why, |_| "its answer says so".to_owned());
            daemon::warn!("an endpoint is not well", backend = backend, endpoint = endpoint.name, reason = reason);
        }
    }

    fn ask(&self, address: &Address) -> io::Result<bool> {
        let timeout = self.health.timeout.0;
        let until = Instant::now() + timeout;
        let (stream, host) = match address {
            Address::Tcp(address) => (Timed::connect(*address, timeout, until)?, address.to_string()),
            Address::Unix(path) => (Timed::connect_unix(path, until)?, "localhost".to_owned()),
        };
        question::ask(stream, &host, &self.health, &self.settings, until)
    }
}

/// The interval, a tenth more or less, so that many checkers do not ask at the same moment. Looks now and then whether the
/// backend is still there.
fn pause(interval: Duration, dice: &mut Dice, common: &Weak<Common>) {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 4);
    let mut left = Duration::from_nanos(nanos - nanos / 10 + dice.up_to(nanos / 5));
    while !left.is_zero() && common.strong_count() > 0 {
        let step = left.min(LOOK);
        thread::sleep(step);
        left -= step;
    }
}

/// Between two looks at files and names.
pub const LOOK: Duration = Duration::from_secs(1);
