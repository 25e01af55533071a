//! The first message of a TLS connection, read for the name of the server it is meant for (RFC 8446 §4.1.2, RFC 6066 §3)
//! and nothing else: whoever ends the connection judges the rest. Nothing here is kept between calls, so that what is read
//! does not depend on how the bytes came.

/// Bytes of a hello at most, with the headers of its records. Those of browsers have two thousand.
pub const LONGEST: usize = 16 << 10;

/// A record's header: what it carries, a version, the length (RFC 8446 §5.1).
const RECORD_HEADER: usize = 5;
/// Bytes a record carries at most.
const RECORD_MOST: usize = 1 << 14;
/// The content type of records that carry handshake messages.
const HANDSHAKE: u8 = 22;
/// A handshake message's header: its type, the length.
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
/// The extension that has the name, and the kind of name that hosts have.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// A host's name in DNS at most.
const NAME_MOST: usize = 255;

/// Why a connection cannot be passed on by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the connection does not begin with TLS")]
    NotTls,
    #[error("the TLS hello is malformed")]
    Malformed,
    #[error("the TLS hello is too long")]
    TooLong,
    #[error("nothing takes this server name")]
    Unknown,
}

impl Refused {
    /// The record with the fatal alert that says so (RFC 8446 §6.2).
    pub const fn alert(self) -> [u8; 7] {
        let description = match self {
            // unexpected_message
            Refused::NotTls => 10,
            // decode_error
            Refused::Malformed | Refused::TooLong => 50,
            // unrecognized_name
            Refused::Unknown => 112,
        };
        [21, 3, 3, 0, 2, 2, description]
    }
}

/// What a client has begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The server's name in lower case, without a final dot; `None`: the client has sent none.
    pub name: Option<Vec<u8>>,
}

/// Reads the hello at the beginning of `bytes`; `None`: more must come.
///
/// # Errors
/// [`Refused`] if what is there can become no hello, however it goes on, or if it is longer than [`LONGEST`].
pub fn read(bytes: &[u8]) -> Result<Option<Hello>, Refused> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    // The message may be cut into records anywhere.
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        match rest {
            [kind, ..] if *kind != HANDSHAKE => {
                return Err(if message.is_empty() { Refused::NotTls } else { Refused::Malformed });
            }
            [_, major, ..] if *major != 3 => return Err(Refused::NotTls),
            _ => {}
        }
        let Some((header, after)) = rest.split_at_checked(RECORD_HEADER) else { break };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > RECORD_MOST {
            return Err(Refused::Malformed);
        }
        message.extend_from_slice(&after[..length.min(after.len())]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Refused::NotTls);
        }
        if let Some((header, body)) = message.split_at_checked(MESSAGE_HEADER) {
            let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            if length > LONGEST - RECORD_HEADER - MESSAGE_HEADER {
                return Err(Refused::TooLong);
            }
            if let Some(body) = body.get(..length) {
                return hello(body).map(Some).ok_or(Refused::Malformed);
            }
        }
        match after.split_at_checked(length) {
            Some((_, next)) => rest = next,
            None => break,
        }
    }
    if bytes.len() == LONGEST { Err(Refused::TooLong) } else { Ok(None) }
}

/// The message's body; `None`: it is malformed.
fn hello(body: &[u8]) -> Option<Hello> {
    let mut rest = Reader(body);
    // Version and random bytes.
    rest.take(2 + 32)?;
    let session = rest.short()?;
    let ciphers = rest.long()?;
    let compressions = rest.short()?;
    if session.0.len() > 32 || ciphers.0.is_empty() || ciphers.0.len() % 2 != 0 || compressions.0.is_empty() {
        return None;
    }
    let mut name = None;
    if !rest.0.is_empty() {
        let mut extensions = rest.long()?;
        while !extensions.0.is_empty() {
            let kind = extensions.number()?;
            let mut extension = extensions.long()?;
            if kind == SERVER_NAME {
                // Two of them are two readings.
                if name.is_some() {
                    return None;
                }
                name = Some(server_name(&mut extension)?);
            }
        }
    }
    rest.0.is_empty().then_some(Hello { name: name.flatten() })
}

/// The host in the extension; one of another kind, which there is none of, is let pass.
fn server_name(extension: &mut Reader<'_>) -> Option<Option<Vec<u8>>> {
    let mut list = extension.long()?;
    if !extension.0.is_empty() || list.0.is_empty() {
        return None;
    }
    let mut host = None;
    while !list.0.is_empty() {
        let [kind] = list.take(1)? else { return None };
        let name = list.long()?.0;
        if *kind == HOST_NAME && host.replace(host_name(name)?).is_some() {
            return None;
        }
    }
    Some(host)
}

/// In the form in which it is compared; `None`: a host cannot be called so.
fn host_name(name: &[u8]) -> Option<Vec<u8>> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let name = name.strip_suffix(b".").unwrap_or(name);
    let good = !name.is_empty() && name.len() <= NAME_MOST && name.iter().all(plain);
    good.then(|| name.to_ascii_lowercase())
}

/// Takes pieces off the front; `None` where there are too few bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (piece, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(piece)
    }

    fn number(&mut self) -> Option<u16> {
        let piece = self.take(2)?;
        Some(u16::from_be_bytes([piece[0], piece[1]]))
    }

    /// A piece with its length before it, in one byte.
    fn short(&mut self) -> Option<Reader<'a>> {
        let length = self.take(1)?[0];
        self.take(usize::from(length)).map(Reader)
    }

    /// The same, in two.
    fn long(&mut self) -> Option<Reader<'a>> {
        let length = self.number()?;
        self.take(usize::from(length)).map(Reader)
    }
}

#[cfg(test)]
mod tests;
