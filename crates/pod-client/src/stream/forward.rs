//! port-forward: one connection to a port of a pod is one WebSocket (`v4.channel.k8s.io` with the port in the URL): channel 0
//! carries the bytes, channel 1 says why there is no connection. Each begins with the port as two bytes.
//!
//! kubectl puts all connections into one tunnel of SPDY frames; separate ones cannot stand in each other's way.

use std::io;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::websocket::{BINARY, Incoming, PING, PONG, Reader, Writer};
use crate::client::Client;
use crate::failure::CallError;
use crate::query::Query;

const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;
const PING_EVERY: Duration = Duration::from_secs(5);
/// Most bytes of the server's words.
const MOST_WORDS: usize = 64 * 1024;

/// A connection to a port of a pod.
#[derive(Debug)]
pub struct Forward {
    reader: Reader<ReadHalf<TokioIo<Upgraded>>>,
    writer: Writer<WriteHalf<TokioIo<Upgraded>>>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// The server's words.
    Refused(String),
}

impl Forward {
    /// `path` is the pod's `portforward`.
    ///
    /// # Errors
    /// No server, or a refusal. Whether the port answers is told later.
    pub async fn open(client: &Client, path: &str, port: u16) -> Result<Forward, CallError> {
        let path = Query::new(path).with("ports", &port.to_string()).into_string();
        let (io, _) = client.websocket(&path, PROTOCOL).await?;
        let (reading, writing) = tokio::io::split(io);
        Ok(Forward { reader: Reader::new(reading), writer: Writer::new(writing) })
    }

    /// Carries bytes both ways until the pod's side has ended.
    ///
    /// # Errors
    /// One of the two connections broke.
    pub async fn carry(self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<Ended> {
        let Forward { mut reader, mut writer } = self;
        let (answers, mut pings) = mpsc::unbounded_channel();
        let listening = async {
            let mut heads = Heads::default();
            let mut words = Vec::new();
            while let Some(incoming) = reader.next().await? {
                match incoming {
                    Incoming::Piece { first, bytes } => match heads.strip(first, &bytes) {
                        Some((DATA, bytes)) if !bytes.is_empty() => to.write_all(bytes).await?,
                        Some((ERROR, bytes)) if words.len() < MOST_WORDS => words.extend_from_slice(bytes),
                        _ => {}
                    },
                    Incoming::Ping(payload) => {
                        // If nobody sends any more there is nothing to keep alive.
                        let _ = answers.send(payload);
                    }
                    Incoming::Pong => {}
                }
            }
            to.shutdown().await?;
            match words.is_empty() {
                true => Ok(Ended::Done),
                false => Ok(Ended::Refused(String::from_utf8_lossy(&words).into_owned())),
            }
        };
        let telling = async {
            let mut buffer = vec![0; 32 * 1024];
            let mut every = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut open = true;
            loop {
                // Each of these is cancel-safe; sending happens after the choice.
                let sent = tokio::select! {
                    length = from.read(&mut buffer), if open => match length {
                        // There is no way to say that only this direction has ended: the pod's side ends the connection.
                        Ok(0) => { open = false; Ok(()) }
                        Ok(length) => writer.send(BINARY, &[&[DATA], &buffer[..length]]).await,
                        // The local client is gone, and so is the reason for all of this.
                        Err(_) => return writer.close().await,
                    },
                    Some(payload) = pings.recv() => writer.send(PONG, &[&payload]).await,
                    _ = every.tick() => writer.send(PING, &[]).await,
                };
                if sent.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            ended = listening => ended,
            closed = telling => closed.map(|()| Ended::Done),
        }
    }
}

/// Takes the channel's number off each message, and the port off the first one of each channel.
#[derive(Debug, Default)]
struct Heads {
    channel: Option<u8>,
    /// Bytes of the port that have come, by channel.
    seen: [usize; 2],
}

impl Heads {
    fn strip<'a>(&mut self, first: bool, mut bytes: &'a [u8]) -> Option<(u8, &'a [u8])> {
        if first {
            self.channel = None;
        }
        let channel = match self.channel {
            Some(channel) => channel,
            None => {
                let (number, rest) = bytes.split_first()?;
                bytes = rest;
                *self.channel.insert(*number)
            }
        };
        let seen = self.seen.get_mut(usize::from(channel))?;
        let skip = (2 - *seen).min(bytes.len());
        *seen += skip;
        Some((channel, &bytes[skip..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_comes_once_for_each_channel() {
        let mut heads = Heads::default();
        assert_eq!(heads.strip(true, b"\x00\x50\x00"), Some((DATA, &b""[..])));
        assert_eq!(heads.strip(true, b"\x01\x50"), Some((ERROR, &b""[..])));
        assert_eq!(heads.strip(false, b"\x00no"), Some((ERROR, &b"no"[..])));
        assert_eq!(heads.strip(true, b"\x00ab"), Some((DATA, &b"ab"[..])));
        assert_eq!(heads.strip(true, b"\x07ab"), None);
    }
}
