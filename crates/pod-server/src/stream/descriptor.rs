//! A session's descriptors in the reactor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A pipe, socket or terminal that is ours alone (see [`crate::machine::Session`]), so that making it non-blocking
/// disturbs nobody.
pub(super) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Only reads, or only writes, will be made.
    pub(super) fn new(descriptor: OwnedFd, interest: Interest) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may change their descriptor; `OwnedFd` cannot"
        )]
        let registered = AsyncFd::with_interest(descriptor, interest)?;
        Ok(Self(registered))
    }

    /// What is there, at least one byte; 0 is the end. Cancel-safe.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read =
            self.0.async_io(Interest::READABLE, |inner| Ok(rustix::io::read(inner.as_fd(), &mut *buffer)?)).await;
        match read {
            // How a terminal's master says that nobody has the other side open any more.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
            other => other,
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written =
                self.0.async_io(Interest::WRITABLE, |inner| Ok(rustix::io::write(inner.as_fd(), bytes)?)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// No more input: the end of a pipe, the half-close of a socket. A terminal has neither; its user types ^D.
    pub(super) fn finish(self) {
        let _ = rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Write);
    }
}
