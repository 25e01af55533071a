//! exec and attach: a session's descriptors on one side, WebSocket channels or SPDY streams on the other.
//!
//! ```text
//!            stdin, resize                       stdin
//!   client ───────────────▶ listening ─────────────────────▶ ┐
//!          ◀─────────────── telling ◀── stdout, stderr ───── │ session
//!             output,            └───── how it ended ◀────── ┘
//!             then the end
//! ```
//! The end is told after both outputs have ended *and* the process has: what a process left behind still writes is output
//! of the session, as upstream has it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pod_api::failure::Failure;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, Interest};
use tokio::sync::watch;

use super::channel::{self, Demultiplexer, Protocol, REMOTE};
use super::descriptor::Descriptor;
use super::upgrade::{self, Offer};
use super::wire::{self, CHUNK, Gone, Sender};
use super::{Context, Refusal, container, flag, require_node, spdy, target, websocket};
use crate::body::Body;
use crate::machine::{Ended, Session, StreamError, StreamRequest};
use crate::query::Query;

/// The channels' numbers.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Versions of the SPDY form. 5 is 4 here: what it adds is WebSocket's.
const SPDY_VERSIONS: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a client may take to open its streams (kubelet's `streamCreationTimeout`).
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// kubectl gives up a minute after the last sign of life, and nobody reads its pings while the container takes no input.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Most bytes of one size of a terminal.
const MOST_RESIZE: usize = 1024;
/// Most bytes of input that come before all streams are open.
const MOST_EARLY: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Exec,
    Attach,
}

pub(super) async fn serve(
    cx: Context,
    pod: &Value,
    action: Action,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let chosen = container::choose(pod, query.text("container"))?;
    let wanted = wanted(query, action)?;
    require_node(pod)?;
    let headers = request.headers();
    let (response, form) = match upgrade::offered(headers)? {
        Offer::WebSocket => {
            let protocol = upgrade::choose(headers, REMOTE)?;
            (upgrade::to_websocket(headers, protocol.name)?, Form::WebSocket(protocol))
        }
        Offer::Spdy => {
            let (response, version) = upgrade::to_spdy(headers, SPDY_VERSIONS)?;
            (response, Form::Spdy(version))
        }
    };
    let target = target(pod, &chosen);
    let session = match action {
        Action::Exec => cx.machine.exec(target, wanted.clone()).await,
        Action::Attach => cx.machine.attach(target, joinable(pod, &chosen, &wanted)).await,
    };
    let session = match session {
        Ok(session) => Ok(session),
        Err(error @ StreamError::NotRunning(_)) => {
            return Err(Refusal::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
        }
        // The client hears it the way it hears how a process ended.
        Err(StreamError::Failed(text)) => Err(text),
    };
    cx.spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let conversation = Conversation { action, wanted, session };
        match form {
            Form::WebSocket(protocol) => conversation.over_websocket(TokioIo::new(upgraded), protocol).await,
            Form::Spdy(version) => conversation.over_spdy(TokioIo::new(upgraded), version).await,
        }
    });
    Ok(response)
}

enum Form {
    WebSocket(Protocol),
    Spdy(&'static str),
}

/// # Errors
/// 400 for a request that wants nothing.
fn wanted(query: &Query, action: Action) -> Result<StreamRequest, Failure> {
    let tty = flag(query, "tty");
    let wanted = StreamRequest {
        command: query.all("command").map(str::to_owned).collect(),
        stdin: flag(query, "stdin"),
        stdout: flag(query, "stdout"),
        // A terminal has one output.
        stderr: flag(query, "stderr") && !tty,
        tty,
    };
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    if action == Action::Exec && wanted.command.iter().all(String::is_empty) {
        return Err(Failure::bad_request("you must specify at least one command for the container"));
    }
    Ok(wanted)
}

/// Whether there is a terminal was decided when the container started, and input needs to have been kept open for it.
fn joinable(pod: &Value, container: &str, wanted: &StreamRequest) -> StreamRequest {
    let spec = container::spec_of(pod, container).unwrap_or(&Value::Null);
    let (stdin, tty) = (spec["stdin"] == true, spec["tty"] == true);
    let stdin = stdin && wanted.stdin;
    StreamRequest { command: Vec::new(), stdin, stderr: wanted.stderr && !tty, tty, ..wanted.clone() }
}

/// What the client says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Input {
    Stdin(Bytes),
    StdinEnd,
    Resize(Bytes),
    Other,
}

