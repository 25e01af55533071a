//! Building lines and reading fields, byte by byte: the formatting machinery of std would cost a quarter of the shim's
//! resident code.

/// A line or packet in the making: words between spaces.
#[derive(Debug, Default)]
pub(crate) struct Line {
    bytes: Vec<u8>,
}

/// A message longer than this is cut, so that every fact line fits [`LONGEST_LINE`].
const LONGEST_MESSAGE: usize = 3 * 1024;
/// No line is longer, its end included. A container name is at most [`LONGEST_NAME`].
pub(crate) const LONGEST_LINE: usize = 4096;
/// As Kubernetes' longest names.
pub(crate) const LONGEST_NAME: usize = 253;

impl Line {
    pub(crate) fn new(verb: &str) -> Line {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(verb.as_bytes());
        Line { bytes }
    }

    pub(crate) fn word(mut self, word: &[u8]) -> Line {
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(word);
        self
    }

    pub(crate) fn number(mut self, number: u64) -> Line {
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(Decimal::new(number).as_bytes());
        self
    }

    /// The last word: free text, with newlines as `\n`.
    pub(crate) fn message(mut self, message: &[u8]) -> Line {
        self.bytes.push(b' ');
        let limit = self.bytes.len() + LONGEST_MESSAGE;
        for &byte in message {
            if self.bytes.len() + 2 > limit {
                // Not in the middle of a character.
                while self.bytes.last().is_some_and(|byte| (0x80..0xc0).contains(byte)) {
                    self.bytes.pop();
                }
                if self.bytes.last().is_some_and(|byte| *byte >= 0xc0) {
                    self.bytes.pop();
                }
                break;
            }
            match byte {
                b'\n' => self.bytes.extend_from_slice(b"\\n"),
                b'\\' => self.bytes.extend_from_slice(b"\\\\"),
                0 => self.bytes.push(b'?'),
                byte => self.bytes.push(byte),
            }
        }
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.push(b'\n');
        self.bytes
    }
}

/// A number in decimal.
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(mut number: u64) -> Decimal {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Decimal { digits, start };
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// A whole decimal number, nothing around it.
pub(crate) fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_way_there_and_back() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(parse_number(Decimal::new(number).as_bytes()), Some(number));
        }
        assert_eq!(parse_number(b""), None);
        assert_eq!(parse_number(b"12a"), None);
        assert_eq!(parse_number(b"18446744073709551616"), None);
    }

    #[test]
    fn messages_stay_on_one_line_and_whole_characters() {
        let line = Line::new("x").message("a\nb\\c".as_bytes()).end();
        assert_eq!(line, b"x a\\nb\\\\c\n");
        let long = Line::new("x").message("é".repeat(4000).as_bytes()).end();
        assert!(long.len() < LONGEST_LINE && std::str::from_utf8(&long).is_ok());
    }
}
