//! The way out: somebody triggers, everybody sees the deadline.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The trigger; kept by the runtime.
#[derive(Debug)]
pub(crate) struct Trigger {
    sender: watch::Sender<Option<Instant>>,
}

impl Trigger {
    pub(crate) fn new() -> (Trigger, Drain) {
        let (sender, receiver) = watch::channel(None);
        (Trigger { sender }, Drain { receiver })
    }

    /// Begins the drain; a later call does not move the deadline.
    pub(crate) fn pull(&self, timeout: Duration) {
        self.sender.send_if_modified(|deadline| {
            let first = deadline.is_none();
            deadline.get_or_insert_with(|| Instant::now() + timeout);
            first
        });
    }
}

/// Seen by every part.
#[derive(Clone, Debug)]
pub struct Drain {
    receiver: watch::Receiver<Option<Instant>>,
}

impl Drain {
    /// Resolves when the drain begins, with the time by which everything must be over.
    pub async fn begun(&mut self) -> Instant {
        loop {
            if let Some(deadline) = *self.receiver.borrow_and_update() {
                return deadline;
            }
            if self.receiver.changed().await.is_err() {
                // The runtime is gone: there is no time left.
                return Instant::now();
            }
        }
    }

    /// The deadline, once the drain has begun.
    pub fn deadline(&self) -> Option<Instant> {
        *self.receiver.borrow()
    }
}