/// The client's half to us.
enum Listener<R> {
    WebSocket { reader: websocket::Reader<R>, demultiplexer: Demultiplexer, closes: bool, sender: Sender },
    Spdy { reader: Box<spdy::Reader<R>>, writer: spdy::Writer, streams: Streams, early: VecDeque<Input> },
}

/// Our half to the client.
#[derive(Clone)]
enum Teller {
    WebSocket { protocol: Protocol, sender: Sender },
    Spdy { writer: spdy::Writer, streams: Streams, status: bool },
}

/// The SPDY streams by what they carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Streams {
    /// By channel number.
    ids: [Option<u32>; 5],
    last: u32,
}

struct Conversation {
    action: Action,
    wanted: StreamRequest,
    session: Result<Session, String>,
}

// === impl Conversation ===

impl Conversation {
    async fn over_websocket<IO: AsyncRead + tokio::io::AsyncWrite>(self, io: IO, protocol: Protocol) {
        let (receiving, mut sending) = tokio::io::split(io);
        let (sender, queue) = wire::queue();
        let listener = Listener::WebSocket {
            reader: websocket::Reader::new(receiving),
            demultiplexer: Demultiplexer::new(protocol),
            closes: protocol.close,
            sender: sender.clone(),
        };
        self.run(queue.drain(&mut sending), listener, Teller::WebSocket { protocol, sender }).await;
    }

    async fn over_spdy<IO: AsyncRead + tokio::io::AsyncWrite>(self, io: IO, version: &'static str) {
        let (receiving, mut sending) = tokio::io::split(io);
        let (sender, queue) = wire::queue();
        let writer = spdy::Writer::new(sender, false);
        let mut reader = spdy::Reader::new(receiving, writer.clone());
        let old = matches!(version, "v2.channel.k8s.io" | "channel.k8s.io");
        let mut expected = vec![ERROR];
        let wanted = &self.wanted;
        for (channel, wanted) in
            [(STDIN, wanted.stdin), (STDOUT, wanted.stdout), (STDERR, wanted.stderr), (RESIZE, wanted.tty && !old)]
        {
            expected.extend(wanted.then_some(channel));
        }
        let mut writing = std::pin::pin!(queue.drain(&mut sending));
        let opened = tokio::select! {
            _ = &mut writing => return,
            opened = tokio::time::timeout(STREAMS_WITHIN, open_streams(&mut reader, &writer, &expected)) => opened,
        };
        let Ok(Some((streams, early))) = opened else { return };
        let status = !matches!(version, "v3.channel.k8s.io" | "v2.channel.k8s.io" | "channel.k8s.io");
        let listener = Listener::Spdy { reader: Box::new(reader), writer: writer.clone(), streams, early };
        self.run(writing, listener, Teller::Spdy { writer, streams, status }).await;
    }

    async fn run<R: AsyncRead + Unpin>(
        self,
        writing: impl Future<Output = io::Result<()>>,
        listener: Listener<R>,
        teller: Teller,
    ) {
        let Conversation { action, wanted, session } = self;
        let (told, over) = watch::channel(false);
        let (stdin, outputs, resize, end) = match session {
            Ok(session) => (session.stdin, [session.stdout, session.stderr], session.resize, Ok(session.end)),
            Err(text) => (None, [None, None], None, Err(text)),
        };
        let stdin = stdin.and_then(|stdin| Descriptor::new(stdin, Interest::WRITABLE).ok());
        let telling = async move {
            teller.ready(&wanted).await?;
            let [stdout, stderr] = outputs;
            let end = async {
                match end {
                    Ok(end) => end.await,
                    Err(text) => Err(text),
                }
            };
            let (stdout, stderr, end) = tokio::join!(teller.copy(STDOUT, stdout), teller.copy(STDERR, stderr), end);
            stdout.and(stderr)?;
            teller.finish(&wanted, &status(action, end)).await?;
            let _ = told.send(true);
            Ok(())
        };
        wire::converse(writing, telling, listen(listener, stdin, resize, over)).await;
    }
}

