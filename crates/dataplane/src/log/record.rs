//! One request as a line: for people, as Apache's combined format, or as JSON.

use std::fmt::Write as _;

use super::Format;
use crate::attempt::Attempt;
use crate::forward::civil;
use crate::hex;
use crate::ledger::{Ledger, NAMES};
use crate::tracing::Traced;

/// A field of a JSON line: OpenTelemetry's name (semantic conventions 1.27, HTTP) and the short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Time,
    Client,
    Method,
    Host,
    Path,
    Query,
    Protocol,
    Status,
    RequestBytes,
    ResponseBytes,
    Grpc,
    Listener,
    Route,
    Backend,
    Endpoint,
    Tries,
    Attempts,
    Error,
    Trace,
    UserAgent,
    Referer,
    Duration,
    Ledger,
}

impl Key {
    pub const ALL: [(Key, &'static str, &'static str); 23] = [
        (Key::Time, "time", "time"),
        (Key::Client, "client.address", "client"),
        (Key::Method, "http.request.method", "method"),
        (Key::Host, "server.address", "host"),
        (Key::Path, "url.path", "path"),
        (Key::Query, "url.query", "query"),
        (Key::Protocol, "network.protocol.version", "protocol"),
        (Key::Status, "http.response.status_code", "status"),
        (Key::RequestBytes, "http.request.body.size", "requestBytes"),
        (Key::ResponseBytes, "http.response.body.size", "responseBytes"),
        (Key::Grpc, "rpc.grpc.status_code", "grpc"),
        (Key::Listener, "listener", "listener"),
        (Key::Route, "http.route", "route"),
        (Key::Backend, "backend", "backend"),
        (Key::Endpoint, "endpoint", "endpoint"),
        (Key::Tries, "tries", "tries"),
        (Key::Attempts, "attempts", "attempts"),
        (Key::Error, "error.type", "error"),
        (Key::Trace, "trace_id", "trace"),
        (Key::UserAgent, "user_agent.original", "userAgent"),
        (Key::Referer, "http.request.header.referer", "referer"),
        (Key::Duration, "duration_us", "duration"),
        (Key::Ledger, "ledger", "ledger"),
    ];
    /// All but what would need the request's head.
    pub const USUAL: u32 = !(Key::UserAgent.bit() | Key::Referer.bit());

    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What is known of a finished request.
#[derive(Debug)]
pub struct Record<'a> {
    /// Nanoseconds since 1970, at the end.
    pub wall: u64,
    pub client: &'a [u8],
    pub method: &'a [u8],
    pub host: &'a [u8],
    pub path: &'a [u8],
    pub protocol: &'static str,
    /// 0: no answer was given.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub listener: &'a str,
    pub route: &'a str,
    pub backend: &'a str,
    pub endpoint: &'a str,
    pub tries: u32,
    /// Tries with their endpoints' names, if there was more than one.
    pub attempts: &'a [(Attempt, &'a str)],
    /// Why it went wrong here.
    pub failure: Option<&'a str>,
    /// `grpc-status`.
    pub grpc: Option<u8>,
    pub traced: Option<&'a Traced>,
    pub agent: &'a [u8],
    pub referer: &'a [u8],
    pub ledger: &'a Ledger,
}

pub fn time(wall: u64, out: &mut String) {
    let seconds = wall / 1_000_000_000;
    let (year, month, day) = civil(seconds / 86400);
    let rest = seconds % 86400;
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        wall / 1_000_000 % 1000
    );
}

/// Inside quotes, for JSON and for text alike.
fn escaped(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        // Nearly everything is plain.
        if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f) {
            out.push_str(text);
        } else {
            for c in text.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                        let _ = write!(out, "\\u{:04x}", u32::from(c));
                    }
                    c => out.push(c),
                }
            }
        }
        for _ in chunk.invalid() {
            out.push('\u{fffd}');
        }
    }
}

