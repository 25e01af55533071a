//! MessagePack, as far as the forward protocol needs it (github.com/msgpack/msgpack, spec.md).

use serde_json::Value;

pub fn array(out: &mut Vec<u8>, length: u32) {
    match length {
        0..=15 => out.push(0x90 | length as u8),
        16..=0xffff => with(out, 0xdc, &(length as u16).to_be_bytes()),
        _ => with(out, 0xdd, &length.to_be_bytes()),
    }
}

pub fn map(out: &mut Vec<u8>, length: u32) {
    match length {
        0..=15 => out.push(0x80 | length as u8),
        16..=0xffff => with(out, 0xde, &(length as u16).to_be_bytes()),
        _ => with(out, 0xdf, &length.to_be_bytes()),
    }
}

/// Text; bytes that are no UTF-8 are replaced, because receivers refuse them.
pub fn text(out: &mut Vec<u8>, text: &[u8]) {
    let lossy = String::from_utf8_lossy(text);
    let bytes = lossy.as_bytes();
    let length = bytes.len() as u32;
    match length {
        0..=31 => out.push(0xa0 | length as u8),
        32..=0xff => with(out, 0xd9, &[length as u8]),
        0x100..=0xffff => with(out, 0xda, &(length as u16).to_be_bytes()),
        _ => with(out, 0xdb, &length.to_be_bytes()),
    }
    out.extend_from_slice(bytes);
}

pub fn unsigned(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x7f => out.push(number as u8),
        _ => with(out, 0xcf, &number.to_be_bytes()),
    }
}

pub fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(false) => out.push(0xc2),
        Value::Bool(true) => out.push(0xc3),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => unsigned(out, number),
            (None, Some(number)) => with(out, 0xd3, &number.to_be_bytes()),
            _ => with(out, 0xcb, &number.as_f64().unwrap_or(0.0).to_be_bytes()),
        },
        Value::String(string) => text(out, string.as_bytes()),
        Value::Array(items) => {
            array(out, items.len() as u32);
            items.iter().for_each(|item| self::value(out, item));
        }
        Value::Object(members) => {
            map(out, members.len() as u32);
            for (name, inner) in members {
                text(out, name.as_bytes());
                self::value(out, inner);
            }
        }
    }
}

fn with(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(bytes);
}

/// The string under `key` of a map of strings to strings, at the beginning of `bytes`; `Ok(None)` while there is too
/// little of it.
pub fn answer(bytes: &[u8], key: &str) -> Result<Option<String>, String> {
    let Some((head, mut rest)) = bytes.split_first() else { return Ok(None) };
    if head & 0xf0 != 0x80 {
        return Err(format!("unexpected byte {head:#04x}"));
    }
    let mut found = None;
    for _ in 0..head & 0x0f {
        let mut pair = [const { String::new() }; 2];
        for part in &mut pair {
            let Some((kind, tail)) = rest.split_first() else { return Ok(None) };
            let (length, tail) = match kind {
                0xa0..=0xbf => (usize::from(kind & 0x1f), tail),
                0xd9 => match tail.split_first() {
                    Some((length, tail)) => (usize::from(*length), tail),
                    None => return Ok(None),
                },
                0xda => match tail.split_first_chunk::<2>() {
                    Some((length, tail)) => (usize::from(u16::from_be_bytes(*length)), tail),
                    None => return Ok(None),
                },
                other => return Err(format!("unexpected byte {other:#04x}")),
            };
            let Some((bytes, tail)) = tail.split_at_checked(length) else { return Ok(None) };
            *part = String::from_utf8_lossy(bytes).into_owned();
            rest = tail;
        }
        let [name, value] = pair;
        if name == key {
            found = Some(value);
        }
    }
    found.map(Some).ok_or_else(|| format!("an answer without `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_the_specification_writes_them() {
        let json = serde_json::json!([null, true, 7, 200, -3, 1.5, "x", {"a": []}]);
        let mut out = Vec::new();
        value(&mut out, &json);
        let mut expected = vec![0x98, 0xc0, 0xc3, 7, 0xcf, 0, 0, 0, 0, 0, 0, 0, 200, 0xd3];
        expected.extend_from_slice(&(-3i64).to_be_bytes());
        expected.push(0xcb);
        expected.extend_from_slice(&1.5f64.to_be_bytes());
        expected.extend_from_slice(&[0xa1, b'x', 0x81, 0xa1, b'a', 0x90]);
        assert_eq!(out, expected);
        let mut long = Vec::new();
        text(&mut long, &[b'y'; 40]);
        assert_eq!((long[0], long[1], long.len()), (0xd9, 40, 42));
        array(&mut long, 70_000);
        assert_eq!(long[42..], [0xdd, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn answers_may_come_in_pieces() {
        let whole = b"\x81\xa3ack\xa4abcd";
        for cut in 0..whole.len() {
            assert_eq!(answer(&whole[..cut], "ack"), Ok(None), "{cut}");
        }
        assert_eq!(answer(whole, "ack"), Ok(Some("abcd".to_owned())));
        assert!(answer(b"\x81\xa1x\xa1y", "ack").is_err());
        assert!(answer(b"HTTP", "ack").is_err());
    }
}
