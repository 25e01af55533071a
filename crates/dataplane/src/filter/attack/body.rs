//! Texts in a request's body: the values of forms, of JSON and of the parts of a multipart form, or all of a plain text.

use memchr::memmem;

use super::{BREAK, decode, left_out};
use crate::filter::Asked;

/// What a body is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// RFC 8259.
    Json,
    /// RFC 7578, with its boundary.
    Parts(&'a [u8]),
    /// XML, plain text, or nothing that says what it is.
    Text,
}

impl<'a> Kind<'a> {
    /// What the head says; `None`: nothing that would be read as a text.
    pub(super) fn of(asked: &'a Asked<'_>) -> Option<Kind<'a>> {
        if asked.values(b"content-encoding").any(|value| !value.eq_ignore_ascii_case(b"identity")) {
            return None;
        }
        let Some(value) = asked.values(b"content-type").next() else { return Some(Kind::Text) };
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let (name, parameters) = (value[..end].trim_ascii().to_ascii_lowercase(), &value[end..]);
        let ends = |suffix: &[u8]| name.ends_with(suffix);
        match &name[..] {
            b"application/x-www-form-urlencoded" => Some(Kind::Form),
            b"multipart/form-data" => boundary(parameters).map(Kind::Parts),
            b"application/json" | b"text/json" | b"application/x-ndjson" => Some(Kind::Json),
            b"application/xml" | b"application/graphql" | b"application/javascript" | b"" => Some(Kind::Text),
            _ if ends(b"+json") => Some(Kind::Json),
            _ if ends(b"+xml") || name.starts_with(b"text/") => Some(Kind::Text),
            _ => None,
        }
    }

    /// Writes the texts of `body`, without those of the parameters `excluded`; [`BREAK`] stands between them.
    pub(super) fn texts(self, body: &[u8], excluded: &[&[u8]], out: &mut Vec<u8>) {
        match self {
            Kind::Form => pairs(body, excluded, out),
            Kind::Json => strings(body, excluded, out),
            Kind::Parts(boundary) => parts(body, boundary, excluded, out),
            Kind::Text => decode(body, false, out),
        }
    }
}

/// The pairs of a query or a form.
pub(super) fn pairs(text: &[u8], excluded: &[&[u8]], out: &mut Vec<u8>) {
    for pair in text.split(|byte| *byte == b'&') {
        if !left_out(pair.split(|byte| *byte == b'=').next().unwrap_or_default(), excluded) {
            decode(pair, true, out);
            out.push(BREAK);
        }
    }
}

/// `boundary` of `multipart/form-data` (RFC 2046 §5.1.1).
fn boundary(parameters: &[u8]) -> Option<&[u8]> {
    let parameter = parameters
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .find(|parameter| parameter.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"boundary=")))?;
    let value = parameter[9..].trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (1..=70).contains(&value.len()).then_some(value)
}

/// Every string of JSON, names too. Whatever is no JSON has strings as well, as long as there are quotation marks; the last
/// one may be cut.
fn strings(body: &[u8], excluded: &[&[u8]], out: &mut Vec<u8>) {
    let (mut rest, mut skips) = (body, false);
    let mut text = Vec::new();
    while let Some(quote) = memchr::memchr(b'"', rest) {
        rest = &rest[quote + 1..];
        text.clear();
        rest = unescape(rest, &mut text);
        let is_name = rest.trim_ascii_start().starts_with(b":");
        if is_name {
            skips = left_out(&text, excluded);
        }
        if skips {
            // The name is left out with its value.
            skips = is_name;
            continue;
        }
        decode(&text, false, out);
        out.push(BREAK);
    }
}

/// Writes the string that begins here, and returns what follows its end.
fn unescape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let escaped = rest.get(at + 1).copied().unwrap_or_default();
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or_default();
        match escaped {
            b'u' => {
                let digits = rest.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
                let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                rest = rest.get(4..).unwrap_or_default();
                // What no expression knows may be anything else.
                out.push(unit.and_then(|unit| u8::try_from(unit).ok()).filter(u8::is_ascii).unwrap_or(b'?'));
            }
            b'b' | b'f' | b'n' | b'r' | b't' => out.push(b' '),
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
    &[]
}