impl Record<'_> {
    /// Appends the line; `fields` has a bit for each [`Key`] that JSON has.
    pub fn render(&self, format: Format, fields: u32, lines: &mut String) {
        match format {
            Format::Json { short } => self.json(short, fields, lines),
            Format::Text => self.text(lines),
            Format::Combined => self.combined(lines),
        }
        lines.push('\n');
    }

    fn text(&self, line: &mut String) {
        time(self.wall, line);
        line.push(' ');
        escaped(self.client, line);
        line.push_str(" \"");
        escaped(self.method, line);
        line.push(' ');
        escaped(self.host, line);
        escaped(self.path, line);
        let _ = write!(line, " {}\" {} {} {}", self.protocol, self.status, self.bytes_in, self.bytes_out);
        let _ = write!(line, " route={} to={} tries={}", or_dash(self.route), or_dash(self.endpoint), self.tries);
        if let Some(code) = self.grpc {
            let _ = write!(line, " grpc={code}");
        }
        if let Some(failure) = self.failure {
            let _ = write!(line, " failure=\"{failure}\"");
        }
        if let Some(traced) = self.traced {
            let _ = write!(line, " trace={}", hex::text(&traced.trace));
        }
        for (attempt, endpoint) in self.attempts {
            let spent = attempt.ended.saturating_sub(attempt.began) / 1000;
            let _ = write!(line, " try={endpoint}:{}:{spent}us", attempt.outcome());
        }
        let _ = write!(line, " total={}us", self.ledger.total() / 1000);
        for (name, spent) in NAMES.iter().zip(self.ledger.spent).filter(|(_, spent)| *spent >= 1000) {
            let _ = write!(line, " {name}={}us", spent / 1000);
        }
    }

    /// `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"` of Apache's mod_log_config.
    fn combined(&self, line: &mut String) {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let seconds = self.wall / 1_000_000_000;
        let (year, month, day) = civil(seconds / 86400);
        let rest = seconds % 86400;
        escaped(self.client, line);
        let _ = write!(
            line,
            " - - [{day:02}/{}/{year:04}:{:02}:{:02}:{:02} +0000] \"",
            MONTHS[month as usize - 1],
            rest / 3600,
            rest / 60 % 60,
            rest % 60
        );
        escaped(self.method, line);
        line.push(' ');
        escaped(self.path, line);
        let _ = write!(line, " {}\" {} ", self.protocol, self.status);
        match self.bytes_out {
            0 => line.push('-'),
            bytes => {
                let _ = write!(line, "{bytes}");
            }
        }
        for text in [self.referer, self.agent] {
            line.push_str(" \"");
            escaped(if text.is_empty() { b"-" } else { text }, line);
            line.push('"');
        }
    }

    fn json(&self, short: bool, fields: u32, line: &mut String) {
        line.push('{');
        let end = memchr::memchr(b'?', self.path).unwrap_or(self.path.len());
        let target = (&self.path[..end], self.path.get(end + 1..).unwrap_or_default());
        for (key, long_name, short_name) in &Key::ALL {
            if fields & key.bit() != 0 {
                self.put(*key, if short { short_name } else { long_name }, target, short, line);
            }
        }
        line.push('}');
    }

    fn put(&self, key: Key, name: &str, (path, query): (&[u8], &[u8]), short: bool, line: &mut String) {
        match key {
            Key::Time => {
                begin(name, line);
                line.push('"');
                time(self.wall, line);
                line.push('"');
            }
            Key::Client => quoted(name, self.client, line),
            Key::Method => quoted(name, self.method, line),
            Key::Host => quoted(name, self.host, line),
            Key::Path => quoted(name, path, line),
            Key::Query => quoted(name, query, line),
            Key::Protocol => quoted(name, self.protocol.strip_prefix("HTTP/").unwrap_or("").as_bytes(), line),
            Key::Status => whole(name, u64::from(self.status), line),
            Key::RequestBytes => whole(name, self.bytes_in, line),
            Key::ResponseBytes => whole(name, self.bytes_out, line),
            Key::Grpc => {
                if let Some(code) = self.grpc {
                    whole(name, u64::from(code), line);
                }
            }
            Key::Listener => quoted(name, self.listener.as_bytes(), line),
            Key::Route => quoted(name, self.route.as_bytes(), line),
            Key::Backend => quoted(name, self.backend.as_bytes(), line),
            Key::Endpoint => quoted(name, self.endpoint.as_bytes(), line),
            Key::Tries => whole(name, u64::from(self.tries), line),
            Key::Attempts if !self.attempts.is_empty() => {
                begin(name, line);
                line.push('[');
                for (index, (attempt, endpoint)) in self.attempts.iter().enumerate() {
                    line.push_str(if index == 0 { "{\"endpoint\":\"" } else { ",{\"endpoint\":\"" });
                    escaped(endpoint.as_bytes(), line);
                    let spent = attempt.ended.saturating_sub(attempt.began) / 1000;
                    let reused = attempt.reused;
                    let _ = write!(
                        line,
                        "\",\"outcome\":\"{}\",\"reused\":{reused},\"duration_us\":{spent}}}",
                        attempt.outcome()
                    );
                }
                line.push(']');
            }
            Key::Attempts => {}
            Key::Error => quoted(name, self.failure.unwrap_or_default().as_bytes(), line),
            Key::Trace => {
                if let Some(traced) = self.traced {
                    quoted(name, hex::text(&traced.trace).as_bytes(), line);
                    quoted(if short { "span" } else { "span_id" }, hex::text(&traced.span).as_bytes(), line);
                }
            }
            Key::UserAgent => quoted(name, self.agent, line),
            Key::Referer => quoted(name, self.referer, line),
            Key::Duration => whole(name, self.ledger.total() / 1000, line),
            Key::Ledger => {
                for (name, spent) in NAMES.iter().zip(self.ledger.spent).filter(|(_, spent)| *spent > 0) {
                    line.push_str(separator(line));
                    let _ = write!(line, "\"{name}_us\":{}.{}", spent / 1000, spent / 100 % 10);
                }
            }
        }
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// What stands before the next name.
fn separator(line: &str) -> &'static str {
    if line.ends_with('{') { "" } else { "," }
}

/// A name and its colon.
fn begin(name: &str, line: &mut String) {
    line.push_str(separator(line));
    line.push('"');
    line.push_str(name);
    line.push_str("\":");
}

