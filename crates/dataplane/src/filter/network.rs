//! Sets of addresses, and who a client is behind proxies.

use std::net::{IpAddr, Ipv6Addr};

/// Networks, as ranges of addresses that neither touch nor overlap. IPv4 is kept as IPv6's mapped form (RFC 4291 §2.5.5.2),
/// so that one search is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[(u128, u128)]>);

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Networks {
    /// Of ranges as [`range`] reads them.
    pub fn new(mut ranges: Vec<(u128, u128)>) -> Networks {
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Networks(merged.into_boxed_slice())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = number(address.to_canonical());
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.0[after - 1].1
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads `10.0.0.0/8`, `2001:db8::/32`, or one address. Bits behind the prefix must be zero, since otherwise nobody knows
/// what was meant (RFC 4632 §3.1).
pub fn range(text: &str) -> Result<(u128, u128), &'static str> {
    const WHAT: &str = "must be an address or a network like 10.0.0.0/8 or 2001:db8::/32";
    let (address, length) = match text.split_once('/') {
        Some((address, length)) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            (address, Some(length.parse::<u32>().map_err(|_| WHAT)?))
        }
        Some(_) => return Err(WHAT),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| WHAT)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(bits);
    if length > bits {
        return Err(WHAT);
    }
    let host = bits - length;
    let mask = if host == 128 { u128::MAX } else { (1 << host) - 1 };
    let first = number(address);
    if first & mask != 0 {
        return Err("has bits set behind its prefix");
    }
    Ok((first, first | mask))
}

/// Reads a file's text: a network a line, `#` begins a comment. An error names the line.
pub fn list(text: &str) -> Result<Vec<(u128, u128)>, String> {
    let mut ranges = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            ranges.push(range(line).map_err(|reason| format!("line {}: `{line}` {reason}", index + 1))?);
        }
    }
    Ok(ranges)
}

/// An address as peers and proxies write it, also with a port.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next()?.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical());
    }
    let (host, port) = text.rsplit_once(':')?;
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| host.parse().ok())?
}

/// Who is behind trusted proxies. Every proxy adds the address it was asked from at the end of the list, so it is read from
/// there, and only as far as the one who wrote it is trusted. `lists` are the fields' values, the last first.
pub fn behind<'a>(peer: IpAddr, lists: impl Iterator<Item = &'a [u8]>, trusted: &Networks) -> IpAddr {
    let mut client = peer;
    if trusted.is_empty() {
        return client;
    }
    for element in lists.flat_map(|list| list.rsplit(|byte| *byte == b',')) {
        if !trusted.contains(client) {
            break;
        }
        // Whatever that is, behind it nobody can be told.
        let Some(next) = address(element) else { break };
        client = next;
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| range(text).unwrap()).collect())
    }

    #[test]
    fn membership() {
        let set = networks(&["10.0.0.0/8", "192.168.1.7", "11.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "::1"]);
        assert_eq!(set.0.len(), 4, "neighbours are one");
        for (text, expected) in [
            ("10.0.0.0", true),
            ("11.255.255.255", true),
            ("12.0.0.0", false),
            ("9.255.255.255", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(set.contains(text.parse().unwrap()), expected, "{text}");
        }
        assert!(networks(&["0.0.0.0/0"]).contains("1.2.3.4".parse().unwrap()));
        assert!(!networks(&["0.0.0.0/0"]).contains("::1".parse().unwrap()));
        assert!(networks(&["::/0"]).contains("1.2.3.4".parse().unwrap()));
        assert!(!Networks::default().contains("1.2.3.4".parse().unwrap()));
        for text in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "x", ""] {
            assert!(range(text).is_err(), "{text}");
        }
        assert_eq!(list("# known\n10.0.0.0/8 # ours\n\n::1\n").unwrap().len(), 2);
        assert!(list("10.0.0.0/8\nbad\n").unwrap_err().starts_with("line 2: `bad` must be"));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
        let client = |peer: &str, lists: &[&str]| {
            let lists = lists.iter().rev().map(|list| list.as_bytes());
            behind(peer.parse().unwrap(), lists, &trusted).to_string()
        };
        assert_eq!(client("203.0.113.9", &["1.1.1.1"]), "203.0.113.9", "who is not trusted may say what it likes");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"]), "1.1.1.1", "the first is forged");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.1.1.1", "fd00::1"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["1.1.1.1:4711"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }
}
