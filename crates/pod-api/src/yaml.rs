//! YAML and JSON text as a tree in which every value knows its line, so that a problem found much later can say where.
//!
//! serde's YAML crates forget positions, accept duplicate keys or differ from kubectl in what a plain scalar means.
//! This builds the tree from `saphyr-parser`'s events instead. Input is not trusted: depth and what aliases may
//! expand to are bounded.

mod build;
mod scalar;

use saphyr_parser::{Marker, Parser};
use serde_json::{Map, Value};

use crate::path::{Path, Segment};
use build::Builder;

/// What one node counts for besides its text.
const NODE_WEIGHT: usize = 64;

/// A place in the text, 1-based.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) data: Data,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// Never an array or an object.
    Scalar(Value),
    Array(Vec<Node>),
    Object(Vec<Member>),
}

/// One `key: value`; `mark` is the key's.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) mark: Mark,
    pub(crate) node: Node,
}

/// One YAML document that is not empty.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    /// Keys written twice in one mapping: their path and the second one's place.
    pub(crate) duplicates: Vec<(Path, Mark)>,
}

/// Why the rest of the text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) mark: Mark,
    pub(crate) message: String,
}

/// Where a text ends. The scanner counts one line too many there.
pub(crate) fn end(text: &str) -> Mark {
    // Windows' line ends count twice here; the scanner's places are before this one then.
    let mut lines = text.trim_end_matches(['\n', '\r']).split(['\n', '\r']).rev();
    Mark { line: lines.clone().count(), column: lines.next().unwrap_or_default().chars().count() + 1 }
}

/// All documents of a text, up to the first place that cannot be read.
pub(crate) fn parse(text: &str) -> (Vec<Document>, Option<Unreadable>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (documents, error) = parse_yaml(text);
    // JSON is YAML but for tabs and some escapes; when YAML fails, JSON has the last word, with its better message.
    if error.is_some() && text.trim_start().starts_with(['{', '[']) {
        return match parse_json(text) {
            Ok(documents) => (documents, None),
            Err(json_error) => (Vec::new(), Some(json_error)),
        };
    }
    (documents, error)
}

/// A text of one document as JSON, and the keys that are written twice in one mapping, with their 1-based lines. A text
/// without a document is `null`.
///
/// # Errors
/// Where and why the text cannot be read, and more than one document.
pub fn to_json(text: &str) -> Result<(Value, Vec<(usize, String)>), String> {
    let (mut documents, unreadable) = parse(text);
    if let Some(Unreadable { mark, message }) = unreadable {
        return Err(format!("line {}: {message}", mark.line));
    }
    if documents.len() > 1 {
        return Err("expected one document, found more".to_owned());
    }
    let Some(Document { root, duplicates }) = documents.pop() else { return Ok((Value::Null, Vec::new())) };
    let name = |path: &Path| path.segments().last().map(|segment| segment.name().into_owned()).unwrap_or_default();
    Ok((root.to_value(), duplicates.iter().map(|(path, mark)| (mark.line, name(path))).collect()))
}

/// A document as JSON, and its keys that are written twice in one mapping, with their 1-based lines.
pub type YamlDocument = (Value, Vec<(usize, String)>);

/// All documents of a text that are not empty, in their order, each as [`to_json`] makes one.
///
/// # Errors
/// Where and why the text cannot be read.
pub fn documents(text: &str) -> Result<Vec<YamlDocument>, String> {
    let (documents, unreadable) = parse(text);
    if let Some(Unreadable { mark, message }) = unreadable {
        return Err(format!("line {}: {message}", mark.line));
    }
    let name = |path: &Path| path.segments().last().map(|segment| segment.name().into_owned()).unwrap_or_default();
    let convert = |Document { root, duplicates }: Document| {
        (root.to_value(), duplicates.iter().map(|(path, mark)| (mark.line, name(path))).collect())
    };
    Ok(documents.into_iter().map(convert).collect())
}

