//! Frames (RFC 9113 §4, §6).

pub const HEADER: usize = 9;
/// The largest payload we take, and the one everybody takes (SETTINGS_MAX_FRAME_SIZE).
pub const PAYLOAD: usize = 16_384;
/// What a client says first (§3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITISED: u8 = 0x20;

/// Error codes (§7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    None = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    Refused = 7,
    Cancel = 8,
    Compression = 9,
    Calm = 11,
}

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Frame {
    /// The header, if all of it is there.
    pub fn read(bytes: &[u8]) -> Option<Frame> {
        let header = bytes.first_chunk::<HEADER>()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some(Frame { length, kind, flags, stream: number(&[s0, s1, s2, s3]) & 0x7fff_ffff })
    }

    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Four bytes as a number; fewer are none.
pub fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

/// Writes a frame's header.
pub fn begin(length: usize, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    let bytes = (length as u32).to_be_bytes();
    out.extend_from_slice(&bytes[1..]);
    out.push(kind);
    out.push(flags);
    out.extend_from_slice(&stream.to_be_bytes());
}

pub fn put_reset(stream: u32, code: Code, out: &mut Vec<u8>) {
    begin(4, RST_STREAM, 0, stream, out);
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

pub fn put_window(stream: u32, more: u32, out: &mut Vec<u8>) {
    begin(4, WINDOW_UPDATE, 0, stream, out);
    out.extend_from_slice(&more.to_be_bytes());
}

pub fn put_goaway(last: u32, code: Code, out: &mut Vec<u8>) {
    begin(8, GOAWAY, 0, 0, out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
}
