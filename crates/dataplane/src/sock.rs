//! One connection's socket, with or without TLS. Reading and writing is tried at once; what the kernel does not take is
//! kept here, and the owner sees [`Sock::blocked`].

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustls::{ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::backend::{Address, Outward};
use crate::pipe::Pipe;
use crate::purse::Share;

/// The longest TLS record, with some room (RFC 8446 §5.2).
const RECORD: usize = 18 << 10;
/// What rustls takes in one go at most: a piece so small never leaves it more plain text than it bears.
const TLS_PIECE: usize = 4 << 10;

/// A read that brings so much could be cheaper without a copy.
const MUCH: usize = 16 << 10;
/// After so many of them in a row a pipe is made, which costs two descriptors and three system calls.
const BULK: u8 = 4;
/// It is given up when, since the last that brought much, so many more have not.
const MOST: u8 = BULK + 16;
const NEVER: u8 = u8::MAX;

/// What reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    Bytes(usize),
    /// Nothing now; an event will come.
    Nothing,
    /// The other side will send no more.
    End,
    /// The same, but over TLS it was not the other side that said so: anybody on the way may have (RFC 8446 §6.1).
    Cut,
}

#[derive(Debug)]
pub struct Sock {
    pub fd: OwnedFd,
    /// There may be something to read: an event said so and no read has come up short since.
    pub readable: bool,
    /// An event said that the other side has finished.
    pub hangup: bool,
    out: Vec<u8>,
    out_at: usize,
    /// With TLS: the kernel has not taken all, an event will come, and it is the owner's [`Sock::flush`] that goes on: who
    /// waits for the end of the writing must hear of it, whatever else is written meanwhile.
    full: bool,
    /// Read but not used yet.
    pub left: Vec<u8>,
    pub tls: Option<Box<Connection>>,
    /// Carries what another socket gives this one, since it is much.
    pipe: Option<Box<Pipe>>,
    /// Reads in a row that brought much; [`NEVER`]: what they bring cannot go through a pipe.
    bulk: u8,
    /// To be finished when everything has been written.
    finishes: bool,
    /// No byte may follow.
    finished: bool,
    /// Bytes of TLS records that have not become plain text yet, and of such as the kernel has not taken, about.
    hidden: usize,
    sealed: usize,
    share: Share,
}

impl Sock {
    pub fn new(fd: OwnedFd, share: Share) -> Sock {
        Sock {
            fd,
            readable: false,
            hangup: false,
            out: Vec::new(),
            out_at: 0,
            full: false,
            left: Vec::new(),
            tls: None,
            pipe: None,
            bulk: 0,
            finishes: false,
            finished: false,
            hidden: 0,
            sealed: 0,
            share,
        }
    }

    /// Counts what is held here.
    pub fn count(&mut self) {
        // A record stays whole until its last byte has gone.
        let unsent = self.out.len() - self.out_at
            + self.sealed
            + self.sealed.min(RECORD)
            + self.pipe.as_ref().map_or(0, |pipe| pipe.held());
        let kernel = if unsent == 0 { 0 } else { self.share.purse().socket() };
        self.share.set(unsent + kernel + self.left.len() + self.hidden);
    }

    /// Since when nothing of what is held has been taken; `u64::MAX`: nothing is held.
    pub fn since(&self) -> u64 {
        self.share.since()
    }

    /// Bytes held when last counted.
    pub fn held(&self) -> usize {
        self.share.held()
    }

