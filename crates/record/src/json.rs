//! JSON as bytes: writing strings from lines that may hold anything, and reading the members of an object in place,
//! with no tree and no allocation.

/// Appends `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let (special, high) = look(text);
    if !special && (!high || std::str::from_utf8(text).is_ok()) {
        out.extend_from_slice(text);
    } else if high {
        for chunk in text.utf8_chunks() {
            escape_ascii(out, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    } else {
        escape_ascii(out, text);
    }
}

/// Whether something needs escaping, and whether something is beyond ASCII. Blocks without early exit, so that the
/// compiler can use vector instructions: this sees every byte of every line.
fn look(text: &[u8]) -> (bool, bool) {
    let flags = |byte: u8| u8::from((byte < 0x20) | (byte == b'"') | (byte == b'\\')) | (byte & 0x80);
    let (blocks, rest) = text.as_chunks::<32>();
    let mut seen = 0;
    for block in blocks {
        seen |= block.iter().fold(0, |seen, byte| seen | flags(*byte));
    }
    seen |= rest.iter().fold(0, |seen, byte| seen | flags(*byte));
    (seen & 1 != 0, seen & 0x80 != 0)
}

/// Where the first byte stands that a JSON string may not hold as it is; eight bytes at a time. In a little-endian word the
/// lowest byte that the subtractions mark is marked rightly, whatever they borrow from the higher ones.
fn first_special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| is_special(*byte)).map(|at| words.len() * 8 + at)
}

/// Lines that are JSON themselves have a quote every few bytes, so pieces are put together in a small block of their own:
/// eight bytes are copied, and as many count as need no escape.
fn escape_ascii(out: &mut Vec<u8>, text: &[u8]) {
    let mut block = [0; 256];
    let (mut filled, mut rest) = (0, text);
    while !rest.is_empty() {
        // The longest that one turn adds: eight bytes, or as many and an escape.
        if filled + 16 > block.len() {
            out.extend_from_slice(&block[..filled]);
            filled = 0;
        }
        let plain = match rest.first_chunk::<8>() {
            Some(word) => {
                block[filled..filled + 8].copy_from_slice(word);
                first_special(word).unwrap_or(8)
            }
            None => {
                let plain = first_special(rest).unwrap_or(rest.len());
                block[filled..filled + plain].copy_from_slice(&rest[..plain]);
                plain
            }
        };
        filled += plain;
        rest = &rest[plain..];
        if let Some(byte) = rest.first().filter(|byte| is_special(**byte)) {
            let escape = escape_of(*byte);
            let length = if escape[1] == b'u' { 6 } else { 2 };
            block[filled..filled + 8].copy_from_slice(&escape);
            filled += length;
            rest = &rest[1..];
        }
    }
    out.extend_from_slice(&block[..filled]);
}

const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The first two bytes count, or six if the second is a `u`.
fn escape_of(byte: u8) -> [u8; 8] {
    let short = |letter: u8| [b'\\', letter, 0, 0, 0, 0, 0, 0];
    match byte {
        b'"' | b'\\' => short(byte),
        b'\n' => short(b'n'),
        b'\t' => short(b't'),
        b'\r' => short(b'r'),
        _ => {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15), 0, 0]
        }
    }
}

