//! Fluent forward (github.com/fluent/fluentd, Forward Protocol Specification v1): forward mode with a chunk identifier, so
//! that Fluentd and Fluent Bit acknowledge what they have taken.

use std::io::Read as _;
use std::sync::Arc;

use serde_json::Value;

use super::stream::{Connection, Peer};
use super::tls::Tls;
use super::{Failure, Sink, chain};
use crate::batch::{Batch, Flags, Record};
use crate::{json, msgpack};

#[derive(Debug, Clone)]
pub struct ForwardOptions {
    pub peer: Peer,
    pub tag: String,
}

#[derive(Debug)]
pub struct ForwardSink {
    options: ForwardOptions,
    tls: Option<Tls>,
    connection: Option<Connection>,
    /// Of the last message; with the process' beginning it makes the chunk unique.
    number: u64,
    seed: String,
}

impl ForwardSink {
    pub fn new(options: ForwardOptions, tls: Option<Tls>) -> ForwardSink {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = format!("{:x}-{:x}", time.as_nanos(), std::process::id());
        ForwardSink { options, tls, connection: None, number: 0, seed }
    }

    fn exchange(&mut self, message: &[u8], chunk: &str) -> Result<(), Failure> {
        let peer = &self.options.peer;
        let mut connection = Connection::again(self.connection.take(), peer, self.tls.as_mut())?;
        connection.send(message, peer)?;
        let mut bytes = Vec::new();
        let mut piece = [0; 1024];
        loop {
            match msgpack::answer(&bytes, "ack") {
                Ok(Some(ack)) if ack == chunk => break,
                Ok(Some(_)) => return Err(Failure::Retry(format!("{peer} acknowledged something else"), None)),
                Ok(None) => {}
                Err(reason) => return Err(Failure::Retry(format!("{peer} does not speak forward: {reason}"), None)),
            }
            match connection.read(&mut piece) {
                Ok(0) => {
                    return Err(Failure::Retry(format!("{peer} closed the connection without acknowledging"), None));
                }
                Ok(length) => bytes.extend_from_slice(&piece[..length]),
                Err(error) => {
                    return Err(Failure::Retry(chain(&format!("no acknowledgement from {peer}"), &error), None));
                }
            }
        }
        self.connection = Some(connection);
        Ok(())
    }
}

impl Sink for ForwardSink {
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        self.number += 1;
        let chunk = format!("{}-{}", self.seed, self.number);
        let mut out = Vec::with_capacity(batches.iter().map(|batch| batch.frames.len() + batch.frames.len() / 4).sum());
        let count = batches.iter().map(|batch| batch.count).sum();
        msgpack::array(&mut out, 3);
        msgpack::text(&mut out, self.options.tag.as_bytes());
        msgpack::array(&mut out, count);
        for batch in batches {
            let common = members(&batch.origin.fields);
            for record in batch.records() {
                entry(&mut out, &record, &common);
            }
        }
        msgpack::map(&mut out, 2);
        msgpack::text(&mut out, b"chunk");
        msgpack::text(&mut out, chunk.as_bytes());
        msgpack::text(&mut out, b"size");
        msgpack::unsigned(&mut out, u64::from(count));
        self.exchange(&out, &chunk)
    }
}

fn members(text: &[u8]) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    json::members(text, |(key, value)| found.extend(parsed(key, value)));
    found
}

fn parsed(key: &[u8], value: &[u8]) -> Option<(String, Value)> {
    let mut plain = Vec::new();
    json::unescape(&mut plain, key);
    Some((String::from_utf8_lossy(&plain).into_owned(), serde_json::from_slice(value).ok()?))
}

/// `[time, record]`, with the time to the nanosecond (`EventTime`, extension type 0).
fn entry(out: &mut Vec<u8>, record: &Record<'_>, common: &[(String, Value)]) {
    msgpack::array(out, 2);
    let time = record.time.max(0);
    out.extend_from_slice(&[0xd7, 0x00]);
    out.extend_from_slice(&((time / 1_000_000_000) as u32).to_be_bytes());
    out.extend_from_slice(&((time % 1_000_000_000) as u32).to_be_bytes());
    let mut own = Vec::new();
    if record.flags.has(Flags::OBJECT) {
        json::object(record.body, |(key, value)| own.extend(parsed(key, value)));
    } else {
        own.push(("message".to_owned(), Value::from(String::from_utf8_lossy(record.body))));
        if record.flags.has(Flags::STDERR) || record.flags.has(Flags::STDOUT) {
            let stream = if record.flags.has(Flags::STDERR) { "stderr" } else { "stdout" };
            own.push(("stream".to_owned(), Value::from(stream)));
        }
    }
    own.extend(members(record.fields));
    msgpack::map(out, (own.len() + common.len()) as u32);
    for (name, value) in own.iter().chain(common) {
        msgpack::text(out, name.as_bytes());
        msgpack::value(out, value);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::batch::{Origin, Severity};

    /// Reads what it is sent up to the options, and answers with their chunk (or something else).
    fn receiver(listener: TcpListener, answers: Vec<bool>) -> std::thread::JoinHandle<Vec<Vec<u8>>> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut messages = Vec::new();
            for right in answers {
                let mut bytes = Vec::new();
                let mut piece = [0; 4096];
                let chunk = loop {
                    let length = stream.read(&mut piece).unwrap();
                    bytes.extend_from_slice(&piece[..length]);
                    let at = bytes.windows(6).position(|six| six == b"\xa5chunk");
                    if let Some(at) = at.filter(|_| bytes.windows(5).any(|five| five == b"\xa4size")) {
                        break bytes[at + 6..].to_vec();
                    }
                };
                let length = match chunk[0] {
                    0xd9 => 2 + usize::from(chunk[1]),
                    kind => 1 + usize::from(kind & 0x1f),
                };
                let mut answer = b"\x81\xa3ack".to_vec();
                answer.extend_from_slice(if right { &chunk[..length] } else { b"\xa1x" });
                stream.write_all(&answer).unwrap();
                messages.push(bytes);
            }
            messages
        })
    }

    #[test]
    fn only_the_right_acknowledgement_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = receiver(listener, vec![true, false]);
        let peer = Peer { host: "127.0.0.1".to_owned(), port, timeout: Duration::from_secs(10) };
        let mut sink = ForwardSink::new(ForwardOptions { peer, tag: "pod.app".to_owned() }, None);
        let origin = Origin { fields: br#""pod":"p""#.to_vec(), ..Origin::default() };
        let mut batch = Batch::new(Arc::new(origin), 0);
        let (flags, severity) = (Flags::STDERR, Severity::Unknown);
        batch.push(&Record { time: 1_500_000_000_000_000_007, flags, severity, body: b"hi", fields: br#""n":3"# });
        let batch = [Arc::new(batch)];
        sink.deliver(&batch).unwrap();
        let failure = sink.deliver(&batch).unwrap_err();
        assert!(matches!(&failure, Failure::Retry(text, _) if text.ends_with("something else")), "{failure:?}");
        let message = thread.join().unwrap().remove(0);
        let entry = b"\x93\xa7pod.app\x91\x92\xd7\x00\x59\x68\x2f\x00\x00\x00\x00\x07\
                      \x84\xa7message\xa2hi\xa6stream\xa6stderr\xa1n\x03\xa3pod\xa1p\x82\xa5chunk";
        assert!(message.starts_with(entry), "{message:x?}");
    }
}
