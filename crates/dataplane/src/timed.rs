//! A connection of a thread that waits: to a server that is asked beside requests (names, endpoints, limits). Whatever it does,
//! reading and writing end at a set time. A limit for each read alone would not do: who sends a byte now and then could hold
//! a thread for hours.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};

/// Who knows the addresses of names, and keeps to a time: the system's resolver does not.
pub trait Names: fmt::Debug + Send + Sync {
    /// The addresses of a host, which may be one itself; an error at the latest at `until`.
    fn addresses(&self, host: &str, until: Instant) -> io::Result<Vec<IpAddr>>;
}

/// That there was no answer in time.
pub fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// What is left until then; an error if nothing is.
pub fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream with a deadline, and with a limit for each step.
#[derive(Debug)]
pub struct Timed {
    stream: Stream,
    each: Duration,
    until: Instant,
}

impl Timed {
    /// Connects; no step takes longer than `each`, and all together are done by `until`.
    pub fn connect(address: SocketAddr, each: Duration, until: Instant) -> io::Result<Timed> {
        let stream = TcpStream::connect_timeout(&address, left(until)?.min(each))?;
        stream.set_nodelay(true)?;
        Ok(Timed { stream: Stream::Tcp(stream), each, until })
    }

    /// Connects to the first of these addresses that lets somebody in.
    pub fn connect_any(
        addresses: impl IntoIterator<Item = SocketAddr>,
        each: Duration,
        until: Instant,
    ) -> io::Result<Timed> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match Timed::connect(address, each, until) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to a socket's path. unix(7) blocks while its backlog is full, for as long as the socket's time for sending says.
    pub fn connect_unix(path: impl AsRef<Path>, until: Instant) -> io::Result<Timed> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(left(until)?))?;
        match rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_ref())?) {
            Ok(()) => Ok(Timed { stream: Stream::Unix(socket.into()), each: Duration::MAX, until }),
            Err(Errno::AGAIN) => Err(late()),
            Err(error) => Err(error.into()),
        }
    }

    /// From now on the deadline is another.
    pub fn set_until(&mut self, until: Instant) {
        self.until = until;
    }
}

impl Read for Timed {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let time = Some(left(self.until)?.min(self.each));
        match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(time)?;
                stream.read(room)
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(time)?;
                stream.read(room)
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let time = Some(left(self.until)?.min(self.each));
        match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_write_timeout(time)?;
                stream.write(bytes)
            }
            Stream::Unix(stream) => {
                stream.set_write_timeout(time)?;
                stream.write(bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_lets_nobody_in_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("outrigger-timed-{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let place = path.display().to_string();
        let (told, is_told) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(Timed::connect_unix(&place, Instant::now() + Duration::from_millis(100))));
        let result = is_told.recv_timeout(Duration::from_secs(10));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(result.expect("a result").unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(listener);
    }
}