/// Nothing, if there is nothing to say.
fn quoted(name: &str, value: &[u8], line: &mut String) {
    if !value.is_empty() {
        begin(name, line);
        line.push('"');
        escaped(value, line);
        line.push('"');
    }
}

fn whole(name: &str, value: u64, line: &mut String) {
    begin(name, line);
    let _ = write!(line, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Failure;
    use crate::ledger::Phase;

    fn rendered(format: Format, fields: u32, change: impl FnOnce(&mut Record<'_>)) -> String {
        tried(format, fields, &[], change)
    }

    fn tried(
        format: Format,
        fields: u32,
        attempts: &[(Attempt, &str)],
        change: impl FnOnce(&mut Record<'_>),
    ) -> String {
        let mut ledger = Ledger::begin(0);
        ledger.note(Phase::Parse, 2_500);
        ledger.note(Phase::App, 1_002_500);
        let mut record = Record {
            wall: 784_111_777_042_000_000,
            client: b"10.0.0.9",
            method: b"GET",
            host: b"h",
            path: b"/a\"b\x01\xff?q=1",
            protocol: "HTTP/1.1",
            status: 200,
            bytes_in: 0,
            bytes_out: 5,
            listener: "http",
            route: "all",
            backend: "app",
            endpoint: "127.0.0.1:3000",
            tries: 1,
            attempts,
            failure: None,
            grpc: None,
            traced: None,
            agent: b"curl/8 \"x\"",
            referer: b"",
            ledger: &ledger,
        };
        change(&mut record);
        let mut out = String::new();
        record.render(format, fields, &mut out);
        out
    }

    #[test]
    fn one_line_each() {
        assert_eq!(
            rendered(Format::Text, Key::USUAL, |_| {}),
            "1994-11-06T08:49:37.042Z 10.0.0.9 \"GET h/a\\\"b\\u0001\u{fffd}?q=1 HTTP/1.1\" 200 0 5 route=all to=127.0.0.1:3000 tries=1 total=1002us parse=2us app=1000us\n"
        );
        assert_eq!(
            rendered(Format::Json { short: false }, Key::USUAL, |_| {}),
            "{\"time\":\"1994-11-06T08:49:37.042Z\",\"client.address\":\"10.0.0.9\",\"http.request.method\":\"GET\",\"server.address\":\"h\",\"url.path\":\"/a\\\"b\\u0001\u{fffd}\",\"url.query\":\"q=1\",\"network.protocol.version\":\"1.1\",\"http.response.status_code\":200,\"http.request.body.size\":0,\"http.response.body.size\":5,\"listener\":\"http\",\"http.route\":\"all\",\"backend\":\"app\",\"endpoint\":\"127.0.0.1:3000\",\"tries\":1,\"duration_us\":1002,\"parse_us\":2.5,\"app_us\":1000.0}\n"
        );
        assert_eq!(
            rendered(Format::Combined, 0, |record| record.path = b"/x?q"),
            "10.0.0.9 - - [06/Nov/1994:08:49:37 +0000] \"GET /x?q HTTP/1.1\" 200 5 \"-\" \"curl/8 \\\"x\\\"\"\n"
        );
    }

    #[test]
    fn fields_can_be_chosen() {
        let bits = |keys: &[Key]| keys.iter().fold(0, |bits, key| bits | key.bit());
        let short = Format::Json { short: true };
        assert_eq!(
            rendered(short, bits(&[Key::Status, Key::Path, Key::UserAgent]), |record| record.path = b"/"),
            "{\"path\":\"/\",\"status\":200,\"userAgent\":\"curl/8 \\\"x\\\"\"}\n"
        );
        assert_eq!(rendered(short, bits(&[Key::Ledger]), |_| {}), "{\"parse_us\":2.5,\"app_us\":1000.0}\n");
        assert_eq!(rendered(short, bits(&[Key::Error]), |_| {}), "{}\n");
        for (index, (key, ..)) in Key::ALL.iter().enumerate() {
            assert_eq!(*key as usize, index);
        }
    }

    #[test]
    fn tries_are_told_apart() {
        let attempt = Attempt {
            endpoint: 0,
            began: 1000,
            ended: 2_001_000,
            status: 0,
            failure: Some(Failure::Connect),
            reused: false,
            span: [0; 8],
        };
        let second = Attempt { status: 200, failure: None, reused: true, ..attempt };
        let attempts = [(attempt, "a:1"), (second, "b:1")];
        let line = tried(Format::Json { short: true }, Key::Attempts.bit(), &attempts, |_| {});
        assert_eq!(
            line,
            "{\"attempts\":[{\"endpoint\":\"a:1\",\"outcome\":\"connect_failed\",\"reused\":false,\"duration_us\":2000},{\"endpoint\":\"b:1\",\"outcome\":\"200\",\"reused\":true,\"duration_us\":2000}]}\n"
        );
        let line = tried(Format::Text, 0, &attempts, |_| {});
        assert!(line.contains(" try=a:1:connect_failed:2000us try=b:1:200:2000us "), "{line}");
    }
}
