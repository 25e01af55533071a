//! From tree to types. A problem is noted and decoding goes on, so that one look at the output is enough.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::quantity::{Seconds, Size};
use super::schema::{Schema, Shape};
use super::tree::{Data, Mark, Node};

/// Something wrong in a document, with its place and its field path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub mark: Mark,
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Where decoding stands, what it has found wrong, and where every value came from.
#[derive(Debug, Default)]
pub struct Decoder {
    path: String,
    problems: Vec<Problem>,
    places: BTreeMap<String, Mark>,
}

impl Decoder {
    /// Notes a problem at `mark`, under the path decoding stands at.
    pub fn refuse(&mut self, mark: Mark, message: impl Into<String>) {
        self.problems.push(Problem { mark, path: self.path.clone(), message: message.into() });
    }

    /// Notes a problem of a finished document, at the place of the field `path` (or of its nearest ancestor).
    pub fn refuse_at(&mut self, path: &str, message: impl Into<String>) {
        let mut near = path;
        let mark = loop {
            if let Some(mark) = self.places.get(near) {
                break *mark;
            }
            match near.rfind(['.', '[']) {
                Some(end) => near = &near[..end],
                None => break Mark { line: 1, column: 1 },
            }
        };
        self.problems.push(Problem { mark, path: path.to_owned(), message: message.into() });
    }

    /// Decodes what stands under `segment` (`.name` or `[3]`).
    pub fn within<T>(&mut self, segment: &str, mark: Mark, inner: impl FnOnce(&mut Decoder) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(if length == 0 { segment.trim_start_matches('.') } else { segment });
        self.places.insert(self.path.clone(), mark);
        let result = inner(self);
        self.path.truncate(length);
        result
    }

    /// Says where a part of the finished document came from that was made from another.
    pub fn place(&mut self, path: String, mark: Mark) {
        self.places.insert(path, mark);
    }

    /// Where a part came from.
    pub fn mark_of(&self, path: &str) -> Option<Mark> {
        self.places.get(path).copied()
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Everything found, in the order of the text.
    pub fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by(|a, b| (a.mark, &a.path).cmp(&(b.mark, &b.path)));
        self.problems
    }
}

/// A type that stands in a configuration document.
pub trait Document: Sized {
    /// `None` when a problem was noted.
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self>;
    fn schema() -> Schema;
    /// As it would be written, defaults filled in.
    fn print(&self) -> Value;
}

/// The members of a map, taken one by one; what is left over at the end is unknown.
#[derive(Debug)]
pub struct Members<'a> {
    node: &'a Node,
    known: Vec<String>,
}

impl<'a> Members<'a> {
    pub fn new(node: &'a Node, decoder: &mut Decoder) -> Option<Members<'a>> {
        match &node.data {
            Data::Map(_) => Some(Members { node, known: Vec::new() }),
            _ => {
                decoder.refuse(node.mark, format!("must be a map of fields, not {}", kind(node)));
                None
            }
        }
    }

    /// The field, if it was written and is not null.
    pub fn take<T: Document>(&mut self, name: &str, decoder: &mut Decoder) -> Option<Option<T>> {
        self.known.push(name.to_owned());
        let member = self.node.member(name).filter(|member| !member.node.is_null())?;
        let mark = if matches!(member.node.data, Data::Scalar(..)) { member.node.mark } else { member.mark };
        Some(decoder.within(&format!(".{name}"), mark, |decoder| T::decode(&member.node, decoder)))
    }

    /// Refuses every field nobody took.
    pub fn finish(self, decoder: &mut Decoder) {
        let Data::Map(members) = &self.node.data else { return };
        for member in members {
            if !self.known.contains(&member.name) {
                let hint = nearest(&member.name, &self.known);
                let hint = hint.map_or_else(
                    || format!("known here: {}", self.known.join(", ")),
                    |name| format!("did you mean `{name}`?"),
                );
                decoder.refuse(member.mark, format!("unknown field `{}` ({hint})", member.name));
            }
        }
    }
}

/// The known name at most two edits away.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let distance = |other: &str| -> usize {
        let (a, b): (Vec<char>, Vec<char>) = (name.chars().collect(), other.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, y) in b.iter().enumerate() {
                let cost = if x.eq_ignore_ascii_case(y) { diagonal } else { diagonal + 1 };
                diagonal = row[j + 1];
                row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[b.len()]
    };
    known.iter().map(|other| (distance(other), other)).filter(|(edits, _)| *edits <= 2).min().map(|(_, other)| other)
}

fn kind(node: &Node) -> &'static str {
    match &node.data {
        _ if node.is_null() => "nothing",
        Data::Scalar(..) => "a single value",
        Data::List(_) => "a list",
        Data::Map(_) => "a map",
    }
}

/// What go-yaml, and so kubectl, takes for something other than text when it is not quoted.
fn is_text(text: &str) -> bool {
    let reserved =
        ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", "", ".nan", ".inf", "-.inf", "+.inf"];
    let digits = text.trim_start_matches(['-', '+']);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && (digits.replace('_', "").parse::<f64>().is_ok()
            || digits.starts_with("0x") && digits[2..].bytes().all(|byte| byte.is_ascii_hexdigit()));
    !reserved.contains(&text.to_ascii_lowercase().as_str()) && !numeric
}

fn scalar<'a>(node: &'a Node, what: &str, decoder: &mut Decoder) -> Option<(&'a str, bool)> {
    match &node.data {
        Data::Scalar(text, plain) if !node.is_null() => Some((text, *plain)),
        _ => {
            decoder.refuse(node.mark, format!("must be {what}, not {}", kind(node)));
            None
        }
    }
}

