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

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Connection {
    /// Tries every address of the host.
    pub fn open(peer: &Peer, tls: Option<&mut Tls>) -> Result<Connection, Failure> {
        let Peer { host, port, timeout } = peer;
        let failed = |error: &dyn std::error::Error| {
            Failure::Retry(super::chain(&format!("failed to connect to {peer}"), error), None)
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

    /// The one that is open, if it still is, or a new one.
    pub fn again(kept: Option<Connection>, peer: &Peer, tls: Option<&mut Tls>) -> Result<Connection, Failure> {
        match kept.and_then(|mut connection| (!connection.is_over()).then_some(connection)) {
            Some(connection) => Ok(connection),
            None => Connection::open(peer, tls),
        }
    }

    /// All of it; `peer` is for the message.
    pub fn send(&mut self, bytes: &[u8], peer: &Peer) -> Result<(), Failure> {
        let sent = self.write_all(bytes).and_then(|()| self.flush());
        sent.map_err(|error| Failure::Retry(super::chain(&format!("failed to send to {peer}"), &error), None))
    }

    /// Whether the other side has closed it; a one-way protocol learns it no other way.
    pub fn is_over(&mut self) -> bool {
        let stream = match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream.get_mut(),
        };
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let over = match self {
            Connection::Plain(stream) => match stream.peek(&mut [0]) {
                Ok(length) => length == 0,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            },
            // Session tickets come after the handshake of TLS 1.3, and so does the alert that says goodbye.
            Connection::Tls(stream) => loop {
                match stream.conn.read_tls(&mut stream.sock) {
                    Ok(0) => break true,
                    Ok(_) => match stream.conn.process_new_packets() {
                        Ok(state) if !state.peer_has_closed() => {}
                        _ => break true,
                    },
                    Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
                }
            },
        };
        let stream = match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream.get_mut(),
        };
        over || stream.set_nonblocking(false).is_err()
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
