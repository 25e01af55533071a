//! port-forward: connections of the client's side on one side, connections to the pod's loopback on the other.
//!
//! In SPDY a connection is two streams of one `requestid`: `error`, for a text why it failed, and `data`. They come in any
//! order; the connection is made when both are there. A half-close travels both ways. In WebSocket channels every port of
//! the URL is one connection, made at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use pod_api::failure::Failure;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::channel::{Demultiplexer, FORWARD, Protocol};
use super::upgrade::{self, Offer};
use super::wire::{self, CHUNK, Gone, Sender};
use super::{Context, CurrentPod, Refusal, require_node, spdy, target, websocket};
use crate::body::Body;
use crate::machine::{ContainerRef, Machine};
use crate::query::Query;

const SPDY_VERSION: &str = "portforward.k8s.io";
/// SPDY frames in WebSocket messages.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Pieces (of at most a read's size) that wait for a connection of the pod's.
const WAITING: usize = 4;
/// Most streams at a time; two are a connection.
const MOST_STREAMS: usize = 2048;
/// Channel numbers are a byte, two for each port, and 255 is taken.
const MOST_PORTS: usize = 127;
/// How long the second stream of a connection may take (kubelet's `streamCreationTimeout`).
const PAIR_WITHIN: Duration = Duration::from_secs(30);
/// How often is looked whether the pod is still there.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn serve(
    cx: Context,
    pod: &Value,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    require_node(pod)?;
    let headers = request.headers();
    let target = Target { machine: cx.machine.clone(), pod: target(pod, "") };
    let gone = watch_pod(cx.current.clone(), target.pod.uid.clone());
    match upgrade::offered(headers)? {
        Offer::Spdy => {
            let (response, _) = upgrade::to_spdy(headers, &[SPDY_VERSION])?;
            cx.spawn(over_spdy(request, target, false, gone));
            Ok(response)
        }
        Offer::WebSocket if upgrade::subprotocols(headers).contains(&TUNNEL) => {
            let response = upgrade::to_websocket(headers, TUNNEL)?;
            cx.spawn(over_spdy(request, target, true, gone));
            Ok(response)
        }
        Offer::WebSocket => {
            let ports = ports(query)?;
            let protocol = upgrade::choose(headers, FORWARD)?;
            let response = upgrade::to_websocket(headers, protocol.name)?;
            cx.spawn(over_channels(request, target, protocol, ports, gone));
            Ok(response)
        }
    }
}

/// The ports of the URL: repeated, or separated by commas.
fn ports(query: &Query) -> Result<Vec<u16>, Failure> {
    let texts: Vec<&str> = query.all("ports").flat_map(|text| text.split(',')).collect();
    if texts.is_empty() {
        return Err(Failure::bad_request("query parameter \"port\" is required"));
    }
    if texts.len() > MOST_PORTS {
        return Err(Failure::bad_request(format!("no more than {MOST_PORTS} ports can be forwarded at once")));
    }
    texts.into_iter().map(|text| port(text).map_err(Failure::bad_request)).collect()
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("unable to parse {text:?} as a port")),
    }
}

/// Resolves when the pod is gone, is another one, or runs no more.
async fn watch_pod(current: CurrentPod, uid: String) {
    let mut known = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(object) = current() else { return };
        if object.revision == known {
            continue;
        }
        known = object.revision;
        let Ok(pod) = serde_json::from_slice::<Value>(&object.json) else { continue };
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if ended || pod["metadata"]["uid"] != uid.as_str() {
            return;
        }
    }
}

/// Where connections go.
#[derive(Clone)]
struct Target {
    machine: Arc<dyn Machine>,
    pod: ContainerRef,
}

/// What the client sends on a connection.
enum Said {
    Bytes(Bytes),
    End,
}

/// Our half of a connection to the client.
#[derive(Clone)]
enum Teller {
    Spdy { writer: spdy::Writer, data: u32, error: u32 },
    Channels { protocol: Protocol, sender: Sender, data: u8, error: u8 },
}

// === one connection ===

