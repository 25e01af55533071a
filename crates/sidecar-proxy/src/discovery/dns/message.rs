//! Messages of the DNS (RFC 1035 §4), as far as a client needs them. Nothing in them is trusted: every length is checked, and
//! pointers of names only go backwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const CNAME: u16 = 5;

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Alias(String),
    Service { priority: u16, weight: u16, port: u16, target: String },
}

impl Data {
    pub(super) fn address(&self) -> Option<IpAddr> {
        if let Data::Address(address) = self { Some(*address) } else { None }
    }

    pub(super) fn service(self) -> Option<(u16, u16, u16, String)> {
        match self {
            // RFC 2782: the root means that there is no such service.
            Data::Service { priority, weight, port, target } if !target.is_empty() => {
                Some((priority, weight, port, target))
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    name: String,
    kind: u16,
    ttl: u32,
    data: Data,
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(super) code: u8,
    pub(super) truncated: bool,
    records: Vec<Record>,
}

impl Reply {
    /// What the name has of this kind, aliases followed, and the shortest time to live on the way.
    pub(super) fn answers(&self, name: &str, kind: u16) -> (Vec<Data>, u32) {
        let (mut name, mut ttl) = (name.to_ascii_lowercase(), u32::MAX);
        for _ in 0..=self.records.len() {
            let own = |wanted: u16| {
                let name = name.clone();
                self.records.iter().filter(move |record| record.kind == wanted && record.name == name)
            };
            let found: Vec<Data> = own(kind).map(|record| record.data.clone()).collect();
            if !found.is_empty() {
                ttl = own(kind).map(|record| record.ttl).min().unwrap_or(0).min(ttl);
                return (found, ttl);
            }
            let Some(alias) = own(CNAME).next() else { break };
            ttl = ttl.min(alias.ttl);
            let Data::Alias(next) = &alias.data else { break };
            name = next.clone();
        }
        (Vec::new(), ttl)
    }
}

/// A question; `None` if the name is none.
pub(super) fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = id.to_be_bytes().to_vec();
    // Recursion is desired; one question, and nothing else.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&1_u16.to_be_bytes());
    (name.len() <= 253).then_some(out)
}

/// The answer to that question; `None` if it is not.
pub(super) fn reply(bytes: &[u8], id: u16, name: &str, kind: u16) -> Option<Reply> {
    let mut at = 12;
    let head: &[u8; 12] = bytes.get(..12)?.try_into().ok()?;
    let pair = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    if pair(0) != id || head[2] & 0x80 == 0 || pair(4) != 1 {
        return None;
    }
    let asked = read_name(bytes, &mut at)?;
    if !asked.eq_ignore_ascii_case(name) || number(bytes, &mut at)? != kind || number(bytes, &mut at)? != 1 {
        return None;
    }
    let truncated = head[2] & 2 != 0;
    let mut records = Vec::new();
    for _ in 0..pair(6) {
        // What a truncated answer has lost does not matter.
        match read_record(bytes, &mut at) {
            Some(record) => records.extend(record),
            None if truncated => break,
            None => return None,
        }
    }
    Some(Reply { code: head[3] & 15, truncated, records })
}

/// `Some(None)`: of a kind that is not wanted.
fn read_record(bytes: &[u8], at: &mut usize) -> Option<Option<Record>> {
    let name = read_name(bytes, at)?;
    let (kind, class) = (number(bytes, at)?, number(bytes, at)?);
    let ttl = u32::from(number(bytes, at)?) << 16 | u32::from(number(bytes, at)?);
    let length = usize::from(number(bytes, at)?);
    let mut inner = *at;
    *at += length;
    let value = bytes.get(inner..*at)?;
    if class != 1 {
        return Some(None);
    }
    let data = match kind {
        super::A => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        super::AAAA => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        CNAME => Data::Alias(read_name(bytes, &mut inner)?),
        super::SRV => Data::Service {
            priority: number(bytes, &mut inner)?,
            weight: number(bytes, &mut inner)?,
            port: number(bytes, &mut inner)?,
            target: read_name(bytes, &mut inner)?,
        },
        _ => return Some(None),
    };
    // RFC 2181 §8: with the highest bit it is 0.
    let ttl = if ttl >> 31 == 1 { 0 } else { ttl };
    Some(Some(Record { name, kind, ttl, data }))
}

fn number(bytes: &[u8], at: &mut usize) -> Option<u16> {
    let pair = bytes.get(*at..*at + 2)?;
    *at += 2;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// In lower case, without the dot at the end.
fn read_name(bytes: &[u8], at: &mut usize) -> Option<String> {
    let mut name = String::new();
    let (mut from, mut jumped) = (*at, false);
    loop {
        let length = usize::from(*bytes.get(from)?);
        match length {
            0 => {
                if !jumped {
                    *at = from + 1;
                }
                return Some(name);
            }
            1..=63 => {
                let label = bytes.get(from + 1..from + 1 + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                from += 1 + length;
            }
            0xc0.. => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(from + 1)?);
                if !jumped {
                    *at = from + 2;
                    jumped = true;
                }
                if target >= from {
                    return None;
                }
                from = target;
            }
            _ => return None,
        }
        if name.len() > 255 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The question `app.example A`, with these records behind it, whose names point to the question's.
    fn answer(flags: [u8; 2], records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = query(7, "app.example", super::super::A).unwrap();
        bytes[2..4].copy_from_slice(&flags);
        bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (kind, ttl, data) in records {
            bytes.extend_from_slice(&[0xc0, 12]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&[0, 1]);
            bytes.extend_from_slice(&ttl.to_be_bytes());
            bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    #[test]
    fn addresses_and_times() {
        let bytes = answer([0x81, 0x80], &[(1, 60, &[10, 0, 0, 1]), (1, 30, &[10, 0, 0, 2]), (16, 5, b"text")]);
        let reply = reply(&bytes, 7, "app.example", 1).unwrap();
        let (found, ttl) = reply.answers("App.Example", 1);
        assert_eq!((found.len(), ttl, reply.code), (2, 30, 0));
        assert!(super::reply(&bytes, 8, "app.example", 1).is_none(), "another question");
        assert!(super::reply(&bytes, 7, "app.example", 28).is_none());
        for length in 0..bytes.len() {
            // Cut anywhere it is no answer, and no panic.
            assert!(super::reply(&bytes[..length], 7, "app.example", 1).is_none(), "{length}");
        }
    }

    #[test]
    fn aliases_and_services() {
        let service = [&[0, 1, 0, 5, 0x1f, 0x90][..], b"\x03pod\x07example\x00"].concat();
        let bytes = answer([0x81, 0x80], &[(5, 20, b"\x04real\x07example\x00"), (33, 9, &service)]);
        let reply = reply(&bytes, 7, "app.example", 1).unwrap();
        let (found, ttl) = reply.answers("app.example", 33);
        let target = "pod.example".to_owned();
        assert_eq!(found, [Data::Service { priority: 1, weight: 5, port: 8080, target }]);
        assert_eq!(ttl, 9);
        assert_eq!(reply.answers("app.example", 1), (Vec::new(), 20));
    }

    #[test]
    fn pointers_that_go_round_end() {
        let mut bytes = answer([0x81, 0x80], &[(1, 60, &[10, 0, 0, 1])]);
        let at = query(7, "app.example", 1).unwrap().len();
        bytes[at + 1] = at as u8;
        assert!(reply(&bytes, 7, "app.example", 1).is_none());
        assert!(query(1, "a..b", 1).is_none() && query(1, &"a".repeat(64), 1).is_none());
    }
}
