//! Pods that other engines drive.

use std::path::PathBuf;

use pod_engine::Message;
use pod_engine::control::{Reply, Request, ask};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::terminal::label::PodKey;

/// What another engine said.
#[derive(Debug)]
pub(crate) enum Heard {
    News(Box<Message>),
    Refused {
        key: PodKey,
        message: String,
    },
    /// The engine has nothing more to say about these, or is gone.
    Ended {
        keys: Vec<PodKey>,
    },
}

/// All conversations, merged.
#[derive(Debug)]
pub(crate) struct Remotes {
    sender: UnboundedSender<Heard>,
    receiver: UnboundedReceiver<Heard>,
}

impl Default for Remotes {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self { sender, receiver }
    }
}

impl Remotes {
    /// Sends a request and listens to everything that comes of it.
    pub(crate) fn ask(&self, socket: PathBuf, keys: Vec<PodKey>, request: Request) {
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            // Whatever breaks the conversation, the session learns that it is over.
            if let Ok(mut replies) = ask(&socket, &request).await {
                while let Ok(Some(reply)) = replies.next().await {
                    let heard = match reply {
                        Reply::News(message) => Heard::News(Box::new(message)),
                        Reply::Refused { namespace, name, message } => {
                            Heard::Refused { key: (namespace, name), message }
                        }
                        Reply::End => break,
                    };
                    let _ = sender.send(heard);
                }
            }
            let _ = sender.send(Heard::Ended { keys });
        });
    }

    /// Sends a request whose consequences are heard in another conversation.
    pub(crate) fn tell(&self, socket: PathBuf, request: Request) {
        tokio::task::spawn_local(async move {
            if let Ok(mut replies) = ask(&socket, &request).await {
                while let Ok(Some(_)) = replies.next().await {}
            }
        });
    }

    pub(crate) async fn next(&mut self) -> Option<Heard> {
        self.receiver.recv().await
    }
}