impl Target {
    /// Makes the connection and carries bytes until the pod's side has ended.
    async fn carry(self, port: u16, said: mpsc::Receiver<Said>, teller: Teller) -> Result<(), Gone> {
        let ContainerRef { namespace, pod, uid, .. } = self.pod;
        let dialled = self.machine.dial(namespace, pod.clone(), uid.clone(), port).await;
        let connection = dialled.and_then(|stream| {
            let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            ready.map_err(|error| error.to_string())
        });
        match connection {
            Ok(connection) => {
                let _ = connection.set_nodelay(true);
                copy(connection, said, &teller).await?;
            }
            Err(text) => {
                let text = format!("error forwarding port {port} to pod {pod}, uid {uid}: {text}");
                teller.error(&text).await?;
            }
        }
        teller.end().await
    }
}

async fn copy(connection: TcpStream, mut said: mpsc::Receiver<Said>, teller: &Teller) -> Result<(), Gone> {
    let (mut from, mut to) = connection.into_split();
    let up = async {
        let mut broken = false;
        loop {
            match said.recv().await {
                // Taken also when nobody wants it: it would stand in the way of the other connections.
                Some(Said::Bytes(bytes)) => broken = broken || to.write_all(&bytes).await.is_err(),
                Some(Said::End) => {
                    let _ = to.shutdown().await;
                }
                None => return std::future::pending().await,
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        // A reset by the pod's side is an end like others: a text about it would make kubectl give up all connections.
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            teller.data(&buffer[..length]).await?;
        }
        Ok(())
    };
    tokio::select! {
        () = up => Ok(()),
        done = down => done,
    }
}

// === impl Teller ===

impl Teller {
    async fn data(&self, bytes: &[u8]) -> Result<(), Gone> {
        match self {
            Teller::Spdy { writer, data, .. } => writer.data(*data, bytes, false).await,
            Teller::Channels { protocol, sender, data, .. } => sender.payload(protocol.message(*data, bytes)).await,
        }
    }

    async fn error(&self, text: &str) -> Result<(), Gone> {
        match self {
            Teller::Spdy { writer, error, .. } => writer.data(*error, text.as_bytes(), false).await,
            Teller::Channels { protocol, sender, error, .. } => {
                sender.payload(protocol.message(*error, text.as_bytes())).await
            }
        }
    }

    async fn end(&self) -> Result<(), Gone> {
        let Teller::Spdy { writer, data, error } = self else { return Ok(()) };
        writer.data(*error, b"", true).await?;
        writer.data(*data, b"", true).await
    }
}

// === over SPDY ===

async fn over_spdy(request: Request<Incoming>, target: Target, tunnel: bool, gone: impl Future<Output = ()>) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let (receiving, mut sending) = tokio::io::split(TokioIo::new(upgraded));
    let (sender, queue) = wire::queue();
    let writer = spdy::Writer::new(sender, tunnel);
    let reader = spdy::Reader::new(receiving, writer.clone());
    let connections = Connections {
        target,
        writer,
        streams: HashMap::new(),
        pairs: HashMap::new(),
        tasks: JoinSet::new(),
        any: false,
    };
    // Whatever ends first ends all; the connections' tasks end with their set.
    tokio::select! {
        _ = queue.drain(&mut sending) => {}
        _ = connections.serve(reader) => {}
        () = gone => {}
    }
}

struct Connections {
    target: Target,
    writer: spdy::Writer,
    streams: HashMap<u32, Stream>,
    /// Connections of which one stream is there, by request.
    pairs: HashMap<String, Pair>,
    /// Each returns its data and error streams.
    tasks: JoinSet<(u32, u32)>,
    /// A stream has been accepted.
    any: bool,
}

enum Stream {
    /// Nothing is expected on it.
    Error,
    Data {
        /// `None` after its end.
        say: Option<mpsc::Sender<Said>>,
        /// Once the connection is begun: its task, and its error stream.
        task: Option<(AbortHandle, u32)>,
    },
}

struct Pair {
    since: Instant,
    port: u16,
    error: Option<u32>,
    data: Option<(u32, mpsc::Receiver<Said>)>,
}

