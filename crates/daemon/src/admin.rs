//! `/livez /readyz /healthz /metrics` for everybody; what changes something only on a Unix socket, because the
//! application shares the pod's loopback.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::config::Seconds;
use crate::hand_over::{self, ASKING, READY};
use crate::health::Report;
use crate::log::{self, Level};
use crate::metrics::Exposition;
use crate::{info, warn};

/// Open connections; a probe needs one, a scraper another.
const CONNECTIONS: usize = 32;
/// For a request's head.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asked of the running program from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Reload,
    Drain {
        /// Newcomers are served for this long.
        at_least: Option<Duration>,
    },
    /// The process with this id has the sockets and is ready.
    HandedOver(Option<i32>),
}

/// A program's own pages, by path.
pub type Pages = Box<dyn Fn(&str) -> Option<String>>;

/// A program's endless answers, by path and query; only on the Unix socket.
pub type Streams = Box<dyn Fn(&str, &str) -> Option<mpsc::Receiver<Bytes>>>;

/// All sockets, by name.
pub type Sockets = Box<dyn Fn() -> Vec<(String, OwnedFd)>>;

/// What the endpoints need of a program.
pub struct Endpoints {
    pub ready: Box<dyn Fn(&mut Report)>,
    pub metrics: Box<dyn Fn(&mut Exposition)>,
    pub pages: Pages,
    pub streams: Streams,
    /// For a new process that takes over; `None`: this program does not hand over.
    pub sockets: Option<Sockets>,
    /// Somebody has been given the sockets and is not ready yet, or has taken over.
    pub taken: Cell<bool>,
    pub prefix: &'static str,
    pub commands: mpsc::Sender<Command>,
}

impl Endpoints {
    pub fn is_ready(&self) -> bool {
        let mut report = Report::default();
        (self.ready)(&mut report);
        report.is_ready()
    }
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Binds; `[::]` also takes IPv4, and where there is no IPv6 the same port of IPv4 is taken.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    match (TcpListener::bind(address).await, address.strip_prefix("[::]:")) {
        (Err(_), Some(port)) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        (bound, _) => bound,
    }
}

/// Binds the socket for commands, for this user alone. A stale one, to which nobody listens, is replaced.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Whatever the umask is.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves for ever; must run within a `LocalSet`. Whoever has been connected longest makes room for newcomers, so that nobody
/// can keep probes out by holding connections.
pub async fn serve(listener: TcpListener, endpoints: Rc<Endpoints>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let Some(stream) = accepted(listener.accept().await.map(|(stream, _)| stream)).await else { continue };
        open.retain(|connection| !connection.is_finished());
        if open.len() == CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let task = tokio::task::spawn_local(connection::<TcpStream>(stream, Rc::clone(&endpoints), false));
        open.push_back(task.abort_handle());
    }
}

/// Like [`serve`], with the endpoints that change something.
pub async fn serve_socket(listener: UnixListener, endpoints: Rc<Endpoints>) {
    loop {
        let Some(stream) = accepted(listener.accept().await.map(|(stream, _)| stream)).await else { continue };
        let endpoints = Rc::clone(&endpoints);
        tokio::task::spawn_local(async move {
            if asks_for_sockets(&stream).await {
                if let Err(error) = hand_over(stream, &endpoints).await {
                    warn!("not handed over; this process goes on", reason = error);
                }
                return;
            }
            connection(stream, endpoints, true).await;
        });
    }
}