    pub fn serve_tls(&mut self, config: Arc<ServerConfig>) -> Result<(), rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(None);
        self.tls = Some(Box::new(Connection::Server(connection)));
        Ok(())
    }

    /// `http1`: the connection must be one of HTTP/1.1, whatever the backend speaks else.
    pub fn connect_tls(&mut self, outward: &Outward, http1: bool) -> Result<(), rustls::Error> {
        let config = outward.http1.as_ref().filter(|_| http1).unwrap_or(&outward.config);
        let mut connection = ClientConnection::new(Arc::clone(config), outward.name.clone())?;
        connection.set_buffer_limit(None);
        self.tls = Some(Box::new(Connection::Client(connection)));
        Ok(())
    }

    /// What the TLS handshake agreed on; `None` without TLS.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.as_ref().map(|tls| tls.alpn_protocol().unwrap_or_default())
    }

    /// What the other side has proved to be.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.peer_certificates()?.first().map(|certificate| certificate.as_ref())
    }

    /// Asks the kernel whether the other side has closed, or sent what nobody asked for.
    pub fn is_closed_now(&self) -> bool {
        let mut byte = [0; 1];
        !matches!(rustix::net::recv(&self.fd, &mut byte[..], RecvFlags::PEEK), Err(Errno::AGAIN))
    }

    /// Looks at what has come, which stays to be read.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<Got> {
        receive(&self.fd, buffer, RecvFlags::PEEK)
    }

    /// Reads what stands before everything else, TLS too.
    pub fn read_raw(&self, buffer: &mut [u8]) -> io::Result<Got> {
        receive(&self.fd, buffer, RecvFlags::empty())
    }

    /// Whether the TLS handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Something written is still here: the owner should stop producing.
    pub fn blocked(&self) -> bool {
        self.out_at < self.out.len()
            || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
            || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads into `buffer`; `cipher` is room for what TLS reads first.
    pub fn read(&mut self, buffer: &mut [u8], cipher: &mut [u8]) -> io::Result<Got> {
        if self.tls.is_some() {
            let got = self.read_tls(buffer, cipher);
            if self.hidden != 0 || self.share.held() != 0 {
                self.count();
            }
            return got;
        }
        if !self.readable {
            return Ok(Got::Nothing);
        }
        let got = receive(&self.fd, buffer, RecvFlags::empty())?;
        match got {
            // A short read has emptied the socket (epoll(7)), unless its end is behind it.
            Got::Bytes(length) if length < buffer.len() && !self.hangup => self.readable = false,
            Got::Bytes(_) | Got::End | Got::Cut => {}
            Got::Nothing => self.readable = false,
        }
        Ok(got)
    }

    /// As [`Sock::read`], behind what was left; the number is that of all of it.
    pub fn read_on(&mut self, buffer: &mut [u8], cipher: &mut [u8]) -> io::Result<Got> {
        let kept = self.left.len();
        buffer[..kept].copy_from_slice(&self.left);
        let got = self.read(&mut buffer[kept..], cipher)?;
        let Got::Bytes(more) = got else { return Ok(got) };
        self.left.clear();
        if self.share.held() != 0 {
            self.count();
        }
        Ok(Got::Bytes(kept + more))
    }

    fn read_tls(&mut self, buffer: &mut [u8], cipher: &mut [u8]) -> io::Result<Got> {
        let Some(tls) = self.tls.as_deref_mut() else { return Ok(Got::Nothing) };
        let mut filled = 0;
        if let Some(end) = drain_plain(tls, buffer, &mut filled)? {
            return Ok(end);
        }
        while filled == 0 {
            if !self.readable {
                return Ok(Got::Nothing);
            }
            // All that comes of it, with what is left of the record before, has room.
            let room = cipher.len().min(buffer.len().saturating_sub(RECORD).max(TLS_PIECE));
            match receive(&self.fd, &mut cipher[..room], RecvFlags::empty())? {
                Got::Nothing => {
                    self.readable = false;
                    return Ok(Got::Nothing);
                }
                Got::End | Got::Cut => {
                    // Had it been said, that would have been read before.
                    tls.read_tls(&mut io::empty())?;
                    return Ok(Got::Cut);
                }
                Got::Bytes(length) => {
                    if length < room && !self.hangup {
                        self.readable = false;
                    }
                    self.hidden += length;
                    let mut rest = &cipher[..length];
                    let mut ended = false;
                    while !rest.is_empty() && !ended {
                        tls.read_tls(&mut rest)?;
                        if let Err(error) = tls.process_new_packets() {
                            // The alert says what was wrong.
                            let _ = tls.write_tls(&mut Raw(&self.fd));
                            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                        }
                        ended = drain_plain(tls, buffer, &mut filled)? == Some(Got::End);
                    }
                    if !self.full {
                        self.full = flush_tls(tls, &self.fd)?.is_some();
                    }
                    if filled > 0 {
                        // What is more than the plain text begins the next record, or was around this one.
                        self.hidden = length.saturating_sub(filled + length / 8);
                    }
                    if ended && filled == 0 {
                        return Ok(Got::End);
                    }
                }
            }
        }
        Ok(Got::Bytes(filled))
    }

    /// Writes all parts, or keeps what the kernel does not take.
    pub fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if let Some(tls) = self.tls.as_deref_mut() {
            for part in parts {
                tls.writer().write_all(part)?;
                self.sealed += part.len();
            }
            if self.full {
                self.count();
            } else {
                self.flush_sealed()?;
            }
            return Ok(());
        }
        if self.out_at < self.out.len() {
            parts.iter().for_each(|part| self.out.extend_from_slice(part));
            self.count();
            return Ok(());
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = match parts {
            [one] => send(&self.fd, one)?,
            [one, two] => send_two(&self.fd, one, two)?,
            _ => 0,
        };
        if sent == total {
            return Ok(());
        }
        for part in parts {
            let skip = sent.min(part.len());
            self.out.extend_from_slice(&part[skip..]);
            sent -= skip;
        }
        self.count();
        if parts.len() > 2 {
            return self.flush().map(drop);
        }
        Ok(())
    }

    fn flush_sealed(&mut self) -> io::Result<bool> {
        let Some(tls) = self.tls.as_deref_mut() else { return Ok(true) };
        let sent = flush_tls(tls, &self.fd)?;
        self.full = sent.is_some();
        self.sealed = match sent {
            None => 0,
            Some(sent) => self.sealed.saturating_sub(sent),
        };
        if self.sealed != 0 || self.share.held() != 0 {
            self.count();
        }
        Ok(sent.is_none())
    }

    /// Tries to write what is kept; true when nothing is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        if self.tls.is_some() && !self.flush_sealed()? {
            return Ok(false);
        }
        while self.out_at < self.out.len() {
            match send(&self.fd, &self.out[self.out_at..])? {
                0 => {
                    self.count();
                    return Ok(false);
                }
                sent => self.out_at += sent,
            }
        }
        if let Some(pipe) = &mut self.pipe
            && !pipe.drain(&self.fd)?
        {
            self.count();
            return Ok(false);
        }
        self.out_at = 0;
        // A connection that waits for its next request keeps no buffer.
        self.out = Vec::new();
        self.count();
        if std::mem::take(&mut self.finishes) {
            self.finish();
        }
        Ok(true)
    }

    /// Moves what has come to another socket: small amounts by a copy through `room`, much through a pipe in the kernel.
    /// `to` must not be blocked. An error of either side is the end of both.
    pub fn pass_to(&mut self, to: &mut Sock, room: &mut [u8], cipher: &mut [u8]) -> io::Result<Got> {
        if self.bulk >= BULK && self.bulk != NEVER {
            return self.splice_to(to);
        }
        let piece = self.share.purse().piece(room.len());
        let got = self.read(&mut room[..piece], cipher)?;
        if let Got::Bytes(length) = got {
            to.write(&[&room[..length]])?;
            if length < MUCH {
                self.bulk = if self.bulk == NEVER { NEVER } else { 0 };
            } else if self.bulk < BULK {
                self.bulk = match self.bulk + 1 {
                    _ if self.tls.is_some() || to.tls.is_some() => NEVER,
                    BULK => MOST,
                    more => more,
                };
            }
        }
        Ok(got)
    }

    fn splice_to(&mut self, to: &mut Sock) -> io::Result<Got> {
        if !self.readable {
            return Ok(Got::Nothing);
        }
        if to.pipe.is_none() {
            match Pipe::new() {
                Ok(pipe) => to.pipe = Some(Box::new(pipe)),
                // Out of descriptors: copying needs none.
                Err(_) => {
                    self.bulk = NEVER;
                    return Ok(Got::Nothing);
                }
            }
        }
        let Some(pipe) = to.pipe.as_deref_mut() else { return Ok(Got::Nothing) };
        let got = pipe.fill(&self.fd, self.share.purse())?;
        match got {
            Got::Nothing => {
                self.readable = false;
                // It comes in small pieces now, if it comes.
                self.bulk -= 1;
            }
            Got::End | Got::Cut => {}
            Got::Bytes(length) => {
                pipe.drain(&to.fd)?;
                to.count();
                self.bulk = if length >= MUCH { MOST } else { self.bulk - 1 };
            }
        }
        if self.bulk < BULK && !to.blocked() {
            to.pipe = None;
            self.bulk = 0;
        }
        Ok(got)
    }

    /// Says that nothing follows, as soon as everything has been written.
    pub fn finish_when_flushed(&mut self) {
        if self.blocked() {
            self.finishes = true;
        } else {
            self.finish();
        }
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if let Some(tls) = self.tls.as_deref_mut() {
            tls.send_close_notify();
            // The other side may be gone already; then nobody needs to be told.
            let _ = flush_tls(tls, &self.fd);
        }
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }
}

