//! YAML and JSON text as a tree in which every value knows its line, so that a problem found much later can say where.
//!
//! serde's YAML crates forget positions, accept duplicate keys or differ from kubectl in what a plain scalar means.
//! This builds the tree from `saphyr-parser`'s events instead. Input is not trusted: depth and what aliases may
//! expand to are bounded.

mod scalar;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

use crate::path::{Path, Segment};

/// Nesting allowed; no Kubernetes object comes near it, and recursive code below stays far from the stack's end.
const MAX_DEPTH: usize = 100;

/// Bytes that all aliases of one text may expand to together ("billion laughs" stops here).
const ALIAS_BUDGET: usize = 4 << 20;

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
    /// A scalar is shown at its own place, an array or object at its key: that is where one looks for it.
    pub(crate) fn locate(&self, path: &Path) -> Mark {
        let mut node = self;
        let mut best = self.mark;
        for segment in path.segments() {
            match (segment, &node.data) {
                (Segment::Field(name), _) => match node.member(name) {
                    Some(member) => (node, best) = (&member.node, member.place()),
                    None => break,
                },
                (Segment::Key(name), _) => match node.member(name) {
                    Some(member) => (node, best) = (&member.node, member.place()),
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
    fn place(&self) -> Mark {
        match &self.node.data {
            Data::Scalar(value) if !value.is_null() => self.node.mark,
            _ => self.mark,
        }
    }
}

// === the builder ===

/// Turns events into nodes. The stack holds the collections that are still open.
#[derive(Default)]
struct Builder {
    documents: Vec<Document>,
    stack: Vec<Open>,
    /// Finished anchored nodes and their weight.
    anchors: HashMap<usize, (Node, usize)>,
    duplicates: Vec<(Path, Mark)>,
    expanded: usize,
}

struct Open {
    mark: Mark,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    Array(Vec<Node>),
    Object { members: Vec<Member>, names: HashSet<String>, key: Option<Key>, merged: Vec<Node> },
}

enum Key {
    /// The name, its place, and whether the mapping has it already.
    Name(String, Mark, bool),
    /// A plain `<<`.
    Merge,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Unreadable> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = scalar_value(&text, style, tag.as_deref(), mark)?;
                if self.awaits_key() {
                    if plain && text == "<<" {
                        self.merge_key();
                    } else {
                        self.key(key_name(value, mark)?, mark);
                    }
                    return Ok(());
                }
                self.put(Node { mark, data: Data::Scalar(value) }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.expand(anchor, mark)?;
                match node.data {
                    Data::Scalar(value) if self.awaits_key() => {
                        self.key(key_name(value, mark)?, mark);
                        Ok(())
                    }
                    _ => self.put(node, 0),
                }
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag, "seq", mark)?;
                self.open(Inside::Array(Vec::new()), anchor, mark)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag, "map", mark)?;
                let inside =
                    Inside::Object { members: Vec::new(), names: HashSet::new(), key: None, merged: Vec::new() };
                self.open(inside, anchor, mark)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(open) => {
                    let (mark, anchor) = (open.mark, open.anchor);
                    let data = open.close()?;
                    self.put(Node { mark, data }, anchor)
                }
                None => Ok(()),
            },
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { inside: Inside::Object { key: None, .. }, .. }))
    }

    fn open(&mut self, inside: Inside, anchor: usize, mark: Mark) -> Result<(), Unreadable> {
        if self.awaits_key() {
            return Err(Unreadable { mark, message: "a key must be a single value, not a list or a map".to_owned() });
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(mark));
        }
        self.stack.push(Open { mark, anchor, inside });
        Ok(())
    }

    fn key(&mut self, name: String, mark: Mark) {
        let mut again = false;
        if let Some(Open { inside: Inside::Object { key, names, .. }, .. }) = self.stack.last_mut() {
            again = !names.insert(name.clone());
            *key = Some(Key::Name(name.clone(), mark, again));
        }
        if again {
            self.duplicates.push((self.path().field(name), mark));
        }
    }

    fn merge_key(&mut self) {
        if let Some(Open { inside: Inside::Object { key, .. }, .. }) = self.stack.last_mut() {
            *key = Some(Key::Merge);
        }
    }

    /// Where the innermost open collection is.
    fn path(&self) -> Path {
        let outer = self.stack.len().saturating_sub(1);
        self.stack[..outer].iter().fold(Path::root(), |path, open| match &open.inside {
            Inside::Array(items) => path.index(items.len()),
            Inside::Object { key: Some(Key::Name(name, ..)), .. } => path.field(name.clone()),
            Inside::Object { .. } => path.field("<<"),
        })
    }

    /// A finished node goes into the innermost open collection, or is a document.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Unreadable> {
        if anchor != 0 {
            let weight = node.weight();
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.stack.last_mut().map(|open| &mut open.inside) {
            Some(Inside::Array(items)) => items.push(node),
            Some(Inside::Object { members, key, merged, .. }) => match key.take() {
                // Of a name written twice the first stays; the second is reported anyway.
                Some(Key::Name(_, _, true)) => {}
                Some(Key::Name(name, mark, false)) => members.push(Member { name, mark, node }),
                Some(Key::Merge) => merged.push(node),
                None => {
                    let message = "a key must be a single value, not a list or a map".to_owned();
                    return Err(Unreadable { mark: node.mark, message });
                }
            },
            None => {
                let duplicates = std::mem::take(&mut self.duplicates);
                if !node.is_null() {
                    self.documents.push(Document { root: node, duplicates });
                }
            }
        }
        Ok(())
    }

    fn expand(&mut self, anchor: usize, mark: Mark) -> Result<Node, Unreadable> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return Err(Unreadable { mark, message: "the alias stands inside its own anchor".to_owned() });
        };
        self.expanded = self.expanded.saturating_add(*weight);
        if self.expanded > ALIAS_BUDGET {
            let message = format!("the aliases expand to more than {} MiB", ALIAS_BUDGET >> 20);
            return Err(Unreadable { mark, message });
        }
        if self.stack.len() + node.height() > MAX_DEPTH {
            return Err(too_deep(mark));
        }
        Ok(node.clone())
    }
}

