//! The way out: somebody triggers, everybody sees the deadline.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// As good as never: what has been handed over may end when it likes.
const LEISURE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How the end has begun.
#[derive(Clone, Copy, Debug)]
struct End {
    deadline: Instant,
    handed_over: bool,
}

/// The trigger; kept by the runtime.
#[derive(Debug)]
pub(crate) struct Trigger {
    sender: watch::Sender<Option<End>>,
}

impl Trigger {
    pub(crate) fn new() -> (Trigger, Drain) {
        let (sender, receiver) = watch::channel(None);
        (Trigger { sender }, Drain { receiver })
    }

    /// Begins the drain; a later call does not move the deadline, unless it was none.
    pub(crate) fn pull(&self, timeout: Duration) {
        self.sender.send_if_modified(|end| {
            let deadline = Instant::now() + timeout;
            match end {
                None => *end = Some(End { deadline, handed_over: false }),
                Some(End { deadline: later, handed_over: true }) if *later > deadline => *later = deadline,
                Some(_) => return false,
            }
            true
        });
    }

    /// Somebody else goes on: everything here may end when it likes.
    pub(crate) fn hand_over(&self) {
        self.sender.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| End { deadline: Instant::now() + LEISURE, handed_over: true });
            first
        });
    }
}

/// Seen by every part.
#[derive(Clone, Debug)]
pub struct Drain {
    receiver: watch::Receiver<Option<End>>,
}

impl Drain {
    /// Resolves when the drain begins, with the time by which everything must be over.
    pub async fn begun(&mut self) -> Instant {
        loop {
            if let Some(end) = *self.receiver.borrow_and_update() {
                return end.deadline;
            }
            if self.receiver.changed().await.is_err() {
                // The runtime is gone: there is no time left.
                return Instant::now();
            }
        }
    }

    /// As [`Drain::begun`], and again each time the deadline has come closer, which happens only after a hand-over.
    pub async fn next(&mut self) -> Instant {
        match self.receiver.changed().await {
            Ok(()) => self.deadline().unwrap_or_else(Instant::now),
            Err(_) => Instant::now(),
        }
    }

    /// The deadline, once the drain has begun.
    pub fn deadline(&self) -> Option<Instant> {
        self.receiver.borrow().map(|end| end.deadline)
    }

    /// Another process has the sockets and serves: nobody new is to be let in, and nobody has to hurry.
    pub fn is_handed_over(&self) -> bool {
        self.receiver.borrow().is_some_and(|end| end.handed_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hand_over_is_hurried() {
        let (trigger, drain) = Trigger::new();
        trigger.hand_over();
        let never = drain.deadline().unwrap();
        trigger.pull(Duration::from_secs(5));
        let soon = drain.deadline().unwrap();
        assert!(soon < never && drain.is_handed_over());
        trigger.pull(Duration::from_secs(50));
        assert_eq!(drain.deadline(), Some(soon));
        let (trigger, drain) = Trigger::new();
        trigger.pull(Duration::from_secs(5));
        let first = drain.deadline();
        trigger.hand_over();
        trigger.pull(Duration::from_secs(1));
        assert_eq!((drain.deadline(), drain.is_handed_over()), (first, false));
    }
}