/// Takes what has been deciphered; the end, if it has come and nothing is before it.
fn drain_plain(tls: &mut Connection, buffer: &mut [u8], filled: &mut usize) -> io::Result<Option<Got>> {
    while *filled < buffer.len() {
        match tls.reader().read(&mut buffer[*filled..]) {
            Ok(0) => return Ok(Some(if *filled == 0 { Got::End } else { Got::Bytes(*filled) })),
            Ok(length) => *filled += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(Got::Cut)),
            Err(error) => return Err(error),
        }
    }
    Ok((*filled > 0).then_some(Got::Bytes(*filled)))
}

fn receive(fd: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Got> {
    match retry_on_intr(|| rustix::net::recv(fd, &mut *buffer, flags)) {
        Ok((0, _)) => Ok(Got::End),
        Ok((length, _)) => Ok(Got::Bytes(length)),
        Err(Errno::AGAIN) => Ok(Got::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// 0: not now.
fn send(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    taken(retry_on_intr(|| rustix::net::send(fd, bytes, SendFlags::NOSIGNAL)))
}

fn send_two(fd: &OwnedFd, one: &[u8], two: &[u8]) -> io::Result<usize> {
    if two.is_empty() {
        return send(fd, one);
    }
    taken(retry_on_intr(|| rustix::io::writev(fd, &[IoSlice::new(one), IoSlice::new(two)])))
}

/// What the kernel has taken; 0: nothing now.
fn taken(written: rustix::io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(Errno::AGAIN) => Ok(0),
        written => Ok(written?),
    }
}

/// `None`: all has been written; else how much of it.
fn flush_tls(tls: &mut Connection, fd: &OwnedFd) -> io::Result<Option<usize>> {
    let mut sent = 0;
    while tls.wants_write() {
        match tls.write_tls(&mut Raw(fd)) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(sent)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The descriptor as rustls wants to write to it.
struct Raw<'a>(&'a OwnedFd);

impl io::Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            [one] => self.write(one),
            _ => Ok(rustix::io::writev(self.0, parts)?),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === sockets ===

/// Reno instead of a pacing algorithm where no packet leaves the machine: there is no bottleneck to find out about.
fn tune(fd: &OwnedFd, local: bool) {
    // None of these decides whether the connection works.
    let _ = sockopt::set_tcp_nodelay(fd, true);
    if local {
        let _ = sockopt::set_tcp_congestion(fd, "reno");
    }
}

/// Bounds what the kernel holds of what is written; it would grow to megabytes for somebody who reads fast.
pub fn bound(fd: &OwnedFd, bytes: usize) {
    // Without it there is more to hold, and it works.
    let _ = sockopt::set_socket_send_buffer_size(fd, bytes);
}

/// Binds and listens. With `both`, every address of IPv6 is every one of IPv4, too.
pub fn listen(address: &Address, both: bool) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match address {
        Address::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            sockopt::set_socket_reuseaddr(&fd, true)?;
            if address.is_ipv6() {
                sockopt::set_ipv6_v6only(&fd, !both)?;
            }
            // Accepted connections inherit it.
            let _ = sockopt::set_tcp_nodelay(&fd, true);
            rustix::net::bind(&fd, address)?;
            rustix::net::listen(&fd, 4096)?;
            Ok(fd)
        }
        Address::Unix(path) => {
            // A stale one, to which nobody listens, is replaced.
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            if std::os::unix::net::UnixStream::connect(path).is_err_and(refused) {
                std::fs::remove_file(path)?;
            }
            let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
            rustix::net::listen(&fd, 4096)?;
            Ok(fd)
        }
    }
}

/// The address a listening socket has.
pub fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    rustix::net::getsockname(fd).ok().and_then(|address| SocketAddr::try_from(address).ok())
}

/// Takes a waiting connection: `None` if there is none.
pub fn accept(listener: &OwnedFd) -> io::Result<Option<(OwnedFd, Option<SocketAddr>)>> {
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        return match rustix::net::acceptfrom_with(listener, flags) {
            Ok((fd, address)) => {
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                if address.is_some_and(|address| address.ip().to_canonical().is_loopback()) {
                    let _ = sockopt::set_tcp_congestion(&fd, "reno");
                }
                Ok(Some((fd, address)))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Begins to connect; the flag says whether it is done already.
pub fn connect(address: &Address) -> io::Result<(OwnedFd, bool)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, result) = match address {
        Address::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            tune(&fd, address.ip().to_canonical().is_loopback());
            let result = rustix::net::connect(&fd, address);
            (fd, result)
        }
        Address::Unix(path) => {
            let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let result = rustix::net::connect(&fd, &SocketAddrUnix::new(path)?);
            (fd, result)
        }
    };
    match result {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS) => Ok((fd, false)),
        Err(error) => Err(error.into()),
    }
}