fn parse_yaml(text: &str) -> (Vec<Document>, Option<Unreadable>) {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let outcome = match event {
            Ok((event, span)) => builder.take(event, mark(&span.start)),
            Err(error) => Err(explain(mark(error.marker()), error.info(), text)),
        };
        if let Err(error) = outcome {
            return (builder.documents, Some(error));
        }
    }
    (builder.documents, None)
}

/// The scanner's complaint. A tab that indents gets its own place and words: it is the commonest of all YAML mistakes,
/// and the scanner shows the line before it.
fn explain(mark: Mark, message: &str, text: &str) -> Unreadable {
    let indented_by_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t') && !line.trim().is_empty();
    let tab = text.lines().enumerate().skip(mark.line - 1).find(|(_, line)| indented_by_tab(line));
    match tab {
        Some((index, line)) if message.contains("tab") => Unreadable {
            mark: Mark { line: index + 1, column: line.find('\t').unwrap_or(0) + 1 },
            message: "found a tab in the indentation, which must be spaces".to_owned(),
        },
        _ => Unreadable { mark, message: message.to_owned() },
    }
}

/// Concatenated JSON values; without positions, so every problem points at the beginning.
fn parse_json(text: &str) -> Result<Vec<Document>, Unreadable> {
    let mut documents = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| Unreadable {
            mark: Mark { line: error.line().max(1), column: error.column().max(1) },
            message: error.to_string(),
        })?;
        documents.push(Document { root: Node::unplaced(value), duplicates: Vec::new() });
    }
    Ok(documents)
}

fn mark(marker: &Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col() + 1 }
}

// === impl Node ===

impl Node {
    fn unplaced(value: Value) -> Node {
        let mark = Mark { line: 1, column: 1 };
        let data = match value {
            Value::Array(items) => Data::Array(items.into_iter().map(Node::unplaced).collect()),
            Value::Object(members) => Data::Object(
                members.into_iter().map(|(name, value)| Member { name, mark, node: Node::unplaced(value) }).collect(),
            ),
            scalar => Data::Scalar(scalar),
        };
        Node { mark, data }
    }

    pub(crate) fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::Array(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Data::Object(members) => Value::Object(
                members.iter().map(|member| (member.name.clone(), member.node.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Value::Null))
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        match &self.data {
            Data::Object(members) => members.iter().find(|member| member.name == name),
            _ => None,
        }
    }

    /// The text of a string member.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match &self.member(name)?.node.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Where a path's value stands; of what does not exist, where its nearest ancestor stands.
    ///
    /// A scalar is shown at its own place, an array or object at its key: that is where one looks for it. With
    /// `key`, a scalar too is shown at its key, because that is what is wrong.
    pub(crate) fn locate(&self, path: &Path, key: bool) -> Mark {
        let mut node = self;
        let mut best = self.mark;
        for segment in path.segments() {
            match (segment, &node.data) {
                (Segment::Field(_) | Segment::Key(_), _) => match node.member(&segment.name()) {
                    Some(member) => (node, best) = (&member.node, member.place(key)),
                    None => break,
                },
                (Segment::Index(index), Data::Array(items)) => match items.get(*index) {
                    Some(item) => (node, best) = (item, item.mark),
                    None => break,
                },
                (Segment::Index(_), _) => break,
            }
        }
        best
    }

    fn weight(&self) -> usize {
        NODE_WEIGHT
            + match &self.data {
                Data::Scalar(Value::String(text)) => text.len(),
                Data::Scalar(_) => 0,
                Data::Array(items) => items.iter().map(Node::weight).sum(),
                Data::Object(members) => members.iter().map(|member| member.name.len() + member.node.weight()).sum(),
            }
    }

    fn height(&self) -> usize {
        match &self.data {
            Data::Scalar(_) => 0,
            Data::Array(items) => 1 + items.iter().map(Node::height).max().unwrap_or(0),
            Data::Object(members) => 1 + members.iter().map(|member| member.node.height()).max().unwrap_or(0),
        }
    }
}

impl Member {
    fn place(&self, key: bool) -> Mark {
        match &self.node.data {
            Data::Scalar(value) if !value.is_null() && !key => self.node.mark,
            _ => self.mark,
        }
    }
}

#[cfg(test)]
mod tests;
