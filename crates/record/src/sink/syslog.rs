//! Syslog out: RFC 5424 messages framed by their length (RFC 6587 §3.4.1), over TCP or TLS (RFC 5425).
//!
//! The protocol has no acknowledgement: what the peer's kernel took and its program did not read is gone. Here a request
//! counts as delivered when all of it was written to a connection that was open before and after.

use std::sync::Arc;

use super::stream::{Connection, Peer};
use super::tls::Tls;
use super::{Failure, Sink};
use crate::batch::{Batch, Record, Severity};
use crate::encode::Clock;
use crate::json;

#[derive(Debug, Clone)]
pub struct SyslogOptions {
    pub peer: Peer,
    /// 0–23 (RFC 5424 §6.2.1).
    pub facility: u8,
    pub host: String,
    pub app: String,
}

#[derive(Debug)]
pub struct SyslogSink {
    options: SyslogOptions,
    tls: Option<Tls>,
    connection: Option<Connection>,
    clock: Clock,
    buffer: Vec<u8>,
}

impl SyslogSink {
    pub fn new(options: SyslogOptions, tls: Option<Tls>) -> SyslogSink {
        SyslogSink { options, tls, connection: None, clock: Clock::default(), buffer: Vec::new() }
    }

    fn encode(&mut self, batches: &[Arc<Batch>]) {
        self.buffer.clear();
        let mut message = Vec::new();
        for batch in batches {
            for record in batch.records() {
                message.clear();
                message_of(&mut message, &record, &batch.origin.name, &self.options, &mut self.clock);
                self.buffer.extend_from_slice(message.len().to_string().as_bytes());
                self.buffer.push(b' ');
                self.buffer.extend_from_slice(&message);
            }
        }
    }

    fn send(&mut self) -> Result<(), Failure> {
        let peer = &self.options.peer;
        let mut connection = Connection::again(self.connection.take(), peer, self.tls.as_mut())?;
        connection.send(&self.buffer, peer)?;
        if connection.is_over() {
            return Err(Failure::Retry(format!("{peer} closed the connection while it was sent to"), None));
        }
        self.connection = Some(connection);
        Ok(())
    }
}

impl Sink for SyslogSink {
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        self.encode(batches);
        let sent = self.send();
        self.buffer.shrink_to(4 << 20);
        sent
    }
}

/// A name as RFC 5424 allows it: printable ASCII without blanks, at most so long; `-` for nothing.
fn name(out: &mut Vec<u8>, text: &str, limit: usize) {
    let start = out.len();
    out.extend(text.bytes().filter(|byte| (33..=126).contains(byte)).take(limit));
    if out.len() == start {
        out.push(b'-');
    }
}

fn message_of(out: &mut Vec<u8>, record: &Record<'_>, origin: &str, options: &SyslogOptions, clock: &mut Clock) {
    let severity = match record.severity {
        Severity::Fatal => 2,
        Severity::Error => 3,
        Severity::Warn => 4,
        Severity::Unknown | Severity::Info => 6,
        Severity::Debug | Severity::Trace => 7,
    };
    let priority = options.facility.min(23) * 8 + severity;
    out.extend_from_slice(format!("<{priority}>1 ").as_bytes());
    // RFC 5424 allows six digits after the point.
    clock.append(out, record.time);
    out.truncate(out.len() - 4);
    out.extend_from_slice(b"Z ");
    name(out, &options.host, 255);
    out.push(b' ');
    name(out, &options.app, 48);
    out.extend_from_slice(b" - - [origin software=\"outrigger-logs\"][file path=\"");
    quoted(out, origin.as_bytes());
    out.extend_from_slice(b"\"]");
    fields(out, record.fields);
    out.push(b' ');
    out.extend_from_slice(record.body);
}

/// A parameter's value (RFC 5424 §6.3.3).
fn quoted(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        if matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

/// Fields as parameters of one more element.
fn fields(out: &mut Vec<u8>, fields: &[u8]) {
    if fields.is_empty() {
        return;
    }
    out.extend_from_slice(b"[fields@32473");
    json::members(fields, |(key, value)| {
        let key: Vec<u8> = key.iter().copied().filter(|b| b.is_ascii_alphanumeric() || b"._-@".contains(b)).collect();
        if key.is_empty() {
            return;
        }
        out.push(b' ');
        out.extend_from_slice(&key[..key.len().min(32)]);
        out.extend_from_slice(b"=\"");
        let mut plain = Vec::new();
        match json::string_value(value) {
            Some(inner) => json::unescape(&mut plain, inner),
            None => plain.extend_from_slice(value),
        }
        quoted(out, &plain);
        out.push(b'"');
    });
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::batch::{Flags, Origin};

    #[test]
    fn messages_are_framed_and_a_peer_that_left_is_called_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = Peer { host: "127.0.0.1".to_owned(), port, timeout: Duration::from_secs(10) };
        let options = SyslogOptions { peer, facility: 16, host: "pod 1".to_owned(), app: "web".to_owned() };
        let mut sink = SyslogSink::new(options, None);
        let origin = Origin { name: "/l\"x".to_owned(), ..Origin::default() };
        let mut batch = Batch::new(Arc::new(origin), 0);
        let time = 1_786_788_000_123_456_789;
        let fields = br#""user":"a\"b","n":3"#;
        batch.push(&Record { time, flags: Flags(0), severity: Severity::Error, body: b"two\nlines", fields });
        let batch = [Arc::new(batch)];
        let expected = "<131>1 2026-08-15T10:00:00.123456Z pod1 web - - [origin software=\"outrigger-logs\"]\
                        [file path=\"/l\\\"x\"][fields@32473 user=\"a\\\"b\" n=\"3\"] two\nlines";
        let expected = format!("{} {expected}", expected.len());
        for _ in 0..2 {
            let reader = std::thread::spawn({
                let (listener, length) = (listener.try_clone().unwrap(), expected.len());
                move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut text = vec![0; length];
                    stream.read_exact(&mut text).unwrap();
                    (String::from_utf8(text).unwrap(), stream)
                }
            });
            sink.deliver(&batch).unwrap();
            // It leaves only now.
            let (text, _stream) = reader.join().unwrap();
            assert_eq!(text, expected);
        }
        drop(listener);
        let failure = sink.deliver(&batch).unwrap_err();
        assert!(matches!(failure, Failure::Retry(..)), "{failure:?}");
    }
}
