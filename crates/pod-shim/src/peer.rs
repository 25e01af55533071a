//! A connected client. Facts need no queue: each client has its place in the file of facts, and moves on when its socket
//! takes more. Only answers wait here, and they are few: one for each request it made.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send};

use crate::facts::Facts;
use crate::text::Line;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) serial: u64,
    socket: OwnedFd,
    /// Facts before this byte of the file have been sent.
    told: u64,
    /// Answers that the socket would not take yet.
    waiting: Vec<Vec<u8>>,
    /// The socket is full.
    blocked: bool,
    pub(crate) gone: bool,
}

impl Peer {
    pub(crate) fn new(serial: u64, socket: OwnedFd) -> Peer {
        Peer { serial, socket, told: 0, waiting: Vec::new(), blocked: false, gone: false }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// It takes more now.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    pub(crate) fn is_behind(&self, facts: &Facts) -> bool {
        !self.gone && (!self.waiting.is_empty() || self.told < facts.length())
    }

    pub(crate) fn answer(&mut self, line: Line) {
        self.waiting.push(line.end());
        self.flush_answers();
    }

    /// Sends what can be sent.
    pub(crate) fn push(&mut self, facts: &Facts) {
        self.flush_answers();
        if self.blocked || self.gone || self.told == facts.length() {
            return;
        }
        let mut told = self.told;
        told = facts.each(told, |line| self.send(line));
        self.told = told;
    }

    fn flush_answers(&mut self) {
        while !self.blocked && !self.gone && !self.waiting.is_empty() {
            let packet = self.waiting.remove(0);
            if !self.send(&packet) {
                self.waiting.insert(0, packet);
                return;
            }
        }
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
    }

    fn send(&mut self, packet: &[u8]) -> bool {
        match send(&self.socket, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => return true,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => self.blocked = true,
            Err(_) => self.gone = true,
        }
        false
    }

    /// The next packet and what came with it; `None` when there is none, or the client has gone.
    pub(crate) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Option<(&'a [u8], Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut [std::io::IoSliceMut::new(buffer)], &mut ancillary, flags);
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        match received {
            Err(Errno::AGAIN | Errno::INTR) => None,
            // A packet that was cut would mean something else, as would one that lacks a descriptor.
            Ok(message) if message.bytes > 0 && !message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) => {
                Some((&buffer[..message.bytes], fds))
            }
            Ok(_) | Err(_) => {
                self.gone = true;
                None
            }
        }
    }
}
