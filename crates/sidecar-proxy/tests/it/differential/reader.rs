//! How a backend might read a connection: strictly, or with one of the laxities that request smuggling lives from.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// A line may end with a bare LF.
    bare_lf: bool,
    /// Blanks before a colon, and before a name, are let pass.
    blanks: bool,
    /// `Content-Length` wins over `Transfer-Encoding`.
    length_wins: bool,
    /// Anything with `chunked` in it is chunked.
    loose_coding: bool,
    /// The last of several lengths counts, else the first.
    last_length: bool,
}

impl Reader {
    pub(crate) const STRICT: Reader =
        Reader { bare_lf: false, blanks: false, length_wins: false, loose_coding: false, last_length: false };
    pub(crate) const LAX: [Reader; 6] = [
        Reader { bare_lf: true, ..Reader::STRICT },
        Reader { blanks: true, ..Reader::STRICT },
        Reader { length_wins: true, ..Reader::STRICT },
        Reader { loose_coding: true, ..Reader::STRICT },
        Reader { last_length: true, ..Reader::STRICT },
        Reader { bare_lf: true, blanks: true, length_wins: false, loose_coding: true, last_length: true },
    ];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
}

/// Whole messages, and how many bytes at the end are none yet.
pub(crate) fn read(bytes: &[u8], reader: Reader) -> (Vec<Message>, usize) {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some((message, after)) = message(rest, reader) {
        found.push(message);
        rest = after;
    }
    (found, rest.len())
}

fn line(bytes: &[u8], reader: Reader) -> Option<(&[u8], &[u8])> {
    let at = if reader.bare_lf {
        bytes.iter().position(|byte| *byte == b'\n')?
    } else {
        bytes.windows(2).position(|two| two == b"\r\n")? + 1
    };
    let text = &bytes[..at];
    Some((text.strip_suffix(b"\r").unwrap_or(text), &bytes[at + 1..]))
}

fn message(bytes: &[u8], reader: Reader) -> Option<(Message, &[u8])> {
    let (first, mut rest) = line(bytes, reader)?;
    let (mut lengths, mut chunked) = (Vec::new(), false);
    loop {
        let (field, after) = line(rest, reader)?;
        rest = after;
        if field.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(field).to_ascii_lowercase();
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        let name = if reader.blanks { name.trim() } else { name };
        match name {
            "content-length" => lengths.push(value.trim().parse::<usize>().unwrap_or(0)),
            "transfer-encoding" if reader.loose_coding => chunked |= value.contains("chunked"),
            "transfer-encoding" => chunked |= value.trim() == "chunked",
            _ => {}
        }
    }
    let length = if reader.last_length { lengths.last() } else { lengths.first() };
    let (body, rest) = match length {
        Some(length) if reader.length_wins || !chunked => (rest.get(..*length)?.to_vec(), &rest[*length..]),
        _ if chunked => chunks(rest, reader)?,
        _ => (Vec::new(), rest),
    };
    Some((Message { line: String::from_utf8_lossy(first).into_owned(), body }, rest))
}

fn chunks(mut rest: &[u8], reader: Reader) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (size, after) = line(rest, reader)?;
        let text = String::from_utf8_lossy(size).into_owned();
        let size = usize::from_str_radix(text.split(';').next()?.trim(), 16).unwrap_or(0);
        rest = after;
        if size == 0 {
            loop {
                let (field, after) = line(rest, reader)?;
                rest = after;
                if field.is_empty() {
                    return Some((body, rest));
                }
            }
        }
        body.extend_from_slice(rest.get(..size)?);
        let (_, after) = line(rest.get(size..)?, reader)?;
        rest = after;
    }
}
