//! Talking to an engine in another process: one JSON document a line over its Unix socket. A client sends one
//! [`Request`]; the engine answers with [`Reply`] lines until [`Reply::End`].

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::engine::{Engine, PodRequest};
use crate::feed::{Message, News, Subscription};

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

impl Request {
    /// The pods it is about, by namespace and name.
    fn pods(&self) -> BTreeSet<Key> {
        match self {
            Request::Run { pods } => pods.iter().map(|pod| (pod.namespace().into(), pod.name().into())).collect(),
            Request::Adopt { pods } | Request::Stop { pods, .. } | Request::Watch { pods } => {
                pods.iter().cloned().collect()
            }
        }
    }
}

/// Longest request, in bytes: a manifest with all its objects is a megabyte at most, as in a cluster.
const LONGEST_REQUEST: u64 = 16 << 20;
/// How long a client may take from connecting to the end of its request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Connections not yet accepted: an engine that is busy for a moment refuses nobody.
const BACKLOG: i32 = 1024;
/// How long a client that has fallen behind has for the last word.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Binds the engine's socket for root alone, replacing one whose engine is dead.
pub fn bind(socket: &Path) -> io::Result<UnixListener> {
    let near = Near::to(socket)?;
    let listener = match near.listen() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if answers(socket) {
                return Err(error);
            }
            std::fs::remove_file(socket)?;
            near.listen()?
        }
        other => other?,
    };
    UnixListener::from_std(listener)
}

/// Whether an engine listens there. Only a refused connection and a missing socket say that there is none.
pub fn answers(socket: &Path) -> bool {
    let connected = Near::to(socket).and_then(|near| std::os::unix::net::UnixStream::connect(&near.path));
    match connected {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

/// A socket by a short name. Its address holds 107 bytes (unix(7)) and a state root may be deeper than that, so the
/// name goes through a descriptor of its directory.
struct Near {
    path: PathBuf,
    _directory: OwnedFd,
}

impl Near {
    fn to(socket: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: directory })
    }

    fn listen(&self) -> io::Result<std::os::unix::net::UnixListener> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the mode that the socket has when it is bound, so it is never open to others.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&self.path)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket.into())
    }
}

/// Serves requests for as long as it is polled.
pub async fn serve(engine: Engine, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let engine = engine.clone();
                tokio::task::spawn_local(async move { answer(&engine, stream).await });
            }
            // Out of file descriptors: wait for some to be given back rather than spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(engine: &Engine, stream: UnixStream) {
    let (read, write) = stream.into_split();
    let (mut read, mut pen) = (BufReader::new(read), Pen::new(write));
    let request = match read_request(&mut read).await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(message) => {
            // Whose pods were meant is not known. A client that is gone needs no answer.
            let key = (String::new(), String::new());
            let _ = tokio::time::timeout(LAST_WORD, pen.last_word(&[key], &message)).await;
            return;
        }
    };
    // Subscribed before anything begins, so that nothing is missed.
    let subscription = engine.feed().subscribe_client(request.pods());
    let (awaited, until_removed, refused) = begin(engine, request);
    for (namespace, name, message) in refused {
        if pen.write(&Reply::Refused { namespace, name, message }).await.is_err() {
            return;
        }
    }
    converse(read, pen, subscription, awaited, until_removed).await;
}

/// One line of at most [`LONGEST_REQUEST`], within [`REQUEST_DEADLINE`]. `None`: the client left without asking. An
/// error is what to tell the client.
async fn read_request(read: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    let mut limited = read.take(LONGEST_REQUEST + 1);
    let reading = limited.read_until(b'\n', &mut line);
    match tokio::time::timeout(REQUEST_DEADLINE, reading).await {
        Err(_) => Err(format!("the request did not come within {} s", REQUEST_DEADLINE.as_secs())),
        Ok(Ok(_)) if line.ends_with(b"\n") => serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| format!("the request is not understood (another version of outrigger?): {error}")),
        Ok(Ok(_)) if line.len() as u64 > LONGEST_REQUEST => {
            Err(format!("the request is longer than {} MiB", LONGEST_REQUEST >> 20))
        }
        Ok(Ok(_) | Err(_)) => Ok(None),
    }
}

/// Tells the client what it waits for, until that is over, the client is gone, or it does not keep up.
async fn converse<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    read: R,
    mut pen: Pen<W>,
    subscription: Subscription,
    mut awaited: Vec<Key>,
    until_removed: bool,
) {
    let Subscription { mut messages, lost } = subscription;
    // Whatever is interrupted here, the pen knows what is left of its line, and `awaited` who is.
    tokio::select! {
        biased;
        _ = lost => {
            let message = "this client does not read what the engine tells it; the pods go on";
            let _ = tokio::time::timeout(LAST_WORD, pen.last_word(&awaited, message)).await;
        }
        () = gone(read) => {}
        () = tell(&mut pen, &mut messages, &mut awaited, until_removed) => {}
    }
}

async fn tell<W: AsyncWrite + Unpin>(
    pen: &mut Pen<W>,
    messages: &mut mpsc::Receiver<Message>,
    awaited: &mut Vec<Key>,
    until_removed: bool,
) {
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
        if pen.write(&Reply::News(message)).await.is_err() {
            return;
        }
        if ended {
            awaited.retain(|other| *other != key);
        }
    }
    let _ = pen.write(&Reply::End).await;
}

/// Returns when the client has closed its end. It has nothing to say after its request.
async fn gone(mut read: impl AsyncRead + Unpin) {
    let mut ignored = [0; 64];
    while read.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
}

/// Writes replies; cancelled in the middle of one, it can still finish the line.
struct Pen<W> {
    write: W,
    line: Vec<u8>,
    written: usize,
}

impl<W: AsyncWrite + Unpin> Pen<W> {
    fn new(write: W) -> Self {
        Self { write, line: Vec::new(), written: 0 }
    }

    async fn write(&mut self, reply: &Reply) -> io::Result<()> {
        self.finish_line().await?;
        self.line = serde_json::to_vec(reply)?;
        self.line.push(b'\n');
        self.written = 0;
        self.finish_line().await
    }

    async fn finish_line(&mut self) -> io::Result<()> {
        while self.written < self.line.len() {
            match self.write.write(&self.line[self.written..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                length => self.written += length,
            }
        }
        Ok(())
    }

    /// Refuses whatever is still awaited, and ends.
    async fn last_word(&mut self, awaited: &[Key], message: &str) -> io::Result<()> {
        for (namespace, name) in awaited.iter().cloned() {
            self.write(&Reply::Refused { namespace, name, message: message.into() }).await?;
        }
        self.write(&Reply::End).await
    }
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

/// The replies to one request.
#[derive(Debug)]
pub struct Replies {
    lines: tokio::io::Lines<BufReader<UnixStream>>,
}

/// Sends a request to the engine at `socket`.
pub async fn ask(socket: &Path, request: &Request) -> io::Result<Replies> {
    let near = Near::to(socket)?;
    let mut stream = UnixStream::connect(&near.path).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match stream.write_all(&line).await {
        // Refused before it was read to its end: the answer says why.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
        other => other?,
    }
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

#[cfg(test)]
mod tests;
