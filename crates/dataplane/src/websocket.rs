//! The two ends of a WebSocket handshake that this proxy speaks itself (RFC 6455 §4): over a stream there is none (RFC 8441 §5),
//! so that whoever stands between a stream and HTTP/1.1 must ask, or answer, in its place.

use crate::head::Field;
use crate::pool::Dice;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Bytes of a key: sixteen in base64.
const KEY: usize = 24;

/// `Sec-WebSocket-Key`: sixteen bytes by chance, in base64 (RFC 6455 §4.1).
pub fn put_key(dice: &mut Dice, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Sec-WebSocket-Key: ");
    out.extend((0..21).map(|_| DIGITS[dice.below(64)]));
    // Two bits are left for the last digit.
    out.push(DIGITS[dice.below(4) << 4]);
    out.extend_from_slice(b"==\r\n");
}

/// Whether it is the name of a field that only a handshake of HTTP/1.1 has.
pub fn is_of_handshake(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"sec-websocket-key") || name.eq_ignore_ascii_case(b"sec-websocket-accept")
}

/// The key of a request's fields, if there is exactly one and it may be one (§4.2.1).
pub fn key<'a>(bytes: &'a [u8], fields: &[Field]) -> Option<&'a [u8; KEY]> {
    let is_key = |field: &&Field| field.name_span.of(bytes).eq_ignore_ascii_case(b"sec-websocket-key");
    let mut keys = fields.iter().filter(is_key).map(|field| field.value.of(bytes));
    let key: &[u8; KEY] = keys.next()?.try_into().ok()?;
    let digits = key[..KEY - 2].iter().all(|byte| DIGITS.contains(byte));
    (keys.next().is_none() && digits && key.ends_with(b"==")).then_some(key)
}

/// The key in a head as it was written for a backend.
pub fn key_of(head: &[u8]) -> Option<&[u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at(memchr::memchr(b':', line)?);
        name.eq_ignore_ascii_case(b"sec-websocket-key").then(|| value[1..].trim_ascii())
    })
}

/// Writes the `Sec-WebSocket-Accept` for a key (§4.2.2).
pub fn put_accept(key: &[u8], out: &mut Vec<u8>) {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    put_base64(digest.finish().as_ref(), out);
    out.extend_from_slice(b"\r\n");
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(3) {
        let group = piece.iter().fold(0, |group, byte| group << 8 | usize::from(*byte)) << (8 * (3 - piece.len()));
        for place in 0..4 {
            out.push(if place > piece.len() { b'=' } else { DIGITS[group >> (18 - 6 * place) & 63] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Bounds, request};

    #[test]
    fn answers_to_keys() {
        // RFC 6455 §1.3.
        let mut out = Vec::new();
        put_accept(b"dGhlIHNhbXBsZSBub25jZQ==", &mut out);
        assert_eq!(out, b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n");
        // RFC 4648 §10.
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            let mut out = Vec::new();
            put_base64(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn keys() {
        let of = |lines: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let mut fields = Vec::new();
            request(text.as_bytes(), &mut fields, Bounds { bytes: 4096, fields: 50 }).unwrap().unwrap();
            key(text.as_bytes(), &fields).map(|key| String::from_utf8(key.to_vec()).unwrap())
        };
        let good = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(of(&format!("sec-websocket-KEY: {good}\r\n")).as_deref(), Some(good));
        assert_eq!(of(""), None);
        assert_eq!(of("Sec-WebSocket-Key: short==\r\n"), None);
        assert_eq!(of("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=A\r\n"), None);
        assert_eq!(of("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25 ZQ==\r\n"), None);
        assert_eq!(of(&format!("Sec-WebSocket-Key: {good}\r\n").repeat(2)), None);
        let mut own = b"GET / HTTP/1.1\r\n".to_vec();
        put_key(&mut Dice::new(7), &mut own);
        let own = key_of(&own).unwrap().to_vec();
        assert_eq!(
            of(&format!("Sec-WebSocket-Key: {}\r\n", String::from_utf8(own.clone()).unwrap())).unwrap().as_bytes(),
            own
        );
    }
}
