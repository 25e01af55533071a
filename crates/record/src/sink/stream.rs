//! A connection for protocols that are not HTTP: TCP, with TLS if wanted. Blocking, because a sink has its thread.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::Failure;
use super::tls::Tls;

#[derive(Debug)]
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub host: String,
    pub port: u16,
    /// For connecting, and for each write and read.
    pub timeout: Duration,
}

impl Connection {
    /// Tries every address of the host.
    pub fn open(peer: &Peer, tls: Option<&mut Tls>) -> Result<Connection, Failure> {
        let Peer { host, port, timeout } = peer;
        let failed = |error: &dyn std::error::Error| {
            Failure::Retry(super::chain(&format!("failed to connect to {host}:{port}"), error), None)
        };
        let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| failed(&error))?;
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
        for address in addresses {
            outcome = TcpStream::connect_timeout(&address, *timeout);
            if outcome.is_ok() {
                break;
            }
        }
        let stream = outcome.map_err(|error| failed(&error))?;
        let set_up = || {
            stream.set_read_timeout(Some(*timeout))?;
            stream.set_write_timeout(Some(*timeout))?;
            stream.set_nodelay(true)
        };
        set_up().map_err(|error| failed(&error))?;
        let Some(tls) = tls else { return Ok(Connection::Plain(stream)) };
        let name = ServerName::try_from(host.clone()).map_err(|error| failed(&error))?;
        let mut session = ClientConnection::new(tls.config(), name).map_err(|error| failed(&error))?;
        let mut stream = stream;
        while session.is_handshaking() {
            session.complete_io(&mut stream).map_err(|error| failed(&error))?;
        }
        Ok(Connection::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    /// Whether the other side has closed it, or says something although nobody asked: both end a one-way protocol.
    pub fn is_over(&self) -> bool {
        let stream = match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream.get_ref(),
        };
        let mut byte = [0];
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let peeked = stream.peek(&mut byte);
        if stream.set_nonblocking(false).is_err() {
            return true;
        }
        match (self, peeked) {
            (_, Ok(0)) => true,
            // Session tickets come after the handshake of TLS 1.3.
            (Connection::Tls(_), Ok(_)) => false,
            (Connection::Plain(_), Ok(_)) => false,
            (_, Err(error)) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.read(buffer),
            Connection::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.write(buffer),
            Connection::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.flush(),
            Connection::Tls(stream) => stream.flush(),
        }
    }
}
