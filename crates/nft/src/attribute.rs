//! Netlink messages as bytes: a writer that nests by closure and a reader that never panics.
//!
//! Layout: `struct nlmsghdr` and `struct nlattr` of `linux/netlink.h`. Netfilter's integers are big-endian, the headers
//! are in host order, everything is padded to four bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

const MESSAGE_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `~(NLA_F_NESTED | NLA_F_NET_BYTEORDER)`.
const TYPE_MASK: u16 = 0x3fff;

/// Writes messages and their attributes, one after the other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// One message with a `struct nfgenmsg` in front of its attributes.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Writer),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]); // port id: the kernel
        self.bytes.push(family);
        self.bytes.push(0); // NFNETLINK_V0
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute with this value. A value that does not fit the 16 bit length cannot be expressed; the callers bound
    /// theirs (names, element lists) before.
    pub(crate) fn raw(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.raw(kind, &[value]);
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.raw(kind, &value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// A string with its final zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.raw(kind, &bytes);
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows `struct nlmsghdr`.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after `struct nfgenmsg`.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.payload.get(4..).unwrap_or(&[]) }
    }

    /// The family in `struct nfgenmsg`.
    pub(crate) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or(0)
    }
}

/// The messages of one datagram; a truncated one ends the iteration.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.get(..MESSAGE_HEADER)?;
        let length = u32::from_ne_bytes(header[0..4].try_into().ok()?) as usize;
        let payload = rest.get(MESSAGE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            payload,
        })
    })
}

/// One attribute as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub(crate) fn nested(&self) -> Attributes<'a> {
        Attributes { rest: self.value }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.value.strip_suffix(&[0]).unwrap_or(self.value)).into_owned()
    }

    pub(crate) fn as_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }

    pub(crate) fn as_u64(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.value.try_into().ok()?))
    }
}

/// Attributes in a row; a truncated one ends the iteration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn find(mut self, kind: u16) -> Option<Attribute<'a>> {
        self.by_ref().find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let header = self.rest.get(..ATTRIBUTE_HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = self.rest.get(ATTRIBUTE_HEADER..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    }
}

/// The four or sixteen bytes of an address.
pub(crate) fn address_bytes(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        std::net::IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::default();
        writer.message(0x0a05, 1, 7, 2, 10, |message| {
            message.text(1, "abc");
            message.nest(2, |inner| {
                inner.u32(1, 0xdead_beef);
                inner.u8(2, 9);
            });
        });
        assert_eq!(writer.len() % 4, 0);
        let message = messages(writer.bytes()).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence, message.family()), (0x0a05, 1, 7, 2));
        assert_eq!(message.attributes().find(1).unwrap().text(), "abc");
        let inner = message.attributes().find(2).unwrap().nested();
        assert_eq!(inner.find(1).unwrap().as_u32(), Some(0xdead_beef));
        assert_eq!(inner.find(2).unwrap().value, [9]);
    }

    #[test]
    fn truncated_input_ends_without_a_panic() {
        let mut writer = Writer::default();
        writer.message(1, 0, 0, 2, 0, |message| message.text(1, "a name"));
        for cut in 0..writer.len() {
            for message in messages(&writer.bytes()[..cut]) {
                assert!(message.attributes().count() <= 1);
            }
        }
        assert_eq!(Attributes::of(&[0, 0, 1, 0, 5, 5]).count(), 0, "a length below its own header");
    }
}