/// Until the client is gone.
async fn listen<R: AsyncRead + Unpin>(
    mut listener: Listener<R>,
    mut stdin: Option<Descriptor>,
    resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    mut over: watch::Receiver<bool>,
) {
    let mut sizes = Vec::new();
    let pongs = match &listener {
        Listener::WebSocket { sender, .. } => Some(sender.clone()),
        Listener::Spdy { .. } => None,
    };
    while let Ok(Some(input)) = listener.next().await {
        match input {
            Input::Stdin(bytes) => {
                if let Some(open) = &stdin
                    && !feed(open, &bytes, pongs.as_ref(), &mut over).await
                {
                    // Nobody reads it any more; what still comes is thrown away.
                    stdin = None;
                }
            }
            Input::StdinEnd => {
                if let Some(open) = stdin.take() {
                    open.finish();
                }
            }
            Input::Resize(bytes) => {
                if let Some(resize) = &resize {
                    take_sizes(&mut sizes, &bytes).into_iter().for_each(|(columns, rows)| resize(columns, rows));
                }
            }
            Input::Other => {}
        }
    }
}

/// Whether the container took it. As nobody reads the client's pings meanwhile, it gets pongs unasked (RFC 6455 §5.5.3).
async fn feed(stdin: &Descriptor, bytes: &[u8], pongs: Option<&Sender>, over: &mut watch::Receiver<bool>) -> bool {
    let mut writing = std::pin::pin!(stdin.write_all(bytes));
    loop {
        // The write goes on where it was; the others lose nothing when they are dropped.
        tokio::select! {
            written = &mut writing => return written.is_ok(),
            _ = over.wait_for(|over| *over) => return false,
            () = tokio::time::sleep(SIGN_OF_LIFE) => {
                if let Some(sender) = pongs {
                    sender.control_or_never(websocket::pong(b""));
                }
            }
        }
    }
}

/// Columns and rows from a stream of `{"Width":80,"Height":24}`.
fn take_sizes(pending: &mut Vec<u8>, bytes: &[u8]) -> Vec<(u16, u16)> {
    pending.extend_from_slice(bytes);
    let mut sizes = Vec::new();
    let mut documents = serde_json::Deserializer::from_slice(pending).into_iter::<Value>();
    let mut broken = false;
    for document in documents.by_ref() {
        match document {
            Ok(size) => {
                let side = |name: &str| size[name].as_u64().and_then(|side| u16::try_from(side).ok());
                sizes.extend(side("Width").zip(side("Height")));
            }
            Err(error) => {
                broken = !error.is_eof();
                break;
            }
        }
    }
    let done = documents.byte_offset();
    pending.drain(..done);
    if broken || pending.len() > MOST_RESIZE {
        pending.clear();
    }
    sizes
}

/// Waits for the streams of these channels; with them comes what was said meanwhile.
async fn open_streams<R: AsyncRead + Unpin>(
    reader: &mut spdy::Reader<R>,
    writer: &spdy::Writer,
    expected: &[u8],
) -> Option<(Streams, VecDeque<Input>)> {
    let (mut streams, mut early, mut length) = (Streams::default(), VecDeque::new(), 0);
    while !expected.iter().all(|channel| streams.ids[usize::from(*channel)].is_some()) {
        let frame = reader.next().await.ok()??;
        if let spdy::Frame::Open { stream, headers, ended } = &frame {
            let kind = spdy::header(headers, "streamtype");
            let channel = ["stdin", "stdout", "stderr", "error", "resize"].iter().position(|name| Some(*name) == kind);
            match channel {
                Some(channel) if streams.ids[channel].is_none() => {
                    writer.accept(*stream, streams.last == 0).await.ok()?;
                    streams.ids[channel] = Some(*stream);
                    streams.last = *stream;
                    if *ended {
                        early.extend(streams.input(*stream, Bytes::new(), true));
                    }
                }
                _ => writer.reset(*stream, spdy::PROTOCOL_ERROR).await.ok()?,
            }
        } else if let spdy::Frame::Data { stream, bytes, ended } = frame {
            length += bytes.len();
            if length > MOST_EARLY {
                return None;
            }
            early.extend(streams.input(stream, bytes, ended));
        } else if frame == spdy::Frame::GoAway {
            return None;
        }
    }
    Some((streams, early))
}

