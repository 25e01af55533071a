//! Header compression (RFC 7541). Reading keeps the dynamic table the other side asks for; writing uses the static table
//! alone: a head costs some bytes more and no memory.

use std::collections::VecDeque;

use super::huffman;

/// Bytes of the dynamic table we offer (the default, SETTINGS_HEADER_TABLE_SIZE).
pub const TABLE: usize = 4096;
/// Says that the writer's dynamic table has no bytes from here on (§6.3). It must when it is to have fewer than it had (§4.2;
/// RFC 9113 §4.3.1), also if it never used any.
pub const NO_TABLE: u8 = 0x20;
/// What an entry counts besides its bytes (§4.1).
const OVERHEAD: usize = 32;

/// Appendix A.
static STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The longest name of the static table.
const LONGEST: usize = 27;

/// The static table's positions, shorter names first, and where each length begins: a name is compared with those of its
/// own length only.
static BY_LENGTH: ([u8; 61], [u8; LONGEST + 2]) = by_length();

const fn by_length() -> ([u8; 61], [u8; LONGEST + 2]) {
    let (mut order, mut begins) = ([0; 61], [0; LONGEST + 2]);
    let (mut length, mut at) = (0, 0);
    while length <= LONGEST {
        begins[length] = at as u8;
        let mut position = 0;
        while position < STATIC.len() {
            if STATIC[position].0.len() == length {
                order[at] = position as u8;
                at += 1;
            }
            position += 1;
        }
        length += 1;
    }
    begins[length] = at as u8;
    (order, begins)
}

/// The first position of a name, however it is written.
fn position(name: &[u8]) -> Option<usize> {
    let (order, begins) = &BY_LENGTH;
    let range = usize::from(*begins.get(name.len())?)..usize::from(*begins.get(name.len() + 1)?);
    let same = |at: &&u8| STATIC[usize::from(**at)].0.as_bytes().eq_ignore_ascii_case(name);
    order[range].iter().find(same).map(|at| usize::from(*at))
}

/// The block cannot be read: the connection's tables differ from here on (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

#[derive(Debug)]
pub struct Decoder {
    /// The newest first: name and value in one piece, with the name's length.
    entries: VecDeque<(Box<[u8]>, usize)>,
    size: usize,
    most: usize,
    name: Vec<u8>,
    value: Vec<u8>,
    /// Room for whoever reads a block.
    pub(super) room: [Vec<u8>; 2],
}

impl Default for Decoder {
    fn default() -> Decoder {
        let (name, value, room) = (Vec::new(), Vec::new(), Default::default());
        Decoder { entries: VecDeque::new(), size: 0, most: TABLE, name, value, room }
    }
}

impl Decoder {
    /// Reads a whole block and gives each field to `take`.
    pub fn read(&mut self, mut block: &[u8], mut take: impl FnMut(&[u8], &[u8])) -> Result<(), Unreadable> {
        let mut fields = false;
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    // Not copied: a block of these alone can name megabytes (a bomb) at a byte each.
                    let (name, value) = entry(&self.entries, integer(&mut block, 7)?)?;
                    take(name, value);
                    fields = true;
                    continue;
                }
                0x40..=0x7f => {
                    self.literal(&mut block, 6)?;
                    self.insert();
                }
                0x20..=0x3f => {
                    // Only at the beginning (§4.2).
                    let size = integer(&mut block, 5)?;
                    if fields || size > TABLE {
                        return Err(Unreadable);
                    }
                    self.most = size;
                    self.evict();
                    continue;
                }
                _ => self.literal(&mut block, 4)?,
            }
            fields = true;
            take(&self.name, &self.value);
        }
        Ok(())
    }

    fn literal(&mut self, block: &mut &[u8], prefix: u32) -> Result<(), Unreadable> {
        match integer(block, prefix)? {
            0 => string(block, &mut self.name)?,
            index => {
                let (name, _) = entry(&self.entries, index)?;
                self.name.clear();
                self.name.extend_from_slice(name);
            }
        }
        string(block, &mut self.value)
    }

    fn insert(&mut self) {
        let size = self.name.len() + self.value.len() + OVERHEAD;
        self.size += size;
        let entry = [&self.name[..], &self.value].concat().into_boxed_slice();
        self.entries.push_front((entry, self.name.len()));
        // An entry larger than the table empties it (§4.4).
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.most {
            let Some((entry, _)) = self.entries.pop_back() else { break };
            self.size -= entry.len() + OVERHEAD;
        }
    }
}

/// Name and value at an index of both tables (§2.3.3).
fn entry(entries: &VecDeque<(Box<[u8]>, usize)>, index: usize) -> Result<(&[u8], &[u8]), Unreadable> {
    match index {
        0 => Err(Unreadable),
        1..=61 => {
            let (name, value) = STATIC[index - 1];
            Ok((name.as_bytes(), value.as_bytes()))
        }
        _ => {
            let (entry, name) = entries.get(index - 62).ok_or(Unreadable)?;
            Ok(entry.split_at(*name))
        }
    }
}

fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Unreadable> {
    let (first, rest) = block.split_first().ok_or(Unreadable)?;
    *block = rest;
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..=21).step_by(7) {
        let (byte, rest) = block.split_first().ok_or(Unreadable)?;
        *block = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let coded = block.first().ok_or(Unreadable)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Unreadable)?;
    *block = rest;
    out.clear();
    if coded {
        return if huffman::decode(text, out) { Ok(()) } else { Err(Unreadable) };
    }
    out.extend_from_slice(text);
    Ok(())
}

// === writing ===

fn put_integer(value: usize, prefix: u32, flags: u8, out: &mut Vec<u8>) {
    let most = (1usize << prefix) - 1;
    if value < most {
        return out.push(flags | value as u8);
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A status in its shortest form.
pub fn put_status(status: &[u8], out: &mut Vec<u8>) {
    let known = STATIC[7..14].iter().position(|(_, value)| value.as_bytes() == status);
    match known {
        Some(position) => out.push(0x80 | (position + 8) as u8),
        None => put_indexed(8, status, out),
    }
}

/// A field; its name is written in lower case (RFC 9113 §8.2).
pub fn put(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    if let Some(position) = position(name) {
        return put_indexed(position + 1, value, out);
    }
    out.push(0);
    put_integer(name.len(), 7, 0, out);
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    put_integer(value.len(), 7, 0, out);
    out.extend_from_slice(value);
}

/// A literal that is not to be kept, with its name from the static table.
fn put_indexed(index: usize, value: &[u8], out: &mut Vec<u8>) {
    put_integer(index, 4, 0, out);
    put_integer(value.len(), 7, 0, out);
    out.extend_from_slice(value);
}

/// `:method`, `:scheme`, `:authority`, `:path` of a request.
pub fn put_request(method: &[u8], scheme: &[u8], authority: &[u8], path: &[u8], out: &mut Vec<u8>) {
    match method {
        b"GET" => out.push(0x82),
        b"POST" => out.push(0x83),
        _ => put_indexed(2, method, out),
    }
    out.push(if scheme == b"https" { 0x87 } else { 0x86 });
    put_indexed(1, authority, out);
    match path {
        b"/" => out.push(0x84),
        _ => put_indexed(4, path, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn read(decoder: &mut Decoder, hex: &str) -> Result<String, Unreadable> {
        let mut out = String::new();
        decoder.read(&bytes(hex), |name, value| {
            out.push_str(&format!("{}={};", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        })?;
        Ok(out)
    }

    #[test]
    fn the_examples_of_the_standard() {
        let first = ":method=GET;:scheme=http;:path=/;:authority=www.example.com;";
        let second = format!("{first}cache-control=no-cache;");
        let third = ":method=GET;:scheme=https;:path=/index.html;:authority=www.example.com;custom-key=custom-value;";
        // RFC 7541 C.3 without, C.4 with Huffman coding.
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::default();
            let found: Vec<String> = blocks.iter().map(|block| read(&mut decoder, block).unwrap()).collect();
            assert_eq!(found, [first, &second, third]);
            assert_eq!((decoder.entries.len(), decoder.size), (3, 164));
        }
    }

    #[test]
    fn names_are_found_by_length() {
        for (index, (name, _)) in STATIC.iter().enumerate() {
            let first = STATIC.iter().position(|(other, _)| other == name);
            assert!(first <= Some(index) && position(name.as_bytes()) == first, "{name}");
            assert_eq!(position(name.to_ascii_uppercase().as_bytes()), first);
        }
        for name in ["", "x", "dat", "access-control-allow-origin-", &"x".repeat(200)] {
            assert_eq!(position(name.as_bytes()), None);
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut decoder = Decoder::default();
        // The table shrinks to 64 bytes: one entry at a time.
        assert_eq!(read(&mut decoder, "3f21 4001 6101 62"), Ok("a=b;".to_owned()));
        assert_eq!(read(&mut decoder, "4001 6301 64 be"), Ok("c=d;c=d;".to_owned()));
        assert_eq!(read(&mut decoder, "bf"), Err(Unreadable));
        let mut decoder = Decoder::default();
        for block in ["80", "be", "3fe2 1f", "82 20", "ff ff ff ff ff 0f", "40", "4001", "40 81 00", "00 05 61"] {
            assert_eq!(read(&mut decoder, block), Err(Unreadable), "{block}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_status(b"200", &mut out);
        put_status(b"418", &mut out);
        put(b"Content-Type", b"text/plain", &mut out);
        put(b"X-Long", &[b'x'; 300], &mut out);
        put_request(b"PATCH", b"https", b"h:1", b"/x", &mut out);
        let mut text = String::new();
        Decoder::default()
            .read(&out, |name, value| text.push_str(&format!("{}={};", String::from_utf8_lossy(name), value.len())))
            .unwrap();
        assert_eq!(text, ":status=3;:status=3;content-type=10;x-long=300;:method=5;:scheme=5;:authority=3;:path=2;");
    }
}
