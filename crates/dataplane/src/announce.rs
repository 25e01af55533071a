//! The PROXY protocol, both versions: how whoever passes a connection on says where it came from, in front of its first
//! byte (HAProxy's `proxy-protocol.txt`, 2020/03/05; its sections are cited). Text in, text out; nothing here reads a socket.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of version 2 (§2.2): no version 1 line and no known protocol begins so.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end (§2.1).
const LINE: usize = 107;
/// Version 2 before its addresses.
const FIXED: usize = 16;
/// As many bytes are enough to understand every announcement; what may follow is only skipped.
pub const ENOUGH: usize = LINE;

/// Which version is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

/// Where a connection came from and where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Bytes that have been understood.
    pub size: usize,
    /// Bytes behind them that belong to it and say nothing we know (type-length-value fields, §2.2).
    pub skip: usize,
    /// `None`: the sender speaks for itself (`LOCAL`) or does not know (`UNKNOWN`); then the connection's own ends hold.
    pub ends: Option<Ends>,
}

/// Why a connection's first bytes are no announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the connection does not begin with a PROXY protocol header")]
    Absent,
    #[error("the PROXY protocol line is malformed")]
    Line,
    #[error("the PROXY protocol header has an unknown version, command or family")]
    Unknown,
    #[error("the PROXY protocol header is shorter than its addresses")]
    Short,
}

/// Reads it from a connection's first bytes; `None` while more of them are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<Announcement>, Refused> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    if begins(&SIGNATURE) {
        return if bytes.len() < FIXED { Ok(None) } else { binary(bytes) };
    }
    if begins(b"PROXY ") {
        return line(bytes);
    }
    Err(Refused::Absent)
}

fn line(bytes: &[u8]) -> Result<Option<Announcement>, Refused> {
    let most = bytes.len().min(LINE);
    let Some(end) = bytes[..most].windows(2).position(|pair| pair == b"\r\n") else {
        return if most < LINE { Ok(None) } else { Err(Refused::Line) };
    };
    let announced = |ends| Ok(Some(Announcement { size: end + 2, skip: 0, ends }));
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Refused::Line)?;
    let mut words = text.split(' ').skip(1);
    let mut next = || words.next().ok_or(Refused::Line);
    let family = next()?;
    if family == "UNKNOWN" {
        // Whatever else stands there says nothing (§2.1).
        return announced(None);
    }
    let (from, to) = (next()?, next()?);
    let address = |text: &str| -> Result<IpAddr, Refused> {
        let parsed = match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        };
        parsed.ok_or(Refused::Line)
    };
    let (from, to) = (address(from)?, address(to)?);
    let (from_port, to_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(Refused::Line);
    }
    announced(Some(Ends { from: SocketAddr::new(from, from_port), to: SocketAddr::new(to, to_port) }))
}

/// Decimal without a zero in front (§2.1).
fn port(text: &str) -> Result<u16, Refused> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Refused::Line)
}

fn binary(bytes: &[u8]) -> Result<Option<Announcement>, Refused> {
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (local, family, transport) = (bytes[12] == 0x20, bytes[13] >> 4, bytes[13] & 15);
    let own = || Ok(Some(Announcement { size: FIXED, skip: length, ends: None }));
    if local {
        // The sender's own connection, to see whether we are there; the family says nothing (§2.2).
        return own();
    }
    if bytes[12] != 0x21 || family > 3 || transport > 2 {
        return Err(Refused::Unknown);
    }
    let size = match family {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    if length < size {
        return Err(Refused::Short);
    }
    // Streams between addresses; all else has no place in what is told to applications.
    if transport != 1 || !matches!(family, 1 | 2) {
        return own();
    }
    let Some(addresses) = bytes[FIXED..].get(..size) else { return Ok(None) };
    let (hosts, ports) = addresses.split_at(size - 4);
    let (from, to) = hosts.split_at(hosts.len() / 2);
    let address = |host: &[u8], port: [u8; 2]| {
        let host = match <[u8; 4]>::try_from(host) {
            Ok(four) => IpAddr::from(four),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(host).unwrap_or_default()),
        };
        SocketAddr::new(host, u16::from_be_bytes(port))
    };
    let ends = Ends { from: address(from, [ports[0], ports[1]]), to: address(to, [ports[2], ports[3]]) };
    Ok(Some(Announcement { size: FIXED + size, skip: length - size, ends: Some(ends) }))
}

/// Writes an announcement of a connection; without `ends` one that says nothing about them.
pub fn write(version: Version, ends: Option<Ends>, out: &mut Vec<u8>) {
    let ends = ends.map(alike);
    match version {
        Version::One => {
            let mut text = String::with_capacity(LINE);
            // Writing into memory does not fail.
            let _ = match ends {
                None => write!(text, "PROXY UNKNOWN\r\n"),
                Some(Ends { from, to }) => {
                    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                    write!(text, "PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
                }
            };
            out.extend_from_slice(text.as_bytes());
        }
        Version::Two => {
            out.extend_from_slice(&SIGNATURE);
            match ends {
                None => out.extend_from_slice(&[0x21, 0, 0, 0]),
                Some(Ends { from, to }) => {
                    let (kind, length) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
                    out.extend_from_slice(&[0x21, kind, 0, length]);
                    for end in [from, to] {
                        match end.ip() {
                            IpAddr::V4(host) => out.extend_from_slice(&host.octets()),
                            IpAddr::V6(host) => out.extend_from_slice(&host.octets()),
                        }
                    }
                    out.extend_from_slice(&from.port().to_be_bytes());
                    out.extend_from_slice(&to.port().to_be_bytes());
                }
            }
        }
    }
}

/// What a sender writes that speaks for itself, as a health check does.
pub fn write_local(version: Version, out: &mut Vec<u8>) {
    match version {
        Version::One => write(version, None, out),
        Version::Two => {
            out.extend_from_slice(&SIGNATURE);
            out.extend_from_slice(&[0x20, 0, 0, 0]);
        }
    }
}

/// Both ends in one family: IPv4 if both can be, else IPv6.
fn alike(ends: Ends) -> Ends {
    let wide = |host: IpAddr| match host {
        IpAddr::V4(host) => IpAddr::V6(host.to_ipv6_mapped()),
        wide => wide,
    };
    let (from, to) = (ends.from.ip().to_canonical(), ends.to.ip().to_canonical());
    let (from, to) = if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (wide(from), wide(to)) };
    Ends { from: SocketAddr::new(from, ends.from.port()), to: SocketAddr::new(to, ends.to.port()) }
}

#[cfg(test)]
mod tests;
