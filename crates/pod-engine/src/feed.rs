//! What an engine tells people about its pods while it happens. The same messages serve the terminal of `run` (in the
//! process) and a client of the background engine (one JSON line each over its socket).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodStatus;
use pod_image::PullProgress;
use pod_plan::Notice;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// How many messages a client may fall behind. A pod's start is some dozens, so that is a client that does not read.
const BACKLOG: usize = 1024;
/// When many pods are asked for at once, all their first messages come at once.
const BACKLOG_PER_POD: usize = 64;

/// `namespace/name` of the pod a message is about, with the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    pub namespace: String,
    pub name: String,
    pub news: News,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum News {
    /// The pod is this engine's now: new, adopted, or already there.
    Accepted { uid: String, containers: Vec<String> },
    /// A Kubernetes event.
    Notice(Notice),
    /// The projected status changed.
    Status(Box<PodStatus>),
    /// An image is being pulled.
    Pull { container: String, image: String, progress: PullProgress },
    /// The pod came to its end; `exit_code` as `run` reports it.
    Finished { phase: String, exit_code: i32 },
    /// Every container is down and has said its last word. Its logs are removed when this process's holds on them
    /// ([`crate::Engine::hold`]) are dropped; told only where there are any.
    Ended,
    /// Nothing of the pod is left.
    Removed,
    /// The engine could not do something it promised; it goes on.
    Trouble(String),
}

/// Fan-out to whoever listens. A slow listener only harms itself.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    listeners: Rc<RefCell<Vec<Listener>>>,
}

#[derive(Debug)]
enum Listener {
    /// In this process. It reads as fast as the engine writes (they share the thread), and may miss nothing.
    Viewer(mpsc::UnboundedSender<Message>),
    /// In this process, and only interested in pods that end.
    Ends(mpsc::UnboundedSender<Message>),
    /// Behind a socket. `_here` goes when it has fallen behind too far.
    Client { pods: BTreeSet<(String, String)>, sender: mpsc::Sender<Message>, _here: oneshot::Sender<()> },
}

/// A client's end of the feed.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) messages: mpsc::Receiver<Message>,
    /// Resolves (to an error) as soon as the client has lost a message.
    pub(crate) lost: oneshot::Receiver<()>,
}

// === impl Feed ===

impl Feed {
    /// Everything, for a viewer in this process.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Message> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.borrow_mut().push(Listener::Viewer(sender));
        receiver
    }

    /// [`News::Finished`] and [`News::Removed`] of every pod: so that who waits for the last one sleeps otherwise.
    pub fn subscribe_ends(&self) -> mpsc::UnboundedReceiver<Message> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.borrow_mut().push(Listener::Ends(sender));
        receiver
    }

    /// What happens to `pods` (namespace, name), for a client that may not read.
    pub(crate) fn subscribe_client(&self, pods: BTreeSet<(String, String)>) -> Subscription {
        let (sender, messages) = mpsc::channel(BACKLOG.max(pods.len() * BACKLOG_PER_POD));
        let (here, lost) = oneshot::channel();
        self.listeners.borrow_mut().push(Listener::Client { pods, sender, _here: here });
        Subscription { messages, lost }
    }

    pub(crate) fn send(&self, namespace: &str, name: &str, news: News) {
        let message = Message { namespace: namespace.into(), name: name.into(), news };
        self.listeners.borrow_mut().retain(|listener| listener.hear(&message));
    }
}

// === impl Listener ===

impl Listener {
    /// False when it is gone or has fallen behind: then it is forgotten.
    fn hear(&self, message: &Message) -> bool {
        match self {
            Listener::Viewer(sender) => sender.send(message.clone()).is_ok(),
            Listener::Ends(sender) => match message.news {
                News::Finished { .. } | News::Removed => sender.send(message.clone()).is_ok(),
                _ => !sender.is_closed(),
            },
            Listener::Client { pods, sender, .. } => {
                let wanted =
                    pods.iter().any(|(namespace, name)| *namespace == message.namespace && *name == message.name);
                if wanted { sender.try_send(message.clone()).is_ok() } else { !sender.is_closed() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hears_of_its_pods_only_and_is_dropped_when_it_falls_behind() {
        let feed = Feed::default();
        let mut viewer = feed.subscribe();
        let mut ends = feed.subscribe_ends();
        let mut client = feed.subscribe_client(BTreeSet::from([("default".to_owned(), "web".to_owned())]));
        feed.send("default", "other", News::Removed);
        for number in 0..BACKLOG + 10 {
            feed.send("default", "web", News::Trouble(number.to_string()));
        }
        assert!(matches!(client.lost.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let heard: Vec<Message> = std::iter::from_fn(|| client.messages.try_recv().ok()).collect();
        assert_eq!(heard.len(), BACKLOG);
        assert!(heard.iter().all(|message| message.name == "web"));
        assert_eq!(std::iter::from_fn(|| viewer.try_recv().ok()).count(), BACKLOG + 11);
        assert_eq!(std::iter::from_fn(|| ends.try_recv().ok()).count(), 1);
        drop((viewer, ends));
        feed.send("default", "web", News::Removed);
        assert!(feed.listeners.borrow().is_empty());
    }
}
