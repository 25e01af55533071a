//! Readers of pods' logs in this process. The files of a pod that is over are removed only when its readers have come to
//! their end: a terminal may be slower than its pod, and what it has not printed yet is in no other place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::mpsc;

type Key = (String, String);

/// Keeps a pod's logs for as long as it lives.
#[derive(Debug)]
pub struct Hold {
    /// Never sent on: its end is the message.
    _alive: mpsc::Sender<()>,
}

/// All holds of an engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds {
    by_pod: Rc<RefCell<BTreeMap<Key, Channel>>>,
}

/// Never sent on; each hold has a copy of the sender.
type Channel = (mpsc::Sender<()>, mpsc::Receiver<()>);

/// Ends when the last hold of one pod does.
#[derive(Debug)]
pub(crate) struct Released(mpsc::Receiver<()>);

impl Holds {
    pub(crate) fn hold(&self, namespace: &str, name: &str) -> Hold {
        let mut by_pod = self.by_pod.borrow_mut();
        let (sender, _) = by_pod.entry((namespace.into(), name.into())).or_insert_with(|| mpsc::channel(1));
        Hold { _alive: sender.clone() }
    }

    /// What to wait for before the pod's logs go; `None` if nobody holds them.
    pub(crate) fn close(&self, namespace: &str, name: &str) -> Option<Released> {
        let (_, receiver) = self.by_pod.borrow_mut().remove(&(namespace.into(), name.into()))?;
        Some(Released(receiver))
    }
}

impl Released {
    /// Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        let _ = self.0.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_hold_releases() {
        let holds = Holds::default();
        assert!(holds.close("default", "web").is_none());
        let (first, second) = (holds.hold("default", "web"), holds.hold("default", "web"));
        let mut released = holds.close("default", "web").expect("it is held");
        drop(first);
        assert!(tokio::time::timeout(Duration::from_millis(5), released.wait()).await.is_err());
        drop(second);
        released.wait().await;
    }
}
