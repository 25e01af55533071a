//! Talking to an engine in another process: one JSON document a line over its Unix socket. A client sends one
//! [`Request`]; the engine answers with [`Reply`] lines until [`Reply::End`].

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::engine::{Engine, PodRequest};
use crate::feed::{Message, News};

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Run (or update) the pods, and stream what happens to them. The engine goes on when the client leaves.
    Run { pods: Vec<PodRequest> },
    /// Take over pods whose engine died.
    Adopt { pods: Vec<(String, String)> },
    /// Stop pods and stream until they are removed. `grace` in seconds; `None` is each pod's own.
    Stop { pods: Vec<(String, String)>, grace: Option<u64> },
    /// Stream what happens to pods that run already.
    Watch { pods: Vec<(String, String)> },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    News(Message),
    Refused {
        namespace: String,
        name: String,
        message: String,
    },
    /// Nothing more will come of this request.
    End,
}

/// Binds the engine's socket, replacing one whose engine is dead.
pub fn bind(socket: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(socket) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(socket).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(socket)?;
            UnixListener::bind(socket)
        }
        other => other,
    }
}

/// Serves requests for as long as it is polled.
pub async fn serve(engine: Engine, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(answer(engine.clone(), stream));
            }
            // Out of file descriptors: wait for some to be given back rather than spin.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

async fn answer(engine: Engine, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let Ok(Some(line)) = lines.next_line().await else { return };
    let Ok(request) = serde_json::from_str::<Request>(&line) else { return };
    // Subscribed before anything begins, so that nothing is missed.
    let mut messages = engine.feed().subscribe();
    let (mut awaited, until_removed, refused) = begin(&engine, request);
    for (namespace, name, message) in refused {
        if send(&mut write, &Reply::Refused { namespace, name, message }).await.is_err() {
            return;
        }
    }
    while !awaited.is_empty() {
        let Some(message) = messages.recv().await else { break };
        let key = (message.namespace.clone(), message.name.clone());
        if !awaited.contains(&key) {
            continue;
        }
        let ended = match message.news {
            News::Removed => true,
            News::Finished { .. } => !until_removed,
            _ => false,
        };
        if send(&mut write, &Reply::News(message)).await.is_err() {
            return;
        }
        if ended {
            awaited.retain(|other| *other != key);
        }
    }
    let _ = send(&mut write, &Reply::End).await;
}

type Key = (String, String);

/// Starts what was asked; returns the pods to report on, whether until they are removed, and the refusals.
fn begin(engine: &Engine, request: Request) -> (Vec<Key>, bool, Vec<(String, String, String)>) {
    let mut awaited = Vec::new();
    let mut refused = Vec::new();
    let mut note = |key: Key, result: Result<(), crate::engine::RunError>| match result {
        Ok(()) => awaited.push(key),
        Err(error) => refused.push((key.0, key.1, crate::chain(&error))),
    };
    let until_removed = matches!(request, Request::Stop { .. });
    match request {
        Request::Run { pods } => {
            for pod in pods {
                note((pod.namespace().into(), pod.name().into()), engine.run(pod));
            }
        }
        Request::Adopt { pods } => {
            for key in pods {
                let result = engine.adopt(&key.0, &key.1);
                note(key, result);
            }
        }
        Request::Stop { pods, grace } => {
            for key in pods {
                let result = engine.stop(&key.0, &key.1, grace);
                note(key, result);
            }
        }
        Request::Watch { pods } => {
            for key in pods {
                let result = if engine.drives(&key.0, &key.1) {
                    Ok(())
                } else {
                    Err(crate::engine::RunError::Unknown(format!("{}/{}", key.0, key.1)))
                };
                note(key, result);
            }
        }
    }
    (awaited, until_removed, refused)
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// The replies to one request.
#[derive(Debug)]
pub struct Replies {
    lines: tokio::io::Lines<BufReader<UnixStream>>,
}

/// Sends a request to the engine at `socket`.
pub async fn ask(socket: &Path, request: &Request) -> io::Result<Replies> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(Replies { lines: BufReader::new(stream).lines() })
}

impl Replies {
    /// `None`: the engine is gone or has said [`Reply::End`].
    pub async fn next(&mut self) -> io::Result<Option<Reply>> {
        let Some(line) = self.lines.next_line().await? else { return Ok(None) };
        match serde_json::from_str(&line)? {
            Reply::End => Ok(None),
            reply => Ok(Some(reply)),
        }
    }
}
