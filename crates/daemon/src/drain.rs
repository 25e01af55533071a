//! The way out: somebody triggers, everybody sees the deadline.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// As good as never: what has been handed over may end when it likes.
const LEISURE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How the end has begun.
#[derive(Clone, Copy, Debug)]
struct End {
    deadline: Instant,
    /// Whoever comes before is let in; `None`: the program decides.
    open_until: Option<Instant>,
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

    /// Begins the drain, in which newcomers are served for `at_least`. A later call does not move the deadline, unless it
    /// was none; without `at_least` it turns newcomers away if the first call had one.
    pub(crate) fn pull(&self, timeout: Duration, at_least: Option<Duration>) {
        self.sender.send_if_modified(|end| {
            let now = Instant::now();
            let deadline = now + timeout;
            match end {
                None => {
                    let open_until = at_least.map(|time| now + time.min(timeout));
                    *end = Some(End { deadline, open_until, handed_over: false });
                }
                Some(End { deadline: later, handed_over: true, .. }) if *later > deadline => *later = deadline,
                Some(End { open_until: Some(until), .. }) if at_least.is_none() && *until > now => *until = now,
                Some(_) => return false,
            }
            true
        });
    }

    /// Somebody else goes on: everything here may end when it likes.
    pub(crate) fn hand_over(&self) {
        self.sender.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| End { deadline: Instant::now() + LEISURE, open_until: None, handed_over: true });
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

    /// As [`Drain::begun`], and again each time something of it has come closer.
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

    /// Until when newcomers are let in, if whoever began the drain has said it.
    pub fn open_until(&self) -> Option<Instant> {
        self.receiver.borrow().and_then(|end| end.open_until)
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
        trigger.pull(Duration::from_secs(5), None);
        let soon = drain.deadline().unwrap();
        assert!(soon < never && drain.is_handed_over());
        trigger.pull(Duration::from_secs(50), None);
        assert_eq!(drain.deadline(), Some(soon));
        let (trigger, drain) = Trigger::new();
        trigger.pull(Duration::from_secs(5), None);
        let first = drain.deadline();
        trigger.hand_over();
        trigger.pull(Duration::from_secs(1), None);
        assert_eq!((drain.deadline(), drain.is_handed_over()), (first, false));
    }
    #[test]
    fn a_signal_after_the_command_lets_nobody_in_any_more() {
        let (trigger, drain) = Trigger::new();
        trigger.pull(Duration::from_secs(20), Some(Duration::from_secs(60)));
        let deadline = drain.deadline().unwrap();
        assert_eq!(drain.open_until(), Some(deadline));
        trigger.pull(Duration::from_secs(20), None);
        assert!(drain.open_until().unwrap() <= Instant::now() && drain.deadline() == Some(deadline));
        let (trigger, drain) = Trigger::new();
        trigger.pull(Duration::from_secs(20), None);
        assert_eq!(drain.open_until(), None);
    }
}
