//! Heads of HTTP/1.1 messages, read strictly: what two programs could read differently is refused, because such
//! differences are what request smuggling is made of (RFC 9112 §11.2).
//!
//! Nothing is copied: fields are offsets into the bytes they were read from. The same form serves HTTP/2, whose heads are
//! written out as HTTP/1.1 ones first, so that there is one reading of every rule.

use memchr::memchr;

pub mod field;
#[cfg(test)]
mod tests;

pub use field::{Field, Name};

/// Heads are addressed by 16-bit offsets.
pub const LONGEST: usize = u16::MAX as usize;

/// Bounds of one head.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the whole head; at most [`LONGEST`].
    pub bytes: usize,
    /// Fields of the head.
    pub fields: usize,
}

/// Why a message is not taken. The text is for the person who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request line is malformed")]
    RequestLine,
    #[error("the request target is malformed")]
    Target,
    #[error("the HTTP version is not supported")]
    Version,
    #[error("the status line is malformed")]
    StatusLine,
    #[error("a field name is malformed")]
    FieldName,
    #[error("a field value is malformed")]
    FieldValue,
    #[error("a line does not end with CR LF")]
    LineEnd,
    #[error("the head is too large")]
    HeadSize,
    #[error("there are too many fields")]
    FieldCount,
    #[error("the Host field is missing, repeated or malformed")]
    Host,
    #[error("the length of the body is ambiguous")]
    Framing,
    #[error("the transfer coding is not supported")]
    Coding,
    #[error("the chunked body is malformed")]
    Chunk,
    #[error("the expectation is not supported")]
    Expectation,
    #[error("the method is not allowed here")]
    Method,
}

impl Refusal {
    /// The status that says so (RFC 9110 §15.5).
    pub const fn status(self) -> u16 {
        match self {
            Refusal::HeadSize | Refusal::FieldCount => 431,
            Refusal::Version => 505,
            Refusal::Coding => 501,
            Refusal::Expectation => 417,
            Refusal::Method => 405,
            _ => 400,
        }
    }
}

/// A piece of the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u16,
    pub end: u16,
}

impl Span {
    fn new(start: usize, end: usize) -> Span {
        // Callers keep heads below `LONGEST`.
        Span { start: start as u16, end: end as u16 }
    }
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
    Connect,
    Other,
}

impl Method {
    pub fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"PATCH" => Method::Patch,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }
    /// Whether doing it twice is as good as once (RFC 9110 §9.2.2).
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options | Method::Trace)
    }
}

/// How long a body is (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    None,
    Bytes(u64),
    Chunked,
    /// Until the connection closes; only of responses.
    Close,
}

/// What `Connection` and the version ask for (RFC 9112 §9.3, RFC 9110 §7.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    pub keep: bool,
    pub upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub method_span: Span,
    /// As sent.
    pub target: Span,
    /// Path and query: of an absolute form, the part behind the authority (empty means `/`).
    pub path: Span,
    /// The authority the request is for: of an absolute form, else of `Host` (RFC 9112 §3.2.2).
    pub host: Span,
    /// 0 or 1.
    pub minor: u8,
    /// Bytes of the head with its empty line.
    pub size: usize,
    pub length: Length,
    pub persistence: Persistence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub reason: Span,
    pub size: usize,
    pub length: Length,
    /// A body was declared where none may come (RFC 9110 §6.4.1).
    pub withheld: bool,
    pub persistence: Persistence,
    /// Seconds from `Keep-Alive: timeout=`.
    pub idle: Option<u32>,
}

const fn table(extra: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < extra.len() {
        table[extra[index] as usize] = true;
        index += 1;
    }
    table
}

/// `tchar` (RFC 9110 §5.6.2).
pub static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
/// What may stand in a host that is a name or an IPv4 address (RFC 3986 §3.2.2).
static NAME: [bool; 256] = table(b"-._~%!$&'()*+,;=");
/// What may stand between the brackets of one that is an IPv6 address, with a zone (RFC 6874), or of a later version.
static LITERAL: [bool; 256] = table(b"-._~%!$&'()*+,;=:");

/// Visible characters, blanks, tabs and what is beyond ASCII (RFC 9110 §5.5): no CR, LF or NUL.
pub fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, &byte| good & ((byte >= 0x20) & (byte != 0x7f) | (byte == b'\t')))
}

