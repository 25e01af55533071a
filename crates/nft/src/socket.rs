//! The conversation with the kernel: commit a batch, dump what exists.
//!
//! The kernel answers within the send call, so receiving never waits: an empty receive queue means that the answer will
//! never come, and is an error rather than a hang.

use std::{io, os::fd::AsRawFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::{
    Batch,
    attribute::{Attributes, Message, Writer, messages},
};

/// `NLMSG_ERROR` (also an acknowledgement), `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the dumped objects changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_CAPPED`: the failed message is not repeated in full.
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// Larger than any datagram of a dump (the kernel uses up to 32 KiB).
const RECEIVE_BUFFER: usize = 64 * 1024;
/// How often a dump is begun again because the rules changed under it.
const DUMP_ATTEMPTS: usize = 20;

/// A connection to the netfilter of the network namespace it was opened in.
///
/// Worth keeping: closing a netfilter socket makes the kernel finish freeing what earlier commits deleted, and whoever
/// closes waits for it, about 10 ms (an RCU grace period).
#[derive(Debug)]
pub struct Netfilter {
    socket: Socket,
    sequence: std::cell::Cell<u32>,
}

#[derive(Debug, thiserror::Error)]
#[error("failed to open a netfilter socket")]
pub struct OpenError(#[source] io::Error);

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Found before anything was sent.
    #[error("the batch is not valid: {0}")]
    Invalid(String),
    /// The kernel refused; nothing was changed.
    #[error("the kernel refused to {change}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Refused {
        /// What was asked, e.g. `add chain ip outrigger prerouting`.
        change: String,
        /// The kernel's own words, if it had any.
        hint: Option<String>,
        #[source]
        source: io::Error,
    },
    #[error("failed to send {0} bytes of changes to netfilter")]
    Send(usize, #[source] io::Error),
    #[error("failed to receive netfilter's answer")]
    Receive(#[source] io::Error),
}

impl CommitError {
    /// The kernel's error, for callers to whom e.g. "does not exist" is fine.
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            CommitError::Refused { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("failed to list netfilter's {what}")]
    Exchange {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("netfilter's {what} kept changing while they were listed")]
    Unsteady { what: &'static str },
}

impl ListError {
    /// Whether what was to be listed does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ListError::Exchange { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Netfilter {
    /// Connects to the netfilter of the calling thread's network namespace. Changes need `CAP_NET_ADMIN` there.
    pub fn open() -> Result<Self, OpenError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            io::Result::Ok(socket)
        };
        Ok(Self { socket: open().map_err(OpenError)?, sequence: std::cell::Cell::new(0) })
    }

    /// Applies all changes of the batch, or none.
    pub fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        if let Some(why) = batch.defect() {
            return Err(CommitError::Invalid(why.to_owned()));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let base = self.next_sequences(batch.last_number() + 2);
        let datagram = batch.datagram(base);
        self.send(&datagram).map_err(|source| CommitError::Send(datagram.len(), source))?;
        // Only the last change asks for an answer; refused ones and a failed commit (as an answer to the batch's begin)
        // come unasked and before it.
        let mut refused = None;
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        loop {
            match self.receive(&mut buffer) {
                Ok(()) => {}
                // The answers did not all fit, or a failed commit was the only one.
                Err(_) if refused.is_some() => break,
                Err(source) => return Err(CommitError::Receive(source)),
            }
            let mut last_seen = false;
            for message in messages(&buffer).filter(|message| message.kind == ERROR) {
                let number = message.sequence.wrapping_sub(base);
                if number > batch.last_number() + 1 {
                    continue; // an answer to something earlier
                }
                let (error, hint) = read_error(&message);
                if let Some(source) = error {
                    let change = batch.change_at(number).unwrap_or("commit the changes").to_owned();
                    refused.get_or_insert(CommitError::Refused { change, hint, source });
                }
                last_seen |= number == batch.last_number();
            }
            if last_seen {
                break;
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one message outside of a batch and waits for its acknowledgement.
    pub(crate) fn request(&self, kind: u16, family: u8, body: impl FnOnce(&mut Writer)) -> io::Result<()> {
        let sequence = self.next_sequences(1);
        let mut writer = Writer::default();
        writer.message(kind, REQUEST | ACKNOWLEDGE, sequence, family, 0, body);
        self.send(writer.bytes())?;
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        loop {
            self.receive(&mut buffer)?;
            let answer = messages(&buffer).find(|message| message.kind == ERROR && message.sequence == sequence);
            if let Some(answer) = answer {
                return read_error(&answer).0.map_or(Ok(()), Err);
            }
        }
    }

    /// Asks for all objects of a kind and reads each by `read`.
    pub(crate) fn dump<T>(
        &self,
        what: &'static str,
        kind: u16,
        family: u8,
        body: impl Fn(&mut Writer),
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, ListError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) =
                self.dump_once(kind, family, &body, &mut read).map_err(|source| ListError::Exchange { what, source })?
            {
                return Ok(found);
            }
        }
        Err(ListError::Unsteady { what })
    }

    /// None if the objects changed meanwhile.
    fn dump_once<T>(
        &self,
        kind: u16,
        family: u8,
        body: &impl Fn(&mut Writer),
        read: &mut impl FnMut(&Message<'_>) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        let sequence = self.next_sequences(1);
        let mut writer = Writer::default();
        writer.message(kind, REQUEST | DUMP, sequence, family, 0, body);
        self.send(writer.bytes())?;
        let mut found = Vec::new();
        let mut steady = true;
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        loop {
            self.receive(&mut buffer)?;
            for message in messages(&buffer).filter(|message| message.sequence == sequence) {
                steady &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    DONE => return Ok(steady.then_some(found)),
                    ERROR => {
                        if let Some(error) = read_error(&message).0 {
                            return Err(error);
                        }
                    }
                    _ => found.extend(read(&message)),
                }
            }
        }
    }

    /// The first of `count` numbers not used before, so that no late answer is taken for a later question's.
    fn next_sequences(&self, count: u32) -> u32 {
        let first = self.sequence.get();
        self.sequence.set(first.wrapping_add(count));
        first
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        /// `EMSGSIZE`: the datagram is larger than the socket's send buffer may become (`net.core.wmem_default`).
        const TOO_LONG: i32 = 90;
        // Netlink takes a datagram whole or not at all.
        match self.socket.send(datagram, 0) {
            Err(error) if error.raw_os_error() == Some(TOO_LONG) => {
                // Beyond `net.core.wmem_max`, as the one who may change netfilter may; nothing is reserved by it.
                rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, datagram.len())?;
                self.socket.send(datagram, 0).map(|_| ())
            }
            sent => sent.map(|_| ()),
        }
    }

    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        const DO_NOT_WAIT: i32 = 0x40;
        buffer.clear();
        self.socket.recv(buffer, DO_NOT_WAIT).map(|_| ())
    }
}

impl AsRawFd for Netfilter {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

/// The error of an answer, if it is not an acknowledgement, and the kernel's words about it.
fn read_error(message: &Message<'_>) -> (Option<io::Error>, Option<String>) {
    let Some(code) = message.payload.get(..4).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?))) else {
        return (Some(io::ErrorKind::InvalidData.into()), None);
    };
    if code == 0 {
        return (None, None);
    }
    // Behind the code: the header of the failed message, the rest of it unless capped, attributes.
    let original = message.payload.get(4..8).and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
    let repeated = if message.flags & CAPPED != 0 { 16 } else { original.unwrap_or(16) as usize };
    let attributes = message.payload.get(4 + repeated.next_multiple_of(4)..).unwrap_or(&[]);
    let hint = Attributes::of(attributes).find(ERROR_TEXT).map(|text| text.text());
    (Some(io::Error::from_raw_os_error(-code)), hint)
}