/// The `Status` of how it ended.
fn status(action: Action, end: Result<Ended, String>) -> Value {
    match end {
        Ok(Ended::Exited(0) | Ended::Detached) => json!({"metadata": {}, "status": "Success"}),
        // The end of a container that one watches is no failure of the watching.
        Ok(Ended::Exited(_)) if action == Action::Attach => json!({"metadata": {}, "status": "Success"}),
        Ok(Ended::Exited(code)) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(text) => {
            let doing = match action {
                Action::Exec => "executing command in container",
                Action::Attach => "attaching to container",
            };
            Failure::internal(format!("error {doing}: {text}")).to_json()
        }
    }
}

// === impl Streams ===

impl Streams {
    fn of(&self, channel: u8) -> Option<u32> {
        self.ids[usize::from(channel)]
    }

    /// What bytes of a stream mean; two inputs if they are the last ones.
    fn input(&self, stream: u32, bytes: Bytes, ended: bool) -> impl Iterator<Item = Input> + use<> {
        let (stdin, resize) = (self.of(STDIN) == Some(stream), self.of(RESIZE) == Some(stream));
        let said = match (stdin, resize) {
            _ if bytes.is_empty() => None,
            (true, _) => Some(Input::Stdin(bytes)),
            (_, true) => Some(Input::Resize(bytes)),
            _ => None,
        };
        said.into_iter().chain((stdin && ended).then_some(Input::StdinEnd))
    }
}

// === impl Listener ===

impl<R: AsyncRead + Unpin> Listener<R> {
    /// What the client says next; `None` when it is gone.
    async fn next(&mut self) -> io::Result<Option<Input>> {
        match self {
            Listener::WebSocket { reader, demultiplexer, closes, sender } => loop {
                match reader.next().await? {
                    Some(websocket::Event::Piece { first, last, bytes }) => {
                        let piece = demultiplexer.piece(first, last, bytes);
                        let piece = piece.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                        return Ok(Some(match piece {
                            Some((STDIN, bytes)) => Input::Stdin(bytes),
                            Some((RESIZE, bytes)) => Input::Resize(bytes),
                            Some((channel::CLOSE, bytes)) if *closes && bytes.first() == Some(&STDIN) => {
                                Input::StdinEnd
                            }
                            _ => Input::Other,
                        }));
                    }
                    Some(websocket::Event::Ping(payload)) => sender.control_or_never(websocket::pong(&payload)),
                    Some(websocket::Event::Pong) => {}
                    Some(websocket::Event::Close) | None => return Ok(None),
                }
            },
            Listener::Spdy { reader, writer, streams, early } => {
                if let Some(input) = early.pop_front() {
                    return Ok(Some(input));
                }
                match reader.next().await? {
                    Some(spdy::Frame::Data { stream, bytes, ended }) => {
                        early.extend(streams.input(stream, bytes, ended));
                    }
                    Some(spdy::Frame::Reset { stream }) if streams.of(STDIN) == Some(stream) => {
                        return Ok(Some(Input::StdinEnd));
                    }
                    Some(spdy::Frame::Open { stream, .. }) => {
                        let _ = writer.reset(stream, spdy::REFUSED).await;
                    }
                    Some(_) => {}
                    None => return Ok(None),
                }
                Ok(Some(early.pop_front().unwrap_or(Input::Other)))
            }
        }
    }
}

// === impl Teller ===

impl Teller {
    /// An empty message on the first channel of ours says that the streams are there.
    async fn ready(&self, wanted: &StreamRequest) -> Result<(), Gone> {
        let Teller::WebSocket { protocol, sender } = self else { return Ok(()) };
        let channel = match wanted {
            StreamRequest { stdout: true, .. } => STDOUT,
            StreamRequest { stderr: true, .. } => STDERR,
            _ => ERROR,
        };
        sender.payload(protocol.message(channel, b"")).await
    }