fn is_target(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, &byte| good & (byte > 0x20) & (byte < 0x7f) & (byte != b'#'))
}

/// Whether a text is an authority that a `Host` field may carry: a host and perhaps a port (RFC 3986 §3.2), without user
/// information, which nobody has a use for here. Empty is allowed (RFC 9112 §3.2), and so is an empty port.
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host, rest, allowed) = match bytes {
        [b'[', inside @ ..] => match inside.iter().position(|byte| *byte == b']') {
            Some(end) if end > 0 => (&inside[..end], &inside[end + 1..], &LITERAL),
            _ => return false,
        },
        _ => {
            let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
            (&bytes[..end], &bytes[end..], &NAME)
        }
    };
    host.iter().all(|byte| allowed[usize::from(*byte)])
        // A port; clients of gRPC with several addresses (`ipv4:A:1,B:2`) send all of them.
        && match rest {
            [] => true,
            [b':', port @ ..] => port.iter().all(|byte| LITERAL[usize::from(*byte)]),
            _ => false,
        }
}

/// Reads a request's head. `None`: more bytes are needed.
pub fn request(bytes: &[u8], fields: &mut Vec<Field>, bounds: Bounds) -> Result<Option<Request>, Refusal> {
    let seen = &bytes[..bytes.len().min(bounds.bytes)];
    match request_in(seen, fields, bounds.fields)? {
        None if bytes.len() >= bounds.bytes => Err(Refusal::HeadSize),
        head => Ok(head),
    }
}

fn request_in(bytes: &[u8], fields: &mut Vec<Field>, most: usize) -> Result<Option<Request>, Refusal> {
    fields.clear();
    // method SP request-target SP HTTP-version CRLF, single blanks (RFC 9112 §3)
    let method_end = bytes.iter().position(|byte| !TOKEN[usize::from(*byte)]);
    let Some(method_end) = method_end else { return Ok(None) };
    if method_end == 0 || bytes[method_end] != b' ' {
        return Err(Refusal::RequestLine);
    }
    let start = method_end + 1;
    let Some(length) = bytes[start..].iter().position(|byte| *byte <= b' ') else { return Ok(None) };
    let end = start + length;
    if length == 0 || bytes[end] != b' ' {
        return Err(Refusal::RequestLine);
    }
    if !is_target(&bytes[start..end]) {
        return Err(Refusal::Target);
    }
    let Some(minor) = version(&bytes[end + 1..], Refusal::RequestLine)? else { return Ok(None) };
    let Some(line) = line_end(bytes, end + 9)? else { return Ok(None) };
    let Some(size) = field::read(bytes, line, fields, most)? else { return Ok(None) };

    let method = Method::of(&bytes[..method_end]);
    let target = Span::new(start, end);
    let facts = field::Facts::gather(bytes, fields)?;
    let (path, authority) = locate(bytes, target, method)?;
    if minor == 1 && facts.host.is_none() {
        return Err(Refusal::Host);
    }
    let host = authority.or(facts.host).unwrap_or_default();
    if !is_authority(host.of(bytes)) || !is_authority(facts.host.unwrap_or_default().of(bytes)) {
        return Err(Refusal::Host);
    }
    let length = match (facts.chunked, facts.length) {
        (true, Some(_)) => return Err(Refusal::Framing),
        // A coding an HTTP/1.0 recipient would not have seen (RFC 9112 §6.1).
        (true, None) if minor == 0 => return Err(Refusal::Framing),
        (true, None) => Length::Chunked,
        (false, Some(0)) | (false, None) => Length::None,
        (false, Some(bytes)) => Length::Bytes(bytes),
    };
    let persistence = facts.persistence(minor);
    let method_span = Span::new(0, method_end);
    Ok(Some(Request { method, method_span, target, path, host, minor, size, length, persistence }))
}