/// Reads the text of a JSON string (without its quotes, escapes as they stand) back into plain bytes.
pub fn unescape(out: &mut Vec<u8>, raw: &[u8]) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let code = |rest: &[u8]| {
            let digits = rest.get(2..6).and_then(|digits| std::str::from_utf8(digits).ok())?;
            u32::from_str_radix(digits, 16).ok()
        };
        let mut used = 2;
        match rest.get(at + 1) {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'u') => {
                used = 6;
                let mut point = code(&rest[at..]).unwrap_or(0xfffd);
                if (0xd800..0xdc00).contains(&point) {
                    let low = rest.get(at + 6..).filter(|low| low.starts_with(b"\\u")).and_then(code);
                    if let Some(low) = low.filter(|low| (0xdc00..0xe000).contains(low)) {
                        used = 12;
                        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
                    }
                }
                let mut buffer = [0; 4];
                let shown = char::from_u32(point).unwrap_or('\u{fffd}');
                out.extend_from_slice(shown.encode_utf8(&mut buffer).as_bytes());
            }
            Some(other) => out.push(*other),
            None => used = 1,
        }
        rest = rest.get(at + used..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// Nesting allowed in an application's log line.
const MAX_DEPTH: usize = 64;

/// A member of an object: the key without quotes and the value as it stands in the text.
pub type Member<'a> = (&'a [u8], &'a [u8]);

/// Checks that `text` is exactly one JSON object and shows its members to `visit`. `false` if it is anything else; then
/// some members may have been shown already.
pub fn object<'a>(text: &'a [u8], mut visit: impl FnMut(Member<'a>)) -> bool {
    if std::str::from_utf8(text).is_err() {
        return false;
    }
    let mut scan = Scan { text, at: 0 };
    scan.space();
    if !scan.take(b'{') {
        return false;
    }
    scan.space();
    if !scan.take(b'}') {
        if !scan.members(&mut visit) {
            return false;
        }
        if !scan.take(b'}') {
            return false;
        }
    }
    scan.space();
    scan.at == text.len()
}

/// Shows the members of an object that is written without its braces, as a record's fields are.
pub fn members<'a>(text: &'a [u8], mut visit: impl FnMut(Member<'a>)) -> bool {
    let mut scan = Scan { text, at: 0 };
    scan.space();
    scan.at == text.len() || (scan.members(&mut visit) && scan.at == text.len())
}

/// The inside of a value that is a string, escapes as they stand; `None` for other values.
pub fn string_value(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn quoted(&mut self) -> Option<&'a [u8]> {
        if !self.take(b'"') {
            return None;
        }
        let start = self.at;
        loop {
            let rest = &self.text[self.at..];
            let step = memchr::memchr2(b'"', b'\\', rest)?;
            if rest[..step].iter().any(|byte| *byte < 0x20) {
                return None;
            }
            self.at += step;
            if self.take(b'"') {
                return Some(&self.text[start..self.at - 1]);
            }
            let escaped = self.text.get(self.at + 1)?;
            self.at += match escaped {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                b'u' => {
                    let digits = self.text.get(self.at + 2..self.at + 6)?;
                    digits.iter().all(u8::is_ascii_hexdigit).then_some(6)?
                }
                _ => return None,
            };
        }
    }

    /// One or more members, and the white space behind them.
    fn members(&mut self, visit: &mut impl FnMut(Member<'a>)) -> bool {
        loop {
            self.space();
            let Some(key) = self.quoted() else { return false };
            self.space();
            if !self.take(b':') {
                return false;
            }
            self.space();
            let start = self.at;
            if !self.value(1) {
                return false;
            }
            visit((key, &self.text[start..self.at]));
            self.space();
            if !self.take(b',') {
                return true;
            }
        }
    }

    fn value(&mut self, depth: usize) -> bool {
        match self.peek() {
            Some(b'"') => self.quoted().is_some(),
            Some(b'{') => depth < MAX_DEPTH && self.nested(b'}', depth, true),
            Some(b'[') => depth < MAX_DEPTH && self.nested(b']', depth, false),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => false,
        }
    }

    fn nested(&mut self, end: u8, depth: usize, keys: bool) -> bool {
        self.at += 1;
        self.space();
        if self.take(end) {
            return true;
        }
        loop {
            self.space();
            if keys {
                if self.quoted().is_none() {
                    return false;
                }
                self.space();
                if !self.take(b':') {
                    return false;
                }
                self.space();
            }
            if !self.value(depth + 1) {
                return false;
            }
            self.space();
            if self.take(end) {
                return true;
            }
            if !self.take(b',') {
                return false;
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> bool {
        self.take(b'-');
        let zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (zero && whole > 1) {
            return false;
        }
        if self.take(b'.') && self.digits() == 0 {
            return false;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            return self.digits() > 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        string(&mut out, text);
        out
    }

    #[test]
    fn members() {
        let mut seen = Vec::new();
        let text = br#" {"a": "x\"y", "b":[1,{"c":2}],"d" : -1.5e3 , "e":{}} "#;
        assert!(object(text, |(key, value)| seen.push((key, value))));
        assert_eq!(seen[1], (&b"b"[..], &br#"[1,{"c":2}]"#[..]));
        assert_eq!(seen[2], (&b"d"[..], &b"-1.5e3"[..]));
        assert_eq!(string_value(seen[0].1), Some(&br#"x\"y"#[..]));
        assert_eq!(seen.len(), 4);
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_json_string(text: Vec<u8>) {
            let value: Value = serde_json::from_slice(&written(&text)).unwrap();
            prop_assert_eq!(value.as_str().unwrap(), String::from_utf8_lossy(&text));
            let out = written(&text);
            let mut back = Vec::new();
            unescape(&mut back, string_value(&out).unwrap());
            prop_assert_eq!(back, String::from_utf8_lossy(&text).into_owned().into_bytes());
        }

        /// Longer than the block that pieces are put together in.
        #[test]
        fn long_lines_full_of_quotes(text in proptest::collection::vec(prop_oneof![Just(b'"'), Just(7u8), 0x20u8..0x7f], 200..900)) {
            let value: Value = serde_json::from_slice(&written(&text)).unwrap();
            prop_assert_eq!(value.as_str().unwrap().as_bytes(), &text);
        }

        #[test]
        fn specials_are_found(text in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), 0u8..0x30, any::<u8>()], 0..40)) {
            let slow = text.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(first_special(&text), slow);
        }

        #[test]
        fn agrees_with_serde_json(text in r#"[{}\[\]",:0-9a-b.eE+\-tu\\ nrlfs]{0,24}"#) {
            let expected = matches!(serde_json::from_str::<Value>(&text), Ok(Value::Object(_)));
            // Lone surrogates and huge numbers are refused there and harmless here.
            prop_assume!(!text.contains("\\u") && !text.contains(['e', 'E']));
            prop_assert_eq!(object(text.as_bytes(), |_| {}), expected);
        }

        #[test]
        fn whole_objects_are_objects(map: std::collections::BTreeMap<String, Vec<Option<i32>>>) {
            let text = serde_json::to_vec(&map).unwrap();
            let mut count = 0;
            prop_assert!(object(&text, |_| count += 1));
            prop_assert_eq!(count, map.len());
        }
    }
}
