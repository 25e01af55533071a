//! Text that is not UTF-8, read as UTF-8. Positions stay those of the file.

use std::fs::File;

use crate::checkpoint::read_at;
use crate::config;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes are taken as they are; what is no UTF-8 becomes U+FFFD where a receiver wants text.
    Utf8,
    Utf16Le,
    Utf16Be,
    Latin1,
}

impl Encoding {
    /// As configured, or by the mark at the file's beginning; `None`: not known before there are two bytes.
    pub fn of(config: config::Encoding, file: &File) -> Option<Encoding> {
        match config {
            config::Encoding::Auto => {
                let mut head = [0; 2];
                let length = read_at(file, &mut head, 0).ok()?;
                Encoding::by_mark(&head[..length])
            }
            given => Some(Encoding::given(given)),
        }
    }

    /// As configured, where there is no beginning to look at.
    pub fn given(config: config::Encoding) -> Encoding {
        match config {
            config::Encoding::Auto | config::Encoding::Utf8 => Encoding::Utf8,
            config::Encoding::Utf16Le => Encoding::Utf16Le,
            config::Encoding::Utf16Be => Encoding::Utf16Be,
            config::Encoding::Latin1 => Encoding::Latin1,
        }
    }

    fn by_mark(head: &[u8]) -> Option<Encoding> {
        match head {
            [0xff, 0xfe, ..] => Some(Encoding::Utf16Le),
            [0xfe, 0xff, ..] => Some(Encoding::Utf16Be),
            [_, _, ..] => Some(Encoding::Utf8),
            _ => None,
        }
    }

    /// As UTF-8. Half a character at the end is left out unless it is the `last`.
    pub fn decode(self, bytes: &[u8], last: bool) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len());
        self.characters(bytes, last, |character, _| {
            let mut buffer = [0; 4];
            text.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            true
        });
        text
    }

    /// How many bytes the first `length` bytes of the decoded text were.
    pub fn encoded_length(self, bytes: &[u8], length: usize) -> usize {
        let (mut text, mut raw) = (0, 0);
        self.characters(bytes, true, |character, size| {
            let fits = text + character.len_utf8() <= length;
            if fits {
                text += character.len_utf8();
                raw += size;
            }
            fits
        });
        raw
    }

    /// Shows each character with its size in bytes, as long as `visit` says so.
    fn characters(self, bytes: &[u8], last: bool, mut visit: impl FnMut(char, usize) -> bool) {
        let unit = match self {
            Encoding::Utf8 | Encoding::Latin1 => {
                for byte in bytes {
                    if !visit(char::from(*byte), 1) {
                        return;
                    }
                }
                return;
            }
            Encoding::Utf16Le => u16::from_le_bytes,
            Encoding::Utf16Be => u16::from_be_bytes,
        };
        let (pairs, odd) = bytes.as_chunks::<2>();
        let mut at = 0;
        while at < pairs.len() {
            let first = unit(pairs[at]);
            let high = (0xd800..0xdc00).contains(&first);
            if high && at + 1 == pairs.len() && !last {
                return;
            }
            let second = pairs.get(at + 1).map(|pair| unit(*pair)).filter(|low| high && (0xdc00..0xe000).contains(low));
            let (character, units) = match second {
                Some(low) => {
                    let point = 0x10000 + ((u32::from(first) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
                    (char::from_u32(point), 2)
                }
                None => (char::from_u32(u32::from(first)), 1),
            };
            if !visit(character.unwrap_or(char::REPLACEMENT_CHARACTER), units * 2) {
                return;
            }
            at += units;
        }
        if last && !odd.is_empty() {
            visit(char::REPLACEMENT_CHARACTER, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_agrees_with_the_standard_library(text in "[a-z\u{e9}\u{20ac}\u{1f600}\n]{0,40}", upto in 0usize..200) {
            let units: Vec<u16> = text.encode_utf16().collect();
            let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            prop_assert_eq!(Encoding::Utf16Le.decode(&little, true), text.as_bytes());
            prop_assert_eq!(Encoding::Utf16Be.decode(&big, true), text.as_bytes());
            // Any prefix on a boundary leads back to where it ended.
            let upto = text.char_indices().map(|(at, _)| at).chain([text.len()]).rfind(|at| *at <= upto).unwrap();
            let expected = text[..upto].encode_utf16().count() * 2;
            prop_assert_eq!(Encoding::Utf16Le.encoded_length(&little, upto), expected);
        }

        #[test]
        fn any_bytes_decode(bytes: Vec<u8>) {
            for encoding in [Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Latin1] {
                let text = encoding.decode(&bytes, true);
                prop_assert!(std::str::from_utf8(&text).is_ok());
                prop_assert_eq!(encoding.encoded_length(&bytes, text.len()), bytes.len());
                prop_assert!(encoding.decode(&bytes, false).len() <= text.len());
            }
        }
    }
}
