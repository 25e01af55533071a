//! As much of Redis' protocol as a limit needs (RESP 2), over TCP, TLS or a Unix socket, with a deadline for everything.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::backend::Outward;
use crate::timed::{Names, Timed, late};

/// Where it is.
#[derive(Clone, Debug)]
pub enum Place {
    Unix(String),
    Tcp { host: String, port: u16, tls: Option<Outward> },
}

/// Where it is, and who we are.
#[derive(Clone, Debug)]
pub struct Server {
    /// As people are shown it.
    pub name: String,
    pub place: Place,
    /// ACL user; without: the default one.
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: u32,
    pub names: Arc<dyn Names>,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(Vec<u8>),
    Error(String),
    Number(i64),
    List(Vec<Value>),
    Nothing,
}

#[derive(Debug)]
enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Stream {
    fn set_until(&mut self, until: Instant) {
        match self {
            Stream::Plain(stream) => stream.set_until(until),
            Stream::Tls(stream) => stream.sock.set_until(until),
        }
    }
}

#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    out: Vec<u8>,
    input: Vec<u8>,
    at: usize,
}

/// Bytes of an answer; what we ask is answered in a hundred.
const LONGEST: usize = 64 << 10;

impl Connection {
    /// Connects and says who we are. `known` are the addresses of the last time, for when the name cannot be looked up.
    pub fn open(server: &Server, known: &mut Vec<SocketAddr>, until: Instant) -> io::Result<Connection> {
        let stream = match &server.place {
            Place::Unix(path) => Stream::Plain(Timed::connect_unix(path, until)?),
            Place::Tcp { host, port, tls } => {
                match server.names.addresses(host, until) {
                    Ok(found) => *known = found.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect(),
                    Err(error) if known.is_empty() => return Err(error),
                    Err(_) => {}
                }
                let stream = Timed::connect_any(known.iter().copied(), Duration::MAX, until)?;
                match tls {
                    None => Stream::Plain(stream),
                    Some(tls) => {
                        let connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
                        Stream::Tls(Box::new(StreamOwned::new(connection.map_err(io::Error::other)?, stream)))
                    }
                }
            }
        };
        let mut connection = Connection { stream, out: Vec::new(), input: Vec::new(), at: 0 };
        if let Some(password) = &server.password {
            let answer = match &server.user {
                Some(user) => connection.ask(&[b"AUTH", user.as_bytes(), password.as_bytes()], until)?,
                None => connection.ask(&[b"AUTH", password.as_bytes()], until)?,
            };
            accepted(answer)?;
        }
        if server.database != 0 {
            accepted(connection.ask(&[b"SELECT", server.database.to_string().as_bytes()], until)?)?;
        }
        Ok(connection)
    }

    /// Puts a command behind those that are to be sent.
    pub fn put(&mut self, words: &[&[u8]]) {
        self.out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    pub fn send(&mut self, until: Instant) -> io::Result<()> {
        self.stream.set_until(until);
        let sent = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(&self.out),
            Stream::Tls(stream) => stream.write_all(&self.out).and_then(|()| stream.flush()),
        };
        self.out.clear();
        sent.map_err(timely)
    }

    pub fn ask(&mut self, words: &[&[u8]], until: Instant) -> io::Result<Value> {
        self.put(words);
        self.send(until)?;
        self.read(until)
    }

    /// The next answer.
    pub fn read(&mut self, until: Instant) -> io::Result<Value> {
        loop {
            if let Some((value, used)) = parse(&self.input[self.at..], 0)? {
                self.at += used;
                if self.at == self.input.len() {
                    self.input.clear();
                    self.at = 0;
                }
                return Ok(value);
            }
            if self.input.len() - self.at > LONGEST {
                return Err(io::Error::other("an answer is too long"));
            }
            self.stream.set_until(until);
            let mut buffer = [0; 4096];
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut buffer),
                Stream::Tls(stream) => stream.read(&mut buffer),
            };
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timely(error)),
            }
        }
    }
}

/// What the kernel says at the end of a socket's time, in our words.
fn timely(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
}

fn accepted(answer: Value) -> io::Result<()> {
    match answer {
        Value::Error(message) => Err(io::Error::other(message)),
        _ => Ok(()),
    }
}

/// A value and its length; `None`: more bytes are needed.
fn parse(bytes: &[u8], depth: usize) -> io::Result<Option<(Value, usize)>> {
    let malformed = || io::Error::other("an answer is malformed");
    let Some(end) = memchr::memmem::find(bytes, b"\r\n") else { return Ok(None) };
    let Some((kind, line)) = bytes[..end].split_first() else { return Err(malformed()) };
    let used = end + 2;
    let number = || std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(malformed);
    Ok(Some(match kind {
        b'+' => (Value::Text(line.to_vec()), used),
        b'-' => (Value::Error(String::from_utf8_lossy(line).into_owned()), used),
        b':' => (Value::Number(number()?), used),
        b'$' => {
            let length = number()?;
            let Ok(length) = usize::try_from(length) else { return Ok(Some((Value::Nothing, used))) };
            if length > LONGEST {
                return Err(malformed());
            }
            match bytes.get(used..used + length + 2) {
                None => return Ok(None),
                Some([text @ .., b'\r', b'\n']) => (Value::Text(text.to_vec()), used + length + 2),
                Some(_) => return Err(malformed()),
            }
        }
        b'*' if depth < 4 => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Some((Value::Nothing, used))) };
            if length > LONGEST {
                return Err(malformed());
            }
            let (mut list, mut at) = (Vec::new(), used);
            for _ in 0..length {
                let Some((value, more)) = parse(&bytes[at..], depth + 1)? else { return Ok(None) };
                list.push(value);
                at += more;
            }
            (Value::List(list), at)
        }
        _ => return Err(malformed()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let whole = |text: &str| {
            let bytes = text.as_bytes();
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length], 0).unwrap(), None, "{text:?} cut at {length}");
            }
            let (value, used) = parse(bytes, 0).unwrap().unwrap();
            assert_eq!(used, bytes.len());
            value
        };
        assert_eq!(whole("+OK\r\n"), Value::Text(b"OK".to_vec()));
        assert_eq!(whole("-ERR no\r\n"), Value::Error("ERR no".to_owned()));
        assert_eq!(whole(":-7\r\n"), Value::Number(-7));
        assert_eq!(whole("$3\r\na\r\n\r\n"), Value::Text(b"a\r\n".to_vec()));
        assert_eq!(whole("$-1\r\n"), Value::Nothing);
        assert_eq!(
            whole("*2\r\n:1\r\n*1\r\n$0\r\n\r\n"),
            Value::List(vec![Value::Number(1), Value::List(vec![Value::Text(Vec::new())])])
        );
        for text in ["x\r\n", ":a\r\n", "$99999999\r\n", "$1\r\nab\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"] {
            assert!(parse(text.as_bytes(), 0).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in proptest::collection::vec(proptest::sample::select(b"*$:+-123\r\nab".to_vec()), 0..60)) {
            let _ = parse(&bytes, 0);
        }
    }
}
