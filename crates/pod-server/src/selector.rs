//! Label and field selectors. Labels are matched without parsing the object; most fields need it.

use pod_api::failure::Failure;
use pod_api::resource::Resource;
use pod_store::Object;
use serde_json::{Value, json};

use crate::object;
use crate::query::Query;

/// Both selectors of a request. Empty ones match everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    /// Also true without the label.
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    label: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// # Errors
    /// 400 for what cannot be read, and for fields that the kind does not support.
    pub(crate) fn parse(resource: &Resource, query: &Query) -> Result<Self, Failure> {
        let labels = labels(query.text("labelSelector").unwrap_or_default()).map_err(Failure::bad_request)?;
        let fields = fields(query.text("fieldSelector").unwrap_or_default()).map_err(Failure::bad_request)?;
        let nothing = json!({"metadata": {}});
        for field in &fields {
            let own = matches!(field.label.as_str(), "metadata.name" | "metadata.namespace");
            if !own && resource.strategy.field(&nothing, &field.label).is_none() {
                return Err(Failure::bad_request(unsupported(resource, &field.label)));
            }
        }
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, resource: &Resource, object: &Object) -> bool {
        if !self.labels.iter().all(|requirement| requirement.matches(&object.labels)) {
            return false;
        }
        // What the key tells goes first: it is free.
        let (keyed, other): (Vec<&Field>, Vec<&Field>) = self
            .fields
            .iter()
            .partition(|field| matches!(field.label.as_str(), "metadata.name" | "metadata.namespace"));
        let by_key = keyed.iter().all(|field| {
            let actual = if field.label == "metadata.name" { &object.key.name } else { &object.key.namespace };
            (*actual == field.value) == field.equal
        });
        if !by_key || other.is_empty() {
            return by_key;
        }
        let value = object::served(resource, object);
        other.iter().all(|field| field.matches(resource, &value))
    }
}