/// The names and values of parts; of files their names alone.
fn parts(body: &[u8], boundary: &[u8], excluded: &[&[u8]], out: &mut Vec<u8>) {
    let delimiter = [b"--", boundary].concat();
    let mut delimiters = memmem::find_iter(body, &delimiter).peekable();
    while let Some(at) = delimiters.next() {
        let part = &body[at + delimiter.len()..delimiters.peek().copied().unwrap_or(body.len())];
        // There are readers that do with less than RFC 2046.
        let proper = memmem::find(part, b"\r\n\r\n").map(|at| (at, at + 4));
        let bare = memmem::find(part, b"\n\n").map(|at| (at, at + 2));
        // Neither: cut, or the last delimiter's.
        let Some((end, begin)) = [proper, bare].into_iter().flatten().min() else { continue };
        let (head, value) = (&part[..end], &part[begin..]);
        let name = parameter(head, b"name").unwrap_or_default();
        if left_out(name, excluded) {
            continue;
        }
        let file = parameter(head, b"filename").or_else(|| parameter(head, b"filename*"));
        for text in [name, file.unwrap_or(value)] {
            decode(text, false, out);
            out.push(BREAK);
        }
    }
}

/// The value of a parameter of `Content-Disposition: form-data; name="x"`.
fn parameter<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let begins = |at: usize| matches!(head.get(at.wrapping_sub(1)), Some(b' ' | b';' | b'\t'));
    let is_it = |at: usize| head[at..].get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name));
    let equals = memchr::memchr_iter(b'=', head)
        .find(|equals| equals.checked_sub(name.len()).is_some_and(|at| begins(at) && is_it(at)))?;
    let value = &head[equals + 1..];
    match value.strip_prefix(b"\"") {
        Some(quoted) => Some(&quoted[..memchr::memchr(b'"', quoted).unwrap_or(quoted.len())]),
        None => value.split(|byte| matches!(byte, b';' | b'\r' | b' ')).next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;

    fn texts(kind: Kind<'_>, body: &str, excluded: &[&[u8]]) -> String {
        let mut out = Vec::new();
        kind.texts(body.as_bytes(), excluded, &mut out);
        String::from_utf8(out).unwrap().replace('\u{1}', "|")
    }

    #[test]
    fn texts_of_bodies() {
        assert_eq!(texts(Kind::Form, "a=1+2&b=%27x&c=y", &[b"c"]), "a=1 2|b='x|");
        let json =
            r#"{"a": "x\u0027 \"or\" \/*c*\/1", "n": 12, "list": ["p", {"skip": "no"}], "skip": "no", "cut": "en"#;
        assert_eq!(texts(Kind::Json, json, &[b"skip"]), "a|x' \"or\"  1|n|list|p|cut|en|");
        let parts = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n<v>\r\n--B\r\nContent-Disposition: form-data; \
                     name=\"f\"; filename=\"../x\"\r\n\r\nbinary\r\n--B\r\nContent-Disposition: form-data; name=\"s\"\r\n\r\nno\r\n--B--\r\n";
        let text = texts(Kind::Parts(b"B"), parts, &[b"s"]);
        assert!(
            text.contains("|<v>") && text.contains("../x") && !text.contains("binary") && !text.contains("no"),
            "{text}"
        );
        assert_eq!(texts(Kind::Text, "a\r\nb", &[]), "a  b");
    }

    #[test]
    fn kinds_of_bodies() {
        let kind = |fields: &[&str]| {
            let lines: Vec<&str> = std::iter::once("POST /").chain(fields.iter().copied()).collect();
            let example = Example::new(&lines);
            let asked = example.asked();
            Kind::of(&asked).map(|kind| format!("{kind:?}"))
        };
        assert_eq!(kind(&[]).as_deref(), Some("Text"));
        assert_eq!(kind(&["Content-Type: application/x-www-form-urlencoded; charset=utf-8"]).as_deref(), Some("Form"));
        assert_eq!(kind(&["Content-Type: Application/Problem+JSON"]).as_deref(), Some("Json"));
        assert_eq!(
            kind(&["Content-Type: multipart/form-data; boundary=\"x y\""]).as_deref(),
            Some("Parts([120, 32, 121])")
        );
        assert_eq!(kind(&["Content-Type: multipart/form-data"]), None);
        for other in ["application/grpc", "application/octet-stream", "image/png"] {
            assert_eq!(kind(&[&format!("Content-Type: {other}")]), None);
        }
        assert_eq!(kind(&["Content-Type: text/plain", "Content-Encoding: gzip"]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_body_is_too_strange(body in "[-B\"\\\\u0{}:,\r\n&=%a;]{0,200}") {
            for kind in [Kind::Form, Kind::Json, Kind::Parts(b"B"), Kind::Text] {
                kind.texts(body.as_bytes(), &[b"a"], &mut Vec::new());
            }
        }
    }
}