/// The four forms of a target (RFC 9112 §3.2): path with query, and authority.
fn locate(bytes: &[u8], target: Span, method: Method) -> Result<(Span, Option<Span>), Refusal> {
    let text = target.of(bytes);
    let at = usize::from(target.start);
    if method == Method::Connect {
        return Ok((Span::default(), Some(target)));
    }
    if text[0] == b'/' {
        return Ok((target, None));
    }
    if text == b"*" && method == Method::Options {
        return Ok((target, None));
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| text.len() > scheme.len() && text[..scheme.len()].eq_ignore_ascii_case(scheme));
    let Some(scheme) = scheme else { return Err(Refusal::Target) };
    let rest = &text[scheme.len()..];
    let host = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if host == 0 || rest.get(host) == Some(&b'?') {
        return Err(Refusal::Target);
    }
    let start = at + scheme.len();
    Ok((Span::new(start + host, at + text.len()), Some(Span::new(start, start + host))))
}

/// The minor version of `HTTP/1.x`.
fn version(bytes: &[u8], malformed: Refusal) -> Result<Option<u8>, Refusal> {
    let seen = &bytes[..bytes.len().min(8)];
    if seen.len() < 8 {
        let name = seen.len().min(5);
        return if seen[..name] == b"HTTP/"[..name] { Ok(None) } else { Err(malformed) };
    }
    match seen {
        b"HTTP/1.1" => Ok(Some(1)),
        b"HTTP/1.0" => Ok(Some(0)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refusal::Version)
        }
        _ => Err(malformed),
    }
}

/// `at` must be the end of a line.
fn line_end(bytes: &[u8], at: usize) -> Result<Option<usize>, Refusal> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (None, _) | (Some(b'\r'), None) => Ok(None),
        _ => Err(Refusal::LineEnd),
    }
}

/// Reads a response's head. `to_head`: it answers a HEAD request (RFC 9112 §6.3).
pub fn response(
    bytes: &[u8],
    fields: &mut Vec<Field>,
    bounds: Bounds,
    to_head: bool,
) -> Result<Option<Response>, Refusal> {
    let seen = &bytes[..bytes.len().min(bounds.bytes)];
    match response_in(seen, fields, bounds.fields, to_head)? {
        None if bytes.len() >= bounds.bytes => Err(Refusal::HeadSize),
        head => Ok(head),
    }
}

fn response_in(bytes: &[u8], fields: &mut Vec<Field>, most: usize, head: bool) -> Result<Option<Response>, Refusal> {
    fields.clear();
    let Some(minor) = version(bytes, Refusal::StatusLine)? else { return Ok(None) };
    // HTTP-version SP 3DIGIT SP [ reason-phrase ]; the second blank is often left out (RFC 9112 §4)
    let Some(code) = bytes.get(8..13) else { return Ok(None) };
    let digits = &code[1..4];
    if code[0] != b' ' || !digits.iter().all(u8::is_ascii_digit) || !matches!(code[4], b' ' | b'\r') {
        return Err(Refusal::StatusLine);
    }
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    if !(100..=599).contains(&status) {
        return Err(Refusal::StatusLine);
    }
    let start = if code[4] == b' ' { 13 } else { 12 };
    let Some(length) = memchr(b'\r', &bytes[start..]) else {
        return if is_value(&bytes[start..]) { Ok(None) } else { Err(Refusal::StatusLine) };
    };
    if !is_value(&bytes[start..start + length]) {
        return Err(Refusal::StatusLine);
    }
    let Some(line) = line_end(bytes, start + length)? else { return Ok(None) };
    let Some(size) = field::read(bytes, line, fields, most)? else { return Ok(None) };
    let facts = field::Facts::gather(bytes, fields)?;
    let bodiless = head || status < 200 || status == 204 || status == 304;
    let length = match (facts.chunked, facts.length) {
        (true, Some(_)) => return Err(Refusal::Framing),
        (true, None) if minor == 0 => return Err(Refusal::Framing),
        _ if bodiless => Length::None,
        (true, None) => Length::Chunked,
        (false, Some(0)) => Length::None,
        (false, Some(bytes)) => Length::Bytes(bytes),
        (false, None) => Length::Close,
    };
    let reason = Span::new(start, line - 2);
    let mut persistence = facts.persistence(minor);
    persistence.keep &= length != Length::Close;
    let withheld = bodiless && (facts.chunked || facts.length.is_some_and(|length| length > 0));
    Ok(Some(Response { status, reason, size, length, withheld, persistence, idle: facts.idle }))
}
