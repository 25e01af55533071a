//! What clients type, on its way to the container.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use pod_shim::protocol::{STDIN, STDIN_ONCE, TTY};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::spawn::never_block;

/// The writing end of a container's standard input, if it has one that is open.
#[derive(Debug)]
pub(crate) struct Input {
    /// A pipe, or the master side of the terminal.
    sink: Option<OwnedFd>,
    wanted: bool,
    /// A pipe that closes with the first client's end.
    once: bool,
    closing: bool,
    /// What the sink would not take yet. No client is read while there is any.
    pending: Vec<u8>,
}

impl Input {
    /// With the end that is the container's; `None` without standard input, and for a terminal, which comes later.
    pub(crate) fn new(streams: u64) -> Result<(Input, Option<OwnedFd>), Errno> {
        let wanted = streams & STDIN != 0;
        let tty = streams & TTY != 0;
        let mut input =
            Input { sink: None, wanted, once: streams & STDIN_ONCE != 0 && !tty, closing: false, pending: Vec::new() };
        if !wanted || tty {
            return Ok((input, None));
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        never_block(&writer);
        input.sink = Some(writer);
        Ok((input, Some(reader)))
    }

    pub(crate) fn set_terminal(&mut self, master: BorrowedFd<'_>) {
        if self.wanted {
            self.sink = rustix::io::fcntl_dupfd_cloexec(master, 0).ok();
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sink.is_some() && !self.closing
    }

    /// Clients may be read.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_open() && self.pending.is_empty()
    }

    /// What to wait for until it takes more.
    pub(crate) fn blocked(&self) -> Option<BorrowedFd<'_>> {
        self.sink.as_ref().filter(|_| !self.pending.is_empty()).map(OwnedFd::as_fd)
    }

    pub(crate) fn give(&mut self, bytes: &[u8]) {
        let written = self.write(bytes);
        self.pending.extend_from_slice(&bytes[written..]);
    }

    /// It takes more now.
    pub(crate) fn push(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.give(&pending);
        if self.pending.is_empty() && self.closing {
            self.close();
        }
    }

    /// A client that could write is at its end. Does the container's input stay open without it?
    pub(crate) fn client_ended(&mut self) -> bool {
        if !self.once {
            return true;
        }
        self.closing = true;
        if self.pending.is_empty() {
            self.close();
        }
        false
    }

    pub(crate) fn close(&mut self) {
        self.sink = None;
        self.pending = Vec::new();
    }

    /// How much was taken; what nobody will read any more is taken, too.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(sink) = &self.sink else { return bytes.len() };
        match rustix::io::write(sink, bytes) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // The container has closed it.
            Err(_) => {
                self.close();
                bytes.len()
            }
        }
    }
}
