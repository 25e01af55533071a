//! What an engine tells people about its pods while it happens. The same messages serve the terminal of `run` (in the
//! process) and a client of the background engine (one JSON line each over its socket).

use std::cell::RefCell;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodStatus;
use pod_image::PullProgress;
use pod_plan::Notice;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

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
    /// Nothing of the pod is left.
    Removed,
    /// The engine could not do something it promised; it goes on.
    Trouble(String),
}

/// Fan-out to whoever listens. A slow listener only delays itself.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    listeners: Rc<RefCell<Vec<mpsc::UnboundedSender<Message>>>>,
}

impl Feed {
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Message> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.borrow_mut().push(sender);
        receiver
    }

    pub(crate) fn send(&self, namespace: &str, name: &str, news: News) {
        let message = Message { namespace: namespace.into(), name: name.into(), news };
        self.listeners.borrow_mut().retain(|listener| listener.send(message.clone()).is_ok());
    }
}
