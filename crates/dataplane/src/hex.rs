//! Hexadecimal digits, as identities, marks and percent-encoding are written.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends two digits for each byte.
pub fn put(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(&digits(*byte));
    }
}

/// As people write it.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

/// Eight bytes as sixteen digits.
pub fn sixteen(bytes: [u8; 8]) -> [u8; 16] {
    std::array::from_fn(|index| digits(bytes[index / 2])[index % 2])
}

fn digits(byte: u8) -> [u8; 2] {
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// The value of a digit.
pub fn value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// The byte that the first two of these are the digits of, such as behind the `%` of percent-encoding.
pub fn pair(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else { return None };
    Some(value(*high)? << 4 | value(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut out = Vec::new();
        put(&[0x01, 0xef], &mut out);
        assert_eq!((&out[..], text(&[0x01, 0xef]).as_str()), (&b"01ef"[..], "01ef"));
        assert_eq!(&sixteen([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]), b"00010203fcfdfeff");
        assert_eq!((pair(b"eF0"), pair(b"0"), pair(b"0g"), value(b' ')), (Some(0xef), None, None, None));
    }
}