impl Connections {
    async fn serve(mut self, mut reader: spdy::Reader<tokio::io::ReadHalf<TokioIo<Upgraded>>>) -> Result<(), Gone> {
        loop {
            // Both are cancel-safe.
            let frame = tokio::select! {
                Some(done) = self.tasks.join_next() => {
                    if let Ok((data, error)) = done {
                        self.streams.remove(&data);
                        self.streams.remove(&error);
                    }
                    continue;
                }
                frame = reader.next() => frame,
            };
            match frame {
                Ok(Some(spdy::Frame::Open { stream, headers, ended })) => self.open(stream, &headers, ended).await?,
                Ok(Some(spdy::Frame::Data { stream, bytes, ended })) => self.data(stream, bytes, ended).await,
                Ok(Some(spdy::Frame::Reset { stream })) => self.reset(stream).await?,
                Ok(Some(spdy::Frame::GoAway | spdy::Frame::Ping(_) | spdy::Frame::Other)) => {}
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }

    async fn open(&mut self, stream: u32, headers: &spdy::Headers, ended: bool) -> Result<(), Gone> {
        self.forget_single_streams().await?;
        let port = spdy::header(headers, "port").and_then(|text| port(text).ok());
        let data = match spdy::header(headers, "streamtype") {
            Some("data") => Some(true),
            Some("error") => Some(false),
            _ => None,
        };
        let (Some(port), Some(data)) = (port, data) else {
            return self.writer.reset(stream, spdy::PROTOCOL_ERROR).await;
        };
        if self.streams.len() >= MOST_STREAMS || self.streams.contains_key(&stream) {
            return self.writer.reset(stream, spdy::REFUSED).await;
        }
        // Clients from before there were requests open error and then data, so that the numbers tell.
        let request = spdy::header(headers, "requestid").map(str::to_owned);
        let request = request.unwrap_or_else(|| format!("of {}", if data { stream.saturating_sub(2) } else { stream }));
        let fresh = || Pair { since: Instant::now(), port, error: None, data: None };
        let pair = self.pairs.entry(request.clone()).or_insert_with(fresh);
        if if data { pair.data.is_some() } else { pair.error.is_some() } {
            return self.writer.reset(stream, spdy::PROTOCOL_ERROR).await;
        }
        if data {
            let (say, said) = mpsc::channel(WAITING);
            pair.data = Some((stream, said));
            self.streams.insert(stream, Stream::Data { say: Some(say), task: None });
        } else {
            pair.error = Some(stream);
            self.streams.insert(stream, Stream::Error);
        }
        let complete = pair.data.is_some() && pair.error.is_some();
        self.writer.accept(stream, !std::mem::replace(&mut self.any, true)).await?;
        if complete
            && let Some(Pair { port, error: Some(error), data: Some((data, said)), .. }) = self.pairs.remove(&request)
        {
            let teller = Teller::Spdy { writer: self.writer.clone(), data, error };
            let carried = self.target.clone().carry(port, said, teller);
            let begun = self.tasks.spawn(async move {
                // Gone is noticed by who reads.
                let _ = carried.await;
                (data, error)
            });
            if let Some(Stream::Data { task, .. }) = self.streams.get_mut(&data) {
                *task = Some((begun, error));
            }
        }
        if ended {
            self.data(stream, Bytes::new(), true).await;
        }
        Ok(())
    }

    /// Waits while the connection has too much waiting, and with it all others: there are no windows (see [`spdy`]).
    async fn data(&mut self, stream: u32, bytes: Bytes, ended: bool) {
        // What comes for a stream that has ended meanwhile is nobody's.
        let Some(Stream::Data { say, .. }) = self.streams.get_mut(&stream) else { return };
        let Some(open) = say else { return };
        if !bytes.is_empty() {
            let _ = open.send(Said::Bytes(bytes)).await;
        }
        if ended {
            let _ = open.send(Said::End).await;
            *say = None;
        }
    }

    /// The client has given up a stream, and with it the connection; it waits for the end of the other one.
    async fn reset(&mut self, stream: u32) -> Result<(), Gone> {
        let Some(Stream::Data { task: Some((task, error)), .. }) = self.streams.get(&stream) else { return Ok(()) };
        let (task, error) = (task.clone(), *error);
        self.streams.remove(&stream);
        self.streams.remove(&error);
        if task.is_finished() {
            return Ok(());
        }
        task.abort();
        self.writer.end_at_once(error).await
    }

    async fn forget_single_streams(&mut self) -> Result<(), Gone> {
        let old: Vec<String> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.since.elapsed() > PAIR_WITHIN)
            .map(|(request, _)| request.clone())
            .collect();
        for pair in old.iter().filter_map(|request| self.pairs.remove(request)).collect::<Vec<_>>() {
            for stream in pair.error.into_iter().chain(pair.data.map(|(stream, _)| stream)) {
                self.streams.remove(&stream);
                self.writer.reset(stream, spdy::REFUSED).await?;
            }
        }
        Ok(())
    }
}

// === over WebSocket channels ===

async fn over_channels(
    request: Request<Incoming>,
    target: Target,
    protocol: Protocol,
    ports: Vec<u16>,
    gone: impl Future<Output = ()>,
) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let (receiving, mut sending) = tokio::io::split(TokioIo::new(upgraded));
    let (sender, queue) = wire::queue();
    let (mut says, mut connections) = (Vec::new(), Vec::new());
    for (index, port) in ports.into_iter().enumerate() {
        let (say, said) = mpsc::channel(WAITING);
        says.push(say);
        let (data, error) = (index as u8 * 2, index as u8 * 2 + 1);
        let teller = Teller::Channels { protocol, sender: sender.clone(), data, error };
        let target = target.clone();
        connections.push(async move {
            // The first message of a channel is the port.
            if let Teller::Channels { sender, .. } = &teller {
                sender.payload(protocol.message(data, &port.to_le_bytes())).await?;
                sender.payload(protocol.message(error, &port.to_le_bytes())).await?;
            }
            target.carry(port, said, teller).await
        });
    }
    let listening = listen(websocket::Reader::new(receiving), protocol, says, sender.clone());
    let telling = async move {
        for ended in futures_util::future::join_all(connections).await {
            ended?;
        }
        sender.payload(websocket::close(websocket::NORMAL)).await
    };
    tokio::select! {
        () = wire::converse(queue.drain(&mut sending), telling, listening) => {}
        () = gone => {}
    }
}