/// Looks at the first bytes, which stay to be read.
async fn asks_for_sockets(stream: &UnixStream) -> bool {
    let mut bytes = [0; ASKING.len()];
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        let peeked = stream.try_io(Interest::READABLE, || {
            Ok(rustix::net::recv(stream, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0)
        });
        match peeked {
            // Written in one piece, it arrives in one piece.
            Ok(length) => return length == ASKING.len() && bytes == ASKING,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}

/// Hands over to one process at a time: two that both serve would each think that it is the only one.
async fn hand_over(mut stream: UnixStream, endpoints: &Endpoints) -> io::Result<()> {
    let mut asking = [0; ASKING.len()];
    // Also before a refusal, which would not arrive where something is left unread.
    stream.read_exact(&mut asking).await?;
    let Some(sockets) = &endpoints.sockets else {
        return stream.write_all(b"this program does not hand over\n").await;
    };
    if endpoints.taken.replace(true) {
        return stream.write_all(b"another process is taking over\n").await;
    }
    let outcome = hand_over_to(stream, sockets, endpoints).await;
    endpoints.taken.set(outcome.is_ok());
    outcome
}

/// Gives all sockets away and waits for the word that the new process serves.
async fn hand_over_to(stream: UnixStream, sockets: &Sockets, endpoints: &Endpoints) -> io::Result<()> {
    let successor = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
    let all = sockets();
    info!("handing over", sockets = all.len(), to = successor.unwrap_or_default());
    let blocking = stream.into_std()?;
    hand_over::give(&blocking, &all)?;
    drop(all);
    blocking.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(blocking)?;
    let mut ready = [0; READY.len()];
    // The other one ends, or fails to start: the end of the connection says so.
    stream.read_exact(&mut ready).await?;
    if ready != READY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the new process said something else than ready"));
    }
    let said = endpoints.commands.send(Command::HandedOver(successor)).await;
    said.map_err(|_| io::Error::other("nobody listens to commands"))
}

async fn accepted<S>(stream: io::Result<S>) -> Option<S> {
    if stream.is_err() {
        // Out of descriptors, most likely; spinning would not bring them back.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stream.ok()
}

async fn connection<S>(stream: S, endpoints: Rc<Endpoints>, privileged: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &endpoints, privileged);
        async move { Ok::<_, Infallible>(response) }
    });
    // A client that misbehaves loses its connection and nobody else cares.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// An answer's body.
#[derive(Debug)]
enum Answer {
    Whole(Full<Bytes>),
    Endless(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Whole(body) => Pin::new(body).poll_frame(context),
            Answer::Endless(receiver) => {
                receiver.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Whole(body) => body.is_end_stream(),
            Answer::Endless(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(body) => body.size_hint(),
            Answer::Endless(_) => SizeHint::default(),
        }
    }
}

fn answer(request: &Request<Incoming>, endpoints: &Endpoints, privileged: bool) -> Response<Answer> {
    let query = request.uri().query().unwrap_or_default();
    let verbose = query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => text(StatusCode::OK, Report::default().text("livez", verbose)),
        (&Method::GET | &Method::HEAD, path @ ("/readyz" | "/healthz")) => {
            let mut report = Report::default();
            (endpoints.ready)(&mut report);
            let status = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            text(status, report.text(&path[1..], verbose))
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let accept = request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
            let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
            let mut out = Exposition::new(endpoints.prefix, open);
            (endpoints.metrics)(&mut out);
            let kind = if open {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            } else {
                "text/plain; version=0.0.4; charset=utf-8"
            };
            respond(StatusCode::OK, kind, out.finish())
        }
        (&Method::POST, "/-/reload") if privileged => command(endpoints, Command::Reload),
        (&Method::POST, "/-/drain") if privileged => match query.strip_prefix("atLeast=").map(Seconds::parse) {
            None if query.is_empty() => command(endpoints, Command::Drain { at_least: None }),
            Some(Some(time)) => command(endpoints, Command::Drain { at_least: Some(time.0) }),
            _ => text(StatusCode::BAD_REQUEST, "atLeast must be a duration\n".to_owned()),
        },
        (&Method::POST, "/-/log-level") if privileged => match Level::parse(query.trim_start_matches("level=")) {
            Some(level) => {
                log::set_level(level);
                text(StatusCode::OK, "ok\n".to_owned())
            }
            None => text(StatusCode::BAD_REQUEST, "level must be error, warn, info or debug\n".to_owned()),
        },
        (_, "/-/reload" | "/-/drain" | "/-/log-level") if !privileged => {
            text(StatusCode::FORBIDDEN, "only on the Unix socket\n".to_owned())
        }
        (&Method::GET, path) if privileged && path.starts_with("/-/") => match (endpoints.streams)(path, query) {
            Some(receiver) => Response::new(Answer::Endless(receiver)),
            None => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
        },
        (&Method::GET | &Method::HEAD, path) => match (endpoints.pages)(path) {
            Some(page) => text(StatusCode::OK, page),
            None => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
        },
        _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
    }
}

fn command(endpoints: &Endpoints, command: Command) -> Response<Answer> {
    match endpoints.commands.try_send(command) {
        Ok(()) => text(StatusCode::ACCEPTED, "accepted\n".to_owned()),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "busy\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Answer> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
