//! Clients attached to a container: who sees what it prints beside the log, and may type.
//!
//! A client's buffer is its pipe. One whose pipe is full holds the container's output up, as in a shell pipeline, but only
//! for [`PATIENCE_MS`] without taking anything: then it is let go. The log is written first, whatever happens here.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::serve::monotonic_ms;
use crate::spawn::never_block;

/// How long a client that does not read may keep the container waiting.
const PATIENCE_MS: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Client {
    /// The serial number of the connection that asked for it.
    pub(crate) peer: u64,
    /// The id of that request.
    pub(crate) id: u64,
    pub(crate) stdin: Option<OwnedFd>,
    outs: [Out; 2],
    pub(crate) gone: bool,
}

/// One stream to a client.
#[derive(Debug, Default)]
struct Out {
    pipe: Option<OwnedFd>,
    /// What the pipe would not take.
    backlog: Vec<u8>,
    /// See [`monotonic_ms`]; means something while there is a backlog.
    patience_ends: u64,
}

impl Client {
    pub(crate) fn new(peer: u64, id: u64, streams: [Option<OwnedFd>; 3]) -> Client {
        streams.iter().flatten().for_each(never_block);
        let [stdin, stdout, stderr] = streams;
        let out = |pipe| Out { pipe, ..Out::default() };
        Client { peer, id, stdin, outs: [out(stdout), out(stderr)], gone: false }
    }

    pub(crate) fn give(&mut self, stream: usize, bytes: &[u8]) {
        let out = &mut self.outs[stream];
        if out.pipe.is_none() {
            return;
        }
        if out.backlog.is_empty() {
            out.patience_ends = monotonic_ms() + PATIENCE_MS;
        }
        out.backlog.extend_from_slice(bytes);
        self.push(stream);
    }

    /// One of [`Self::outs`] has news.
    pub(crate) fn hear(&mut self, stream: usize) {
        // Not full and yet news: nobody reads it any more.
        self.gone |= self.outs[stream].backlog.is_empty();
        self.push(stream);
    }

    fn push(&mut self, stream: usize) {
        let out = &mut self.outs[stream];
        let Some(pipe) = &out.pipe else { return };
        let mut done = 0;
        while done < out.backlog.len() {
            match rustix::io::write(pipe, &out.backlog[done..]) {
                Ok(count) => done += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        out.backlog.drain(..done);
        if out.backlog.is_empty() {
            out.backlog = Vec::new();
        } else if done > 0 {
            out.patience_ends = monotonic_ms() + PATIENCE_MS;
        }
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.outs.iter().any(|out| !out.backlog.is_empty())
    }

    /// Until when to wait for one that is behind.
    pub(crate) fn patience_ends(&self) -> Option<u64> {
        self.outs.iter().filter(|out| !out.backlog.is_empty()).map(|out| out.patience_ends).min()
    }

    /// Its streams out, and whether they are full.
    pub(crate) fn outs(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, bool)> {
        let outs = self.outs.iter().enumerate();
        outs.filter_map(|(index, out)| Some((index, out.pipe.as_ref()?.as_fd(), !out.backlog.is_empty())))
    }
}