async fn listen<R: AsyncRead + Unpin>(
    mut reader: websocket::Reader<R>,
    protocol: Protocol,
    says: Vec<mpsc::Sender<Said>>,
    sender: Sender,
) {
    let mut demultiplexer = Demultiplexer::new(protocol);
    loop {
        match reader.next().await {
            Ok(Some(websocket::Event::Piece { first, last, bytes })) => {
                let Ok(piece) = demultiplexer.piece(first, last, bytes) else { return };
                let Some((channel, bytes)) = piece else { continue };
                // Error channels are ours alone.
                let say = (channel % 2 == 0).then(|| says.get(usize::from(channel / 2))).flatten();
                if let (Some(say), false) = (say, bytes.is_empty()) {
                    let _ = say.send(Said::Bytes(bytes)).await;
                }
            }
            Ok(Some(websocket::Event::Ping(payload))) => sender.control_or_never(websocket::pong(&payload)),
            Ok(Some(websocket::Event::Pong)) => {}
            Ok(Some(websocket::Event::Close) | None) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_from_the_url() {
        let ports = |text: &str| ports(&Query::parse(text)).map_err(|failure| failure.message);
        assert_eq!(ports("ports=80,8080&ports=443"), Ok(vec![80, 8080, 443]));
        assert_eq!(ports("ports=0").unwrap_err(), "port \"0\" must be > 0");
        assert_eq!(ports("ports=70000").unwrap_err(), "unable to parse \"70000\" as a port");
        assert!(ports("").is_err());
    }
}
