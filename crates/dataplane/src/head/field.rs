//! Fields of a head, and what those that concern the connection say.

use memchr::memchr;

use super::{Persistence, Refusal, Span, TOKEN, is_value};

/// Names that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Other,
    Connection,
    ContentLength,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    XForwardedClientCert,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    /// What [`is_like()`] one of the proxy's own: framing, or the client's certificate.
    LikeOwn,
    /// What [`is_like()`] an `X-Forwarded-*` field that the proxy writes.
    LikeForwarded,
}

impl Name {
    pub fn of(name: &[u8]) -> Name {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let like = |other: &[u8]| is_like(name, other);
        match name.len() {
            2 if is(b"te") => Name::Te,
            4 if is(b"host") => Name::Host,
            6 if is(b"expect") => Name::Expect,
            7 if is(b"upgrade") => Name::Upgrade,
            7 if is(b"trailer") => Name::Trailer,
            9 if is(b"forwarded") => Name::Forwarded,
            10 if is(b"connection") => Name::Connection,
            10 if is(b"keep-alive") => Name::KeepAlive,
            14 if is(b"content-length") => Name::ContentLength,
            15 if is(b"x-forwarded-for") => Name::XForwardedFor,
            16 if is(b"x-forwarded-host") => Name::XForwardedHost,
            16 if is(b"proxy-connection") => Name::ProxyConnection,
            17 if is(b"transfer-encoding") => Name::TransferEncoding,
            17 if is(b"x-forwarded-proto") => Name::XForwardedProto,
            23 if is(b"x-forwarded-client-cert") => Name::XForwardedClientCert,
            10 if like(b"keep-alive") => Name::LikeOwn,
            14 if like(b"content-length") => Name::LikeOwn,
            15 if like(b"x-forwarded-for") => Name::LikeForwarded,
            16 if like(b"x-forwarded-host") => Name::LikeForwarded,
            16 if like(b"proxy-connection") => Name::LikeOwn,
            17 if like(b"transfer-encoding") => Name::LikeOwn,
            17 if like(b"x-forwarded-proto") => Name::LikeForwarded,
            23 if like(b"x-forwarded-client-cert") => Name::LikeOwn,
            _ => Name::Other,
        }
    }
}

/// Whether an application that gets fields as variables (CGI, RFC 3875 §4.1.18, and what came after it) has one variable for
/// both names: `-` becomes `_`, with many servers everything else that is no letter or digit too.
pub fn is_like(name: &[u8], other: &[u8]) -> bool {
    let same =
        |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || !a.is_ascii_alphanumeric() && !b.is_ascii_alphanumeric();
    name.len() == other.len() && name.iter().zip(other).all(same)
}

/// One line of a head.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: Name,
    /// False when it must not be passed on.
    pub keep: bool,
    pub name_span: Span,
    /// Without the blanks around it.
    pub value: Span,
    /// The whole line with its end.
    pub line: Span,
}

/// Reads fields up to the empty line; the result is the offset behind it. `None`: more bytes are needed.
pub(super) fn read(bytes: &[u8], start: usize, fields: &mut Vec<Field>, most: usize) -> Result<Option<usize>, Refusal> {
    let mut at = start;
    loop {
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'\r') => {
                return match bytes.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(at + 2)),
                    Some(_) => Err(Refusal::LineEnd),
                };
            }
            Some(b'\n') => return Err(Refusal::LineEnd),
            Some(_) => {}
        }
        // A name that begins with a blank would be a folded line (obs-fold, RFC 9112 §5.2), one that ends with a blank
        // is read differently by different programs (§5.1): both are no tokens.
        let Some(length) = bytes[at..].iter().position(|byte| !TOKEN[usize::from(*byte)]) else { return Ok(None) };
        let colon = at + length;
        if length == 0 || bytes[colon] != b':' {
            return Err(Refusal::FieldName);
        }
        let rest = &bytes[colon + 1..];
        let Some(length) = memchr(b'\r', rest) else {
            return if is_value(rest) { Ok(None) } else { Err(Refusal::FieldValue) };
        };
        let value = &rest[..length];
        if !is_value(value) {
            return Err(Refusal::FieldValue);
        }
        let end = colon + 1 + length;
        match bytes.get(end + 1) {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) => return Err(Refusal::LineEnd),
        }
        if fields.len() == most {
            return Err(Refusal::FieldCount);
        }
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
        let before = value.iter().take_while(blank).count();
        let after = if before == length { 0 } else { value.iter().rev().take_while(blank).count() };
        fields.push(Field {
            name: Name::of(&bytes[at..colon]),
            keep: true,
            name_span: Span::new(at, colon),
            value: Span::new(colon + 1 + before, end - after),
            line: Span::new(at, end + 2),
        });
        at = end + 2;
    }
}

