//! Changes to heads, as data: header edits, rewrites, redirects.

use crate::head::{Field, field};

/// Changes of a head's fields, in this order: remove, set, add.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// Lower case; `set` names are among them.
    pub remove: Vec<Vec<u8>>,
    /// Whole lines with their ends.
    pub lines: Vec<u8>,
}

impl Edits {
    pub fn new(set: &[(String, String)], add: &[(String, String)], remove: &[String]) -> Edits {
        let names = remove.iter().chain(set.iter().map(|(name, _)| name));
        let mut lines = Vec::new();
        for (name, value) in set.iter().chain(add) {
            lines.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        Edits { remove: names.map(|name| name.to_ascii_lowercase().into_bytes()).collect(), lines }
    }

    /// Marks what goes away.
    pub fn mark(&self, bytes: &[u8], fields: &mut [Field]) {
        field::leave_out(bytes, fields, |name| self.removes(name));
    }

    /// The same for what an application may take for one of these.
    pub fn mark_like(&self, bytes: &[u8], fields: &mut [Field]) {
        field::leave_out(bytes, fields, |name| self.removes_like(name));
    }

    /// Takes what goes away from lines that came late: trailers.
    pub fn trim(&self, lines: &mut Vec<u8>) {
        drop_lines(lines, |name| self.removes_like(name));
    }

    fn removes_like(&self, name: &[u8]) -> bool {
        self.remove.iter().any(|other| field::is_like(name, other))
    }

    fn removes(&self, name: &[u8]) -> bool {
        self.remove.iter().any(|other| other.eq_ignore_ascii_case(name))
    }

    /// Adds its lines to those that others have added, less what goes away of these.
    pub fn add_to(&self, lines: &mut Vec<u8>) {
        if !self.remove.is_empty() {
            drop_lines(lines, |name| self.removes(name));
        }
        lines.extend_from_slice(&self.lines);
    }
}

fn drop_lines(lines: &mut Vec<u8>, goes: impl Fn(&[u8]) -> bool) {
    let (mut from, mut to) = (0, 0);
    while let Some(length) = memchr::memchr(b'\n', &lines[from..]).map(|at| at + 1) {
        let line = &lines[from..from + length];
        let name = &line[..memchr::memchr(b':', line).unwrap_or(length)];
        if !goes(name) {
            lines.copy_within(from..from + length, to);
            to += length;
        }
        from += length;
    }
    lines.truncate(to);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// Takes the place of the matched prefix (Gateway API `ReplacePrefixMatch`).
    Prefix {
        matched: Vec<u8>,
        with: Vec<u8>,
    },
    Full(Vec<u8>),
}

impl PathEdit {
    /// The new path; the query is left alone.
    pub fn apply(&self, path: &[u8]) -> Vec<u8> {
        match self {
            PathEdit::Full(with) => with.clone(),
            PathEdit::Prefix { matched, with } => {
                let matched = matched.strip_suffix(b"/").unwrap_or(matched);
                let rest = path.strip_prefix(matched).unwrap_or(path);
                let with = with.strip_suffix(b"/").unwrap_or(with);
                let joined = [with, rest].concat();
                if joined.is_empty() { b"/".to_vec() } else { joined }
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathEdit>,
    pub status: u16,
}

impl Redirect {
    /// The new address. `host` is as sent, `target` has the query, `tls` says how the request came.
    pub fn location(&self, host: &[u8], path: &[u8], query: Option<&[u8]>, tls: bool) -> Vec<u8> {
        let came = if tls { "https" } else { "http" };
        let scheme = self.scheme.as_deref().unwrap_or(came);
        let name = self.host.as_deref().map_or(crate::route::without_port(host), str::as_bytes);
        let mut out = format!("{scheme}://").into_bytes();
        out.extend_from_slice(name);
        // A port that was asked for, or the one the client has reached us by if the scheme stays (Gateway API: "the listener's").
        let sent = host.get(crate::route::without_port(host).len() + 1..).filter(|port| !port.is_empty());
        let sent = sent.filter(|port| self.scheme.is_none() && *port != if tls { &b"443"[..] } else { b"80" });
        match (self.port, sent) {
            (Some(port), _) if !matches!((scheme, port), ("http", 80) | ("https", 443)) => {
                out.extend_from_slice(format!(":{port}").as_bytes());
            }
            (None, Some(port)) => {
                out.push(b':');
                out.extend_from_slice(port);
            }
            _ => {}
        }
        match &self.path {
            Some(edit) => out.extend_from_slice(&edit.apply(path)),
            None => out.extend_from_slice(path),
        }
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        out
    }
}

/// A fixed answer.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    pub status: u16,
    pub body: Vec<u8>,
    pub content_type: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let edit = |matched: &str, with: &str| PathEdit::Prefix { matched: matched.into(), with: with.into() };
        for (edit, path, expected) in [
            (edit("/api", "/v2"), "/api/x", "/v2/x"),
            (edit("/api/", "/"), "/api/x", "/x"),
            (edit("/api", "/"), "/api", "/"),
            (edit("/", "/base"), "/x", "/base/x"),
            (PathEdit::Full(b"/fixed".into()), "/x/y", "/fixed"),
        ] {
            assert_eq!(edit.apply(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn the_last_of_several_edits_counts() {
        let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
        let mut lines = b"A: 1\r\nB: 2\r\na: 3\r\nC: a: 4\r\n".to_vec();
        Edits::new(&pair("a", "5"), &[], &[]).add_to(&mut lines);
        assert_eq!(lines, b"B: 2\r\nC: a: 4\r\na: 5\r\n");
        Edits::new(&[], &pair("b", "6"), &["c".to_owned()]).add_to(&mut lines);
        assert_eq!(lines, b"B: 2\r\na: 5\r\nb: 6\r\n");
        Edits::default().add_to(&mut lines);
        assert_eq!(lines, b"B: 2\r\na: 5\r\nb: 6\r\n");
        let mut none = Vec::new();
        Edits::new(&pair("a", "1"), &[], &[]).add_to(&mut none);
        assert_eq!(none, b"a: 1\r\n");
    }

    #[test]
    fn locations() {
        let to = |redirect: Redirect, host: &str| {
            String::from_utf8(redirect.location(host.as_bytes(), b"/p", Some(b"q=1"), false)).unwrap()
        };
        let https = Redirect { scheme: Some("https".into()), ..Redirect::default() };
        assert_eq!(to(https.clone(), "a:8080"), "https://a/p?q=1");
        assert_eq!(to(Redirect { port: Some(8443), ..https.clone() }, "a"), "https://a:8443/p?q=1");
        assert_eq!(to(Redirect { port: Some(443), ..https }, "a"), "https://a/p?q=1");
        assert_eq!(to(Redirect::default(), "[::1]:8080"), "http://[::1]:8080/p?q=1");
        assert_eq!(to(Redirect { host: Some("b".into()), ..Redirect::default() }, "a:1"), "http://b:1/p?q=1");
        assert_eq!(to(Redirect { host: Some("b".into()), ..Redirect::default() }, "a:80"), "http://b/p?q=1");
        assert_eq!(to(Redirect { host: Some("b".into()), ..Redirect::default() }, "a"), "http://b/p?q=1");
    }
}
