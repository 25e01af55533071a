//! The Huffman code of header strings (RFC 7541 §5.2, appendix B). The code is canonical: lengths are enough.

use std::sync::OnceLock;

/// Bits of the code of each byte and of the end mark, as digits to base 36.
const LENGTHS: &[u8; 257] = b"dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu";
const LONGEST: usize = 30;
const END: u16 = 256;

struct Code {
    /// For every eight bits: the symbol they begin with and its length, if it is not longer.
    short: [(u8, u8); 256],
    /// For every length: the first code, how many there are, and where their symbols begin.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    start: [u16; LONGEST + 1],
    symbols: [u16; 257],
}

fn code() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| {
        let length = |symbol: usize| char::from(LENGTHS[symbol]).to_digit(36).unwrap_or(0) as usize;
        let mut code = Code {
            short: [(0, 0); 256],
            first: [0; LONGEST + 1],
            count: [0; LONGEST + 1],
            start: [0; LONGEST + 1],
            symbols: [0; 257],
        };
        let (mut next, mut at) = (0u32, 0usize);
        for bits in 1..=LONGEST {
            next <<= 1;
            code.first[bits] = next;
            code.start[bits] = at as u16;
            for symbol in (0..257).filter(|symbol| length(*symbol) == bits) {
                code.symbols[at] = symbol as u16;
                if bits <= 8 {
                    let begin = (next << (8 - bits)) as usize;
                    code.short[begin..begin + (1 << (8 - bits))].fill((symbol as u8, bits as u8));
                }
                at += 1;
                next += 1;
                code.count[bits] += 1;
            }
        }
        code
    })
}

/// Appends the text; false if the bytes are no good code (§5.2: too much padding, padding with zeros, the end mark).
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let code = code();
    let (mut held, mut bits) = (0u64, 0usize);
    let mut input = bytes.iter();
    loop {
        while bits <= 56 {
            let Some(byte) = input.next() else { break };
            held = held << 8 | u64::from(*byte);
            bits += 8;
        }
        if bits == 0 {
            return true;
        }
        // The next eight bits, filled up with ones at the end.
        let eight = if bits >= 8 { held >> (bits - 8) } else { held << (8 - bits) | (0xff >> bits) } as u8;
        let (symbol, length) = code.short[usize::from(eight)];
        if length != 0 && usize::from(length) <= bits {
            out.push(symbol);
            bits -= usize::from(length);
            continue;
        }
        let found = (9..=LONGEST.min(bits)).find_map(|length| {
            let value = (held >> (bits - length)) as u32 & ((1u64 << length) - 1) as u32;
            let offset = value.wrapping_sub(code.first[length]);
            (offset < code.count[length])
                .then(|| (code.symbols[usize::from(code.start[length]) + offset as usize], length))
        });
        match found {
            Some((END, _)) => return false,
            Some((symbol, length)) => {
                out.push(symbol as u8);
                bits -= length;
            }
            // What is left must be the beginning of the end mark: fewer than eight ones.
            None => return bits < 8 && held & ((1 << bits) - 1) == (1 << bits) - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(hex: &str) -> Option<String> {
        let bytes: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let mut out = Vec::new();
        decode(&bytes, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_examples_of_the_standard() {
        // RFC 7541 C.4 and C.6
        for (hex, expected) in [
            ("f1 e3 c2 e5 f2 3a 6b a0 ab 90 f4 ff", "www.example.com"),
            ("a8 eb 10 64 9c bf", "no-cache"),
            ("25 a8 49 e9 5b a9 7d 7f", "custom-key"),
            ("25 a8 49 e9 5b b8 e8 b4 bf", "custom-value"),
            ("d0 7a be 94 10 54 d4 44 a8 20 05 95 04 0b 81 66 e0 82 a6 2d 1b ff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d 29 ad 17 18 63 c7 8f 0b 97 c8 e9 ae 82 ae 43 d3", "https://www.example.com"),
        ] {
            assert_eq!(text(hex).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_no_code() {
        // Padding with zeros, a whole byte of padding, the end mark.
        for hex in ["18", "a8 eb 10 64 9c bf ff", "ff ff ff ff", "ff ff ff fc"] {
            assert_eq!(text(hex), None, "{hex}");
        }
    }
}