/// What the fields that concern the connection say together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) host: Option<Span>,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) idle: Option<u32>,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Facts {
    /// Also marks what must not be passed on (RFC 9110 §7.6.1): the fields of the connection, and those it names.
    pub(super) fn gather(bytes: &[u8], fields: &mut [Field]) -> Result<Facts, Refusal> {
        let mut facts = Facts::default();
        let mut names_others = false;
        for field in fields.iter_mut() {
            let value = field.value.of(bytes);
            match field.name {
                Name::Other | Name::Trailer | Name::Forwarded => {}
                Name::XForwardedFor | Name::XForwardedHost | Name::XForwardedProto => {}
                Name::XForwardedClientCert | Name::LikeOwn | Name::LikeForwarded => {}
                Name::Host if facts.host.is_some() => return Err(Refusal::Host),
                Name::Host => facts.host = Some(field.value),
                // Repeated, even with the same value, or a list: refused (RFC 9112 §6.3 allows it).
                Name::ContentLength if facts.length.is_some() => return Err(Refusal::Framing),
                Name::ContentLength => facts.length = Some(number(value).ok_or(Refusal::Framing)?),
                Name::TransferEncoding => {
                    field.keep = false;
                    if facts.chunked {
                        return Err(Refusal::Framing);
                    }
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::Coding);
                    }
                    facts.chunked = true;
                }
                Name::Expect => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::Expectation);
                    }
                }
                Name::Connection => {
                    field.keep = false;
                    names_others |= facts.connection(value);
                }
                Name::KeepAlive => {
                    field.keep = false;
                    facts.idle = keep_alive_timeout(value);
                }
                Name::ProxyConnection | Name::Upgrade => field.keep = false,
                // The one thing that may be asked of the next hop: trailers, which are passed on.
                Name::Te => field.keep = value.eq_ignore_ascii_case(b"trailers"),
            }
        }
        if names_others {
            drop_named(bytes, fields);
        }
        Ok(facts)
    }

    /// Whether the options name other fields.
    fn connection(&mut self, value: &[u8]) -> bool {
        let mut others = false;
        for option in options(value) {
            match option.len() {
                0 => {}
                5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ => others = true,
            }
        }
        others
    }

    pub(super) fn persistence(&self, minor: u8) -> Persistence {
        Persistence { keep: !self.close && (minor == 1 || self.keep_alive), upgrade: self.upgrade && minor == 1 }
    }
}

/// The values of the fields called `name` (in any case), in their order.
pub fn values<'a>(bytes: &'a [u8], fields: &[Field], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let same = move |field: &&Field| field.name_span.of(bytes).eq_ignore_ascii_case(name);
    fields.iter().filter(same).map(move |field| field.value.of(bytes))
}

/// Does not pass on the fields whose name is one that is to go.
pub fn leave_out(bytes: &[u8], fields: &mut [Field], goes: impl Fn(&[u8]) -> bool) {
    for field in fields {
        field.keep &= !goes(field.name_span.of(bytes));
    }
}

/// The members of a comma-separated list.
pub fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// `Connection` may not take away what the message or its way depends on: that is an attack, not an option.
fn drop_named(bytes: &[u8], fields: &mut [Field]) {
    for index in 0..fields.len() {
        if fields[index].name != Name::Connection {
            continue;
        }
        let value = fields[index].value;
        for option in options(value.of(bytes)) {
            for field in fields
                .iter_mut()
                .filter(|field| matches!(field.name, Name::Other | Name::Trailer | Name::LikeOwn | Name::LikeForwarded))
            {
                if field.name_span.of(bytes).eq_ignore_ascii_case(option) {
                    field.keep = false;
                }
            }
        }
    }
}

/// A whole number in decimal, without a sign and not longer than any that has a meaning here.
pub fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn keep_alive_timeout(value: &[u8]) -> Option<u32> {
    let value = options(value).find_map(|option| option.strip_prefix(b"timeout="))?;
    number(value).and_then(|seconds| u32::try_from(seconds).ok())
}
