//! The conversation with the kernel's routing and link tables (rtnetlink(7)): requests in, answers out.
//!
//! The kernel answers within the send call, so receiving never waits; an empty queue is an error, not a hang.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Larger than any datagram of a dump (the kernel uses up to 32 KiB).
const RECEIVE_BUFFER: usize = 64 * 1024;
const DO_NOT_WAIT: i32 = 0x40;

/// How a change treats what is there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// The object must not exist.
    Create,
    /// The object is made or made so.
    Ensure,
    /// The object must exist.
    Alter,
}

/// A connection to the tables of the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct RouteSocket {
    socket: Socket,
}

impl RouteSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Asks for all changes at once; the kernel makes them in order. The first refusal is the answer, with the index of
    /// what was refused; changes after it may have been made.
    pub(crate) fn change(&self, changes: Vec<(Change, RouteNetlinkMessage)>) -> Result<(), (usize, io::Error)> {
        let count = changes.len();
        let mut datagram = Vec::new();
        for (index, (change, message)) in changes.into_iter().enumerate() {
            let flags = match change {
                Change::Create => NLM_F_CREATE | NLM_F_EXCL,
                Change::Ensure => NLM_F_CREATE | NLM_F_REPLACE,
                Change::Alter => 0,
            };
            append(&mut datagram, message, NLM_F_REQUEST | NLM_F_ACK | flags, index as u32);
        }
        self.socket.send(&datagram, 0).map_err(|error| (0, error))?;
        let mut refused = None;
        let mut answered = 0;
        while answered < count {
            for answer in self.receive().map_err(|error| (answered, error))? {
                if let NetlinkPayload::Error(error) = answer.payload {
                    answered += 1;
                    if error.code.is_some() {
                        refused.get_or_insert((answer.header.sequence_number as usize, error.to_io()));
                    }
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Asks for one object.
    pub(crate) fn ask(&self, question: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut datagram = Vec::new();
        append(&mut datagram, question, NLM_F_REQUEST, 0);
        self.socket.send(&datagram, 0)?;
        for answer in self.receive()? {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => return Ok(message),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Asks for all objects of a kind.
    pub(crate) fn dump(&self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut datagram = Vec::new();
        append(&mut datagram, question, NLM_F_REQUEST | NLM_F_DUMP, 0);
        self.socket.send(&datagram, 0)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive()? {
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        self.socket.recv(&mut buffer, DO_NOT_WAIT)?;
        let mut messages = Vec::new();
        let mut rest = buffer.as_slice();
        while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
            // What this version of the library cannot read (a new link type of a new kernel) is not ours.
            match NetlinkMessage::deserialize(rest) {
                Ok(message) => messages.push(message),
                Err(_) if length >= 16 => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Ok(messages)
    }
}

fn append(datagram: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = datagram.len();
    datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut datagram[start..]);
}
