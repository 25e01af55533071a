//! Bytes from one socket to another without a copy through this process: splice(2) into a pipe and out of it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::purse::Purse;
use crate::sock::Got;

/// Asked for; an unprivileged process gets what `/proc/sys/fs/pipe-max-size` and its user's share allow, else the 64 KiB a
/// pipe has anyway.
const SIZE: usize = 256 << 10;

/// What the kernel holds for a socket that has not taken it yet.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    room: usize,
    held: usize,
}

impl Pipe {
    pub fn new() -> io::Result<Pipe> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let room = rustix::pipe::fcntl_setpipe_size(&write, SIZE).unwrap_or(64 << 10);
        Ok(Pipe { read, write, room, held: 0 })
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what the socket has; only while nothing is held, so that [`Got::Nothing`] is said of the socket.
    pub fn fill(&mut self, from: &OwnedFd, purse: &Purse) -> io::Result<Got> {
        let room = purse.piece(self.room);
        match retry_on_intr(|| rustix::pipe::splice(from, None, &self.write, None, room, FLAGS)) {
            Ok(0) => Ok(Got::End),
            Ok(length) => {
                self.held += length;
                Ok(Got::Bytes(length))
            }
            Err(Errno::AGAIN) => Ok(Got::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the socket what it takes; true when nothing is held any more.
    pub fn drain(&mut self, to: &OwnedFd) -> io::Result<bool> {
        while self.held > 0 {
            match retry_on_intr(|| rustix::pipe::splice(&self.read, None, to, None, self.held, FLAGS)) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(false),
                Ok(length) => self.held -= length,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let (mut near, from) = UnixStream::pair().unwrap();
        let (to, mut far) = UnixStream::pair().unwrap();
        for socket in [&from, &to] {
            socket.set_nonblocking(true).unwrap();
        }
        let (from, to) = (OwnedFd::from(from), OwnedFd::from(to));
        let mut pipe = Pipe::new().unwrap();
        let purse = Purse::endless();
        assert_eq!(pipe.fill(&from, &purse).unwrap(), Got::Nothing);
        near.write_all(b"hello").unwrap();
        assert_eq!((pipe.fill(&from, &purse).unwrap(), pipe.held()), (Got::Bytes(5), 5));
        assert!(pipe.drain(&to).unwrap());
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        drop(near);
        assert_eq!(pipe.fill(&from, &purse).unwrap(), Got::End);
    }
}