impl Document for String {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<String> {
        let (text, plain) = scalar(node, "text", decoder)?;
        if plain && !is_text(text) {
            decoder.refuse(node.mark, format!("must be text: write \"{text}\" in quotes"));
            return None;
        }
        Some(text.to_owned())
    }
    fn schema() -> Schema {
        Schema::text("text")
    }
    fn print(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl Document for bool {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<bool> {
        let (text, plain) = scalar(node, "true or false", decoder)?;
        match (plain, text) {
            (true, "true") => Some(true),
            (true, "false") => Some(false),
            _ => {
                decoder.refuse(node.mark, format!("must be true or false, not `{text}`"));
                None
            }
        }
    }
    fn schema() -> Schema {
        Schema::scalar("boolean", "true or false")
    }
    fn print(&self) -> Value {
        Value::from(*self)
    }
}

impl Document for f64 {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<f64> {
        let (text, plain) = scalar(node, "a number", decoder)?;
        let value = text.parse().ok().filter(|value: &f64| plain && value.is_finite());
        if value.is_none() {
            decoder.refuse(node.mark, format!("must be a number, not `{text}`"));
        }
        value
    }
    fn schema() -> Schema {
        Schema::scalar("number", "number")
    }
    fn print(&self) -> Value {
        Value::from(*self)
    }
}

/// Any value at all: what it means is not this document's business.
impl Document for Value {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Value> {
        Some(match &node.data {
            _ if node.is_null() => Value::Null,
            Data::Scalar(text, false) => Value::from(text.as_str()),
            Data::Scalar(text, true) => match text.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                text if !is_text(text) => {
                    let number = serde_json::from_str::<serde_json::Number>(text).ok();
                    let Some(number) = number else {
                        decoder.refuse(
                            node.mark,
                            format!("means different things to different readers: write \"{text}\" in quotes"),
                        );
                        return None;
                    };
                    Value::Number(number)
                }
                text => Value::from(text),
            },
            Data::List(items) => {
                let items: Vec<Option<Value>> = items.iter().map(|item| Value::decode(item, decoder)).collect();
                Value::Array(items.into_iter().collect::<Option<_>>()?)
            }
            Data::Map(members) => {
                let members: Vec<Option<(String, Value)>> = members
                    .iter()
                    .map(|member| Some((member.name.clone(), Value::decode(&member.node, decoder)?)))
                    .collect();
                Value::Object(members.into_iter().collect::<Option<_>>()?)
            }
        })
    }
    fn schema() -> Schema {
        Schema { shape: Shape::Any }
    }
    fn print(&self) -> Value {
        self.clone()
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Document for $type {
            fn decode(node: &Node, decoder: &mut Decoder) -> Option<$type> {
                let (text, plain) = scalar(node, "a whole number", decoder)?;
                let value = text.parse().ok().filter(|_| plain);
                if value.is_none() {
                    decoder.refuse(node.mark, format!("must be a whole number up to {}, not `{text}`", <$type>::MAX));
                }
                value
            }
            fn schema() -> Schema {
                Schema::scalar("integer", "whole number")
            }
            fn print(&self) -> Value {
                Value::from(*self)
            }
        }
    )*};
}
whole_number!(u16, u32, u64);

macro_rules! written_as_text {
    ($type:ty, $what:literal) => {
        impl Document for $type {
            fn decode(node: &Node, decoder: &mut Decoder) -> Option<$type> {
                let (text, _) = scalar(node, $what, decoder)?;
                let value = <$type>::parse(text);
                if value.is_none() {
                    decoder.refuse(node.mark, format!(concat!("must be ", $what, ", not `{}`"), text));
                }
                value
            }
            fn schema() -> Schema {
                Schema::text($what)
            }
            fn print(&self) -> Value {
                Value::from(self.to_string())
            }
        }
    };
}
written_as_text!(Size, "a size like 512, 64Ki or 16Mi");
written_as_text!(Seconds, "a duration like 500ms, 5s or 1m30s");

impl<T: Document> Document for Vec<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Vec<T>> {
        let Data::List(items) = &node.data else {
            decoder.refuse(node.mark, format!("must be a list, not {}", kind(node)));
            return None;
        };
        let decoded: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| decoder.within(&format!("[{index}]"), item.mark, |decoder| T::decode(item, decoder)))
            .collect();
        decoded.into_iter().collect()
    }
    fn schema() -> Schema {
        Schema::list(T::schema())
    }
    fn print(&self) -> Value {
        self.iter().map(Document::print).collect()
    }
}

impl<T: Document> Document for BTreeMap<String, T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<BTreeMap<String, T>> {
        let Data::Map(members) = &node.data else {
            decoder.refuse(node.mark, format!("must be a map, not {}", kind(node)));
            return None;
        };
        let mut whole = true;
        let mut map = BTreeMap::new();
        for member in members {
            let segment = format!(".{}", member.name);
            match decoder.within(&segment, member.node.mark, |decoder| T::decode(&member.node, decoder)) {
                Some(value) => {
                    map.insert(member.name.clone(), value);
                }
                None => whole = false,
            }
        }
        whole.then_some(map)
    }
    fn schema() -> Schema {
        Schema::map(T::schema())
    }
    fn print(&self) -> Value {
        Value::Object(self.iter().map(|(name, value)| (name.clone(), value.print())).collect())
    }
}

impl<T: Document> Document for Option<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Option<T>> {
        if node.is_null() { Some(None) } else { T::decode(node, decoder).map(Some) }
    }
    fn schema() -> Schema {
        T::schema()
    }
    fn print(&self) -> Value {
        self.as_ref().map_or(Value::Null, Document::print)
    }
}
