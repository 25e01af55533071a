//! A client for the few questions discovery asks: GET over HTTP/1.1, with or without TLS, the body read as it comes. Waiting
//! is done in short steps, so that whoever asks can see in between whether anybody still wants to know.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::timed::{Names as _, Timed};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::dns::Machine;

/// A server may be silent for this long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A whole answer takes no longer; a watch's is its head.
const WHOLE: Duration = Duration::from_secs(30);
/// The longest head.
const HEAD: usize = 32 << 10;
/// The longest line before a chunk, with its extensions.
const SIZE_LINE: usize = 1 << 10;

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// PEM certificates to trust; with TLS only. Without, the machine's.
    pub(super) ca_file: Option<String>,
    pub(super) https: bool,
}

impl Server {
    /// From `http://host:port` or `https://host:port`.
    pub(super) fn parse(url: &str, ca_file: Option<&str>) -> Option<Server> {
        let (https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return None,
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (rest, if https { 443 } else { 80 }),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let good = !host.is_empty() && host.chars().all(plain);
        good.then(|| Server { host: host.to_owned(), port, ca_file: ca_file.map(str::to_owned), https })
    }

    fn tls(&self) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                let bytes = std::fs::read(path)?;
                for certificate in CertificateDer::pem_slice_iter(&bytes) {
                    roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Ok(builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
    }

    /// Asks; `fields` are whole lines. The answer, with its body, is there in 30 seconds or is an error.
    pub(super) fn get(&self, target: &str, fields: &str) -> io::Result<Response> {
        self.get_within(target, fields, WHOLE)
    }

    fn get_within(&self, target: &str, fields: &str, whole: Duration) -> io::Result<Response> {
        let until = Instant::now() + whole;
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let found = Machine { servers: Vec::new() }.addresses(bare, until)?;
        let stream = Timed::connect_any(found.into_iter().map(|ip| SocketAddr::new(ip, self.port)), TIMEOUT, until)?;
        let mut wire: Box<dyn Wire> = if self.https {
            let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
            let connection = ClientConnection::new(Arc::new(self.tls()?), name).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(connection, stream))
        } else {
            Box::new(stream)
        };
        let text = format!(
            "GET {target} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: outrigger-proxy\r\nAccept: application/json\r\nConnection: close\r\n{fields}\r\n",
            self.host, self.port
        );
        wire.write_all(text.as_bytes())?;
        wire.flush()?;
        Response::read(BufReader::with_capacity(8 << 10, wire))
    }
}

trait Wire: Read + Write + Send {
    /// From now on nothing is waited for beyond this.
    fn set_until(&mut self, until: Instant);
}

impl Wire for Timed {
    fn set_until(&mut self, until: Instant) {
        Timed::set_until(self, until);
    }
}

impl Wire for StreamOwned<ClientConnection, Timed> {
    fn set_until(&mut self, until: Instant) {
        self.sock.set_until(until);
    }
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(u64),
    Chunked,
    Close,
}

pub(super) struct Response {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
    wire: BufReader<Box<dyn Wire>>,
    framing: Framing,
    /// Bytes left of the present chunk.
    chunk: u64,
    /// What has come of a chunk's head or end.
    partial: Vec<u8>,
    /// A chunk's end is still to come.
    tail: bool,
    /// Bytes of the body that are no whole line yet.
    line: Vec<u8>,
    ended: bool,
}

/// What waiting has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// Nothing yet.
    Waits,
    End,
}