impl Requirement {
    fn matches(&self, labels: &[(String, String)]) -> bool {
        let value = labels.iter().find(|(key, _)| *key == self.key).map(|(_, value)| value);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Greater(bound) => number().is_some_and(|number| number > *bound),
            Test::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl Field {
    fn matches(&self, resource: &Resource, value: &Value) -> bool {
        (resource.strategy.field(value, &self.label).unwrap_or_default() == self.value) == self.equal
    }
}

fn unsupported(resource: &Resource, label: &str) -> String {
    // Kinds with field labels of their own have other words than those with the two that all have.
    let own = ["pods", "events", "nodes", "namespaces", "secrets", "services", "replicationcontrollers"];
    if own.contains(&resource.plural) {
        return format!("field label not supported: {label}");
    }
    format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
}

/// `a=b,c\,d!=e`
fn fields(text: &str) -> Result<Vec<Field>, String> {
    let mut found = Vec::new();
    for term in split_terms(text) {
        if term.is_empty() {
            continue;
        }
        let operator = ["!=", "==", "="].iter().filter_map(|op| term.find(op).map(|at| (at, *op))).min_by_key(
            // At the same place the longer operator counts.
            |(at, op)| (*at, usize::MAX - op.len()),
        );
        let Some((at, operator)) = operator else {
            return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
        };
        let value = unescape(&term[at + operator.len()..])
            .ok_or_else(|| format!("invalid field selector: invalid escape sequence: {term}"))?;
        found.push(Field { label: term[..at].to_owned(), value, equal: operator != "!=" });
    }
    Ok(found)
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::new();
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(chars.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// `a=b,c in (d,e),!f`
fn labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = Tokens { rest: text };
    let mut found = Vec::new();
    if tokens.peek() == Token::End {
        return Ok(found);
    }
    loop {
        found.push(requirement(&mut tokens)?);
        match tokens.next() {
            Token::End => return Ok(found),
            Token::Mark(",") => {}
            other => return Err(unexpected(other, "',' or 'end of string'")),
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, String> {
    let missing = tokens.peek() == Token::Mark("!");
    if missing {
        tokens.next();
    }
    let Token::Word(key) = tokens.peek() else {
        return Err(unexpected(tokens.next(), "!, identifier, or 'end of string'"));
    };
    tokens.next();
    check_key(key)?;
    let done = |test| Ok(Requirement { key: key.to_owned(), test });
    if missing {
        return done(Test::Missing);
    }
    let operator = match tokens.peek() {
        Token::End | Token::Mark(",") => return done(Test::Exists),
        _ => tokens.next(),
    };
    match operator {
        Token::Mark("=" | "==") => done(Test::In(vec![one_value(tokens)?])),
        Token::Mark("!=") => done(Test::NotIn(vec![one_value(tokens)?])),
        Token::Word("in") => done(Test::In(values(tokens)?)),
        Token::Word("notin") => done(Test::NotIn(values(tokens)?)),
        Token::Mark(operator @ (">" | "<")) => {
            let value = one_value(tokens)?;
            let bound = value.parse().map_err(|_| {
                format!("unable to parse requirement: values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
            })?;
            done(if operator == ">" { Test::Greater(bound) } else { Test::Less(bound) })
        }
        other => Err(unexpected(other, "in, notin, =, ==, !=, gt, lt")),
    }
}

/// An empty value is one, too.
fn one_value(tokens: &mut Tokens<'_>) -> Result<String, String> {
    match tokens.peek() {
        Token::End | Token::Mark(",") => Ok(String::new()),
        Token::Word(word) => {
            tokens.next();
            check_value(word)
        }
        other => Err(unexpected(other, "identifier")),
    }
}

fn values(tokens: &mut Tokens<'_>) -> Result<Vec<String>, String> {
    match tokens.next() {
        Token::Mark("(") => {}
        other => return Err(unexpected(other, "'('")),
    }
    let mut found = Vec::new();
    loop {
        match tokens.next() {
            Token::Word(word) => {
                found.push(check_value(word)?);
                match tokens.next() {
                    Token::Mark(",") => {}
                    Token::Mark(")") => return Ok(found),
                    other => return Err(unexpected(other, "',' or ')'")),
                }
            }
            // Between commas there may be nothing.
            Token::Mark(",") => found.push(String::new()),
            Token::Mark(")") => {
                found.push(String::new());
                return Ok(found);
            }
            other => return Err(unexpected(other, "',', ')' or identifier")),
        }
    }
}

fn unexpected(token: Token<'_>, expected: &str) -> String {
    let found = match token {
        Token::End => "",
        Token::Word(text) | Token::Mark(text) => text,
    };
    format!("unable to parse requirement: found '{found}', expected: {expected}")
}

fn check_key(key: &str) -> Result<(), String> {
    let name = key.rsplit('/').next().unwrap_or_default();
    if key.split('/').count() <= 2 && is_word(name) && !name.is_empty() && !key.starts_with('/') {
        return Ok(());
    }
    Err(format!(
        "unable to parse requirement: <nil>: Invalid value: {key:?}: name part must consist of alphanumeric characters, \
         '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
         '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    ))
}

fn check_value(value: &str) -> Result<String, String> {
    if is_word(value) {
        return Ok(value.to_owned());
    }
    Err(format!(
        "unable to parse requirement: values[0]: Invalid value: {value:?}: a valid label must be an empty string or \
         consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
         (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    ))
}

/// A label's value, or a key's name part (but for emptiness).
fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    End,
    Word(&'a str),
    Mark(&'a str),
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Token<'a> {
        Tokens { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        let text = self.rest.trim_start();
        let length = match text.as_bytes() {
            [] => {
                self.rest = text;
                return Token::End;
            }
            [b'=', b'=', ..] | [b'!', b'=', ..] => 2,
            [b'=' | b'!' | b'(' | b')' | b',' | b'<' | b'>', ..] => 1,
            _ => text.find(|char: char| char.is_whitespace() || "=!(),<>".contains(char)).unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at(length);
        self.rest = rest;
        if token.starts_with(['=', '!', '(', ')', ',', '<', '>']) { Token::Mark(token) } else { Token::Word(token) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(selector: &str, pairs: &[(&str, &str)]) -> bool {
        let have: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        labels(selector).unwrap().iter().all(|requirement| requirement.matches(&have))
    }

    #[test]
    fn label_selectors_as_kubectl_writes_them() {
        let web: &[(&str, &str)] = &[("app", "web"), ("tier", "2"), ("example.com/x", "")];
        for yes in [
            "",
            "app=web",
            "app==web",
            "app = web , tier=2",
            "app in (a, web)",
            "app notin (a,b)",
            "app",
            "!other",
            "other!=x",
            "other notin (x)",
            "example.com/x",
            "example.com/x=",
            "tier>1",
            "tier<3",
            "app!=",
        ] {
            assert!(fits(yes, web), "{yes}");
        }
        for no in ["app=x", "app in (a,b)", "app notin (web)", "!app", "other", "app!=web", "tier>2", "app="] {
            assert!(!fits(no, web), "{no}");
        }
        for broken in ["app=web,", "=x", "app in a", "app in (a", "app=a b", "a/b/c", "app=-x", "x>y", ",", "a=!b"] {
            assert!(labels(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn field_selectors_with_escapes() {
        let field = |label: &str, value: &str, equal| Field { label: label.into(), value: value.into(), equal };
        assert_eq!(
            fields(r"metadata.name=web,status.phase!=Running,a==b\,c\=d").unwrap(),
            [field("metadata.name", "web", true), field("status.phase", "Running", false), field("a", "b,c=d", true)]
        );
        assert_eq!(fields("").unwrap(), []);
        assert!(fields("metadata.name").is_err());
        assert!(fields(r"a=b\x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_stops_the_parsers(text: String, marked in "[a-z=!,() <>.\\\\]{0,24}") {
            for text in [text, marked] {
                let (_, _) = (labels(&text), fields(&text));
                let _ = crate::route::of(&text);
                let _ = crate::query::Query::parse(&text);
            }
        }
    }
}