    /// An output to its end.
    async fn copy(&self, channel: u8, from: Option<std::os::fd::OwnedFd>) -> Result<(), Gone> {
        let Some(from) = from.and_then(|from| Descriptor::new(from, Interest::READABLE).ok()) else { return Ok(()) };
        let mut buffer = vec![0; CHUNK];
        // A broken output has ended; why, the process's own end will tell.
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            self.tell(channel, &buffer[..length]).await?;
        }
        Ok(())
    }

    async fn tell(&self, channel: u8, bytes: &[u8]) -> Result<(), Gone> {
        match self {
            Teller::WebSocket { protocol, sender } => sender.payload(protocol.message(channel, bytes)).await,
            Teller::Spdy { writer, streams, .. } => match streams.of(channel) {
                Some(stream) => writer.data(stream, bytes, false).await,
                None => Ok(()),
            },
        }
    }

    /// How it ended, and that nothing more comes.
    async fn finish(&self, wanted: &StreamRequest, status: &Value) -> Result<(), Gone> {
        let json = match self {
            Teller::WebSocket { protocol, .. } => protocol.status,
            Teller::Spdy { status, .. } => *status,
        };
        let text = match json {
            true => status.to_string(),
            // Older clients take any text for a failure.
            false => status["message"].as_str().unwrap_or_default().to_owned(),
        };
        if !text.is_empty() {
            self.tell(ERROR, text.as_bytes()).await?;
        }
        match self {
            Teller::WebSocket { sender, .. } => sender.payload(websocket::close(websocket::NORMAL)).await,
            Teller::Spdy { writer, streams, .. } => {
                for (channel, there) in [(STDOUT, wanted.stdout), (STDERR, wanted.stderr), (ERROR, true)] {
                    if let (Some(stream), true) = (streams.of(channel), there) {
                        writer.data(stream, b"", true).await?;
                    }
                }
                writer.go_away(streams.last).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_stream_of_documents() {
        let mut pending = Vec::new();
        assert_eq!(take_sizes(&mut pending, b"{\"Width\":80,\"Height\":24}\n{\"Wid"), [(80, 24)]);
        assert_eq!(take_sizes(&mut pending, b"th\":100,\"Height\":30}"), [(100, 30)]);
        assert_eq!(take_sizes(&mut pending, b"{\"Width\":70000,\"Height\":1}{}"), []);
        assert_eq!(take_sizes(&mut pending, b"nonsense"), []);
        assert_eq!(take_sizes(&mut pending, b"{\"Width\":1,\"Height\":2}"), [(1, 2)]);
    }

    #[test]
    fn ends_are_told_as_upstream_does() {
        let exit = status(Action::Exec, Ok(Ended::Exited(3)));
        assert_eq!(exit["reason"], "NonZeroExitCode");
        assert_eq!(exit["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(status(Action::Exec, Ok(Ended::Exited(0))), json!({"metadata": {}, "status": "Success"}));
        assert_eq!(status(Action::Attach, Ok(Ended::Exited(3)))["status"], "Success");
        let failed = status(Action::Exec, Err("no such file".into()));
        assert_eq!(failed["reason"], "InternalError");
        assert_eq!(failed["message"], "Internal error occurred: error executing command in container: no such file");
    }

    #[test]
    fn requests_are_checked() {
        let ask = |text: &str| wanted(&Query::parse(text), Action::Exec).map_err(|failure| failure.message);
        assert_eq!(ask("command=a").unwrap_err(), "you must specify at least 1 of stdin, stdout, stderr");
        assert!(ask("stdout=1").is_err());
        let tty = ask("command=sh&command=-c&stdin=true&stdout=1&stderr=true&tty=true").unwrap();
        assert_eq!(tty.command, ["sh", "-c"]);
        assert!(tty.tty && tty.stdin && !tty.stderr);
        let pod = json!({"spec": {"containers": [{"name": "a", "stdin": true}]}});
        let joined = joinable(&pod, "a", &tty);
        assert!(joined.stdin && !joined.tty && joined.command.is_empty());
    }
}
