//! A client for the few questions discovery asks: GET over HTTP/1.1, with or without TLS, the body read as it comes. Waiting
//! is done in short steps, so that whoever asks can see in between whether anybody still wants to know.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest head.
const HEAD: usize = 32 << 10;

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

    /// Asks; `fields` are whole lines.
    pub(super) fn get(&self, target: &str, fields: &str) -> io::Result<Response> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{bare}` has no address"));
        let mut connected = None;
        for address in (bare, self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = connected.ok_or(last)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
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

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

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
            wire.read_until(b'\n', &mut head)?;
            if head.len() == before || head.len() > HEAD {
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
        Ok(Response { status, fields, wire, framing, chunk: 0, partial: Vec::new(), line: Vec::new(), ended: false })
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
            self.wire.read_until(b'\n', &mut self.partial)?;
            if !self.partial.ends_with(b"\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&self.partial).trim().to_owned();
            self.partial.clear();
            if text.is_empty() {
                // The end of the chunk before.
                continue;
            }
            let size = text.split(';').next().unwrap_or_default();
            self.chunk = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            return Ok(self.chunk > 0);
        }
    }

    /// The next line of the body.
    pub(super) fn next_line(&mut self, most: usize) -> io::Result<Line> {
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
    fn urls() {
        let server = |url| Server::parse(url, None).map(|server| (server.host, server.port, server.https));
        assert_eq!(server("http://127.0.0.1:8500/"), Some(("127.0.0.1".to_owned(), 8500, false)));
        assert_eq!(server("https://[::1]"), Some(("[::1]".to_owned(), 443, true)));
        assert_eq!(server("https://[::1]:6443"), Some(("[::1]".to_owned(), 6443, true)));
        assert!(server("ftp://a").is_none() && server("http://").is_none() && server("http://a/b").is_none());
        assert_eq!(encode("a b/c=d"), "a%20b%2Fc%3Dd");
    }
}
