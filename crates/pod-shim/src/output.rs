//! What a container prints, on its way to its log.
//!
//! Nothing printed before the end is lost: the pipe is the buffer. While the log's disk is full nothing is read, so the
//! container blocks on its own output; every second the write is tried again.

use std::os::fd::{BorrowedFd, OwnedFd};

use logfile::Stream;
use logfile::write::Writer;
use rustix::io::Errno;

use crate::audience::Client;
use crate::serve::{monotonic_ms, now};
use crate::spawn::never_block;

/// Both pipes (or the one terminal) and the log they go to.
#[derive(Debug)]
pub(crate) struct Output {
    /// stdout or a terminal, and stderr.
    sources: [Option<OwnedFd>; 2],
    log: Writer,
    /// The log could not be written.
    stalled: bool,
    /// The container has ended: until when (see [`crate::serve::monotonic_ms`]) to read what its pipes still hold.
    last_words: Option<u64>,
    pub(crate) audience: Vec<Client>,
}

/// A pipe that the container made huge is read to its end. Somebody else who got hold of its other end, and prints on, must
/// not keep the ended container here for ever.
const LAST_WORDS_MS: u64 = 10_000;

/// Most that [`Output::drain`] reads of one stream: more than any default pipe holds. A process that outlived the
/// container and prints without end must not hold up the news of the container's.
const DRAIN_LIMIT: usize = 1 << 20;
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Output {
    pub(crate) fn new(log: Writer, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Output {
        Output { sources: [stdout, stderr], log, stalled: false, last_words: None, audience: Vec::new() }
    }

    /// The master side of the container's terminal is what it prints to.
    pub(crate) fn set_terminal(&mut self, master: OwnedFd) {
        never_block(&master);
        self.sources[0] = Some(master);
    }

    /// Of the terminal.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<(), Errno> {
        let size = rustix::termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(self.sources[0].as_ref().ok_or(Errno::NOTTY)?, size)
    }

    /// What to wait for, by index; nothing while the log cannot be written or a client is behind.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        use std::os::fd::AsFd as _;
        let sources = if self.stalled || self.audience.iter().any(Client::is_behind) { &[] } else { &self.sources[..] };
        sources.iter().enumerate().filter_map(|(index, source)| Some((index, source.as_ref()?.as_fd())))
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(crate) fn is_finished(&self) -> bool {
        !self.stalled && self.is_drained() && self.audience.is_empty()
    }

    /// Nothing more will come.
    pub(crate) fn is_drained(&self) -> bool {
        self.sources.iter().all(Option::is_none)
    }

    /// Nothing more is expected: the container never ran, or the shim ends.
    pub(crate) fn close(&mut self) {
        self.sources = [None, None];
        self.stalled = self.log.finish(now()).is_err();
    }

    pub(crate) fn retry(&mut self) {
        if self.stalled {
            self.stalled = self.log.retry().is_err();
        }
    }

    /// Moves one buffer full.
    pub(crate) fn pump(&mut self, index: usize, buffer: &mut [u8]) {
        self.move_once(index, buffer);
    }

    /// The container has ended: moves all that is there now, and takes nothing that comes later.
    pub(crate) fn drain(&mut self, buffer: &mut [u8]) {
        self.last_words = Some(monotonic_ms() + LAST_WORDS_MS);
        for index in 0..self.sources.len() {
            let mut moved = 0;
            while !self.stalled && moved < DRAIN_LIMIT {
                match self.move_once(index, buffer) {
                    0 => break,
                    count => moved += count,
                }
            }
        }
    }

    /// Zero when there is nothing to read now, or ever.
    fn move_once(&mut self, index: usize, buffer: &mut [u8]) -> usize {
        let Some(source) = &self.sources[index] else { return 0 };
        let outcome = rustix::io::read(source, &mut *buffer);
        let stream = STREAMS[index];
        match outcome {
            Err(Errno::INTR) => 0,
            Err(Errno::AGAIN) if self.last_words.is_none() => 0,
            Ok(count) if count > 0 => {
                self.stalled = self.log.write(stream, &buffer[..count], now()).is_err();
                self.audience.iter_mut().for_each(|client| client.give(index, &buffer[..count]));
                if self.last_words.is_some_and(|until| until <= monotonic_ms()) {
                    self.sources[index] = None;
                }
                count
            }
            // The last writer is gone, a terminal says EIO; or nobody is left who should write.
            Ok(_) | Err(_) => {
                self.sources[index] = None;
                self.stalled = self.log.finish_stream(stream, now()).is_err();
                0
            }
        }
    }
}
