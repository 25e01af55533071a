//! URLs: paths with names in them, and queries.

/// Percent-encodes all but what RFC 3986 §2.3 calls unreserved.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A path and a growing query behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(&format!("{name}={}", encode(value)));
        self
    }

    /// Nothing for an empty value.
    #[must_use]
    pub fn maybe(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(name, value) }
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded() {
        let query = Query::new("/a").with("b", "c=d,e f").maybe("g", "").with("h", "ü").into_string();
        assert_eq!(query, "/a?b=c%3Dd%2Ce%20f&h=%C3%BC");
    }
}