/// Whether there was no descriptor or no memory of the kernel's for a socket: that is nobody's fault but our own.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// How connecting ended.
pub fn connected(fd: &OwnedFd) -> io::Result<()> {
    sockopt::socket_error(fd)?.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore, StreamOwned};

    use super::*;

    /// A TLS server's side that may write and read at any time, and the client it talks to.
    fn secured() -> (Sock, StreamOwned<ClientConnection, UnixStream>) {
        let made = rcgen::generate_simple_self_signed(["app".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = |provider: &Arc<_>| Arc::clone(provider);
        let server = ServerConfig::builder_with_provider(versions(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()))
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut sock = Sock::new(ours.into(), Share::of(&crate::purse::Purse::endless()));
        sock.serve_tls(Arc::new(server)).unwrap();
        let client = ClientConnection::new(Arc::new(client), "app".try_into().unwrap()).unwrap();
        let mut client = StreamOwned::new(client, theirs);
        let (mut room, mut cipher) = (vec![0; 64 << 10], vec![0; 32 << 10]);
        while client.conn.is_handshaking() || sock.is_handshaking() {
            let _ = client.conn.complete_io(&mut client.sock);
            sock.readable = true;
            assert_eq!(sock.read(&mut room, &mut cipher).unwrap(), Got::Nothing);
        }
        (sock, client)
    }

    /// Reads whatever has come; the second is whether the other side has said that nothing follows.
    fn take(client: &mut StreamOwned<ClientConnection, UnixStream>) -> (usize, bool) {
        let (mut room, mut taken) = ([0; 4096], 0);
        loop {
            match client.read(&mut room) {
                Ok(0) => return (taken, true),
                Ok(length) => taken += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (taken, false),
                Err(error) => panic!("after {taken} bytes: {error}"),
            }
        }
    }

    #[test]
    fn an_end_is_told_from_a_cut() {
        let (mut room, mut cipher) = (vec![0; 64 << 10], vec![0; 32 << 10]);
        for says in [false, true] {
            let (mut sock, mut client) = secured();
            client.write_all(b"all").unwrap();
            if says {
                client.conn.send_close_notify();
            }
            client.flush().unwrap();
            client.sock.shutdown(std::net::Shutdown::Write).unwrap();
            sock.readable = true;
            sock.hangup = true;
            assert_eq!(sock.read(&mut room, &mut cipher).unwrap(), Got::Bytes(3));
            let end = if says { Got::End } else { Got::Cut };
            for _ in 0..2 {
                assert_eq!(sock.read(&mut room, &mut cipher).unwrap(), end);
            }
        }
    }

    #[test]
    fn nothing_else_ends_the_waiting_for_the_kernel() {
        const MUCH: usize = 4 << 20;
        let (mut sock, mut client) = secured();
        sock.write(&[&vec![b'x'; MUCH]]).unwrap();
        // The kernel takes more all the time, and small things are written: only the flush says so.
        for _ in 0..200 {
            take(&mut client);
            assert!(sock.blocked());
            sock.write(&[b"a small answer"]).unwrap();
        }
        let mut rounds = 0;
        while !sock.flush().unwrap() {
            take(&mut client);
            rounds += 1;
            assert!(rounds < 10_000);
        }
        assert!(!sock.blocked());
    }

    #[test]
    fn what_is_written_over_tls_ends_when_it_has_gone() {
        const MUCH: usize = 4 << 20;
        let (mut sock, mut client) = secured();
        sock.write(&[&vec![b'x'; MUCH]]).unwrap();
        assert!(sock.blocked());
        sock.finish_when_flushed();
        // Reading takes nothing off the owner's hands, who waits for the end of the writing.
        let (mut taken, mut ended) = take(&mut client);
        client.write_all(b"y").unwrap();
        sock.readable = true;
        assert_eq!(sock.read(&mut vec![0; 64 << 10], &mut vec![0; 32 << 10]).unwrap(), Got::Bytes(1));
        assert_eq!(take(&mut client), (0, false));
        for _ in 0..10_000 {
            sock.flush().unwrap();
            let (more, end) = take(&mut client);
            (taken, ended) = (taken + more, end);
            if ended {
                break;
            }
        }
        assert_eq!((taken, ended), (MUCH, true));
    }
}
