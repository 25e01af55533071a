//! Query parameters, decoded.

use pod_api::failure::Failure;

/// In the order of the URL; a name may come more than once.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value; an empty one counts as none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Go's `strconv.ParseBool`, and bare presence as true.
    ///
    /// # Errors
    /// 400 for anything else.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        let Some((_, value)) = self.0.iter().find(|(key, _)| key == name) else { return Ok(None) };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            other => Err(Failure::bad_request(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        }
    }

    /// # Errors
    /// 400 for what is no number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

/// `%XX`, and in queries `+`. What is not valid UTF-8 afterwards becomes a replacement character, which names nothing.
pub(crate) fn decode(text: &str, plus: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (bytes[at], digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) if plus => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_typed() {
        let query =
            Query::parse("watch&fieldSelector=metadata.name%3Dweb&command=a+b&command=&limit=500&x=%zz&dry=%E2%82%AC");
        assert_eq!(query.flag("watch").unwrap(), Some(true));
        assert_eq!(query.text("fieldSelector"), Some("metadata.name=web"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a b", ""]);
        assert_eq!(query.number("limit").unwrap(), Some(500));
        assert_eq!(query.text("x"), Some("%zz"));
        assert_eq!(query.text("dry"), Some("€"));
        assert_eq!(query.flag("no").unwrap(), None);
        assert!(query.number("x").is_err() && query.flag("limit").is_err());
    }
}
