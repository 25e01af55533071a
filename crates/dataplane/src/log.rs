//! The access log: one line a request, as text or as JSON with OpenTelemetry's names. Workers hand over whole buffers; a
//! thread of its own writes, so that a full pipe stops nobody. What does not fit is dropped and counted.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::forward::civil;
use crate::ledger::{Ledger, NAMES};

/// Bytes that may wait for the writer.
const WAITING: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Debug)]
pub struct AccessLog {
    pub format: Format,
    pub writer: Writer,
}

/// Hands buffers to the writing thread.
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
    dropped: AtomicU64,
    writing: AtomicBool,
}

impl Writer {
    /// To a file that is appended to, or to standard output.
    pub fn open(path: Option<&Path>) -> io::Result<Writer> {
        let mut out: Box<dyn io::Write + Send> = match path {
            Some(path) => Box::new(File::options().append(true).create(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("access-log".to_owned()).stack_size(64 << 10).spawn(move || {
            loop {
                let mut waiting = of_thread.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                while waiting.0.is_empty() && !waiting.1 {
                    waiting = of_thread.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                let bytes = std::mem::take(&mut waiting.0);
                let closed = waiting.1;
                of_thread.writing.store(true, Ordering::Release);
                drop(waiting);
                // Nobody can be told that the log cannot be written but by the log.
                let _ = out.write_all(&bytes).and_then(|()| out.flush());
                of_thread.writing.store(false, Ordering::Release);
                if closed {
                    return;
                }
            }
        })?;
        Ok(Writer { shared })
    }

    /// Passes the buffer's lines on and leaves it empty.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.0.len() + buffer.len() > WAITING {
            let lines = buffer.iter().filter(|byte| **byte == b'\n').count();
            self.shared.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        } else if waiting.0.is_empty() {
            std::mem::swap(&mut waiting.0, buffer);
            self.shared.more.notify_one();
        } else {
            waiting.0.extend_from_slice(buffer);
        }
        buffer.clear();
    }

    /// Waits until everything has been written, but not for ever.
    pub fn flush(&self) {
        for _ in 0..200 {
            let (bytes, writing) = {
                let waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                (waiting.0.len(), self.shared.writing.load(Ordering::Acquire))
            };
            if bytes == 0 && !writing {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        // The thread has one reference; with the last of the others it ends.
        if Arc::strong_count(&self.writer.shared) <= 2 {
            self.writer.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            self.writer.shared.more.notify_one();
        }
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
    /// Why it went wrong here.
    pub failure: Option<&'a str>,
    /// `grpc-status`.
    pub grpc: Option<u8>,
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
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        for _ in chunk.invalid() {
            out.push('\u{fffd}');
        }
    }
}

impl Record<'_> {
    /// Appends the line.
    pub fn render(&self, format: Format, buffer: &mut Vec<u8>) {
        let mut line = String::with_capacity(512);
        match format {
            Format::Json => self.json(&mut line),
            Format::Text => self.text(&mut line),
        }
        line.push('\n');
        buffer.extend_from_slice(line.as_bytes());
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
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let _ = write!(line, " route={} to={} tries={}", dash(self.route), dash(self.endpoint), self.tries);
        if let Some(code) = self.grpc {
            let _ = write!(line, " grpc={code}");
        }
        if let Some(failure) = self.failure {
            let _ = write!(line, " failure=\"{failure}\"");
        }
        let _ = write!(line, " total={}us", self.ledger.total() / 1000);
        for (name, spent) in NAMES.iter().zip(self.ledger.spent).filter(|(_, spent)| *spent >= 1000) {
            let _ = write!(line, " {name}={}us", spent / 1000);
        }
    }

    fn json(&self, line: &mut String) {
        line.push_str("{\"time\":\"");
        time(self.wall, line);
        let text = |name: &str, value: &[u8], line: &mut String| {
            if !value.is_empty() {
                let _ = write!(line, ",\"{name}\":\"");
                escaped(value, line);
                line.push('"');
            }
        };
        line.push('"');
        text("client.address", self.client, line);
        text("http.request.method", self.method, line);
        text("server.address", self.host, line);
        let end = self.path.iter().position(|byte| *byte == b'?').unwrap_or(self.path.len());
        text("url.path", &self.path[..end], line);
        text("url.query", self.path.get(end + 1..).unwrap_or_default(), line);
        let version = self.protocol.strip_prefix("HTTP/").unwrap_or("");
        text("network.protocol.version", version.as_bytes(), line);
        let _ = write!(line, ",\"http.response.status_code\":{}", self.status);
        let _ = write!(line, ",\"http.request.body.size\":{}", self.bytes_in);
        let _ = write!(line, ",\"http.response.body.size\":{}", self.bytes_out);
        if let Some(code) = self.grpc {
            let _ = write!(line, ",\"rpc.grpc.status_code\":{code}");
        }
        text("listener", self.listener.as_bytes(), line);
        text("http.route", self.route.as_bytes(), line);
        text("backend", self.backend.as_bytes(), line);
        text("endpoint", self.endpoint.as_bytes(), line);
        let _ = write!(line, ",\"tries\":{}", self.tries);
        text("error.type", self.failure.unwrap_or_default().as_bytes(), line);
        let _ = write!(line, ",\"duration_us\":{}", self.ledger.total() / 1000);
        for (name, spent) in NAMES.iter().zip(self.ledger.spent).filter(|(_, spent)| *spent > 0) {
            let _ = write!(line, ",\"{name}_us\":{}.{}", spent / 1000, spent / 100 % 10);
        }
        line.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Phase;

    #[test]
    fn one_line_each() {
        let mut ledger = Ledger::begin(0);
        ledger.note(Phase::Parse, 2_500);
        ledger.note(Phase::App, 1_002_500);
        let record = Record {
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
            failure: None,
            grpc: None,
            ledger: &ledger,
        };
        let mut out = Vec::new();
        record.render(Format::Text, &mut out);
        assert_eq!(
            String::from_utf8(std::mem::take(&mut out)).unwrap(),
            "1994-11-06T08:49:37.042Z 10.0.0.9 \"GET h/a\\\"b\\u0001\u{fffd}?q=1 HTTP/1.1\" 200 0 5 route=all to=127.0.0.1:3000 tries=1 total=1002us parse=2us app=1000us\n"
        );
        record.render(Format::Json, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"time\":\"1994-11-06T08:49:37.042Z\",\"client.address\":\"10.0.0.9\",\"http.request.method\":\"GET\",\"server.address\":\"h\",\"url.path\":\"/a\\\"b\\u0001\u{fffd}\",\"url.query\":\"q=1\",\"network.protocol.version\":\"1.1\",\"http.response.status_code\":200,\"http.request.body.size\":0,\"http.response.body.size\":5,\"listener\":\"http\",\"http.route\":\"all\",\"backend\":\"app\",\"endpoint\":\"127.0.0.1:3000\",\"tries\":1,\"duration_us\":1002,\"parse_us\":2.5,\"app_us\":1000.0}\n"
        );
    }
}