impl Response {
    fn read(mut wire: BufReader<Box<dyn Wire>>) -> io::Result<Response> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let before = head.len();
            (&mut wire).take((HEAD - before) as u64).read_until(b'\n', &mut head)?;
            if head.len() == before {
                return Err(io::Error::other("the answer's head is malformed"));
            }
        }
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("the answer's status is malformed"))?;
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let find = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let framing = match (find("transfer-encoding"), find("content-length")) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
            (Some(_), _) => return Err(io::Error::other("the answer's coding is not known")),
            (None, Some(length)) => Framing::Length(length.parse().map_err(io::Error::other)?),
            (None, None) => Framing::Close,
        };
        Ok(Response {
            status,
            fields,
            wire,
            framing,
            chunk: 0,
            partial: Vec::new(),
            tail: false,
            line: Vec::new(),
            ended: false,
        })
    }

    pub(super) fn field(&self, wanted: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// Some more of the body, at the end of `self.line`; false at its end.
    fn more(&mut self) -> io::Result<bool> {
        let room = match self.framing {
            Framing::Length(left) => left,
            Framing::Close => u64::MAX,
            Framing::Chunked => {
                if self.chunk == 0 && !self.next_chunk()? {
                    return Ok(false);
                }
                self.chunk
            }
        };
        if room == 0 {
            return Ok(false);
        }
        let bytes = self.wire.fill_buf()?;
        if bytes.is_empty() {
            return match self.framing {
                Framing::Close => Ok(false),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        let length = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        self.line.extend_from_slice(&bytes[..length]);
        self.wire.consume(length);
        match &mut self.framing {
            Framing::Length(left) => *left -= length as u64,
            Framing::Chunked => self.chunk -= length as u64,
            Framing::Close => {}
        }
        Ok(true)
    }

    /// Reads a chunk's head; false behind the last.
    fn next_chunk(&mut self) -> io::Result<bool> {
        loop {
            let room = SIZE_LINE.saturating_sub(self.partial.len()) as u64;
            (&mut self.wire).take(room).read_until(b'\n', &mut self.partial)?;
            if !self.partial.ends_with(b"\n") {
                return Err(match self.partial.len() {
                    SIZE_LINE => io::Error::other("a chunk's size line is too long"),
                    _ => io::ErrorKind::UnexpectedEof.into(),
                });
            }
            let text = String::from_utf8_lossy(&self.partial).trim().to_owned();
            self.partial.clear();
            // One empty line ends the chunk before (RFC 9112 §7.1), and nothing else does.
            if std::mem::take(&mut self.tail) != text.is_empty() {
                return Err(io::Error::other("the answer's chunks are malformed"));
            }
            if text.is_empty() {
                continue;
            }
            let size = text.split(';').next().unwrap_or_default().trim_end();
            self.chunk = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            self.tail = self.chunk > 0;
            return Ok(self.chunk > 0);
        }
    }

    /// The next line of the body, which may be `most` bytes long. A watch's stream has no end of its own: each call waits
    /// for 5 seconds, whatever comes meanwhile.
    pub(super) fn next_line(&mut self, most: usize) -> io::Result<Line> {
        self.next_line_within(most, TIMEOUT)
    }

    fn next_line_within(&mut self, most: usize, patience: Duration) -> io::Result<Line> {
        self.wire.get_mut().set_until(Instant::now() + patience);
        let mut looked = 0;
        loop {
            if let Some(end) = self.line[looked..].iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(looked + end + 1);
                return Ok(Line::Whole(std::mem::replace(&mut self.line, rest)));
            }
            looked = self.line.len();
            if looked > most {
                return Err(io::Error::other("the answer is too long"));
            }
            if self.ended {
                return Ok(if looked == 0 { Line::End } else { Line::Whole(std::mem::take(&mut self.line)) });
            }
            match self.more() {
                Ok(more) => self.ended = !more,
                Err(error) if is_timeout(&error) => return Ok(Line::Waits),
                Err(error) => return Err(error),
            }
        }
    }

    /// The whole body.
    pub(super) fn body(mut self, most: usize) -> io::Result<Vec<u8>> {
        while self.more()? {
            if self.line.len() > most {
                return Err(io::Error::other("the answer is too long"));
            }
        }
        Ok(self.line)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Text as part of a query (RFC 3986 §2.3).
pub(super) fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Script(io::Cursor<Vec<u8>>);
    impl Read for Script {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            // A byte at a time, and in between nothing.
            let odd = self.0.position() % 2 == 1;
            let length = room.len().min(1);
            match self.0.read(&mut room[..length])? {
                1 if room[0] == b'~' && odd => Err(io::ErrorKind::WouldBlock.into()),
                length => Ok(length),
            }
        }
    }
    impl Wire for Script {
        fn set_until(&mut self, _: Instant) {}
    }
    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn response(text: &str) -> Response {
        Response::read(BufReader::new(Box::new(Script(io::Cursor::new(text.as_bytes().to_vec()))))).unwrap()
    }

    #[test]
    fn lines_come_in_pieces() {
        let mut answer = response(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Y: z\r\n\r\n3\r\na\nb\r\n2\r\nc\n\r\n0\r\n\r\n",
        );
        assert_eq!((answer.status, answer.field("x-y")), (200, Some("z")));
        assert_eq!(answer.next_line(100).unwrap(), Line::Whole(b"a\n".to_vec()));
        assert_eq!(answer.next_line(100).unwrap(), Line::Whole(b"bc\n".to_vec()));
        assert_eq!(answer.next_line(100).unwrap(), Line::End);
        let answer = response("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcdef");
        assert_eq!(answer.body(100).unwrap(), b"abcd");
        assert!(response("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab").body(100).is_err(), "cut short");
        assert!(response("HTTP/1.1 200 OK\r\n\r\nabc").next_line(1).is_err());
    }

    #[test]
    fn chunks_are_framed_strictly() {
        let body =
            |text: &str| response(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}")).body(99);
        assert_eq!(body("3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n").unwrap(), b"abcd");
        let long = "0".repeat(2000);
        for (text, why) in [
            (format!("3;x={long}\r\nabc\r\n0\r\n\r\n"), "a size line without end"),
            ("\r\n3\r\nabc\r\n0\r\n\r\n".to_owned(), "an empty line before the first"),
            ("3\r\nabc\r\n\r\n0\r\n\r\n".to_owned(), "two empty lines"),
            ("3\r\nabcd\r\n0\r\n\r\n".to_owned(), "a chunk that is longer than it says"),
        ] {
            assert!(body(&text).is_err(), "{why}");
        }
    }

    /// A server that says this, and then `again` a byte at a time for as long as somebody listens.
    fn dripping(first: &'static str, again: &'static str) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let mut said = stream.write_all(first.as_bytes());
            for byte in again.bytes().cycle() {
                if said.is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
                said = stream.write_all(&[byte]);
            }
        });
        Server { host: "127.0.0.1".to_owned(), port, ca_file: None, https: false }
    }

    #[test]
    fn a_server_that_drips_does_not_hold_the_asker() {
        let short = Duration::from_millis(400);
        let head = dripping("HTTP/1.1 200 OK\r\n", "X: y\r\n").get_within("/", "", short);
        assert!(is_timeout(&head.err().unwrap()));
        for (framing, again) in
            [("Content-Length: 1000000", "a"), ("Transfer-Encoding: chunked", "1\r\na\r\n"), ("Connection: close", "a")]
        {
            let first: &'static str = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").leak();
            let answer = dripping(first, again).get_within("/", "", short).unwrap();
            assert!(is_timeout(&answer.body(1 << 20).unwrap_err()), "{framing}");
        }
    }

    #[test]
    fn a_watch_goes_on_but_lets_the_asker_look_around() {
        let mut answer =
            dripping("HTTP/1.1 200 OK\r\n\r\nab", "cdefghij").get_within("/", "", Duration::from_millis(400)).unwrap();
        let begun = Instant::now();
        // Longer than the answer's head may take, and once more.
        for _ in 0..3 {
            assert_eq!(answer.next_line_within(1 << 20, Duration::from_millis(300)).unwrap(), Line::Waits);
        }
        assert!(begun.elapsed() >= Duration::from_millis(900) && answer.line.len() > 10);
    }

    #[test]
    fn urls() {
        let server = |url| Server::parse(url, None).map(|server| (server.host, server.port, server.https));
        assert_eq!(server("http://127.0.0.1:8500/"), Some(("127.0.0.1".to_owned(), 8500, false)));
        assert_eq!(server("https://[::1]"), Some(("[::1]".to_owned(), 443, true)));
        assert_eq!(server("https://[::1]:6443"), Some(("[::1]".to_owned(), 6443, true)));
        assert!(server("ftp://a").is_none() && server("http://").is_none() && server("http://a/b").is_none());
        assert_eq!(encode("a b/c=d"), "a%20b%2Fc%3Dd");
    }
}
