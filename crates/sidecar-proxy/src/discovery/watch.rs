//! Watching sources: a thread for each, which publishes lists; the last good one stays when a source fails. A thread ends when
//! nobody has its watch any more.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::Instance;

/// After a failure a source is asked again after this time, twice as long after each further one.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MOST: Duration = Duration::from_secs(30);
/// TLS and JSON need some stack.
const STACK: usize = 192 << 10;

/// What a source says now.
pub(super) struct Said {
    /// `None`: nothing new.
    pub(super) list: Option<Vec<Instance>>,
    /// When it should be asked again.
    pub(super) wait: Duration,
}

/// Where endpoints come from.
pub(super) trait Source: Send + 'static {
    /// Asks, and waits for an answer for some seconds at most.
    fn ask(&mut self) -> io::Result<Said>;
}

/// Rings when a list has changed.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_all();
    }

    /// Waits until it rings, or for so long; whether it has rung.
    pub fn wait(&self, most: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, most, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

#[derive(Debug, Default)]
struct State {
    /// The last good list.
    list: Option<Vec<Instance>>,
    /// It has been asked once, and has answered or failed.
    asked: bool,
}

/// One source as others see it.
#[derive(Debug)]
pub struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Watch {
    pub(super) fn start(name: &str, mut source: impl Source, bell: Arc<Bell>) -> io::Result<Arc<Watch>> {
        let watch = Arc::new(Watch { state: Mutex::default(), changed: Condvar::new() });
        let (weak, name) = (Arc::downgrade(&watch), name.to_owned());
        let builder = thread::Builder::new().name("discovery".to_owned()).stack_size(STACK);
        builder.spawn(move || follow(&name, &mut source, &weak, &bell))?;
        Ok(watch)
    }

    /// The last good list; waits for the first until `until`.
    pub fn list(&self, until: Instant) -> Option<Vec<Instance>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(state, left, |state| !state.asked);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.list.clone()
    }

    fn put(&self, list: Option<Vec<Instance>>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked = true;
        let changed = list.is_some() && list != state.list;
        if changed {
            state.list = list;
        }
        self.changed.notify_all();
        changed
    }
}

fn follow(name: &str, source: &mut dyn Source, watch: &Weak<Watch>, bell: &Bell) {
    let mut failures = 0;
    while watch.strong_count() > 0 {
        let said = source.ask();
        let Some(watch_now) = watch.upgrade() else { return };
        let wait = match said {
            Ok(said) => {
                if failures > 0 && said.list.is_some() {
                    daemon::info!("endpoints are found again", source = name);
                    failures = 0;
                }
                if watch_now.put(said.list) {
                    bell.ring();
                }
                said.wait
            }
            Err(error) => {
                if failures == 0 {
                    daemon::warn!("failed to find endpoints; the last known ones go on", source = name, reason = error);
                }
                failures += 1;
                watch_now.put(None);
                (AGAIN * (1 << failures.min(7))).min(AGAIN_MOST)
            }
        };
        drop(watch_now);
        let until = Instant::now() + wait;
        while watch.strong_count() > 0 && Instant::now() < until {
            thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(500)));
        }
    }
}
