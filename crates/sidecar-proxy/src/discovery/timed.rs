//! A connection to a server that tells what discovery asks: whatever it does, reading and writing end at a set time. A limit
//! for each read alone would not do: who sends a byte now and then could hold a thread for hours.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What is left until then; an error if nothing is.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
}

/// A TCP stream with a deadline, and with a limit for each step.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    each: Duration,
    until: Instant,
}

impl Timed {
    /// Connects; no step takes longer than `each`, and all together are done by `until`.
    pub(super) fn connect(address: SocketAddr, each: Duration, until: Instant) -> io::Result<Timed> {
        let stream = TcpStream::connect_timeout(&address, left(until)?.min(each))?;
        stream.set_nodelay(true)?;
        Ok(Timed { stream, each, until })
    }

    /// From now on the deadline is another.
    pub(super) fn set_until(&mut self, until: Instant) {
        self.until = until;
    }
}

impl Read for Timed {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?.min(self.each)))?;
        self.stream.read(room)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.until)?.min(self.each)))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
