//! As much of a URL as probes need: what a manifest's `httpGet` says, and where a redirect leads (RFC 3986 §5).

use std::fmt;

use super::Scheme;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: Scheme,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    /// As written; `None` is the scheme's own.
    pub(super) port: Option<u16>,
    /// Path and query as they go over the wire; empty, or with a leading `/` or `?`.
    path: String,
}

impl Url {
    /// From a manifest, whose path may lack its slash, carry a query, and hold what must be escaped.
    pub(super) fn new(scheme: Scheme, host: &str, port: u16, path: &str) -> Self {
        let path = escape(before_fragment(path));
        let slash = if path.is_empty() || path.starts_with(['/', '?']) { "" } else { "/" };
        Self { scheme, host: host.to_owned(), port: Some(port), path: format!("{slash}{path}") }
    }

    pub(super) fn port_number(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        })
    }

    /// `host:port` as written, the value of a `Host` header.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// The request target: never empty.
    pub(super) fn target(&self) -> String {
        if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) }
    }

    /// Where `Location: reference` leads from here.
    pub(super) fn join(&self, reference: &str) -> Result<Self, String> {
        let reference = escape(before_fragment(reference));
        if let Some((scheme, rest)) = split_scheme(&reference) {
            let scheme = match scheme.to_ascii_lowercase().as_str() {
                "http" => Scheme::Http,
                "https" => Scheme::Https,
                other => return Err(format!("unsupported protocol scheme \"{other}\"")),
            };
            let rest = rest.strip_prefix("//").ok_or("http: no Host in request URL")?;
            return Self::absolute(scheme, rest);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return Self::absolute(self.scheme, rest);
        }
        let (base, _) = split_query(&self.path);
        let (path, query) = split_query(&reference);
        let path = if path.is_empty() {
            base.to_owned()
        } else if path.starts_with('/') {
            without_dots(path)
        } else {
            let directory = base.rfind('/').map_or("/", |slash| &base[..=slash]);
            without_dots(&format!("{directory}{path}"))
        };
        Ok(Self { path: format!("{path}{query}"), ..self.clone() })
    }

    /// `authority[/path][?query]`.
    fn absolute(scheme: Scheme, rest: &str) -> Result<Self, String> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // Credentials in a Location are not for us.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or("missing ']' in host")?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() {
            return Err("http: no Host in request URL".to_owned());
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            Some(number) => Some(number.parse().map_err(|_| format!("invalid port \":{number}\" after host"))?),
            None => return Err(format!("invalid port \"{port}\" after host")),
        };
        let (path, query) = split_query(path);
        let path = if path.is_empty() { String::new() } else { without_dots(path) };
        Ok(Self { scheme, host: host.to_owned(), port, path: format!("{path}{query}") })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority(), self.path)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// A reference with a scheme: letters, digits, `+-.` up to a colon, the first a letter.
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let fits = |(index, byte): (usize, u8)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => true,
        b'0'..=b'9' | b'+' | b'-' | b'.' => index > 0,
        _ => false,
    };
    (!scheme.is_empty() && scheme.bytes().enumerate().all(fits)).then_some((scheme, rest))
}

/// The second part keeps its question mark.
fn split_query(path: &str) -> (&str, &str) {
    path.split_at(path.find('?').unwrap_or(path.len()))
}

fn before_fragment(reference: &str) -> &str {
    reference.split('#').next().unwrap_or_default()
}

/// RFC 3986 §5.2.4 for a path that starts with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Percent-encodes what may not stand in a URL as it is; escapes already there stay.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 0x7f.. => {
                escaped.push_str(&format!("%{byte:02X}"));
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_manifest() {
        for (host, path, text, target) in [
            ("10.0.0.1", "/", "http://10.0.0.1:80/", "/"),
            ("10.0.0.1", "", "http://10.0.0.1:80", "/"),
            ("10.0.0.1", "healthz", "http://10.0.0.1:80/healthz", "/healthz"),
            ("10.0.0.1", "/a?b=c&d=%20", "http://10.0.0.1:80/a?b=c&d=%20", "/a?b=c&d=%20"),
            ("10.0.0.1", "?x", "http://10.0.0.1:80?x", "/?x"),
            ("fd00::1", "/a b/é#part", "http://[fd00::1]:80/a%20b/%C3%A9", "/a%20b/%C3%A9"),
        ] {
            let url = Url::new(Scheme::Http, host, 80, path);
            assert_eq!((url.to_string().as_str(), url.target().as_str()), (text, target));
        }
    }

    #[test]
    fn of_a_redirect() {
        let base = Url::new(Scheme::Http, "10.0.0.1", 8080, "/a/b?q=1");
        for (reference, text) in [
            ("/c", "http://10.0.0.1:8080/c"),
            ("c", "http://10.0.0.1:8080/a/c"),
            ("./c/", "http://10.0.0.1:8080/a/c/"),
            ("../../../c?x#y", "http://10.0.0.1:8080/c?x"),
            ("..", "http://10.0.0.1:8080/"),
            ("?z", "http://10.0.0.1:8080/a/b?z"),
            ("//other/x", "http://other/x"),
            ("https://10.0.0.1/x", "https://10.0.0.1/x"),
            ("HTTPS://u:p@[::1]:8443", "https://[::1]:8443"),
            ("/a:b", "http://10.0.0.1:8080/a:b"),
            ("http://h:/x", "http://h/x"),
        ] {
            assert_eq!(base.join(reference).unwrap().to_string(), text, "{reference}");
        }
        for (reference, text) in [
            ("ftp://x/", "unsupported protocol scheme \"ftp\""),
            ("http://h:99999/", "invalid port \":99999\" after host"),
            ("http:///x", "http: no Host in request URL"),
            ("http:x", "http: no Host in request URL"),
        ] {
            assert_eq!(base.join(reference).unwrap_err(), text);
        }
    }
}
