//! A route's sessions: what its clients are given, and bring again to come back to their endpoint, whichever of the route's
//! backends has it (Gateway API, GEP-1619).

use super::Address;
use super::affinity::{cookie, mark};
use crate::clock::SECOND;
use crate::head::{Field, field};

/// Of an endpoint, see [`mark()`].
pub(super) type Mark = [u8; 16];

/// What carries a session's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Cookie,
    /// A field of the same name both ways.
    Header,
}

/// The value is the endpoint's mark and, if sessions end, `-` and when this one does: seconds since 1970, in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub carrier: Carrier,
    /// The cookie's, or the field's in lower case.
    pub name: Vec<u8>,
    /// What follows a cookie's value, from the semicolon on.
    pub attributes: Vec<u8>,
    /// Seconds; 0: it never ends.
    pub lifetime: u64,
}

impl Session {
    /// What an endpoint is known by; nothing is secret about it.
    pub(super) fn mark(address: &Address) -> Mark {
        mark(&[], address)
    }

    /// The mark a request brings, if its session has not ended by `wall` (nanoseconds since 1970).
    pub fn mark_of<'a>(&self, bytes: &'a [u8], fields: &[Field], wall: u64) -> Option<&'a [u8]> {
        let value = match self.carrier {
            Carrier::Cookie => cookie(bytes, fields, &self.name),
            Carrier::Header => field::values(bytes, fields, &self.name).next(),
        }?;
        let (mark, rest) = value.split_at_checked(size_of::<Mark>())?;
        let goes_on = match (rest.strip_prefix(b"-"), self.lifetime) {
            (None, 0) => rest.is_empty(),
            (Some(end), 1..) => {
                let end = std::str::from_utf8(end).ok().and_then(|end| u64::from_str_radix(end, 16).ok());
                // One that ends later than any could has another's value, or was made up.
                end.is_some_and(|end| (wall / SECOND..=wall / SECOND + self.lifetime).contains(&end))
            }
            _ => false,
        };
        goes_on.then_some(mark)
    }

    /// The line that begins a session.
    pub(super) fn put(&self, mark: &Mark, wall: u64, out: &mut Vec<u8>) {
        match self.carrier {
            Carrier::Cookie => {
                out.extend_from_slice(b"Set-Cookie: ");
                out.extend_from_slice(&self.name);
                out.push(b'=');
            }
            Carrier::Header => {
                out.extend_from_slice(&self.name);
                out.extend_from_slice(b": ");
            }
        }
        out.extend_from_slice(mark);
        if self.lifetime != 0 {
            out.extend_from_slice(format!("-{:x}", wall / SECOND + self.lifetime).as_bytes());
        }
        if self.carrier == Carrier::Cookie {
            out.extend_from_slice(&self.attributes);
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Bounds, request};

    fn brought(session: &Session, line: &str, seconds: u64) -> Option<String> {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
        let mut fields = Vec::new();
        request(text.as_bytes(), &mut fields, Bounds { bytes: 4096, fields: 20 }).unwrap().unwrap();
        let mark = session.mark_of(text.as_bytes(), &fields, seconds * SECOND);
        mark.map(|mark| String::from_utf8(mark.to_vec()).unwrap())
    }

    #[test]
    fn what_is_given_is_taken_until_it_ends() {
        let mark = *b"0123456789abcdef";
        let known = Some("0123456789abcdef".to_owned());
        let mut session =
            Session { carrier: Carrier::Cookie, name: b"s".to_vec(), attributes: b"; Path=/".to_vec(), lifetime: 0 };
        let mut out = Vec::new();
        session.put(&mark, 1000 * SECOND, &mut out);
        assert_eq!(out, b"Set-Cookie: s=0123456789abcdef; Path=/\r\n");
        assert_eq!(brought(&session, "Cookie: t=1; s=0123456789abcdef\r\n", 5), known);
        assert_eq!(brought(&session, "Cookie: s=0123456789abcdef-3e8\r\n", 5), None);
        assert_eq!(brought(&session, "Cookie: s=short\r\n", 5), None);
        session.lifetime = 100;
        out.clear();
        session.put(&mark, 900 * SECOND, &mut out);
        assert_eq!(out, b"Set-Cookie: s=0123456789abcdef-3e8; Path=/\r\n");
        for (now, expected) in [(900, known.clone()), (1000, known.clone()), (1001, None), (899, None)] {
            assert_eq!(brought(&session, "Cookie: s=0123456789abcdef-3e8\r\n", now), expected, "{now}");
        }
        assert_eq!(brought(&session, "Cookie: s=0123456789abcdef\r\n", 900), None);
        assert_eq!(brought(&session, "Cookie: s=0123456789abcdef-\r\n", 900), None);
        session.carrier = Carrier::Header;
        out.clear();
        session.put(&mark, 900 * SECOND, &mut out);
        assert_eq!(out, b"s: 0123456789abcdef-3e8\r\n");
        assert_eq!(brought(&session, "S: 0123456789abcdef-3e8\r\n", 950), known);
    }
}
