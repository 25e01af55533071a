//! exec and attach: a process' input and outputs as channels of a WebSocket (`v5.channel.k8s.io`, `v4` of older servers).
//!
//! The first byte of a message names the channel. Version 5 can end one: `255 N`. How the process ended comes last, as a
//! Status on channel 3.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::websocket::{BINARY, Incoming, PING, PONG, Reader, Writer};
use crate::client::Client;
use crate::failure::{CallError, Status};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

const PROTOCOLS: &str = "v5.channel.k8s.io, v4.channel.k8s.io";
/// Sign of life in both directions, as often as kubectl gives one.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Most bytes of the last word on the error channel.
const MOST_WORDS: usize = 64 * 1024;

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Success,
    /// The process' exit code, and the server's words.
    Code(i32, String),
    Failed(Status),
    /// The connection closed without a word.
    Lost,
}

/// A terminal's columns and rows.
pub type Size = (u16, u16);

/// A running session.
#[derive(Debug)]
pub struct Remote {
    reader: Reader<ReadHalf<TokioIo<Upgraded>>>,
    writer: Writer<WriteHalf<TokioIo<Upgraded>>>,
    half_close: bool,
}

impl Remote {
    /// # Errors
    /// No server, or a refusal before anything ran.
    pub async fn open(client: &Client, path: &str) -> Result<Remote, CallError> {
        let (io, protocol) = client.websocket(path, PROTOCOLS).await?;
        let (reading, writing) = tokio::io::split(io);
        let half_close = protocol.starts_with("v5");
        Ok(Remote { reader: Reader::new(reading), writer: Writer::new(writing), half_close })
    }

    /// Carries bytes until the process has ended. `sizes` are the terminal's, whenever it changes.
    ///
    /// # Errors
    /// Reading `stdin` or writing `stdout` or `stderr` failed, or the connection broke.
    pub async fn carry(
        self,
        stdin: Option<impl AsyncRead + Unpin>,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
        sizes: mpsc::UnboundedReceiver<Size>,
    ) -> io::Result<Ended> {
        let Remote { mut reader, writer, half_close } = self;
        let (answers, pings) = mpsc::unbounded_channel();
        let listening = listen(&mut reader, &mut stdout, &mut stderr, &answers);
        let telling = tell(writer, half_close, stdin, sizes, pings);
        // Our side has nothing to say any more long before the process has.
        tokio::select! {
            ended = listening => ended,
            failure = telling => Err(failure),
        }
    }
}

async fn listen(
    reader: &mut Reader<impl AsyncRead + Unpin>,
    stdout: &mut (impl AsyncWrite + Unpin),
    stderr: &mut (impl AsyncWrite + Unpin),
    answers: &mpsc::UnboundedSender<Bytes>,
) -> io::Result<Ended> {
    let mut channel = None;
    let mut words: Vec<u8> = Vec::new();
    while let Some(incoming) = reader.next().await? {
        let mut bytes = match incoming {
            Incoming::Ping(payload) => {
                // If nobody sends any more there is nothing to keep alive.
                let _ = answers.send(payload);
                continue;
            }
            Incoming::Pong => continue,
            Incoming::Piece { first, bytes } => {
                if first {
                    channel = None;
                }
                bytes
            }
        };
        let channel = match channel {
            Some(channel) => channel,
            None if bytes.is_empty() => continue,
            None => *channel.insert(bytes.split_to(1)[0]),
        };
        match channel {
            STDOUT if !bytes.is_empty() => {
                stdout.write_all(&bytes).await?;
                stdout.flush().await?;
            }
            STDERR if !bytes.is_empty() => {
                stderr.write_all(&bytes).await?;
                stderr.flush().await?;
            }
            ERROR if words.len() < MOST_WORDS => words.extend_from_slice(&bytes),
            // Ends of outputs say nothing that the last word does not.
            _ => {}
        }
    }
    Ok(ended(&words))
}

fn ended(words: &[u8]) -> Ended {
    if words.is_empty() {
        return Ended::Lost;
    }
    let Ok(value) = serde_json::from_slice::<Value>(words) else {
        return Ended::Failed(Status::read(500, words));
    };
    if value["status"] == "Success" {
        return Ended::Success;
    }
    let status = Status::from(&value);
    let code =
        status.causes.iter().find(|cause| cause.reason == "ExitCode").and_then(|cause| cause.message.parse().ok());
    match code {
        Some(code) if status.reason == "NonZeroExitCode" => Ended::Code(code, status.message),
        _ => Ended::Failed(status),
    }
}

/// Never ends well: it is dropped when the server has said its last word.
async fn tell(
    mut writer: Writer<impl AsyncWrite + Unpin>,
    half_close: bool,
    mut stdin: Option<impl AsyncRead + Unpin>,
    mut sizes: mpsc::UnboundedReceiver<Size>,
    mut pings: mpsc::UnboundedReceiver<Bytes>,
) -> io::Error {
    let mut buffer = vec![0; 32 * 1024];
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Each of these is cancel-safe; sending happens after the choice. What is typed meets a terminal that has its size.
        let sent = tokio::select! {
            biased;
            Some((columns, rows)) = sizes.recv() => {
                let text = format!("{{\"Width\":{columns},\"Height\":{rows}}}");
                writer.send(BINARY, &[&[RESIZE], text.as_bytes()]).await
            }
            Some(payload) = pings.recv() => writer.send(PONG, &[&payload]).await,
            _ = every.tick() => writer.send(PING, &[]).await,
            length = read(&mut stdin, &mut buffer) => match length {
                Ok(0) => {
                    stdin = None;
                    if half_close { writer.send(BINARY, &[&[CLOSE, STDIN]]).await } else { Ok(()) }
                }
                Ok(length) => writer.send(BINARY, &[&[STDIN], &buffer[..length]]).await,
                Err(error) => return error,
            },
        };
        if sent.is_err() {
            // The process may have ended in this moment: the reader has the last word.
            return std::future::pending().await;
        }
    }
}

async fn read(stdin: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.read(buffer).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_tells_how_it_ended() {
        assert_eq!(ended(br#"{"metadata":{},"status":"Success"}"#), Ended::Success);
        let code = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with exit code 3",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(ended(code), Ended::Code(3, "command terminated with exit code 3".to_owned()));
        assert!(matches!(ended(br#"{"status":"Failure","reason":"InternalError"}"#), Ended::Failed(_)));
        assert!(matches!(ended(b"plain text"), Ended::Failed(_)));
        assert_eq!(ended(b""), Ended::Lost);
    }

    #[tokio::test]
    async fn a_terminal_has_its_size_before_anything_is_typed() {
        for _ in 0..32 {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            let (size, sizes) = mpsc::unbounded_channel();
            let (_answers, pings) = mpsc::unbounded_channel();
            size.send((77, 33)).unwrap();
            let mut frame = [0; 7];
            tokio::select! {
                failure = tell(Writer::new(ours), true, Some(&b"typed"[..]), sizes, pings) => panic!("{failure}"),
                read = theirs.read_exact(&mut frame) => drop(read.unwrap()),
            }
            // Behind two bytes of the head and four of the mask (RFC 6455 §5.2).
            assert_eq!(frame[6] ^ frame[2], RESIZE);
        }
    }
}
