//! What of a request decides where it goes: a key for hashing, and the cookie that makes a client come back.

use sha2::{Digest as _, Sha256};

use super::Address;
use crate::balance::hash;
use crate::head::{Field, field};
use crate::hex;

/// What the key is taken from: the first of these, in this order, that is wanted and that the request has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    pub header: Option<Vec<u8>>,
    pub cookie: Option<Vec<u8>>,
    /// Without the query.
    pub path: bool,
    pub client: bool,
}

/// A cookie that makes a client come back to its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub cookie: Vec<u8>,
    /// What follows the value, from the semicolon on.
    pub attributes: Vec<u8>,
    /// What makes marks unguessable; the same in all replicas.
    pub secret: Vec<u8>,
}

impl Sticky {
    /// An endpoint's mark: the same for the same address and secret, and of no use to whoever wants to know the address.
    pub fn mark(&self, address: &Address) -> [u8; 16] {
        mark(&self.secret, address)
    }
}

pub(super) fn mark(secret: &[u8], address: &Address) -> [u8; 16] {
    let mut digest = Sha256::new();
    digest.update((secret.len() as u64).to_be_bytes());
    digest.update(secret);
    digest.update(address.to_string());
    // Hashed again, so that nothing can be appended to what the secret was hashed with.
    let digest: [u8; 32] = Sha256::digest(digest.finalize()).into();
    hex::sixteen(std::array::from_fn(|index| digest[index]))
}

impl Affinity {
    /// Whether there may be a key at all.
    pub fn is_wanted(&self) -> bool {
        self.client || self.path || self.header.is_some() || self.cookie.is_some()
    }

    pub fn key(&self, bytes: &[u8], fields: &[Field], path: &[u8], client: &[u8]) -> Option<u64> {
        if let Some(name) = &self.header
            && let Some(value) = field::values(bytes, fields, name).next()
        {
            return Some(hash(value));
        }
        if let Some(value) = self.cookie.as_ref().and_then(|name| cookie(bytes, fields, name)) {
            return Some(hash(value));
        }
        if self.path {
            return Some(hash(path));
        }
        self.client.then(|| hash(client))
    }
}

/// A cookie's value (RFC 6265 §4.2); HTTP/2 may send several fields (RFC 9113 §8.2.3).
pub(super) fn cookie<'a>(bytes: &'a [u8], fields: &[Field], name: &[u8]) -> Option<&'a [u8]> {
    let lines = field::values(bytes, fields, b"cookie");
    lines.flat_map(|value| value.split(|byte| *byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name)?.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Bounds, request};

    fn key(affinity: &Affinity, text: &str) -> Option<u64> {
        let mut fields = Vec::new();
        request(text.as_bytes(), &mut fields, Bounds { bytes: 4096, fields: 20 }).unwrap().unwrap();
        affinity.key(text.as_bytes(), &fields, b"/p", b"10.0.0.1")
    }

    #[test]
    fn the_first_that_is_there() {
        let all =
            Affinity { header: Some(b"x-user".to_vec()), cookie: Some(b"id".to_vec()), path: false, client: true };
        let with = |lines: &str| key(&all, &format!("GET /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!(with("X-User: ann\r\nCookie: id=1\r\n"), Some(hash(b"ann")));
        assert_eq!(with("Cookie: a=b; id=7; c=d\r\n"), Some(hash(b"7")));
        assert_eq!(with("Cookie: bid=7\r\nCookie: id=8\r\n"), Some(hash(b"8")));
        assert_eq!(with("Cookie: id2=7\r\n"), Some(hash(b"10.0.0.1")));
        let path = Affinity { path: true, ..Affinity::default() };
        assert_eq!(key(&path, "GET /p?q HTTP/1.1\r\nHost: a\r\n\r\n"), Some(hash(b"/p")));
        assert_eq!(key(&Affinity::default(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    }

    #[test]
    fn marks_differ_by_address_and_secret() {
        let sticky = |secret: &[u8]| Sticky { cookie: b"c".to_vec(), attributes: Vec::new(), secret: secret.to_vec() };
        let address = |port| Address::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        let marks = [sticky(b"a").mark(&address(1)), sticky(b"a").mark(&address(2)), sticky(b"b").mark(&address(1))];
        assert_eq!(marks[0], sticky(b"a").mark(&address(1)));
        assert!(marks[0] != marks[1] && marks[0] != marks[2]);
        assert!(marks[0].iter().all(u8::is_ascii_hexdigit));
    }
}