impl Open {
    fn close(self) -> Result<Data, Unreadable> {
        match self.inside {
            Inside::Array(items) => Ok(Data::Array(items)),
            Inside::Object { mut members, mut names, merged, .. } => {
                for source in merged {
                    for member in merge_members(source)? {
                        if names.insert(member.name.clone()) {
                            members.push(member);
                        }
                    }
                }
                Ok(Data::Object(members))
            }
        }
    }
}

/// The members that `<<: source` brings in: a map's, or those of a list of maps, the first having precedence.
fn merge_members(source: Node) -> Result<Vec<Member>, Unreadable> {
    let mark = source.mark;
    match source.data {
        Data::Object(members) => Ok(members),
        Data::Array(items) => {
            let mut all = Vec::new();
            for item in items {
                match item.data {
                    Data::Object(members) => all.extend(members),
                    _ => return Err(bad_merge(item.mark)),
                }
            }
            Ok(all)
        }
        Data::Scalar(_) => Err(bad_merge(mark)),
    }
}

fn bad_merge(mark: Mark) -> Unreadable {
    Unreadable { mark, message: "map merge requires map or sequence of maps as the value".to_owned() }
}

fn too_deep(mark: Mark) -> Unreadable {
    Unreadable { mark, message: format!("nested deeper than {MAX_DEPTH} levels") }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>, mark: Mark) -> Result<Value, Unreadable> {
    let bad = |message: String| Unreadable { mark, message };
    let resolved = || scalar::resolve(text).ok_or_else(|| bad(format!("`{text}` is not a number JSON can hold")));
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { resolved() } else { Ok(Value::from(text)) };
    };
    // `! text` (the "non-specific" tag) and `!!str` both say: a string, whatever it looks like.
    if tag.suffix.is_empty() || (tag.is_yaml_core_schema() && tag.suffix == "str") {
        return Ok(Value::from(text));
    }
    if !tag.is_yaml_core_schema() {
        return Err(bad(format!("the tag `{tag}` is not understood")));
    }
    let value = resolved()?;
    let fits = match tag.suffix.as_str() {
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "bool" => value.is_boolean(),
        "null" => value.is_null(),
        suffix => return Err(bad(format!("the tag `!!{suffix}` is not understood"))),
    };
    if fits { Ok(value) } else { Err(bad(format!("cannot decode `{text}` as a !!{}", tag.suffix))) }
}

fn check_tag(tag: Option<Cow<'_, Tag>>, expected: &str, mark: Mark) -> Result<(), Unreadable> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) && !tag.suffix.is_empty() => {
            Err(Unreadable { mark, message: format!("the tag `{tag}` is not understood") })
        }
        _ => Ok(()),
    }
}

/// JSON's keys are strings: `1:` and `true:` become the text of their value, as kubectl makes them.
fn key_name(value: Value, mark: Mark) -> Result<String, Unreadable> {
    match value {
        Value::String(name) => Ok(name),
        Value::Null => Err(Unreadable { mark, message: "a key must not be null".to_owned() }),
        other => Ok(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
