//! Connecting, with Go's words for what can go wrong, and a look at the first bytes of the answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::text;

/// Enough to recognise a protocol and to quote a strange status line.
const FIRST_BYTES: usize = 64;

#[derive(Debug)]
pub(super) enum DialError {
    /// The deadline passed.
    TimedOut(String),
    Failed(String),
}

/// A connection that remembers how the other side began.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    first: FirstBytes,
}

/// Set once the other side has said anything.
pub(super) type FirstBytes = Arc<OnceLock<Vec<u8>>>;

impl DialError {
    pub(super) fn into_text(self) -> String {
        match self {
            DialError::TimedOut(text) | DialError::Failed(text) => text,
        }
    }
}

/// Connects to an address, or to the first address of a name that answers.
pub(super) async fn dial(host: &str, port: u16, deadline: Option<Instant>) -> Result<TcpStream, DialError> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => lookup(host, port, deadline).await?,
    };
    let mut first = None;
    for address in addresses {
        let failed = match within(deadline, TcpStream::connect(address)).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => DialError::Failed(format!("dial tcp {address}: connect: {}", text::errno(&error))),
            None => DialError::TimedOut(format!("dial tcp {address}: i/o timeout")),
        };
        if matches!(failed, DialError::TimedOut(_)) {
            return Err(first.unwrap_or(failed));
        }
        first.get_or_insert(failed);
    }
    Err(first.unwrap_or_else(|| DialError::Failed(format!("dial tcp: lookup {host}: no such host"))))
}

async fn lookup(host: &str, port: u16, deadline: Option<Instant>) -> Result<Vec<SocketAddr>, DialError> {
    match within(deadline, tokio::net::lookup_host((host, port))).await {
        Some(Ok(addresses)) => Ok(addresses.collect()),
        Some(Err(_)) => Err(DialError::Failed(format!("dial tcp: lookup {host}: no such host"))),
        None => Err(DialError::TimedOut(format!("dial tcp: lookup {host}: i/o timeout"))),
    }
}

/// `None` when the deadline came first.
pub(super) async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> (Self, FirstBytes) {
        let first = FirstBytes::default();
        (Self { stream, first: first.clone() }, first)
    }

    /// `read tcp LOCAL->REMOTE`, the beginning of what Go says about a connection that breaks.
    pub(super) fn place(&self) -> String {
        match (self.stream.local_addr(), self.stream.peer_addr()) {
            (Ok(local), Ok(peer)) => format!("read tcp {local}->{peer}"),
            _ => "read tcp".to_owned(),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            self.first.get_or_init(|| new[..new.len().min(FIRST_BYTES)].to_vec());
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
